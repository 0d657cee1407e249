"""Answers of the service -> outcomes. Pure, and takes any bytes at all without raising."""

from __future__ import annotations

import datetime as dt
import email.utils
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

from seedream_batch.model.document import Json
from seedream_batch.model.job import MICRO
from seedream_batch.model.outcome import ImageUrl, Poll, Polled, Submission, Submitted

LONGEST_WAIT = 600.0
"""Seconds: a longer Retry-After is cut to this, so that a slip of the service does not stop a run for a year."""

_RUNNING = {"submitted", "pending", "processing", "in_progress", "queued", "running"}
_COMPLETED = {"completed", "succeeded", "success"}
_FAILED = {"failed", "cancelled", "canceled"}


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer, read to its end or to the limit; `whole` is false when it was cut short or too long."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Fault:
    """What an error body says, wherever it says it."""

    code: str = ""
    type: str = ""
    message: str = ""

    def names(self, word: str) -> bool:
        """Whether this is the fault of that name; where `error` is a plain string, the name is all it says."""
        return word in (self.code, self.type, self.message)


def submission(answer: Answer, now: float) -> Submission:
    """What became of a submission.

    Only the statuses that the service documents as not executed count as that; all else without a task id is
    unknown.
    """
    document = parse(answer)
    fault = fault_of(document, answer)
    status = answer.status
    wait = retry_after(answer.headers, now)

    def outcome(kind: Submitted) -> Submission:
        return Submission(kind, (), fault.message, fault.code or fault.type, status, wait)

    if 200 <= status < 300:
        ids = task_ids(document)
        if ids:
            replayed = answer.headers.get("idempotency-replayed", "").lower() == "true"
            return Submission(Submitted.ACCEPTED, ids, status=status, replayed=replayed)
        return Submission(Submitted.UNKNOWN, (), fault.message or "no task id in the answer", fault.code, status, wait)
    match status:
        case 400 | 413:
            return outcome(Submitted.REFUSED)
        case 401 | 403:
            return outcome(Submitted.UNAUTHORIZED)
        case 402:
            return outcome(Submitted.UNPAID)
        case 429:
            return outcome(Submitted.RATE_LIMITED)
        case 409:
            if fault.names("idempotency_in_progress"):
                return outcome(Submitted.IN_PROGRESS)
            return outcome(Submitted.INDETERMINATE)
        case 500 if fault.message.startswith("build_request_failed:"):
            return outcome(Submitted.REFUSED)
        case 503 if fault.names("idempotency_unavailable"):
            return outcome(Submitted.UNAVAILABLE)
        case _:
            return outcome(Submitted.UNKNOWN)


def poll(answer: Answer, now: float, task_id: str | None = None) -> Poll:
    """What a look at a task showed; what could not be used is in its notes.

    Only a document of that very task can end it: a success status on an error page, or another task's document, is
    no answer, and neither is a 404 that the service did not write itself.
    """
    status = answer.status
    document = parse(answer)
    fault = fault_of(document, answer)
    if status == 404 and isinstance(document, dict):
        return Poll(Polled.NOT_FOUND, message=fault.message, code=fault.code, status=status)
    if status in {401, 403}:
        return Poll(Polled.UNAUTHORIZED, message=fault.message, code=fault.code, status=status)
    if status == 429:
        wait = retry_after(answer.headers, now)
        return Poll(Polled.RATE_LIMITED, message=fault.message, status=status, retry_after=wait)
    task = _task_of(document, task_id)
    if not 200 <= status < 300 or task is None:
        wait = retry_after(answer.headers, now)
        return Poll(Polled.NO_ANSWER, message=fault.message or "no task in the answer", status=status, retry_after=wait)
    return _ended(task, status)


