"""What a run is told to do, and what it tells: options, events, counters, and why it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from seedream_batch.model.document import Json
from seedream_batch.model.task import TaskRecord


class StopReason(StrEnum):
    """Why a run submits no more."""

    BUDGET = "budget"
    BALANCE = "balance"
    CREDENTIALS = "credentials"
    FAULT = "fault"
    TIME = "time limit"
    OUTAGE = "outage"
    DOWNLOADS = "downloads"
    UNCLEAR = "unclear answers"
    REFUSED = "refusals"
    STORAGE = "storage"
    INTERRUPTED = "interrupted"


class EventKind(StrEnum):
    """What happened, for logs."""

    SUBMITTED = "submitted"
    STORED = "stored"
    FAILED = "failed"
    RETRY = "retry"
    LOST = "lost"
    FOUND = "found"
    UNCERTAIN = "uncertain"
    RESCUED = "rescued"
    REJECTED = "rejected"
    EXPIRED = "expired"
    FLAGGED = "flagged"
    MOVED = "moved"
    SLOWED = "slowed"
    STOPPING = "stopping"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened; `text` is a line for people, `details` and the `task` are for machines."""

    kind: EventKind
    text: str
    details: Mapping[str, object] = field(default_factory=dict)
    task: TaskRecord | None = None

    @property
    def fields(self) -> dict[str, object]:
        """All of it for machines; made when it is asked for, since mostly nobody does."""
        if self.task is None:
            return dict(self.details)
        about = {
            "task": self.task.fingerprint,
            "path": self.task.paths[0],
            "task_ids": list(self.task.task_ids),
            "cell": json.loads(self.task.cell),
        }
        return {**about, **self.details}


class Recheck(StrEnum):
    """Tasks that have ended, and that may be polled again for free before they are bought again."""

    LOST = "lost"
    FLAGGED = "flagged"
    """Completed with fewer images than requested."""


@dataclass(frozen=True, slots=True)
class Verification:
    """A run that only looks at what is stored, and has again what is not there: it buys nothing."""

    deep: bool = False
    """Decode every picture, on top of its size, hash and header."""
    ask: bool = True
    """Whether there is a key to ask the service for links with."""
    named: int | None = None
    """How many images that are not there the result names; None: all."""


@dataclass(slots=True)
class Verified:
    """What such a run found, in images."""

    checked: int = 0
    whole: int = 0
    came_back: int = 0
    """Missing before, and whole at their place now."""
    broken: int = 0
    """Stored, as far as was known, and not whole."""
    unreadable: list[str] = field(default_factory=list)
    """Why files could not be read: the first of them."""
    unread: int = 0
    in_the_way: int = 0
    """Not asked for, because a file that is not theirs has their place."""
    to_ask: int = 0
    """To be asked for, had there been a key."""
    unanswered: int = 0
    """Asked for, without a clear answer."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What one run is to do; durations in seconds."""

    limit: int | None = None
    """At most so many new submissions."""
    max_duration: float | None = None
    collect: bool = False
    """Finish what is in flight, submit nothing."""
    submit_only: bool = False
    """Submit, and leave polling and fetching to a later run."""
    resend_only: frozenset[int] | None = None
    """The uncertain tasks that may be sent again, by their numbers in the manifest; None: all that are not held."""
    resend: bool | None = None
    """Send uncertain tasks again under their key: the service is trusted to know it. None: as the job says in
    `run.on_unknown`, else not."""
    chooses: Callable[[Mapping[str, Json]], bool] | None = None
    """Whether the task of a cell may be bought or sent again, or verified; None: all. What is in flight is collected
    whole."""
    recheck: Recheck | None = None
    """Only poll the chosen tasks of this kind, and fetch what is found."""
    verify: Verification | None = None
    """Only look at what is stored, and have again what is not there."""
    same_account: bool = False
    """The caller says that the API key, if it is another one than before, is one of the same account."""


@dataclass(slots=True)
class Stats:
    """What this run did so far; money in millionths of a USD."""

    submitted: int = 0
    stored: int = 0
    stored_bytes: int = 0
    failed: int = 0
    lost: int = 0
    uncertain: int = 0
    moved: int = 0
    trouble: int = 0
    cost: int = 0
    in_flight: int = 0
    found: int = 0
    """Lost tasks that a poll found again."""
    added: int = 0
    """Images that a poll found of tasks that were completed with too few."""
    flagged: int = 0
    """Results that are not what was requested."""
    checked: int = 0
