"""Read what an error response says, and how long it asks to wait. Pure; never raises."""

from __future__ import annotations

import datetime as dt
import email.utils
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from seedream_batch.client.documents import Answer, inner
from seedream_batch.model.document import Json

LONGEST_WAIT = 600.0
"""Seconds to which a longer Retry-After is cut, so that a mistake of the service does not stop a run for a year."""

_LONGEST_TEXT = 300
"""Characters above which a plain-text body is not taken for a message."""

_MESSAGES = (
    "message", "msg", "error_message", "errorMessage", "error_msg", "errmsg", "detail", "details", "description",
    "fail_reason", "failReason", "failure_reason", "reason", "title", "status_msg", "status_message", "statusMessage",
)  # fmt: skip
_ERRORS = ("error", "errors", "err", "fault")


@dataclass(frozen=True, slots=True)
class Fault:
    """The details of an error body, wherever they are in it."""

    code: str = ""
    type: str = ""
    message: str = ""

    def names(self, word: str) -> bool:
        """Return whether the error has this name; if `error` is a plain string, that is the name."""
        return word in (self.code, self.type, self.message)


def fault_of(document: Json, answer: Answer) -> Fault:
    """Return the error of a response: `error` as object or string, `success: false` + `message`, or no JSON at all."""
    if isinstance(document, dict):
        fault = next((described for name in _ERRORS if (described := fault_in(document.get(name))) != Fault()), Fault())
        inside = (document, *(part for part in islice(document.values(), 20) if isinstance(part, dict)))
        message = fault.message or next(filter(None, map(_message, inside)), "")
        return Fault(fault.code or word(document.get("code")), fault.type, message)
    if not answer.status:
        return Fault(message="an answer that is not HTTP")
    if not answer.whole:
        return Fault(message="the answer was truncated or too long")
    if is_web_page(answer.body):
        return Fault(message="a web page instead of an answer")
    return Fault(
        message=_plain_text(answer.body)
        or ("an answer that is not a JSON object" if answer.body else "an empty answer")
    )


def _plain_text(body: bytes) -> str:
    """Return a short body of plain words, or a JSON string of words; empty for anything else."""
    try:
        text = " ".join(body.decode().split()).strip('"')
    except UnicodeDecodeError:
        return ""
    return text if len(text) <= _LONGEST_TEXT and text.isprintable() and text[:1].isalpha() else ""


def is_web_page(body: bytes) -> bool:
    """Return whether a body is HTML or XML, which comes from a proxy or gateway rather than the service."""
    return body[:1000].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")


def fault_in(error: Json) -> Fault:
    """Return the error described by a document's error member."""
    error = inner(error)
    if isinstance(error, str):
        return Fault(message=one_line(error))
    if isinstance(error, list):
        return next((fault for entry in islice(error, 20) if (fault := fault_in(entry)) != Fault()), Fault())
    if isinstance(error, dict):
        return Fault(word(error.get("code")), word(error.get("type")), _message(error))
    return Fault()


def _message(document: Mapping[str, Json]) -> str:
    for name in _MESSAGES:
        value = document.get(name)
        quoted = inner(value)
        if isinstance(quoted, list | dict) and (quoted is not value or name.startswith("detail")):
            # Relays quote the whole error of the upstream: use its code and its message.
            fault = fault_in(quoted.get("error", quoted) if isinstance(quoted, dict) else quoted)
            value = ": ".join(filter(None, (fault.code, fault.message))) or value
        if text := one_line(value):
            return text
    return ""


def word(value: Json) -> str:
    """Return a code or type as a short text; empty if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return ""
    return one_line(str(value)[:100] if isinstance(value, str) or abs(value) < 10**18 else "")


def one_line(value: Json) -> str:
    """Return a text as one printable line for terminals and logs; empty if it is not a text."""
    if not isinstance(value, str):
        return ""
    text = value[:2000]
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(text.split())[:500]


def shown(value: Json) -> str:
    """Return a short text for a value of a response, for a note."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return ascii(value)[:60]


def number_of(value: Json) -> float | None:
    """Return a finite number, also if it was written as a string; None otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and "_" in value:
        # Python accepts 1_000 as a number; in a response it means something else.
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds to wait by the Retry-After header (seconds or an HTTP date), from 0 to `LONGEST_WAIT`.

    A date is compared with the response's own Date header, so that a wrong local clock does not matter.
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
        # An HTTP date is in GMT, also in old formats that do not say so.
        return (date if date.tzinfo else date.replace(tzinfo=dt.UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