def _ended(task: Mapping[str, Json], status: int) -> Poll:
    word = str(task.get("status", "")).strip().lower()
    notes: list[str] = []
    cost = cost_of(task, notes)
    if word in _COMPLETED:
        images = _images(task.get("result"), notes)
        errors = _errors(task.get("result"))
        return Poll(
            Polled.COMPLETED, images, cost, status=status, took=took_of(task), notes=tuple(notes), errors=errors
        )
    if word in _FAILED:
        fault = _fault(task.get("error"))
        message = fault.message or one_line(task.get("message")) or word
        code = fault.code or fault.type or word
        return Poll(Polled.FAILED, (), cost, message, code, status, took=took_of(task), notes=tuple(notes))
    if word not in _RUNNING:
        notes.append(f"unknown task status {word[:40]!r}")
    return Poll(Polled.RUNNING, status=status, notes=tuple(notes))


def parse(answer: Answer) -> Json:
    """The JSON of an answer, None where there is none.

    An answer that was cut short counts if an object is there from its first brace to its last: nothing can be missing
    in it, and the task id in it may have been paid for.
    """
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    return document if answer.whole or isinstance(document, dict) else None


def task_ids(document: Json) -> tuple[str, ...]:
    """Every task id of a success answer: a list of entries, one entry, or the versioned object."""
    if not isinstance(document, dict):
        return ()
    data = document.get("data")
    entries = data if isinstance(data, list) else [data]
    found: dict[str, None] = {}  # an answer of a few MB may hold many
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        inner = entry.get("data")
        for one in (entry, inner if isinstance(inner, dict) else {}):
            for name in ("task_id", "id"):
                value = one.get(name)
                usable = isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))
                text = str(value).strip() if usable else ""
                # An id becomes a part of a URL and a line of a log; nothing sane has more than this.
                if 0 < len(text) <= 256 and text.isprintable() and text not in found:
                    found[text] = None
                    break
    return tuple(found)


def _task_of(document: Json, task_id: str | None) -> Mapping[str, Json] | None:
    """The object that has the task's status, however it is wrapped; None where there is none of this task."""
    at = document
    for wraps in range(3):
        if isinstance(at, list):
            at = at[0] if at else None
        if not isinstance(at, dict):
            return None
        if isinstance(at.get("status"), str) and not isinstance(at.get("data"), dict | list):
            told = [at[name] for name in ("id", "task_id") if isinstance(at.get(name), str | int)]
            # Unwrapped, a status is one of anything; in the service's envelope the id may be missing.
            fits = task_id is None or (not told and wraps) or any(str(one).strip() == task_id for one in told)
            return at if fits else None
        at = at.get("data")
    return None


def _images(result: Json, notes: list[str]) -> tuple[ImageUrl, ...]:
    entries = result.get("images") if isinstance(result, dict) else None
    if isinstance(entries, dict | str):
        entries = [entries]
    if not isinstance(entries, list):
        notes.append("no list of images in the result")
        return ()
    found: dict[str, ImageUrl] = {}
    for entry in entries:
        if _error(entry):
            continue
        urls = entry.get("url") if isinstance(entry, dict) else entry
        expires = _when(entry.get("expires_at"), notes) if isinstance(entry, dict) else None
        for url in urls if isinstance(urls, list) else [urls]:
            if not _is_url(url):
                notes.append(f"an image URL that is none: {_shown(url)}")
            elif url in found:
                notes.append("the same image URL twice")
            else:
                found[url] = ImageUrl(url, expires)
    return tuple(found.values())


def _errors(result: Json) -> tuple[str, ...]:
    """What stands in the place of images that were not made."""
    entries = result.get("images") if isinstance(result, dict) else None
    return tuple(filter(None, map(_error, entries if isinstance(entries, list) else [entries])))


def _error(entry: Json) -> str:
    """The error that an entry of the images has instead of a link; empty if it has none."""
    if not isinstance(entry, dict) or not entry.get("error") or entry.get("url"):
        return ""
    fault = _fault(entry["error"])
    return ": ".join(filter(None, (fault.code or fault.type, fault.message))) or "an error without a message"


def _is_url(value: Json) -> TypeGuard[str]:
    # What is not printable includes lone surrogates, which neither a database nor a socket takes.
    return (
        isinstance(value, str)
        and value.startswith(("http://", "https://"))
        and len(value) <= 8192
        and value.isprintable()
    )


