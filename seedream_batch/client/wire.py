"""Turn responses of the service into outcomes. Pure; any bytes, never raises."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from seedream_batch.client.documents import Answer, Documents, candidates, documents, task_ids, usable_id
from seedream_batch.client.error_details import (
    Fault,
    fault_in,
    fault_of,
    is_web_page,
    number_of,
    one_line,
    retry_after,
    word,
)
from seedream_batch.client.results import (
    Progress,
    cost_of,
    images_elsewhere,
    images_in,
    is_url,
    names_itself,
    progress_of,
    status_of,
    task_in,
    took_of,
)
from seedream_batch.model.document import Json
from seedream_batch.model.job import MICRO
from seedream_batch.model.outcome import Kept, Poll, Polled, Submission, Submitted
from seedream_batch.model.service_messages import (
    is_balance,
    is_moderation,
    is_no_model,
    is_too_fast,
    is_unknown_task,
    lacks_money,
)

KEPT = 64 * 1024
"""Bytes stored of a response that was not fully understood, for the user."""

_NOT_EXECUTED = {400, 401, 402, 403, 413, 429}
"""Statuses that the service documents as not executed."""

_REFUSED_BY_HTTP = {405, 406, 411, 414, 415, 417, 426, 431, 451}
"""Statuses that mean nobody acted on the request; in practice they come from proxies and gateways."""

_ON_THE_WAY = {
    407: Submitted.UNREACHABLE,
    511: Submitted.UNREACHABLE,
    421: Submitted.UNAVAILABLE,
    425: Submitted.UNAVAILABLE,
}
"""Statuses of a proxy or network that passed nothing on: it wants a login, or a connection of another kind (RFC 9110,
RFC 6585, RFC 8470)."""

_NOT_FORWARDED = {521, 523, 525, 526, 530}
"""Statuses of Cloudflare, which could not connect to the service."""
_NO_UPSTREAM = re.compile(
    rb"(?i)no (?:healthy|available|active|live) (?:upstream|server|target|backend|peer|host)s?\b"
    rb"|no server is available to handle|failure to get a peer from"
)
"""What load balancers say that have nowhere to send a request."""

_TYPES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "payment_required": 402,
    "permission_error": 403,
    "rate_limit_error": 429,
}


_NUMBERS = ("progress", "cost", "credits_cost", "created", "completed", "estimated_time", "actual_time")
_MEMBERS = {"id", "status", "result", *_NUMBERS}
"""The documented members of a task that has not failed."""


def _data_of(answer: Answer) -> Json:
    """Return the `data` of a successful response with exactly the documented envelope; None for any other response.

    Almost all responses are such, and a few comparisons take a tenth of the time of a search.
    """
    if answer.status != 200 or not answer.whole:
        return None
    try:
        document = json.loads(answer.body.decode())
    except (ValueError, RecursionError):
        return None
    documented = isinstance(document, dict) and document.keys() == {"code", "data"} and document["code"] == 200
    return document["data"] if documented else None


def _documented_id(data: Json) -> str:
    """Return the task id in the documented answer to a submission; empty for any other answer."""
    entry = data[0] if isinstance(data, list) and len(data) == 1 else None
    if not isinstance(entry, dict) or entry.keys() != {"status", "task_id"} or entry["status"] != "submitted":
        return ""
    return usable_id(entry["task_id"])


def _documented_task(data: Json, task_id: str | None) -> Mapping[str, Json] | None:
    """Return the task if it has the documented form, so that nothing in it can be another task; else None."""
    if not isinstance(data, dict) or data.get("id") != task_id or not data.keys() <= _MEMBERS:
        return None
    if not isinstance(data.get("status"), str) or any(isinstance(data.get(name), _NO_NUMBERS) for name in _NUMBERS):
        return None
    result = data.get("result", {"images": []})
    images = result["images"] if isinstance(result, dict) and result.keys() == {"images"} else None
    return data if isinstance(images, list) and all(map(_is_documented_image, images)) else None


def _is_documented_image(image: Json) -> bool:
    if not isinstance(image, dict) or not image.keys() <= {"url", "expires_at"}:
        return False
    links = image.get("url")
    return not isinstance(image.get("expires_at"), _NO_NUMBERS) and all(
        isinstance(link, str) and link.startswith("http") for link in (links if isinstance(links, list) else [links])
    )


_NO_NUMBERS = (str, dict, list)


def parse(answer: Answer) -> Json:
    """Return the first JSON object of a response, else its first document; None if there is none."""
    return documents(answer).first


def submission(answer: Answer, now: float) -> Submission:
    """Return the outcome of a submission.

    Task ids count anywhere in a successful response. A request counts as not executed only if the service documents the
    answer so, or if it cannot have been executed; everything else without a task id is unknown.
    """
    if task_id := _documented_id(_data_of(answer)):
        return Submission(
            Submitted.ACCEPTED, (task_id,), status=200, replayed=_is_replay(answer), kept=kept_of(answer, "")
        )
    parsed = documents(answer)
    fault = fault_of(parsed.first, answer)
    wait = retry_after(answer.headers, now)
    status = answer.status or None
    ids = task_ids(parsed, answer.headers)

    def outcome(kind: Submitted, kept: str = "") -> Submission:
        keep = kept_of(answer, kept) if kept else None
        return Submission(kind, (), fault.message, fault.code or fault.type, status, wait, kept=keep)

    status_code = answer.status
    if 200 <= status_code < 300 or not status_code or (300 <= status_code < 400 and ids.rank >= 2):
        status_code = _named_status(parsed, fault) if _is_error(parsed) else 0
        # An id in an error may be that of the request, and one in bytes that are not HTTP that of anything.
        if ids.rank > (1 if status_code or _is_error(parsed) or status is None else 0):
            documented = parsed.clean and ids.rank > 1 and answer.status < 300
            odd = "" if documented else "the task id is not where the service documents it"
            kept = kept_of(answer, odd)
            return Submission(Submitted.ACCEPTED, ids.ids, status=status, replayed=_is_replay(answer), kept=kept)
        if not status_code and not ids.ids and parsed.clean and (declined := _declined(parsed.first, fault)):
            return outcome(declined, fault.message or fault.code)
        if not status_code or ids.ids or not answer.whole:
            fault = Fault(fault.code, fault.type, fault.message or "no task id in the answer")
            return outcome(Submitted.UNKNOWN, fault.message)
    kind = _refusal(status_code, fault, page=not parsed.found and is_web_page(answer.body))
    if kind is None and _is_undelivered(answer):
        kind = Submitted.UNAVAILABLE
    if kind is Submitted.UNREACHABLE:
        fault = Fault(message=f"a proxy or the network requires a login (HTTP {status_code})")
    walled = kind in {Submitted.BLOCKED, Submitted.RATE_LIMITED} and not parsed.found and is_web_page(answer.body)
    if kind is None or kind is Submitted.BLOCKED or walled or (ids.rank == 3 and kind is not Submitted.IN_PROGRESS):
        return outcome(kind or Submitted.UNKNOWN, fault.message or f"HTTP {answer.status}")
    return outcome(kind)


def _is_replay(answer: Answer) -> bool:
    return answer.headers.get("idempotency-replayed", "").lower() == "true"


def _is_undelivered(answer: Answer) -> bool:
    """Return whether a gateway or load balancer says that it sent the request nowhere."""
    if answer.status in _NOT_FORWARDED:
        return "cf-ray" in answer.headers or answer.headers.get("server", "").lower() == "cloudflare"
    text = answer.body[:4096]
    return answer.status in {404, 502, 503} and bool(_NO_UPSTREAM.search(text)) and b"retr" not in text.lower()


def _declined(document: Json, fault: Fault) -> Submitted | None:
    """Return what an undocumented error in a response with a success status and without any id means; None if unclear.

    Moderation, money, rates and models are checked before a task is made, or it is refunded.
    """
    if not isinstance(document, dict):
        return None
    if not any(map(_is_refused, (document, *(part for part in document.values() if isinstance(part, dict))))):
        return None
    if lacks_money(fault.code, fault.type, fault.message):
        return Submitted.UNPAID
    if is_moderation(fault.code, fault.message):
        return Submitted.REFUSED
    if is_too_fast(fault.code, fault.message):
        return Submitted.RATE_LIMITED
    return Submitted.NO_MODEL if is_no_model(fault.code, fault.message, certain=True) else None


def _is_refused(part: Mapping[str, Json]) -> bool:
    """Return whether an object says that a request failed: by an error, a code, or a status."""
    if part.get("success") is False or fault_in(part.get("error")) != Fault():
        return True
    codes = [part.get(name) for name in ("code", "status_code", "errcode", "error_code")]
    words = [progress_of(word(code)) for code in codes if isinstance(code, str) and number_of(code) is None]
    numbers = [number for code in codes if (number := number_of(code)) is not None]
    return (
        any(number not in {0, 1} and not 200 <= number < 300 for number in numbers)
        or Progress.UNKNOWN in words
        or progress_of(status_of(part) or "") is Progress.FAILED
    )


def _refusal(status: int, fault: Fault, *, page: bool) -> Submitted | None:
    """Return what a refusal with this status means; None if the request may have been executed all the same."""
    # A balance that is too low is noticed before execution, whatever the status; a web page is not the service's. With
    # an ambiguous status, a mention of money is not enough, since an account is also charged after the execution.
    lacking = is_balance if status in _NOT_EXECUTED else lacks_money
    if status >= 400 and status != 409 and not page and lacking(fault.code, fault.type, fault.message):
        return Submitted.UNPAID
    certain = status in _NOT_EXECUTED or status == 404
    if status in {400, 403, 404, 500, 503} and is_no_model(fault.code, fault.message, certain=certain):
        return Submitted.NO_MODEL
    overloaded = status == 529 and "overloaded" in f"{fault.type} {fault.message}".lower()
    if overloaded or (status in {400, 403} and not page and is_too_fast(fault.code, fault.message)):
        return Submitted.RATE_LIMITED
    if status in _REFUSED_BY_HTTP or (status == 403 and page):
        return Submitted.BLOCKED
    return _ON_THE_WAY.get(status) or _documented(status, fault, page=page)


def _documented(status: int, fault: Fault, *, page: bool) -> Submitted | None:
    match status:
        case 400 | 413:
            return Submitted.REFUSED
        case 422 if fault.message and not page:
            return Submitted.REFUSED
        case 404 if fault.type == "invalid_request_error":
            return Submitted.REFUSED
        case 401 | 403:
            return Submitted.UNAUTHORIZED
        case 402:
            return Submitted.UNPAID
        case 429:
            return Submitted.RATE_LIMITED
        case 409 if fault.names("idempotency_in_progress"):
            return Submitted.IN_PROGRESS
        case 409:
            return Submitted.INDETERMINATE
        case 500 if fault.message.startswith("build_request_failed:"):
            return Submitted.REFUSED
        case 503 if fault.names("idempotency_unavailable"):
            return Submitted.UNAVAILABLE
        case _:
            return None


def _is_error(parsed: Documents) -> bool:
    """Return whether a response with a success status describes an error in its body."""
    document = parsed.first
    if not isinstance(document, dict):
        return False
    code = number_of(document.get("code"))
    failed = code is not None and 400 <= code < 600
    return failed or document.get("success") is False or fault_in(document.get("error")) != Fault()


def _named_status(parsed: Documents, fault: Fault) -> int:
    """Return the status, documented as not executed, that an error in a successful response names; 0 if none."""
    document = parsed.first
    codes = [number_of(fault.code), number_of(document.get("code")) if isinstance(document, dict) else None]
    named = [int(code) for code in codes if code is not None and 400 <= code < 600]
    if named:
        return named[0] if set(named) <= _NOT_EXECUTED else 0
    if is_balance(fault.code, fault.type, ""):
        return 402
    return _TYPES.get(fault.type, 0)


_NOT_KNOWN = {200, 400, 404, 410, 422}
"""Statuses with which services say that they do not know a task; except with 404, the message must say so."""


def poll(answer: Answer, now: float, task_id: str | None = None, origin: str = "") -> Poll:
    """Return what a poll of a task showed, with what could not be used in its notes.

    Only a document of that very task can end it: a success status on an error page, or another task's document, is no
    answer, and neither is a refusal that the service did not write itself. Links without a host are relative to
    `origin`.
    """
    if (task := _documented_task(data := _data_of(answer), task_id)) is not None:
        return _state(task, answer, origin, Documents((data,), clean=True), task_id)
    status = answer.status
    parsed = documents(answer)
    fault = fault_of(parsed.first, answer)
    own = isinstance(parsed.first, dict)
    # Bytes that are not HTTP have no status, but may contain the task's document. A response that was cut off is not
    # used: polls are free, and the rest may list more images.
    usable = answer.succeeded
    task = task_in(parsed, task_id) if usable and not parsed.repaired else None
    unknown = status in _NOT_KNOWN and is_unknown_task(fault.code, f"{fault.type} {fault.message}")
    if own and (status == 404 or unknown) and (task is None or _says_nothing(task)):
        kept = kept_of(answer, fault.message) if usable else None
        return Poll(Polled.NOT_FOUND, message=fault.message, code=fault.code, status=status, kept=kept)
    if status in {401, 403} and not is_web_page(answer.body):
        return Poll(Polled.UNAUTHORIZED, message=fault.message, code=fault.code, status=status)
    wait = retry_after(answer.headers, now)
    if status == 429:
        return Poll(Polled.RATE_LIMITED, message=fault.message, status=status, retry_after=wait)
    if task is None or (_is_error(parsed) and not names_itself(task) and _has_failed(task)):
        message = fault.message or "no task in the answer"
        kept = kept_of(answer, message) if usable else None
        return Poll(Polled.NO_ANSWER, message=message, status=status or None, retry_after=wait, kept=kept)
    return _state(task, answer, origin, parsed, task_id)


def _says_nothing(task: Mapping[str, Json]) -> bool:
    """Return whether an object has neither a known status nor images."""
    return progress_of(status_of(task) or "") is Progress.UNKNOWN and not images_in(task, [])


def _has_failed(task: Mapping[str, Json]) -> bool:
    return progress_of(status_of(task) or "") is Progress.FAILED and not images_in(task, [])


def _state(task: Mapping[str, Json], answer: Answer, origin: str, parsed: Documents, task_id: str | None) -> Poll:
    status = answer.status or None
    word = (status_of(task) or "").strip().lower()
    progress = progress_of(word)
    notes: list[str] = []
    cost = cost_of(task, notes)
    errors: list[str] = []
    images = images_in(task, notes, origin, errors)
    percent = number_of(str(task.get("progress", "")).strip().rstrip("%")) if _is_simple(task.get("progress")) else None
    if images and (progress is not Progress.RUNNING or (percent is not None and percent >= 100)):
        # A task with images has ended, whatever its status word; if that says running, only at 100 percent.
        progress = Progress.COMPLETED
    fault = _fault_of_task(task)
    if progress is Progress.COMPLETED:
        odd = "" if progress_of(word) is progress else f"images with the status {word[:40]!r}"
        if not images and not errors and (images := images_elsewhere(parsed, task_id, origin)):
            notes.clear()
            odd = "images where the service does not list them"
        if not images and is_moderation(fault.code, f"{fault.message} {' '.join(errors)}"):
            message = fault.message or "; ".join(errors)
            return Poll(Polled.FAILED, (), cost, message, fault.code, status, took=took_of(task), notes=tuple(notes))
        if not images and not notes and not errors:
            notes.append(fault.message or "no image in the result")
        odd = "; ".join(notes) or odd
        return Poll(
            Polled.COMPLETED, images, cost, status=status, took=took_of(task), notes=tuple(notes),
            errors=tuple(errors), kept=kept_of(answer, odd) if odd else None,
        )  # fmt: skip
    if progress is Progress.FAILED:
        message = fault.message or fault_of(dict(task), answer).message or word
        code = fault.code or fault.type or word[:100]
        return Poll(Polled.FAILED, (), cost, message, code, status, took=took_of(task), notes=tuple(notes))
    if progress is Progress.UNKNOWN:
        notes = [f"unknown task status {word[:40]!r}"]
        return Poll(Polled.RUNNING, status=status, notes=tuple(notes), kept=kept_of(answer, notes[0]))
    partial = percent is not None
    return Poll(Polled.RUNNING, images, cost, status=status, errors=tuple(errors), partial=partial)


def _fault_of_task(task: Mapping[str, Json]) -> Fault:
    faults = (fault_in(task.get(name)) for name in ("error", "errors"))
    return next((fault for fault in faults if fault != Fault()), Fault())


def _is_simple(value: Json) -> bool:
    return isinstance(value, int | float | str) and not (isinstance(value, int) and abs(value) > 10**18)


# Answers that are kept

_SECRET_NAMES = re.compile(r"(?i)cookie|authorization|api-?key|token|secret|password|session")
_SECRETS = (
    re.compile(r"(?i)(bearer\s+)[\w.~+/=-]{8,}"),
    re.compile(r"()\bsk-[\w-]{12,}"),
    re.compile(r"""(?i)("(?:[\w-]*(?:api_?key|token|secret|password|authorization))"\s*:\s*")(?:[^"\\]|\\.){4,}"""),
)


def possible_ids(kept: Kept) -> tuple[str, ...]:
    """Return what may be task ids in a stored response, the likeliest first, for the user to choose from."""
    headers = {str(name): str(value) for name, value in json.loads(kept.headers).items()}
    return candidates(kept.body, headers)


def kept_of(answer: Answer, why: str) -> Kept:
    """Return a response for storage: its first part, with secrets masked, valid text for any database."""
    text = answer.body[:KEPT].decode("utf-8", "backslashreplace").replace("\0", "\\x00")
    for secret in _SECRETS:
        text = secret.sub(r"\1***", text)
    headers = {
        one_line(name)[:100]: "***" if _SECRET_NAMES.search(name) else one_line(str(value))
        for name, value in list(answer.headers.items())[:100]
    }
    return Kept(one_line(why), answer.status or None, json.dumps(headers), text, len(answer.body))


# Balance and uploads


@dataclass(frozen=True, slots=True)
class Balance:
    """What the account has left; money in millionths of a USD, None if unlimited."""

    remaining: int | None
    used: int | None


def balance(document: Json) -> Balance | None:
    """Return the balance in a response; None if there is none."""
    if not isinstance(document, dict) or document.get("success") is False:
        return None
    data = document if "remain_balance" in document else document.get("data")
    if not isinstance(data, dict):
        return None
    remaining = number_of(data.get("remain_balance"))
    used = number_of(data.get("used_balance"))
    used_micro = None if used is None or abs(used) > 1e12 else round(used * MICRO)
    if data.get("unlimited_quota") is True or remaining == -1:
        return Balance(None, used_micro)
    if remaining is None or abs(remaining) > 1e12:
        return None
    return Balance(round(remaining * MICRO), used_micro)


def upload_url(document: Json, origin: str = "") -> str | None:
    """Return the URL of an uploaded image, relative to `origin` if it has no host; None if the response has none."""
    for at in (document, document.get("data") if isinstance(document, dict) else None):
        url = at.get("url") if isinstance(at, dict) else None
        url = url.strip() if isinstance(url, str) else url
        if is_url(url):
            return url
    links = images_elsewhere(Documents((document,)), None, origin)
    return next((link.url for link in links if is_url(link.url)), None)
