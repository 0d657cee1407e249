"""The table of fault actions: where each can be played, what parameters it takes, and what they may be."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from seedream_batch.emulator.config import ConfigError, EmulatorConfig, Oddities

ENDPOINTS = ("submit", "poll", "upload", "balance", "models", "image")
HEADERS_PHASE = "headers"
BODY_KINDS = ("json", "html", "empty", "garbage", "string")
IDEMPOTENCY_CODES = ("in_progress", "indeterminate", "unavailable", "key_reused")

# A check says what was expected instead of the value, or None when it fits.
Check = Callable[[Any], str | None]


def _number(value: Any, *, least: float, whole: bool = False) -> bool:
    kind = int if whole else (int, float)
    return isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value) and value >= least


def _seconds(value: Any) -> str | None:
    return None if _number(value, least=0) else "a number of seconds, 0 or more"


def _positive(value: Any) -> str | None:
    return None if _number(value, least=0) and value > 0 else "a number above 0"


def _whole(least: int) -> Check:
    def check(value: Any) -> str | None:
        return None if _number(value, least=least, whole=True) else f"a whole number of {least} or more"

    return check


def _status(value: Any) -> str | None:
    return None if _number(value, least=200, whole=True) and value <= 599 else "an HTTP status from 200 to 599"


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) and value else "a text"


def _flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "true or false"


def _choice(*allowed: str) -> Check:
    def check(value: Any) -> str | None:
        return None if isinstance(value, str) and value in allowed else f"one of {', '.join(allowed)}"

    return check


def _whole_of(*allowed: int) -> Check:
    def check(value: Any) -> str | None:
        fits = _number(value, least=0, whole=True) and value in allowed
        return None if fits else f"one of {', '.join(map(str, allowed))}"

    return check


def _probability(value: Any) -> str | None:
    return None if _number(value, least=0) and value <= 1 else "a number from 0 to 1"


def _pattern(value: Any) -> str | None:
    try:
        re.compile(value)
    except (re.error, TypeError):
        return "a regular expression"
    return None


def _task(value: Any) -> str | None:
    fits = (isinstance(value, str) and value) or _number(value, least=1, whole=True)
    return None if fits else "a task id or the number of a task, counted from 1"


def _retry_after(value: Any) -> str | None:
    if isinstance(value, str) or _number(value, least=-math.inf):
        return None
    return "a number of seconds, date, negative, absurd, none, or any text"


def _code(value: Any) -> str | None:
    return None if isinstance(value, str) or _number(value, least=-math.inf, whole=True) else "a text or a number"


def _oddities(value: Any) -> str | None:
    names = [each.name for each in fields(Oddities)] + ["task_seconds"]
    if not isinstance(value, Mapping) or not value or set(value) - set(names):
        return f"a mapping with some of {', '.join(names)}"
    try:
        EmulatorConfig(**value)
    except ConfigError as error:
        return f"possible: {error}"
    return None


SELECTORS: Mapping[str, Check] = {
    "probability": _probability,
    "count": _whole(1),
    "every": _whole(1),
    "after": _whole(0),
    "prompt": _pattern,
    "task": _task,
}


@dataclass(frozen=True)
class ActionSpec:
    """Where an action can be played and what it takes."""

    endpoints: frozenset[str]
    parameters: Mapping[str, Check] = field(default_factory=dict)
    needed: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    ends: bool = True
    """Whether the action decides how the request ends; of those, only the first is played."""
    phase: str = "request"


def _on(*endpoints: str) -> frozenset[str]:
    return frozenset(endpoints)


_ANY = frozenset(ENDPOINTS)
_BEFORE_AFTER = _choice("before_bill", "after_bill")


def _outcome(
    parameters: Mapping[str, Check], defaults: Mapping[str, Any], on: Iterable[str] = ("submit",)
) -> ActionSpec:
    return ActionSpec(frozenset(on), parameters, defaults=defaults, ends=False)


ACTIONS: Mapping[str, ActionSpec] = {
    # Answers and connections, on every endpoint.
    "status": ActionSpec(
        _ANY,
        {
            "status": _status,
            "body": _choice(*BODY_KINDS),
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
    "reset_before": ActionSpec(_ANY, phase=HEADERS_PHASE),
    "reset_during": ActionSpec(_ANY, {"bytes": _whole(1)}, phase=HEADERS_PHASE),
    "reset_after": ActionSpec(_ANY),
    "cut_body": ActionSpec(_ANY, {"keep": _probability}, defaults={"keep": 0.5}),
    "empty_body": ActionSpec(_ANY),
    "garbage_body": ActionSpec(_ANY),
    "huge_body": ActionSpec(_ANY, {"bytes": _whole(1)}, defaults={"bytes": 64 * 1024 * 1024}),
    "redirect": ActionSpec(
        _ANY, {"url": _text, "status": _whole_of(301, 302, 303, 307, 308)}, ("url",), defaults={"status": 302}
    ),
    "hang": ActionSpec(
        _ANY, {"at": _choice("before_bill", "after_bill", "mid_body")}, defaults={"at": "before_bill"}, ends=False
    ),
    "delay": ActionSpec(
        _ANY, {"seconds": _seconds, "at": _BEFORE_AFTER}, ("seconds",), defaults={"at": "before_bill"}, ends=False
    ),
    # Submissions.
    "reset_after_bill": ActionSpec(_on("submit")),
    "no_task_id": ActionSpec(_on("submit")),
    "same_id": ActionSpec(_on("submit"), {"of": _whole(1)}, defaults={"of": 1}),
    "idempotency": ActionSpec(
        _on("submit"),
        {"code": _choice(*IDEMPOTENCY_CODES), "at": _BEFORE_AFTER, "retry_after": _retry_after},
        ("code",),
        defaults={"at": "before_bill"},
    ),
    # What becomes of a task; on a poll, for that one answer only.
    "fail": _outcome(
        {"code": _code, "message": _text, "status": _choice("failed", "cancelled")},
        {"code": "task_failed", "status": "failed"},
        on=("submit", "poll"),
    ),
    "never_end": _outcome({}, {}, on=("submit", "poll")),
    "late_failure": _outcome(
        {"polls": _whole(1), "code": _code, "message": _text}, {"polls": 1, "code": "task_failed"}
    ),
    "not_found": _outcome({"polls": _whole(1)}, {"polls": 1}, on=("submit", "poll")),
    "unknown_status": _outcome({"word": _text, "polls": _whole(1)}, {"word": "reticulating"}, on=("submit", "poll")),
    "image_error": ActionSpec(
        _on("poll"),
        {"image": _whole(1), "code": _code, "message": _text},
        defaults={"image": 1, "code": "InternalServiceError", "message": "unexpected internal error"},
    ),
    "oddity": ActionSpec(_on("submit", "poll", "balance"), {"set": _oddities}, ("set",), ends=False),
    # Result images.
    "short_length": ActionSpec(_on("image")),
    "long_length": ActionSpec(_on("image"), {"bytes": _whole(1)}, defaults={"bytes": 1000}),
    "cut_chunked": ActionSpec(_on("image"), {"keep": _probability}, defaults={"keep": 0.5}),
    "truncated_image": ActionSpec(_on("image"), {"keep": _probability}, defaults={"keep": 0.5}),
    "html_200": ActionSpec(_on("image")),
    "wrong_type": ActionSpec(_on("image"), {"content_type": _text}, defaults={"content_type": "text/plain"}),
    "wrong_size": ActionSpec(
        _on("image"), {"width": _whole(1), "height": _whole(1)}, defaults={"width": 64, "height": 64}
    ),
    "gzip": ActionSpec(_on("image"), {"declared": _flag}, defaults={"declared": True}),
    "redirect_loop": ActionSpec(_on("image")),
    "slow": ActionSpec(_on("image"), {"bytes_per_second": _positive}, defaults={"bytes_per_second": 1}),
    "expired": ActionSpec(_on("image")),
}