def _shown(value: Json) -> str:
    """A value of an answer for a note, short whatever it is."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return ascii(value)[:60]


def _when(value: Json, notes: list[str]) -> float | None:
    if value is None:
        return None
    number = number_of(value)
    # Unix seconds between 2001 and 5138; anything else is no time of day that links expire at.
    if number is None or not 1e9 < number < 1e11:
        notes.append(f"an expires_at that is no time: {_shown(value)}")
        return None
    return number


def cost_of(task: Mapping[str, Json], notes: list[str]) -> int | None:
    """The real cost in millionths of a USD: `cost` in USD, else a tenth of `credits_cost`."""
    for name, unit in (("cost", MICRO), ("credits_cost", MICRO // 10)):
        value = task.get(name)
        if value is None:
            continue
        number = number_of(value)
        if number is not None and 0 <= number < 1e6:
            return round(number * unit)
        notes.append(f"a {name} that is no amount: {_shown(value)}")
    return None


def took_of(task: Mapping[str, Json]) -> float | None:
    """The seconds from `created` to `completed`, else `actual_time`; a hint, so what makes no sense is passed over."""
    created, completed = number_of(task.get("created")), number_of(task.get("completed"))
    took = completed - created if created and completed else number_of(task.get("actual_time"))
    return took if took is not None and 0 <= took < 1e9 else None


def number_of(value: Json) -> float | None:
    """A finite number, also where it was written as a string."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def fault_of(document: Json, answer: Answer) -> Fault:
    """What an error answer says: `error` as an object or a string, `success: false` + `message`, or no JSON at all."""
    if isinstance(document, dict):
        fault = _fault(document.get("error"))
        message = fault.message or one_line(document.get("message")) or one_line(document.get("detail"))
        return Fault(fault.code or _word(document.get("code")), fault.type, message)
    if not answer.whole:
        return Fault(message="the answer was cut short or too long")
    start = answer.body[:200].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        return Fault(message="a web page instead of an answer")
    return Fault(message="an empty answer" if not answer.body else "an answer that is no JSON object")


def _fault(error: Json) -> Fault:
    if isinstance(error, str):
        return Fault(message=one_line(error))
    if isinstance(error, dict):
        return Fault(_word(error.get("code")), _word(error.get("type")), one_line(error.get("message")))
    return Fault()


def _word(value: Json) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        return ""
    return one_line(str(value)[:100] if isinstance(value, str) or abs(value) < 10**18 else "")


def one_line(value: Json) -> str:
    """The text as one clean line, empty for what is no text: answers are printed on terminals and written to logs."""
    if not isinstance(value, str):
        return ""
    text = value[:2000]
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(text.split())[:500]


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait by the Retry-After header (seconds or an HTTP date), from 0 to `LONGEST_WAIT`.

    A date counts from the one that the answer itself has, so that a wrong clock here changes nothing.
    """
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    number = number_of(text)
    if number is None:
        date = _http_date(text)
        if date is None:
            return None
        answered = _http_date(headers.get("date", ""))
        number = date - (now if answered is None else answered)
    return min(max(number, 0.0), LONGEST_WAIT)


def _http_date(text: str) -> float | None:
    try:
        date = email.utils.parsedate_to_datetime(text)
        # An HTTP date is in GMT, also in its old forms, which do not all say so.
        return (date if date.tzinfo else date.replace(tzinfo=dt.UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


@dataclass(frozen=True, slots=True)
class Balance:
    """What the account has left; money in millionths of a USD, None when unlimited."""

    remaining: int | None
    used: int | None


def balance(document: Json) -> Balance | None:
    """The balance in an answer, None where there is none to read."""
    if not isinstance(document, dict):
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


def upload_url(document: Json) -> str | None:
    """The URL of an uploaded image, None where the answer has none."""
    for at in (document, document.get("data") if isinstance(document, dict) else None):
        url = at.get("url") if isinstance(at, dict) else None
        if _is_url(url):
            return url
    return None
