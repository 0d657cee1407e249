"""Answers of the API before they go on the wire: bodies in the service's several forms."""

import email.utils
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from seedream_batch.emulator.config import Oddities

VERSION_HEADER = "X-APIMart-Response-Version"
VERSION = "2026-07-27"
REPLAYED_HEADER = "Idempotency-Replayed"

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "payment_required",
    403: "permission_error",
    404: "not_found_error",
    409: "idempotency_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    502: "bad_gateway",
    503: "service_unavailable",
    504: "gateway_timeout",
}
MESSAGES = {
    401: "invalid API key",
    402: "the balance is too low",
    403: "you are not allowed to use this resource",
    404: "not found",
    413: "the request body is too large",
    429: "too many requests, please slow down",
    500: "internal server error",
    502: "bad gateway",
    503: "service temporarily unavailable",
    504: "gateway timeout",
}
_HTML = (
    "<html>\r\n<head><title>{status}</title></head>\r\n<body>\r\n<center><h1>{status}</h1></center>\r\n"
    "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)
GARBAGE = b'{"code": 200, "data": [{"task\x00\xff\xfe\x1f\x8b<<<<'


@dataclass(frozen=True)
class Response:
    """Status, body and headers of an answer."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


def json_response(document: Any, status: int = 200) -> Response:
    """An answer with a JSON document."""
    # A prompt may hold a lone surrogate; JSON's own escape carries it where UTF-8 can't.
    return Response(status, json.dumps(document, separators=(",", ":")).encode())


def error_response(
    status: int,
    message: str | None = None,
    *,
    odd: Oddities,
    kind: str | None = None,
    code: int | str | None = None,
    param: str | None = None,
) -> Response:
    """A refusal in the service's form, or in one of the other forms that are seen."""
    said = message or MESSAGES.get(status, "error")
    shown: int | str = status if code is None else code
    if odd.error_code_form == "string":
        shown = str(shown)
    if odd.error_form == "string":
        return json_response({"error": said}, status)
    if odd.error_form == "absent":
        return json_response({"success": False, "message": said}, status)
    error = {"code": shown, "message": said, "type": kind or ERROR_TYPES.get(status, "server_error")}
    if param is not None:
        error["param"] = param
    return json_response({"error": error}, status)


def refusal(messages: Sequence[str], *, odd: Oddities) -> Response:
    """400 for a request that breaks limits; the message tells all of them, `param` names the first field."""
    return error_response(400, "; ".join(messages), odd=odd, param=messages[0].split(":", 1)[0])


def accepted(task_ids: Sequence[str], *, odd: Oddities) -> Response:
    """The plain answer to a submission that was taken."""
    listed = [*task_ids, *[task_ids[0]] * max(0, odd.submit_entries - len(task_ids))]
    entries = [{"status": odd.submitted_word, "task_id": task_id} for task_id in listed]
    code: int | str = "200" if odd.numbers_as_strings else 200
    return json_response({"code": code, "data": entries}, odd.submit_status)


def accepted_versioned(task_id: str, *, odd: Oddities) -> Response:
    """The versioned answer to a submission that was taken."""
    word = "pending" if odd.submitted_word == "submitted" else odd.submitted_word
    document = {
        "request_id": "req_" + task_id.removeprefix("task_").lower(),
        "data": {"object": "generation.task", "id": task_id, "status": word},
    }
    return replace(json_response(document, odd.submit_status), headers={VERSION_HEADER: VERSION})


def without_task_id(response: Response) -> Response:
    """A taken submission whose answer lacks the id."""
    document = json.loads(response.body)
    data = document.get("data")
    for entry in data if isinstance(data, list) else [data]:
        if isinstance(entry, dict):
            entry.pop("task_id", None)
            entry.pop("id", None)
    return replace(response, body=json.dumps(document).encode())


def with_task_id(response: Response, task_id: str) -> Response:
    """A taken submission whose answer names another task."""
    document = json.loads(response.body)
    data = document.get("data")
    for entry in data if isinstance(data, list) else [data]:
        for name in ("task_id", "id"):
            if isinstance(entry, dict) and name in entry:
                entry[name] = task_id
    return replace(response, body=json.dumps(document).encode())


def with_image_error(response: Response, number: int, code: int | str, message: str) -> Response:
    """A completed task with an error in the place of the image with this number (from 1)."""
    document = json.loads(response.body)
    data = document.get("data")
    images = data.get("result", {}).get("images") if isinstance(data, dict) else None
    if images is None:
        return response
    images[number - 1 : number] = [{"error": {"code": code, "message": message}}]
    return replace(response, body=json.dumps(document).encode())


def of_kind(kind: str, error: Response) -> Response:
    """An error answer with another kind of body: json, html, empty, garbage, or a bare JSON string."""
    if kind == "html":
        page = _HTML.format(status=f"{error.status} {MESSAGES.get(error.status, '')}".strip())
        return replace(error, body=page.encode(), content_type="text/html")
    if kind == "empty":
        return replace(error, body=b"")
    if kind == "garbage":
        return replace(error, body=GARBAGE)
    if kind == "string":
        return replace(error, body=json.dumps({"error": MESSAGES.get(error.status, "error")}).encode())
    return error


def retry_after(style: object, seconds: float = 1.0) -> dict[str, str]:
    """The Retry-After header in a style: `number`, `date`, `negative`, `absurd`, `none`, a number, or any text."""
    styles = {
        "number": str(max(1, round(seconds))),
        "date": email.utils.formatdate(time.time() + max(1.0, seconds), usegmt=True),
        "negative": "-5",
        "absurd": "31536000000",
    }
    if style is None or style == "none":
        return {}
    return {"Retry-After": styles.get(str(style), str(style))}
