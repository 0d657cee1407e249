"""The faults of the network and of the service, and what each has to lead to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from moments import MOMENTS, some_of_all

OFTEN = {"once": {"count": 1}, "four times": {"count": 4}, "always": {}}
"""How often a fault strikes; what strikes always is over when the command has ended."""
OFTEN_WORDS = tuple(OFTEN)

Rule = Mapping[str, Any]


class Kind(Enum):
    """What a fault has to lead to."""

    NOT_EXECUTED = auto()
    """A submission that was surely not executed: sent again later, under the same key."""
    REDIRECTED = auto()
    """As not executed; the run ends at once, since the service is somewhere else."""
    UNCLEAR = auto()
    """A submission in doubt; a resend under the same key settles it."""
    INDETERMINATE = auto()
    """A submission in doubt that the service itself cannot settle: held for a person."""
    REFUSED = auto()
    """A definite no."""
    NO_ACCESS = auto()
    """Nothing more is submitted; what is paid for is collected."""
    NO_MONEY = auto()
    """As without access."""
    SILENT = auto()
    """No usable answer about a task: asked again."""
    DENIED = auto()
    """The key is refused, but not by the balance endpoint."""
    RUNNING = auto()
    """The task seems to go on; lost once its time is over."""
    UNKNOWN_ID = auto()
    """The task id is not known: believed after a while, and then the task is lost."""
    EMPTY = auto()
    """Completed without any image: lost."""
    BROKEN = auto()
    """An image did not come: tried again, and left for the next run."""
    BAD = auto()
    """An image that is no picture: tried again, and then rejected."""
    SPOILT = auto()
    """One or the other, as chance will have it."""
    DEAD = auto()
    """A link that does not work before its time is over: another one is asked for, or it is left for the next run."""
    EXPIRED = auto()
    """A link whose time is over, and there is no other: given up."""
    HARMLESS = auto()
    """Nothing is different in the end."""
    ODD = auto()
    """Another number, size or kind of images than asked for: stored, and flagged if it is not what was requested."""
    LATE = auto()
    """Completed, and later told as failed: the first word counts."""
    NO_UPLOAD = auto()
    """A reference image could not be uploaded: tried again, nothing is sent without it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault: its rules for the service, and the settings of the service and the client that belong to it."""

    name: str
    kind: Kind
    rules: tuple[Rule, ...]
    service: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the client that the command is given with: module and name to value."""
    moments: tuple[str, ...] = ()
    often: tuple[str, ...] = ()
    pause: float = 0.0
    """Seconds between two submissions under the same key, at least."""
    as_usual: bool = True
    """Whether the pictures are those of a run that nothing disturbed."""

    @property
    def on(self) -> str:
        """The endpoint it strikes."""
        return str(self.rules[0]["on"])


def _on(endpoint: str, name: str, kind: Kind, action: str, **more: Any) -> Fault:
    """A fault of one rule; what is no parameter of the action belongs to the fault itself."""
    own = {one: more.pop(one) for one in ("service", "limits", "moments", "often", "pause", "as_usual") if one in more}
    return Fault(f"{endpoint}: {name}", kind, ({"on": endpoint, "action": action, **more},), **own)


_BROKEN_ANSWERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("reset after the headers", {"action": "reset_before"}),
    ("reset in the body", {"action": "reset_during"}),
    ("reset after the body", {"action": "reset_after"}),
    ("500", {"action": "status", "status": 500}),
    ("502, a page", {"action": "status", "status": 502, "body": "html"}),
    ("503, empty", {"action": "status", "status": 503, "body": "empty"}),
    ("504", {"action": "status", "status": 504}),
    ("200, a page", {"action": "status", "status": 200, "body": "html"}),
    ("200, empty", {"action": "status", "status": 200, "body": "empty"}),
    ("418", {"action": "status", "status": 418}),
    ("404, a page", {"action": "status", "status": 404, "body": "html"}),
    ("302 elsewhere", {"action": "redirect", "url": "http://127.0.0.1:1/elsewhere"}),
    ("307 to itself", {"action": "redirect", "url": "/v1/elsewhere", "status": 307}),
    ("304", {"action": "status", "status": 304, "body": "empty"}),
    ("cut answer", {"action": "cut_body"}),
    ("empty answer", {"action": "empty_body"}),
    ("garbage", {"action": "garbage_body"}),
    ("huge answer", {"action": "huge_body", "bytes": 5_000_000}),
)
"""Answers from which nothing can be learnt, at any endpoint of the API; but the id at the start of a huge one."""


def _redirects(name: str) -> bool:
    return name.startswith(("302", "307"))


