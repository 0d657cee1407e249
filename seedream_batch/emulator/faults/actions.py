"""The table of fault actions: the endpoints where each applies, its parameters, and their allowed values."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from seedream_batch.emulator.config import LARGEST_NUMBER, ConfigError, EmulatorConfig, Oddities

ENDPOINTS = ("submit", "poll", "upload", "balance", "models", "image")
BODY_KINDS = ("json", "html", "empty", "garbage", "string")
IDEMPOTENCY_CODES = ("in_progress", "indeterminate", "unavailable", "key_reused")

Check = Callable[[Any], str | None]
"""Returns what was expected instead of a value; None for a valid value."""


def _check(expected: str, accepts: Callable[[Any], bool]) -> Check:
    return lambda value: None if accepts(value) else expected


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST_NUMBER


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and _is_number(value)


def _integer(least: int) -> Check:
    return _check(f"a whole number of {least} or more", lambda value: _is_integer(value) and value >= least)


def _one_of(*allowed: str | int) -> Check:
    return _check(
        f"one of {', '.join(map(str, allowed))}", lambda value: type(value) in (str, int) and value in allowed
    )


def _is_pattern(value: Any) -> bool:
    try:
        return isinstance(value, str) and re.compile(value) is not None
    except (re.error, OverflowError, RecursionError):
        return False


def _oddities(value: Any) -> str | None:
    names = [each.name for each in fields(Oddities)] + ["task_seconds"]
    if not isinstance(value, Mapping) or not value or set(value) - set(names):
        return f"a mapping with some of {', '.join(names)}"
    try:
        EmulatorConfig(**value)
    except ConfigError as error:
        return f"possible: {error}"
    return None


_seconds = _check("a number of seconds, 0 or more", lambda value: _is_number(value) and value >= 0)
_positive = _check("a number above 0", lambda value: _is_number(value) and value > 0)
_fraction = _check("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1)
_status = _check("an HTTP status from 200 to 599", lambda value: _is_integer(value) and 200 <= value <= 599)
_text = _check("text", lambda value: isinstance(value, str) and value != "")
_flag = _check("true or false", lambda value: isinstance(value, bool))
_code = _check("text or a number", lambda value: isinstance(value, str) or _is_integer(value))
_pattern = _check("a regular expression", _is_pattern)
_task = _check(
    "a task id or the number of a task, counted from 1",
    lambda value: (isinstance(value, str) and value != "") or (_is_integer(value) and value >= 1),
)
_retry_after = _check(
    "a number of seconds, date, negative, absurd, none, or any text",
    lambda value: isinstance(value, str) or _is_number(value),
)

SELECTORS: Mapping[str, Check] = {
    "probability": _fraction,
    "count": _integer(1),
    "every": _integer(1),
    "after": _integer(0),
    "prompt": _pattern,
    "task": _task,
}


@dataclass(frozen=True)
class ActionSpec:
    """The endpoints and parameters of an action."""

    endpoints: frozenset[str]
    parameters: Mapping[str, Check] = field(default_factory=dict)
    needed: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    ends: bool = True
    """Whether the action decides how the request ends. Only the first of those is applied."""
    before_body: bool = False
    """Whether the action is applied before the body of the request is read."""


_ANY = frozenset(ENDPOINTS)
_SUBMIT = frozenset({"submit"})
_SUBMIT_OR_POLL = frozenset({"submit", "poll"})
_IMAGE = frozenset({"image"})
_BEFORE_AFTER = _one_of("before_bill", "after_bill")


def _outcome(
    parameters: Mapping[str, Check], defaults: Mapping[str, Any], on: frozenset[str] = _SUBMIT_OR_POLL
) -> ActionSpec:
    return ActionSpec(on, parameters, defaults=defaults, ends=False)


ACTIONS: Mapping[str, ActionSpec] = {
    # Responses and connections, on every endpoint.
    "status": ActionSpec(
        _ANY,
        {
            "status": _status,
            "body": _one_of(*BODY_KINDS),
            "at": _BEFORE_AFTER,
            "retry_after": _retry_after,
            "code": _code,
            "message": _text,
            "type": _text,
        },
        needed=("status",),
        defaults={"body": "json", "at": "before_bill"},
    ),
    "rate_limit": ActionSpec(_ANY, {"retry_after": _retry_after}, defaults={"retry_after": 1}),
    "reset_before": ActionSpec(_ANY, before_body=True),
    "reset_during": ActionSpec(_ANY, {"bytes": _integer(1)}, before_body=True),
    "reset_after": ActionSpec(_ANY),
    "cut_body": ActionSpec(_ANY, {"keep": _fraction}, defaults={"keep": 0.5}),
    "empty_body": ActionSpec(_ANY),
    "garbage_body": ActionSpec(_ANY),
    "huge_body": ActionSpec(_ANY, {"bytes": _integer(1)}, defaults={"bytes": 64 * 1024 * 1024}),
    "redirect": ActionSpec(
        _ANY, {"url": _text, "status": _one_of(301, 302, 303, 307, 308)}, ("url",), defaults={"status": 302}
    ),
    "hang": ActionSpec(
        _ANY, {"at": _one_of("before_bill", "after_bill", "mid_body")}, defaults={"at": "before_bill"}, ends=False
    ),
    "delay": ActionSpec(
        _ANY, {"seconds": _seconds, "at": _BEFORE_AFTER}, ("seconds",), defaults={"at": "before_bill"}, ends=False
    ),
    # Submissions.
    "reset_after_bill": ActionSpec(_SUBMIT),
    "no_task_id": ActionSpec(_SUBMIT),
    "same_id": ActionSpec(_SUBMIT, {"of": _integer(1)}, defaults={"of": 1}),
    "idempotency": ActionSpec(
        _SUBMIT,
        {"code": _one_of(*IDEMPOTENCY_CODES), "at": _BEFORE_AFTER, "retry_after": _retry_after},
        ("code",),
        defaults={"at": "before_bill"},
    ),
    # Outcomes of a task; on a poll, for that one response only.
    "fail": _outcome(
        {"code": _code, "message": _text, "status": _one_of("failed", "cancelled")},
        {"code": "task_failed", "status": "failed"},
    ),
    "never_end": _outcome({}, {}),
    "late_failure": _outcome(
        {"polls": _integer(1), "code": _code, "message": _text}, {"polls": 1, "code": "task_failed"}, _SUBMIT
    ),
    "not_found": _outcome({"polls": _integer(1)}, {"polls": 1}),
    "unknown_status": _outcome({"word": _text, "polls": _integer(1)}, {"word": "reticulating"}),
    "image_error": ActionSpec(
        frozenset({"poll"}),
        {"image": _integer(1), "code": _code, "message": _text},
        defaults={"image": 1, "code": "InternalServiceError", "message": "unexpected internal error"},
    ),
    "oddity": ActionSpec(_SUBMIT_OR_POLL | {"balance"}, {"set": _oddities}, ("set",), ends=False),
    # Result images.
    "short_length": ActionSpec(_IMAGE),
    "long_length": ActionSpec(_IMAGE, {"bytes": _integer(1)}, defaults={"bytes": 1000}),
    "cut_chunked": ActionSpec(_IMAGE, {"keep": _fraction}, defaults={"keep": 0.5}),
    "truncated_image": ActionSpec(_IMAGE, {"keep": _fraction}, defaults={"keep": 0.5}),
    "html_200": ActionSpec(_IMAGE),
    "wrong_type": ActionSpec(_IMAGE, {"content_type": _text}, defaults={"content_type": "text/plain"}),
    "wrong_size": ActionSpec(
        _IMAGE, {"width": _integer(1), "height": _integer(1)}, defaults={"width": 64, "height": 64}
    ),
    "gzip": ActionSpec(_IMAGE, {"declared": _flag}, defaults={"declared": True}),
    "redirect_loop": ActionSpec(_IMAGE),
    "slow": ActionSpec(_IMAGE, {"bytes_per_second": _positive}, defaults={"bytes_per_second": 1}),
    "expired": ActionSpec(_IMAGE),
}
