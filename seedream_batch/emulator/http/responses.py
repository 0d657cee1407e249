"""Responses of the API before they are sent: bodies in the various forms of the service."""

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

_ERRORS = {
    400: ("invalid_request_error", ""),
    401: ("authentication_error", "invalid API key"),
    402: ("payment_required", "the balance is too low"),
    403: ("permission_error", "you are not allowed to use this resource"),
    404: ("not_found_error", "not found"),
    409: ("idempotency_error", ""),
    413: ("invalid_request_error", "the request body is too large"),
    429: ("rate_limit_error", "too many requests, please slow down"),
    500: ("server_error", "internal server error"),
    502: ("bad_gateway", "bad gateway"),
    503: ("service_unavailable", "service temporarily unavailable"),
    504: ("gateway_timeout", "gateway timeout"),
}
"""The type and the message of an error, by its status."""
_OTHER_ERROR = ("server_error", "")
_HTML = (
    "<html>\r\n<head><title>{status}</title></head>\r\n<body>\r\n<center><h1>{status}</h1></center>\r\n"
    "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)
GARBAGE = b'{"code": 200, "data": [{"task\x00\xff\xfe\x1f\x8b<<<<'


@dataclass(frozen=True)
class Response:
    """Status, body and headers of a response."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


def json_response(document: Any, status: int = 200) -> Response:
    # A prompt may hold a lone surrogate, which JSON can escape and UTF-8 can't encode.
    return Response(status, json.dumps(document, separators=(",", ":")).encode())


def error_response(
    status: int,
    message: str | None = None,
    *,
    oddities: Oddities,
    kind: str | None = None,
    code: int | str | None = None,
    param: str | None = None,
) -> Response:
    """Return an error in the form of the service, or in another form that was seen.

    `message`, `kind` (its `type`) and `code` are those of the status by default; `param` is the field that is wrong.
    """
    default_kind, default_message = _ERRORS.get(status, _OTHER_ERROR)
    message = message or default_message or "error"
    if oddities.error_form == "string":
        return json_response({"error": message}, status)
    if oddities.error_form == "absent":
        return json_response({"success": False, "message": message}, status)
    code = status if code is None else code
    error = {
        "code": str(code) if oddities.error_code_form == "string" else code,
        "message": message,
        "type": kind or default_kind,
    }
    if param is not None:
        error["param"] = param
    return json_response({"error": error}, status)


def accepted(task_ids: Sequence[str], *, oddities: Oddities) -> Response:
    """Return the plain response to an accepted submission."""
    listed = [*task_ids, *[task_ids[0]] * (oddities.submit_entries - len(task_ids))]
    entries = [{"status": oddities.submitted_word, "task_id": task_id} for task_id in listed]
    code: int | str = "200" if oddities.numbers_as_strings else 200
    return json_response({"code": code, "data": entries}, oddities.submit_status)


def accepted_versioned(task_id: str, *, oddities: Oddities) -> Response:
    """Return the versioned response to an accepted submission."""
    word = "pending" if oddities.submitted_word == "submitted" else oddities.submitted_word
    document = {
        "request_id": "req_" + task_id.removeprefix("task_").lower(),
        "data": {"object": "generation.task", "id": task_id, "status": word},
    }
    return replace(json_response(document, oddities.submit_status), headers={VERSION_HEADER: VERSION})


def with_task_id(response: Response, task_id: str | None) -> Response:
    """Return the response to an accepted submission with another task id, or with none."""
    document = json.loads(response.body)
    data = document.get("data")
    for entry in data if isinstance(data, list) else [data]:
        for name in {"task_id", "id"} & set(entry or ()):
            if task_id is None:
                del entry[name]
            else:
                entry[name] = task_id
    return replace(response, body=json_response(document).body)


def with_image_error(response: Response, number: int, code: int | str, message: str) -> Response:
    """Return the response to a poll with an error in place of the image with this number, from 1."""
    document = json.loads(response.body)
    data = document.get("data")
    images = data.get("result", {}).get("images") if isinstance(data, dict) else None
    if images is None:
        return response
    images[number - 1 : number] = [{"error": {"code": code, "message": message}}]
    return replace(response, body=json_response(document).body)


def with_body_kind(error: Response, kind: str) -> Response:
    """Return an error response with another kind of body: json, html, empty, garbage, or a bare JSON string."""
    message = _ERRORS.get(error.status, _OTHER_ERROR)[1]
    if kind == "html":
        page = _HTML.format(status=f"{error.status} {message}".strip())
        return replace(error, body=page.encode(), content_type="text/html")
    if kind == "string":
        return replace(error, body=json.dumps({"error": message or "error"}).encode())
    return replace(error, body={"empty": b"", "garbage": GARBAGE}.get(kind, error.body))


def retry_after(style: object, seconds: float = 1.0) -> dict[str, str]:
    """Return the Retry-After header for this many seconds.

    The style is `number`, `date`, `negative`, `absurd`, `none`, or else the text or number to send.
    """
    if style is None or style == "none":
        return {}
    styles = {
        "number": str(max(1, round(seconds))),
        "date": email.utils.formatdate(time.time() + max(1.0, seconds), usegmt=True),
        "negative": "-5",
        "absurd": "31536000000",
    }
    return {"Retry-After": styles.get(str(style), str(style))}