_QUICK = {
    "seedream_batch.client.service.SUBMIT_TIMEOUT": 1.0,
    "seedream_batch.client.service.POLL_TIMEOUT": 1.0,
    "seedream_batch.client.service.TRICKLE": 0.5,
    "seedream_batch.client.images.READ_TIMEOUT": 1.0,
}
"""Time limits for faults that make the client wait."""

_CLAMP = {"seedream_batch.client.error_details.LONGEST_WAIT": 0.2}

_WAITS: tuple[tuple[str, float, dict[str, Any]], ...] = (
    ("a part of a second", 0.3, {"retry_after": "0.3"}),
    ("a second", 1.0, {"retry_after": "1"}),
    ("a date", 0.0, {"retry_after": "date"}),
    ("negative", 0.0, {"retry_after": "negative"}),
    ("absurd", 0.2, {"retry_after": "absurd", "limits": _CLAMP}),
    ("infinite", 0.0, {"retry_after": "inf", "limits": _CLAMP}),
    ("none", 0.0, {"retry_after": "none"}),
    ("garbage", 0.0, {"retry_after": "soon; very soon"}),
)
"""What Retry-After says, and the seconds that are waited at least."""


def _submission_faults() -> list[Fault]:
    kinds = dict.fromkeys((name for name, _ in _BROKEN_ANSWERS if _redirects(name)), Kind.REDIRECTED)
    kinds["huge answer"] = Kind.HARMLESS
    faults = [_on("submit", name, kinds.get(name, Kind.UNCLEAR), **rule) for name, rule in _BROKEN_ANSWERS]
    faults += [
        _on("submit", f"{status} after the bill", Kind.UNCLEAR, "status", status=status, at="after_bill")
        for status in (500, 502, 504)
    ]
    faults += [
        _on("submit", "reset after the bill", Kind.UNCLEAR, "reset_after_bill"),
        _on("submit", "an answer without an id", Kind.UNCLEAR, "no_task_id"),
        _on("submit", "cut to a tenth", Kind.UNCLEAR, "cut_body", keep=0.1),
        _on("submit", "cut before the last brace", Kind.HARMLESS, "cut_body", keep=0.97),
        _on("submit", "409 in progress", Kind.UNCLEAR, "idempotency", code="in_progress", retry_after="0.05"),
        _on(
            "submit", "409 in progress, billed", Kind.UNCLEAR, "idempotency",
            code="in_progress", retry_after="0.05", at="after_bill",
        ),
    ]  # fmt: skip
    faults += [
        _on("submit", f"no answer in time, {at}", Kind.UNCLEAR, "hang", at=at, limits=_QUICK)
        for at in ("before_bill", "after_bill", "mid_body")
    ]
    faults += [
        _on("submit", f"409 {code}, {at}", Kind.INDETERMINATE, "idempotency", code=code, at=at)
        for code in ("indeterminate", "key_reused")
        for at in ("before_bill", "after_bill")
    ]
    faults += [
        _on("submit", "409, a page", Kind.INDETERMINATE, "status", status=409, body="html"),
        _on(
            "submit", "500 build_request_failed", Kind.REFUSED, "status",
            status=500, message="build_request_failed: no such size",
        ),
        _on("submit", "400", Kind.REFUSED, "status", status=400),
        _on("submit", "413, a page", Kind.REFUSED, "status", status=413, body="html"),
        _on("submit", "401", Kind.DENIED, "status", status=401),
        # A firewall turns away that one prompt.
        _on("submit", "403, a page", Kind.REFUSED, "status", status=403, body="html"),
        _on("submit", "402", Kind.NO_MONEY, "status", status=402),
        _on("submit", "503 unavailable", Kind.NOT_EXECUTED, "idempotency", code="unavailable", retry_after="0.1"),
        _on("submit", "503 unavailable, no word when", Kind.NOT_EXECUTED, "idempotency", code="unavailable"),
        _on("submit", "429, a page", Kind.NOT_EXECUTED, "status", status=429, body="html"),
    ]  # fmt: skip
    faults += [
        _on("submit", f"429, {name}", Kind.NOT_EXECUTED, "rate_limit", pause=pause, **more)
        for name, pause, more in _WAITS
    ]
    return faults


