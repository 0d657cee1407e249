"""Every fault of the network and of the service, in every state of a job that it can strike.

A cell is a fault, the moment that it strikes, how often it does, and how the job deals with doubt. The command is run
with the fault and judged at once; then the fault is over, the job runs to its end, persons decide what is left to
them, and it is judged again: every image is there, and paid for once.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import signal
import socket
import sqlite3
import ssl
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any

import oracle
from forge import Ended
from oracle import Manifest
from world import HELD, JOB, NO_KEYS, TRUSTED, Pictures, Variant, World

ROOMY = JOB.replace("max_cost_usd: 1}", "max_cost_usd: 20}")
"""The job with a budget under which no task waits for the first price."""

VARIANTS = {"trusted": TRUSTED, "held": HELD, "no keys": NO_KEYS}

OFTEN = {"once": {"count": 1}, "four times": {"count": 4}, "always": {}}
"""How often a fault strikes; what strikes always is over when the command has ended."""
OFTEN_WORDS = tuple(OFTEN)

Rule = Mapping[str, Any]


class Kind(Enum):
    """What a fault has to lead to."""

    NOT_EXECUTED = auto()
    """A submission that was surely not executed: sent again later, under the same key."""
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
    """The key is refused when a task is looked at."""
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
    """Another number or kind of images than asked for: taken as it is."""
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


@dataclass(frozen=True, slots=True)
class Moment:
    """A state of the job, the command that is given in it, and what it leaves with when nothing disturbs it."""

    name: str
    prepare: Callable[[World], None]
    asks: tuple[str, ...]
    """The endpoints that the command asks."""
    command: tuple[str, ...] = ("run",)
    doubts: bool = False
    """Whether tasks are in doubt before it, which only a service that knows keys can settle."""
    resends: bool = False
    """Whether the command sends tasks again under their keys in any case; for a service that honours keys only."""

    def code(self, variant: Variant) -> int:
        """What the command leaves with undisturbed."""
        return 4 if self.doubts and not self.settles(variant) else 0

    def settles(self, variant: Variant) -> bool:
        """Whether what is in doubt is sent again under its key."""
        return self.resends or variant.on_unknown == "resend"


@dataclass(frozen=True, slots=True)
class Cell:
    """One fault at one moment."""

    fault: str
    moment: str
    variant: str
    often: str

    @property
    def name(self) -> str:
        """The cell in words."""
        return f"{self.fault}, {self.often}, {self.moment}, {self.variant}"


# The moments.


def _nothing(world: World) -> None:
    del world


def _some_accepted(world: World) -> None:
    """Three tasks are at work at the service, two are not sent yet."""
    _expect(world, {0, 7}, "run", "--submit-only", "--limit", "3")


def _some_of_all(world: World) -> None:
    """Images of two tasks wait to be fetched, two tasks are at work, one is not sent yet."""
    world.service.set_faults([{"on": "image", "action": "status", "status": 403}])
    _expect(world, {7}, "run", "--limit", "2")
    world.service.set_faults([])
    _expect(world, {0, 7}, "run", "--submit-only", "--limit", "2")


def _killed_while_submitting(world: World) -> None:
    """One task was billed and its answer never read, one was sent and not billed, one is not sent yet."""
    world.service.set_faults(
        [
            {"on": "submit", "action": "hang", "at": "after_bill", "prompt": "fox"},
            {"on": "submit", "action": "hang", "at": "before_bill", "prompt": "hare"},
        ]
    )
    child = world.start("run", "--limit", "4")
    wait_for(lambda: len(world.service.ask("GET", "waiting")) == 2 and _stored(world) == 2)
    child.kill()
    wait_for(lambda: not world.service.ask("GET", "waiting"))
    world.service.set_faults([])


def _two_in_doubt(world: World) -> None:
    """One task in doubt was billed, the other was not; one is not sent yet."""
    world.service.set_faults(
        [
            {"on": "submit", "action": "reset_after_bill", "prompt": "fox"},
            {"on": "submit", "action": "status", "status": 500, "prompt": "hare"},
        ]
    )
    _expect(world, {4}, "run", "--limit", "4")
    world.service.set_faults([])


def _two_retried(world: World) -> None:
    """Two tasks that failed are planned again."""
    world.service.set_faults([{"on": "submit", "action": "fail", "prompt": "fox|swans"}])
    _expect(world, {3}, "run")
    world.service.set_faults([])
    _expect(world, {0}, "retry")


def _expect(world: World, codes: set[int], *command: str) -> None:
    ended = world.call(*command)
    if ended.code not in codes:
        raise RuntimeError(f"{' '.join(command)} left {ended.code}, not {codes}: {ended.out} {ended.err}")


def _stored(world: World) -> int:
    found = asked(world, "SELECT count(*) FROM images WHERE state = 'stored'")
    return int(found[0][0]) if found else 0


_ALL = ("balance", "submit", "poll", "image")
MOMENTS = {
    moment.name: moment
    for moment in (
        Moment("first run", _nothing, ("upload", *_ALL)),
        Moment("tasks at work", _some_accepted, _ALL),
        Moment("images to fetch and tasks at work", _some_of_all, _ALL),
        Moment("killed while submitting", _killed_while_submitting, _ALL, doubts=True),
        Moment("tasks in doubt", _two_in_doubt, _ALL, doubts=True),
        Moment("resolve --resend", _two_in_doubt, ("submit", "poll", "image"), ("resolve", "--resend"), resends=True),
        Moment("run --collect", _some_of_all, ("poll", "image"), ("run", "--collect")),
        Moment("failed tasks planned again", _two_retried, _ALL),
    )
}


# The faults.


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
"""Answers from which nothing can be learnt, at any endpoint of the API."""

_QUICK = {
    "seedream_batch.api.service.SUBMIT_TIMEOUT": 1.0,
    "seedream_batch.api.service.POLL_TIMEOUT": 1.0,
    "seedream_batch.api.service.TRICKLE": 0.5,
    "seedream_batch.api.images.READ_TIMEOUT": 1.0,
}
"""Time limits for faults that make the client wait."""

_CLAMP = {"seedream_batch.api.wire.LONGEST_WAIT": 0.2}

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
    faults = [_on("submit", name, Kind.UNCLEAR, **rule) for name, rule in _BROKEN_ANSWERS]
    faults += [
        _on("submit", f"{status} after the bill", Kind.UNCLEAR, "status", status=status, at="after_bill")
        for status in (500, 502, 504)
    ]
    faults += [
        _on("submit", "reset after the bill", Kind.UNCLEAR, "reset_after_bill"),
        _on("submit", "an answer without an id", Kind.UNCLEAR, "no_task_id"),
        _on("submit", "cut to a tenth", Kind.UNCLEAR, "cut_body", keep=0.1),
        _on("submit", "cut before the last brace", Kind.UNCLEAR, "cut_body", keep=0.97),
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
        _on("submit", "401", Kind.NO_ACCESS, "status", status=401),
        _on("submit", "403, a page", Kind.NO_ACCESS, "status", status=403, body="html"),
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
    faults = [_on("poll", name, Kind.SILENT, **rule) for name, rule in _BROKEN_ANSWERS]
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
        ("too long a length", Kind.BROKEN, "long_length", {}),
        ("cut, in chunks", Kind.BROKEN, "cut_chunked", {}),
        ("cut", Kind.BROKEN, "cut_body", {}),
        ("truncated", Kind.BAD, "truncated_image", {}),
        ("truncated near its end", Kind.BAD, "truncated_image", {"keep": 0.99}),
        ("a page", Kind.BAD, "html_200", {}),
        ("empty", Kind.BAD, "empty_body", {}),
        ("garbage", Kind.BAD, "garbage_body", {}),
        ("compressed and said so", Kind.BROKEN, "gzip", {}),
        ("compressed", Kind.BAD, "gzip", {"declared": False}),
        ("another content type", Kind.HARMLESS, "wrong_type", {}),
        ("another size", Kind.HARMLESS, "wrong_size", {"as_usual": False}),
        ("redirected for ever", Kind.BROKEN, "redirect_loop", {}),
        ("redirected to another machine", Kind.BAD, "redirect", {"url": "http://192.0.2.1/login"}),
        ("redirected to a closed port", Kind.BROKEN, "redirect", {"url": "http://127.0.0.1:1/elsewhere"}),
        ("redirected to what is no URL", Kind.BROKEN, "redirect", {"url": "http://[::/login"}),
        ("slow", Kind.HARMLESS, "slow", {"bytes_per_second": 20_000}),
        (
            "too slow", Kind.BROKEN, "slow",
            {"bytes_per_second": 500, "limits": {"seedream_batch.api.images.WHOLE_TIMEOUT": 1.0}},
        ),
        ("no answer in time", Kind.BROKEN, "hang", {"limits": _QUICK}),
        ("half an answer in time", Kind.BROKEN, "hang", {"at": "mid_body", "limits": _QUICK}),
        (
            "huge", Kind.BROKEN, "huge_body",
            {"bytes": 2_000_000, "limits": {"seedream_batch.api.images.MAX_IMAGE": 1_000_000}},
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
                "moments": tuple(name for name, moment in MOMENTS.items() if moment.prepare is not _some_of_all),
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
    # A 4xx is a no to the very image, and so to the tasks that use it.
    faults = [
        _on("upload", name, Kind.REFUSED if name == "418" else Kind.NO_UPLOAD, **rule) for name, rule in _BROKEN_ANSWERS
    ]
    faults += [
        _on("upload", "429", Kind.NO_UPLOAD, "rate_limit", retry_after="0.1"),
        _on("upload", "no answer in time", Kind.NO_UPLOAD, "hang", limits=_QUICK),
        _on("upload", "401", Kind.NO_ACCESS, "status", status=401),
        _on("upload", "402", Kind.NO_MONEY, "status", status=402),
        _on("upload", "400", Kind.REFUSED, "status", status=400),
    ]
    faults += [_on("balance", name, Kind.HARMLESS, **rule, often=("always",)) for name, rule in _BROKEN_ANSWERS]
    faults += [
        _on("balance", "429", Kind.HARMLESS, "rate_limit", retry_after="0.1", often=("always",)),
        _on("balance", "402", Kind.HARMLESS, "status", status=402, often=("always",)),
        _on("balance", "no answer in time", Kind.HARMLESS, "hang", limits=_QUICK, often=("always",)),
        _on(
            "balance", "numbers as strings", Kind.HARMLESS, "oddity",
            set={"numbers_as_strings": True}, often=("always",),
        ),
        _on("balance", "401", Kind.NO_ACCESS, "status", status=401, often=("always",)),
        _on("balance", "403, a page", Kind.NO_ACCESS, "status", status=403, body="html", often=("always",)),
    ]  # fmt: skip
    return faults


FAULTS = {
    fault.name: fault
    for fault in (*_submission_faults(), *_poll_faults(), *_image_faults(), *_odd_faults(), *_other_faults())
}


# The line itself: nothing that is sent arrives.


@dataclass(frozen=True, slots=True)
class Line:
    """A service that cannot be reached, so that nothing is ever sent."""

    name: str
    open: Callable[[World], contextlib.AbstractContextManager[str]]
    """Gives the address for the command."""
    moments: tuple[str, ...] = tuple(MOMENTS)
    limits: Mapping[str, Any] = field(default_factory=dict)
    comes_back: bool = False
    """Whether the service is back before the command has ended."""
    elsewhere: bool = False
    """Whether the address is not on this machine, so that the job cannot be finished here."""


@contextlib.contextmanager
def _service_down(world: World) -> Iterator[str]:
    world.service.stop()
    try:
        yield world.service.url
    finally:
        world.service.start()


@contextlib.contextmanager
def _no_such_name(world: World) -> Iterator[str]:
    del world
    yield "https://service-of-the-campaign.invalid"


def _listener(
    serve: Callable[[socket.socket, World], None],
) -> Callable[[World], contextlib.AbstractContextManager[str]]:
    """A process that listens on a port of its own and does with each connection what it is told."""

    @contextlib.contextmanager
    def opened(world: World) -> Iterator[str]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"https://127.0.0.1:{server.getsockname()[1]}"
            pid = os.fork()
            if not pid:
                _serve_for_ever(server, serve, world)
        try:
            yield address
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    return opened


def _serve_for_ever(server: socket.socket, serve: Callable[[socket.socket, World], None], world: World) -> None:
    held = []
    try:
        while True:
            connection, _ = server.accept()
            held.append(connection)
            with contextlib.suppress(OSError):
                serve(connection, world)
    finally:
        os._exit(0)


def _in_plain(connection: socket.socket, _: World) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    connection.close()


def _closed(connection: socket.socket, _: World) -> None:
    connection.recv(4096)
    connection.close()


def _without_a_word(connection: socket.socket, _: World) -> None:
    del connection


def _unknown_certificate(connection: socket.socket, world: World) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_certificate(world.root / "certificate.pem"))
    context.wrap_socket(connection, server_side=True).close()


def _certificate(path: Path) -> Path:
    """A key and a certificate that nobody has signed; made where it is not there yet."""
    if not path.exists():
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-days", "1", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
        made = subprocess.run([*command, "-keyout", "-", "-out", "-"], check=True, capture_output=True).stdout
        path.write_bytes(made)
    return path


# A first run has to upload something first, and gives up soon where it cannot.
_SENDING = tuple(name for name, moment in MOMENTS.items() if moment.command == ("run",) and name != "first run")
LINES = {
    line.name: line
    for line in (
        Line("line: the service is down", _service_down),
        Line("line: the service is down and comes back", _service_down, _SENDING, comes_back=True),
        Line("line: no TLS", _listener(_in_plain)),
        Line("line: TLS ends in the handshake", _listener(_closed)),
        Line(
            "line: TLS without a word", _listener(_without_a_word),
            limits={"seedream_batch.api.service.CONNECT_TIMEOUT": 0.2},
        ),
        Line("line: TLS with an unknown certificate", _listener(_unknown_certificate)),
        # A manifest of a service on this machine is for no other one, so only a first run can meet this.
        Line("line: a name that is not known", _no_such_name, ("first run",), elsewhere=True),
    )
}  # fmt: skip

_IMPATIENT = {
    "seedream_batch.run.context.OUTAGE_LIMIT": 0.5,
    "seedream_batch.run.context.LIMITED_LIMIT": 0.5,
}
"""Time limits for services that never give a usable answer."""


# A cell.


def cells() -> list[Cell]:
    """Every fault at every moment that asks what it strikes, for each way to deal with doubt where that matters."""
    found = [
        Cell(fault.name, moment.name, variant, often)
        for fault in FAULTS.values()
        for moment in MOMENTS.values()
        if fault.on in moment.asks and moment.name in (fault.moments or MOMENTS)
        for variant in _variants(moment, fault.on)
        for often in fault.often or OFTEN
        if often != "four times" or (variant == "trusted" and fault.kind in _PULLS_THROUGH)
    ]
    found += [
        Cell(line.name, moment, variant, "always")
        for line in LINES.values()
        for moment in line.moments
        for variant in _variants(MOMENTS[moment], "submit")
    ]
    return found


_PULLS_THROUGH = {
    Kind.NOT_EXECUTED, Kind.UNCLEAR, Kind.SILENT, Kind.UNKNOWN_ID,
    Kind.BROKEN, Kind.BAD, Kind.SPOILT, Kind.DEAD, Kind.NO_UPLOAD,
}  # fmt: skip
"""Kinds that a run pulls through by itself if they last for a while only, so that the while is worth a cell."""


def _variants(moment: Moment, on: str) -> tuple[str, ...]:
    if moment.resends:
        return ("trusted", "held")
    if on == "submit" or moment.doubts or moment.name == "first run":
        return tuple(VARIANTS)
    return ("trusted",)


def run(cell: Cell, root: Path, port: int) -> list[str]:
    """Tries one cell; what is wrong."""
    reference = undisturbed(root, port)
    fault = FAULTS.get(cell.fault)
    world = World(root / "world", port, VARIANTS[cell.variant])
    try:
        world.make(_job(fault, cell.often))
        MOMENTS[cell.moment].prepare(world)
        if fault is None:
            return _cut_off(cell, LINES[cell.fault], world, reference)
        return _struck(cell, fault, world, reference)
    except TimeoutError as error:
        return [str(error)]
    finally:
        world.close()


def _job(fault: Fault | None, often: str) -> str:
    if fault is not None and fault.kind is Kind.RUNNING and (often == "always" or fault.on == "submit"):
        return ROOMY.replace("attempts: 2", "attempts: 2, task_timeout: 1s")
    return ROOMY


@dataclass(slots=True)
class Look:
    """What a command did under a fault."""

    fault: str
    kind: Kind | None
    """None where nothing reaches the service."""
    often: str
    moment: Moment
    variant: Variant
    ended: Ended
    fired: int
    before: Manifest
    after: Manifest
    posts: list[dict[str, Any]]
    """The submissions of the command, the first in front."""

    @property
    def settles(self) -> bool:
        """Whether the command sends what is in doubt again."""
        return self.moment.settles(self.variant)

    @property
    def in_doubt_before(self) -> set[int]:
        """Tasks of which nobody knew whether they were bought."""
        return in_state(self.before, "submitting", "uncertain")

    def new(self, *states: str) -> set[int]:
        """The tasks that came into one of these states."""
        return in_state(self.after, *states) - in_state(self.before, *states)


def _struck(cell: Cell, fault: Fault, world: World, reference: Pictures) -> list[str]:
    """The command with the fault, and all that comes after it."""
    moment, before, sent = MOMENTS[cell.moment], world.manifest(), len(posts(world))
    settings = dict(world.service.ask("GET", "config"))
    world.service.ask("PATCH", "config", dict(fault.service))
    world.service.set_faults([{**OFTEN[cell.often], **rule} for rule in fault.rules])
    world.before = with_limits({**fault.limits, **(_IMPATIENT if cell.often == "always" else {})})
    ended = world.call(*moment.command)
    fired = [rule["fired"] for rule in world.service.ask("GET", "faults")]
    wrong = world.violations()
    look = Look(
        fault.name, fault.kind, cell.often, moment, world.variant, ended, sum(fired), before, world.manifest(),
        posts(world)[sent:],
    )  # fmt: skip
    if not all(fired):
        wrong.append("did not fire")
    wrong += _left_as_documented(look, _codes(look)) + _sent_right(look, fault.pause) + _states(look, fault.on)
    world.service.set_faults([])
    world.service.ask("DELETE", "waiting")
    world.service.ask("PATCH", "config", {name: settings[name] for name in fault.service})
    world.before = None
    if fault.kind is Kind.LATE:
        return wrong + _first_word_counts(world)
    alone = world.variant is TRUSTED and fault.kind not in _FOR_PERSONS
    return wrong + conclude(world, reference if fault.as_usual else None, alone=alone)


def _first_word_counts(world: World) -> list[str]:
    """The image of a task that was completed and then failed is not to be had; the task is not bought again for it."""
    sent = len(posts(world))
    wrong = _given(world, "run", code=7) + world.violations()
    if set(states := world.manifest().states()) != {"succeeded"} or len(posts(world)) != sent:
        wrong.append(f"the first word does not count: {dict(states)}, {len(posts(world)) - sent} submissions")
    return wrong


def _cut_off(cell: Cell, line: Line, world: World, reference: Pictures) -> list[str]:
    """The command with a service that cannot be reached, and all that comes after it."""
    moment, before, sent = MOMENTS[cell.moment], world.manifest(), len(posts(world))
    bills = len(world.service.ledger())
    world.before = with_limits({**line.limits, **({} if line.comes_back else _IMPATIENT)})
    with line.open(world) as address:
        world.environment = {"APIMART_BASE_URL": address}
        child = world.start(*moment.command)
        if line.comes_back:
            wait_for(lambda: bool(asked(world, "SELECT 1 FROM attempts WHERE outcome = 'not executed'")))
            sent = bills = 0
        else:
            child.wait()
    ended = child.wait()
    world.before, world.environment = None, {}
    wrong = world.violations()
    after = world.manifest()
    look = Look(line.name, None, cell.often, moment, world.variant, ended, 1, before, after, posts(world)[sent:])
    codes = {moment.code(world.variant)} if line.comes_back else {7}
    # A resend is tried a few times only; after that the task waits for the next run.
    codes |= {4} if look.settles and (moment.doubts or moment.resends) else set()
    wrong += _left_as_documented(look, codes)
    if not line.comes_back:
        wrong += [f"{len(look.posts)} submissions were sent"] if look.posts and line.open is not _service_down else []
        wrong += ["something was billed"] if len(world.service.ledger()) != bills else []
    if changed := (look.new("uncertain") - look.in_doubt_before) | look.new("failed", "lost"):
        wrong.append(f"nothing was sent, and {len(changed)} tasks are in doubt, failed or lost")
    if line.elsewhere:
        refused = world.call("run")
        wrong += [f"another service was not refused: {refused}"] if refused.code != 2 else []
        return wrong + world.violations()
    return wrong + conclude(world, reference, alone=world.variant is TRUSTED)


# What has to be true right after the command.


def _left_as_documented(look: Look, codes: set[int]) -> list[str]:
    ended = look.ended
    wrong = []
    if "Traceback" in ended.err:
        wrong.append(f"a traceback: {ended.err[-1500:]}")
    if ended.code not in codes:
        wrong.append(f"left {ended.code} instead of {sorted(codes)}: {ended.out[-700:]} {ended.err[-700:]}")
    return wrong


def _codes(look: Look) -> set[int]:
    """The exit codes that are right."""
    usual, often = look.moment.code(look.variant), OFTEN_WORDS.index(look.often)
    # A task in doubt is what is told first.
    failed, left = (4, 4) if usual == 4 else (3, 7)
    resends = look.settles and (look.moment.doubts or look.moment.resends)
    # A resend is tried a few times only; after that the task waits for the next run.
    waits = {4} if resends else set()
    by_often: dict[Kind, tuple[set[int], set[int], set[int]]] = {
        Kind.NOT_EXECUTED: ({usual}, {usual} | waits, {7} | waits),
        Kind.SILENT: ({usual}, {usual}, {7}),
        Kind.NO_UPLOAD: ({usual}, {usual}, {7}),
        Kind.UNKNOWN_ID: ({usual}, {usual, failed}, {failed}),
        Kind.BROKEN: ({usual}, {usual}, {left}),
        Kind.BAD: ({usual}, {usual}, {failed}),
        Kind.SPOILT: ({usual}, {usual}, {failed, left}),
        Kind.DEAD: ({usual}, {usual, left}, {left}),
    }
    if look.kind in by_often:
        return by_often[look.kind][often]
    match look.kind:
        case Kind.UNCLEAR if look.settles:
            return ({usual}, {usual, 4}, {4})[often]
        case Kind.RUNNING if look.fault.startswith("poll"):
            return ({usual}, {usual}, {failed})[often]
        case Kind.REFUSED:
            # "No" said of a resend says nothing of the first time.
            return {4} if look.moment.resends else {3, 4} if resends else {failed}
        case Kind.EMPTY:
            # The answer to a resend is the one to the first time.
            return {failed, usual} if resends else {failed}
    always: dict[Kind | None, int] = {
        Kind.UNCLEAR: 4, Kind.INDETERMINATE: 4, Kind.NO_ACCESS: 6, Kind.DENIED: 6, Kind.NO_MONEY: 5,
        Kind.RUNNING: failed, Kind.EXPIRED: failed, Kind.LATE: left,
    }  # fmt: skip
    return {always.get(look.kind, usual)}


def _sent_right(look: Look, pause: float) -> list[str]:
    """What was POSTed: which tasks, how often, and with which bytes."""
    owners = {attempt["key"]: attempt["task"] for attempt in look.after.attempts}
    times: dict[str, list[float]] = defaultdict(list)
    bodies: dict[str, set[str]] = defaultdict(set)
    for post in look.posts:
        times[post["key"]].append(post["at"])
        if post["body_sha256"]:
            bodies[post["key"]].add(post["body_sha256"])
    wrong = [f"{key} was sent with {len(several)} bodies" for key, several in bodies.items() if len(several) > 1]
    known = in_state(look.before, "accepted", "succeeded")
    again = look.kind is Kind.NOT_EXECUTED or (look.settles and look.kind in {Kind.UNCLEAR, None})
    for key, several in times.items():
        task = owners.get(key)
        if task is None:
            wrong.append(f"{key} was sent and belongs to no attempt")
        if task in known:
            wrong.append(f"{key} was sent, and its task was bought before")
        if task in look.in_doubt_before and not look.settles:
            wrong.append(f"{key} was sent again, though nobody allowed that")
        if len(several) > 1 and not again and task not in look.in_doubt_before:
            wrong.append(f"{key} was sent {len(several)} times")
        if pause and any(later - earlier < 0.95 * pause for earlier, later in itertools.pairwise(several)):
            wrong.append(f"{key} was sent again too soon: {several}")
    tasks = Counter(owners.get(key) for key in times)
    wrong += [f"task {task} was sent under {number} keys" for task, number in tasks.items() if number > 1]
    return wrong


def _states(look: Look, on: str) -> list[str]:
    """The states that were reached."""
    doubts = look.new("uncertain") - look.in_doubt_before
    held = {task["id"] for task in look.after.tasks if task["state"] == "uncertain" and task["held"]}
    failed, lost = look.new("failed"), look.new("lost")
    expected: list[tuple[str, bool]] = []
    match look.kind:
        case Kind.UNCLEAR if not look.settles:
            expected = [(f"{len(doubts)} tasks are in doubt, {look.fired} were struck", len(doubts) == look.fired)]
        case Kind.UNCLEAR:
            left = in_state(look.after, "uncertain")
            expected = [(f"{len(left)} tasks are still in doubt", not left or look.often != "once")]
        case Kind.INDETERMINATE:
            expected = [(f"{len(held)} tasks are held, {look.fired} were struck", len(held) == look.fired)]
        case Kind.REFUSED:
            both = len(failed) + len(held)
            expected = [(f"{both} tasks failed or are held, {look.fired} were struck", both == look.fired)]
        case Kind.RUNNING | Kind.UNKNOWN_ID | Kind.EMPTY:
            counted = {a["task"] for a in look.after.attempts if a["outcome"] == "lost" and a["reserved"] > 0}
            expected = [("a lost task is not counted in the budget", lost <= counted)]
        case Kind.LATE:
            told = "reported as failed after it was completed" in look.ended.err
            expected = [("that it failed later is not told", told)]
        case _:
            pass
    if look.kind not in {Kind.UNCLEAR, Kind.INDETERMINATE}:
        expected.append((f"{len(doubts)} tasks came into doubt", not doubts))
    if look.kind is not Kind.REFUSED:
        expected.append((f"{len(failed)} tasks failed", not failed))
    if look.kind not in {Kind.RUNNING, Kind.UNKNOWN_ID, Kind.EMPTY}:
        expected.append((f"{len(lost)} tasks were lost", not lost))
    if look.kind in {Kind.NO_ACCESS, Kind.NO_MONEY}:
        open_images = [image for image in look.after.images if image["state"] == "announced"]
        collected = not in_state(look.after, "accepted") and not open_images
        expected.append(("what is paid for was not collected", collected))
        most = 4 * len(look.in_doubt_before) + (4 if on == "submit" else 0)
        expected.append((f"{len(look.posts)} submissions", look.often != "always" or len(look.posts) <= most))
    return [told for told, holds in expected if not holds]


# What persons do, and what has to be true in the end.


_FOR_PERSONS = {Kind.INDETERMINATE, Kind.REFUSED, Kind.RUNNING, Kind.UNKNOWN_ID, Kind.EMPTY}
"""Kinds that leave something for a person to decide, whoever trusts the keys."""


def conclude(world: World, reference: Pictures | None, *, alone: bool) -> list[str]:
    """Runs the job to its end, with persons who decide what is left to them; what is wrong on the way or then.

    Whatever happened before: all tasks succeed in the end, and each is paid for once, and as often again as a person
    bought it anew. With `alone`, nothing may be left to persons.
    """
    wrong = _finished(world, reference)
    manifest = world.manifest()
    doubts, failed, lost = (in_state(manifest, state) for state in ("uncertain", "failed", "lost"))
    gone = [image for image in manifest.images if image["state"] in {"rejected", "expired"}]
    if alone and doubts | failed | lost:
        wrong.append(f"a person is needed: {dict(manifest.states())}")
    if doubts:
        wrong += _look_up(world, manifest, doubts)
    if failed | lost:
        world.allow(len(lost))
        wrong += _given(world, "retry")
    if gone:
        # Free of charge: the service is asked for other links.
        wrong += _given(world, "verify")
    if doubts | failed | lost or gone:
        wrong += _finished(world, reference, complete=True)
    if set(states := world.manifest().states()) != {"succeeded"}:
        wrong.append(f"not all tasks succeed in the end: {dict(states)}")
    return wrong


def _finished(world: World, reference: Pictures | None, *, complete: bool = False) -> list[str]:
    """What is wrong after runs to the end, without the images that are known to be gone, unless `complete`."""
    wrong = world.finish(reference)
    manifest = world.manifest()
    names = {task["id"]: json.loads(task["paths"])[0] for task in manifest.tasks}
    gone = [image for image in manifest.images if image["state"] in {"rejected", "expired"} and not complete]
    if reference is None:
        # Their number or kind is another one than asked for: the manifest says which there have to be.
        wrong = [one for one in wrong if not one.startswith("I7")]
        wrong += [
            f"I7 {names[image['task']]}: image {image['index']} is {image['state']}"
            for image in manifest.images
            if image["state"] != "stored" and image not in gone
        ]
    absent = [f"I7 {names[image['task']]}" for image in gone]
    return [one for one in wrong if not (one.endswith("missing") and one.startswith(tuple(absent)))]


def _look_up(world: World, manifest: Manifest, doubts: set[int]) -> list[str]:
    """A person looks up what is in doubt on the service's pages: what is there gets its id, the rest is bought anew."""
    known = {entry["key"]: entry["task_id"] for entry in world.service.ledger() if entry["event"] == "charge"}
    wrong = []
    for task in manifest.tasks:
        if task["id"] not in doubts:
            continue
        key = next(a["key"] for a in manifest.attempts if (a["task"], a["number"]) == (task["id"], task["attempt"]))
        subject = json.loads(task["paths"])[0].split("/")[0]
        what = ("--task-id", known[key]) if key in known else ("--forget",)
        wrong += _given(world, "resolve", "--select", f"subject={subject}", *what)
    return wrong


