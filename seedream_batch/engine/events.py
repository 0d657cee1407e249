"""Define the options of a run, and what it reports: events, counters, and why it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from seedream_batch.model.document import Json
from seedream_batch.model.task import TaskRecord


class StopReason(StrEnum):
    """Why a run stopped submitting."""

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
    """One thing that happened: `text` for people, `details` and the `task` for machines."""

    kind: EventKind
    text: str
    details: Mapping[str, object] = field(default_factory=dict)
    task: TaskRecord | None = None

    @property
    def fields(self) -> dict[str, object]:
        """All details of the event for machines; computed on demand, since most events are never asked."""
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
    """Kinds of finished tasks that can be polled again, for free, before they are paid for again."""

    LOST = "lost"
    FLAGGED = "flagged"
    """Completed with fewer images than requested."""


@dataclass(slots=True)
class Verified:
    """What a verification found, as numbers of images."""

    checked: int = 0
    whole: int = 0
    came_back: int = 0
    """Missing before, and intact at their path now."""
    broken: int = 0
    """Recorded as stored, but missing or changed."""
    unreadable: list[str] = field(default_factory=list)
    """Why files could not be read: the first reasons."""
    unread: int = 0
    in_the_way: int = 0
    """Not asked for, because another file has their path."""
    to_ask: int = 0
    """Missing, and not asked for since there is no key."""
    unanswered: int = 0
    """Asked for, without a clear answer."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What one run does; durations in seconds."""

    limit: int | None = None
    """Most new submissions."""
    max_duration: float | None = None
    collect: bool = False
    """Finish what is in flight, submit nothing."""
    submit_only: bool = False
    """Submit only; a later run polls and downloads."""
    resend_only: frozenset[int] | None = None
    """The uncertain tasks that may be resent, by task number; None: all that are not held."""
    resend: bool | None = None
    """Resend uncertain tasks under their idempotency key, trusting the service to recognise it.

    None: as `run.on_unknown` in the job says, else no.
    """
    chooses: Callable[[Mapping[str, Json]], bool] | None = None
    """Whether the task of a cell may be bought, resent or verified; None: all.

    Tasks in flight are collected in any case.
    """
    same_account: bool = False
    """The caller confirms that a changed API key belongs to the same account."""


@dataclass(slots=True)
class Stats:
    """Counters of this run; money in millionths of a USD."""

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
    """Further images that a poll found of tasks that were completed with too few."""
    flagged: int = 0
    """Results that are not what was requested."""
    checked: int = 0