def _poll_faults() -> list[Fault]:
    faults = [
        _on("poll", name, Kind.HARMLESS if name == "huge answer" else Kind.SILENT, **rule)
        for name, rule in _BROKEN_ANSWERS
    ]
    faults += [
        _on("poll", "no answer in time", Kind.SILENT, "hang", limits=_QUICK),
        _on("poll", "half an answer in time", Kind.SILENT, "hang", at="mid_body", limits=_QUICK),
        _on("poll", "401", Kind.DENIED, "status", status=401),
        _on("poll", "403, a page", Kind.DENIED, "status", status=403, body="html"),
        _on("poll", "a word that is not known", Kind.RUNNING, "unknown_status"),
        _on("poll", "never ends", Kind.RUNNING, "never_end"),
        _on("poll", "404", Kind.UNKNOWN_ID, "not_found"),
        _on(
            "poll", "404 at first", Kind.SILENT, "not_found",
            limits={"seedream_batch.lifecycle.NOT_FOUND_GRACE": 30.0}, often=("once", "four times"),
        ),
    ]  # fmt: skip
    faults += [
        _on("poll", f"429, {name}", Kind.SILENT, "rate_limit", **{**more, "limits": more.get("limits", {})})
        for name, _, more in _WAITS
    ]
    return faults


def _image_faults() -> list[Fault]:
    image = [
        ("too short a length", Kind.SPOILT, "short_length", {}),
        # All of the image came, whatever its length was said to be.
        ("too long a length", Kind.HARMLESS, "long_length", {}),
        ("cut, in chunks", Kind.BROKEN, "cut_chunked", {}),
        ("cut", Kind.BROKEN, "cut_body", {}),
        ("truncated", Kind.BAD, "truncated_image", {}),
        ("truncated near its end", Kind.BAD, "truncated_image", {"keep": 0.99}),
        ("a page", Kind.SPOILT, "html_200", {}),
        ("empty", Kind.SPOILT, "empty_body", {}),
        ("garbage", Kind.SPOILT, "garbage_body", {}),
        ("compressed and said so", Kind.HARMLESS, "gzip", {}),
        ("compressed", Kind.HARMLESS, "gzip", {"declared": False}),
        ("another content type", Kind.HARMLESS, "wrong_type", {}),
        ("another size", Kind.ODD, "wrong_size", {"as_usual": False}),
        ("redirected for ever", Kind.BROKEN, "redirect_loop", {}),
        ("redirected to another machine", Kind.BAD, "redirect", {"url": "http://192.0.2.1/login"}),
        ("redirected to a closed port", Kind.BROKEN, "redirect", {"url": "http://127.0.0.1:1/elsewhere"}),
        ("redirected to what is no URL", Kind.BROKEN, "redirect", {"url": "http://[::/login"}),
        ("slow", Kind.HARMLESS, "slow", {"bytes_per_second": 20_000}),
        (
            "too slow", Kind.BROKEN, "slow",
            {"bytes_per_second": 500, "limits": {"seedream_batch.client.images.SLOW_WINDOW": 1.0}},
        ),
        ("no answer in time", Kind.BROKEN, "hang", {"limits": _QUICK}),
        ("half an answer in time", Kind.BROKEN, "hang", {"at": "mid_body", "limits": _QUICK}),
        (
            "huge", Kind.BROKEN, "huge_body",
            {"bytes": 2_000_000, "limits": {"seedream_batch.client.images.MAX_IMAGE": 1_000_000}},
        ),
        ("reset after the headers", Kind.BROKEN, "reset_before", {}),
        ("reset", Kind.BROKEN, "reset_after", {}),
        ("500", Kind.BROKEN, "status", {"status": 500}),
        ("429", Kind.BROKEN, "rate_limit", {"retry_after": "0.1"}),
        ("204", Kind.BROKEN, "status", {"status": 204, "body": "empty"}),
        ("401, a page", Kind.BROKEN, "status", {"status": 401, "body": "html"}),
        ("403", Kind.DEAD, "status", {"status": 403}),
        ("404, a page", Kind.DEAD, "status", {"status": 404, "body": "html"}),
        ("410", Kind.DEAD, "status", {"status": 410}),
        ("expired before its time", Kind.DEAD, "expired", {}),
        ("expired before its time, not renewed", Kind.DEAD, "expired", {"service": {"renew_links": False}}),
        ("expired", Kind.DEAD, "delay", {"seconds": 0.5, "service": {"link_seconds": 0.3}}),
        (
            "expired, not renewed", Kind.EXPIRED, "delay",
            {
                "seconds": 1.2, "service": {"link_seconds": 0.6, "renew_links": False}, "often": ("once", "always"),
                # Where images wait already, their links have got the usual time.
                "moments": tuple(name for name, moment in MOMENTS.items() if moment.prepare is not some_of_all),
            },
        ),
    ]  # fmt: skip
    return [_on("image", name, kind, action, **more) for name, kind, action, more in image]


