"""Poll a task once, react to what the answer says about the service, and keep the history of a task's polls."""

from __future__ import annotations

from dataclasses import dataclass

from seedream_batch.engine.context import RunContext
from seedream_batch.engine.events import StopReason
from seedream_batch.lifecycle import (
    LEAST_POLLS,
    PATIENCE,
    Series,
    backoff,
    combine,
    is_odd,
    poll_pause,
    richer,
    says_nothing,
    series,
)
from seedream_batch.model.outcome import Poll, Polled
from seedream_batch.model.task import TaskRecord

MOST_DENIED = 3
"""Polls in a row that may be refused (401, 403) before the run stops polling."""


async def look(context: RunContext, task: TaskRecord, age: float, *, overdue: bool = False) -> Poll:
    """Poll every task id of a task once; `age` in seconds since its submission. Raise `RunStopped`."""
    polls = [await context.control.free(context.service.poll(task_id)) for task_id in task.task_ids]
    return combine(polls, age, overdue=overdue)


async def notice(context: RunContext, poll: Poll) -> None:
    """Apply what a poll says about the service as a whole; wait where it asks for a pause. Raise `RunStopped`."""
    if poll.kind is Polled.NO_ANSWER:
        context.health.unanswered(poll.message)
        if poll.retry_after:
            await context.control.rest(poll.retry_after)
    elif poll.kind is Polled.UNAUTHORIZED and not await context.health.refuses_key(poll.status):
        context.health.unanswered(f"HTTP {poll.status}: {poll.message}")
    elif poll.kind is Polled.UNAUTHORIZED:
        context.health.denied += 1
        context.control.stop_submitting(
            StopReason.CREDENTIALS, f"the service rejected the API key (HTTP {poll.status})"
        )
        if context.health.denied >= MOST_DENIED:
            context.health.may_poll = False
    elif poll.kind is Polled.RATE_LIMITED:
        wait = poll.retry_after if poll.retry_after is not None else backoff(2, random=context.random)
        context.health.asked_to_wait(wait, f"HTTP {poll.status}")
        context.coordinator.refused(wait)
        await context.control.rest(wait)
    else:
        context.health.answered()


@dataclass(slots=True)
class PollHistory:
    """What the polls of one task showed so far; times in seconds of the monotonic clock."""

    least: int
    """Images that a completed task must have."""
    last: Series | None = None
    first_at: float = 0.0
    """When the first poll was answered."""
    best: Poll | None = None
    """The poll with the most images."""
    pause: float = 0.0
    """Seconds until the next poll; 0 where the schedule decides."""
    late: int = 0
    """Polls after the deadline."""
    heard: bool = False
    """Whether one of these got an answer about the task."""
    kept: str = ""
    """Why the last answer that was not fully understood was stored."""
    over: bool = False
    """Whether the task was polled long enough after its deadline."""

    @property
    def series(self) -> Series:
        """The series that the last poll belongs to."""
        if self.last is None:
            raise AssertionError("nothing was polled yet")
        return self.last

    def take(self, poll: Poll, *, age: float, late: float | None, now: float) -> Series:
        """Record a poll of a task of this age, `late` seconds after its deadline; return the series it belongs to."""
        if self.last is None:
            self.first_at = now
        self.last, self.best = series(self.last, poll, now), richer(self.best, poll)
        odd = is_odd(poll, age=age, least=self.least)
        self.pause = poll_pause(self.last.count if odd else 1) if odd or late is not None else 0.0
        if late is not None:
            self.late += 1
            self.heard = self.heard or not says_nothing(poll)
            self.over = self.late >= LEAST_POLLS and late >= PATIENCE
        return self.last