def _given(world: World, *command: str, code: int = 0) -> list[str]:
    ended = world.call(*command)
    return [] if ended.code == code else [f"{' '.join(command)} left {ended.code}: {ended.out} {ended.err}"]


# Tools.

_undisturbed: Pictures = {}


def undisturbed(root: Path, port: int) -> Pictures:
    """The pictures of a job that nothing disturbed; made once in a process."""
    if not _undisturbed:
        world = World(root / "undisturbed", port)
        try:
            world.make(ROOMY)
            _expect(world, {0}, "run")
            _undisturbed.update(oracle.pictures(world.out))
        finally:
            world.close()
    return _undisturbed


def in_state(manifest: Manifest, *states: str) -> set[int]:
    """The tasks in one of these states, by their numbers."""
    return {task["id"] for task in manifest.tasks if task["state"] in states}


def posts(world: World) -> list[dict[str, Any]]:
    """The submissions that the service has seen since its start."""
    found: list[dict[str, Any]] = world.service.ask("GET", "requests?endpoint=submit")
    return found


def asked(world: World, query: str) -> list[tuple[Any, ...]]:
    """Rows of a manifest that a command is at work on; none as long as there is no manifest."""
    try:
        connection = sqlite3.connect(f"file:{world.out / 'manifest.db'}?mode=ro", uri=True)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()
    except sqlite3.OperationalError:
        return []


def with_limits(limits: Mapping[str, Any]) -> Callable[[], None]:
    """Sets these settings, for a child to call first."""

    def set_them() -> None:
        for name, value in limits.items():
            module, _, attribute = name.rpartition(".")
            setattr(importlib.import_module(module), attribute, value)

    return set_them


def wait_for(condition: Callable[[], object], patience: float = 20.0) -> None:
    """Waits until something of another process holds. Raises `TimeoutError` when it does not."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"what was waited for did not happen within {patience:.0f} s")
        time.sleep(0.002)