def _odd_faults() -> list[Fault]:
    submitted: list[tuple[str, Kind, dict[str, Any]]] = [
        ("202", Kind.HARMLESS, {"submit_status": 202}),
        ("two tasks for one request", Kind.HARMLESS, {"submit_entries": 2}),
        ("two tasks, plain", Kind.HARMLESS, {"submit_entries": 2, "versioned": False}),
        ("another envelope", Kind.HARMLESS, {"versioned": False}),
        ("another first word", Kind.HARMLESS, {"submitted_word": "pending"}),
        ("numbers as strings", Kind.HARMLESS, {"numbers_as_strings": True, "versioned": False}),
        ("one image more", Kind.ODD, {"deliver": 1}),
        ("one image less", Kind.ODD, {"deliver": -1}),
        ("no image at all", Kind.EMPTY, {"deliver": -15}),
        ("png", Kind.ODD, {"image_format": "png"}),
    ]
    looked: list[tuple[str, Kind, dict[str, Any]]] = [
        ("a URL instead of a list", Kind.HARMLESS, {"url_form": "string"}),
        ("all URLs in one entry", Kind.HARMLESS, {"image_grouping": "one_entry"}),
        ("every URL twice", Kind.HARMLESS, {"duplicate_urls": True}),
        ("every URL twice in one entry", Kind.HARMLESS, {"duplicate_urls": True, "image_grouping": "one_entry"}),
        ("numbers as strings", Kind.HARMLESS, {"numbers_as_strings": True}),
        ("another word for at work", Kind.HARMLESS, {"processing_word": "in_progress"}),
        ("no cost", Kind.HARMLESS, {"omit": ["cost", "credits_cost"]}),
        ("no cost in USD", Kind.HARMLESS, {"omit": ["cost"]}),
        ("no end of links", Kind.HARMLESS, {"omit": ["expires_at", "progress", "created", "completed"]}),
        ("another extension", Kind.HARMLESS, {"url_extension": "wrong"}),
        ("no extension", Kind.HARMLESS, {"url_extension": "none"}),
    ]
    faults = [
        _on(endpoint, name, kind, "oddity", set=oddity, often=("once", "always"), as_usual=kind is not Kind.ODD)
        for endpoint, several in (("submit", submitted), ("poll", looked))
        for name, kind, oddity in several
    ]
    faults.append(
        Fault(
            "poll: completed, later failed",
            Kind.LATE,
            (
                {"on": "submit", "action": "late_failure", "prompt": "panda"},
                {"on": "image", "action": "status", "status": 500, "prompt": "panda", "count": 2},
            ),
            moments=("first run",),
            often=("once",),
        )
    )
    faults.append(
        _on(
            "submit", "a task that never ends", Kind.RUNNING, "never_end", often=("once", "always"),
            moments=("first run", "tasks at work", "failed tasks planned again"),
        )
    )  # fmt: skip
    return faults


def _other_faults() -> list[Fault]:
    # A 4xx is a no to the very image, and so to the tasks that use it. Of a cut or huge answer, the URL is read.
    kinds = {"418": Kind.REFUSED, "cut answer": Kind.HARMLESS, "huge answer": Kind.HARMLESS}
    faults = [_on("upload", name, kinds.get(name, Kind.NO_UPLOAD), **rule) for name, rule in _BROKEN_ANSWERS]
    faults += [
        _on("upload", "429", Kind.NO_UPLOAD, "rate_limit", retry_after="0.1"),
        _on("upload", "no answer in time", Kind.NO_UPLOAD, "hang", limits=_QUICK),
        _on("upload", "401", Kind.NO_UPLOAD, "status", status=401),
        _on("upload", "402", Kind.NO_MONEY, "status", status=402),
        _on("upload", "400", Kind.REFUSED, "status", status=400),
    ]
    # As long as the service redirects, nothing is sent at all.
    faults += [
        _on("balance", name, Kind.HARMLESS, **rule, often=("once",) if _redirects(name) else ("always",))
        for name, rule in _BROKEN_ANSWERS
    ]
    faults += [
        _on("balance", "429", Kind.HARMLESS, "rate_limit", retry_after="0.1", often=("always",)),
        _on("balance", "402", Kind.HARMLESS, "status", status=402, often=("always",)),
        _on("balance", "no answer in time", Kind.HARMLESS, "hang", limits=_QUICK, often=("always",)),
        _on(
            "balance", "numbers as strings", Kind.HARMLESS, "oddity",
            set={"numbers_as_strings": True}, often=("always",),
        ),
        _on("balance", "401", Kind.NO_ACCESS, "status", status=401, often=("always",)),
        _on("balance", "403, a page", Kind.HARMLESS, "status", status=403, body="html", often=("always",)),
    ]  # fmt: skip
    return faults


FAULTS = {
    fault.name: fault
    for fault in (*_submission_faults(), *_poll_faults(), *_image_faults(), *_odd_faults(), *_other_faults())
}
