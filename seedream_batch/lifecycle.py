"""What an outcome moves a task to, and how long to wait before trying again: all pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import assert_never

from seedream_batch.model.outcome import Poll, Polled, Submission, Submitted
from seedream_batch.model.refusals import is_moderation
from seedream_batch.model.task import TaskState

NOT_FOUND_GRACE = 60.0
"""Seconds after its submission in which a 404 does not yet mean that a task id is unknown."""

BACKOFF_BASE = 1.0
"""Seconds that the first pause after a failure may have at most."""
BACKOFF_CAP = 60.0
"""Seconds that any such pause may have at most."""

BELIEVED = 3
"""Looks in a row that have to show an odd end before a task is given up for it."""


@dataclass(frozen=True, slots=True)
class Move:
    """Where a task goes, and why; `held` keeps an uncertain task for a person, `final` bars another attempt."""

    to: TaskState
    why: str
    code: str = ""
    held: bool = False
    final: bool = False


def after_submission(state: TaskState, submission: Submission) -> Move | None:
    """What a submission's outcome moves a task to; None: it stays where it is.

    `state` is `submitting` for a first send and `uncertain` for a resend under the same key. "Not executed" said of
    a resend says nothing of the first send, so an uncertain task stays uncertain.
    """
    told = _told(submission)
    first = state is TaskState.SUBMITTING
    match submission.kind:
        case Submitted.ACCEPTED:
            return Move(TaskState.ACCEPTED, "replayed by the service" if submission.replayed else "accepted")
        case Submitted.REFUSED:
            final = is_moderation(submission.code, submission.message)
            return Move(TaskState.FAILED, told, submission.code, final=final) if first else None
        case Submitted.BLOCKED:
            return Move(TaskState.FAILED, f"turned away: {told}", submission.code) if first else None
        case (
            Submitted.UNREACHABLE
            | Submitted.RATE_LIMITED
            | Submitted.UNAVAILABLE
            | Submitted.UNAUTHORIZED
            | Submitted.UNPAID
            | Submitted.NO_MODEL
        ):
            return Move(TaskState.PLANNED, told, submission.code) if first else None
        case Submitted.IN_PROGRESS | Submitted.UNKNOWN:
            return Move(TaskState.UNCERTAIN, told, submission.code) if first else None
        case Submitted.INDETERMINATE:
            return Move(TaskState.UNCERTAIN, told, submission.code, held=True) if first else None
    assert_never(submission.kind)


def after_poll(poll: Poll, *, age: float, overdue: bool, repeats: int) -> Move | None:
    """What a look at an accepted task moves it to; None: keep polling.

    `age` is the seconds since its submission, `overdue` whether its deadline passed, `repeats` how many looks in a
    row, this one included, showed the same. One odd answer loses no task: it is believed when it is repeated. Past its
    deadline a task that has not ended is lost, not failed, because it may still be billed.
    """
    match poll.kind:
        case Polled.COMPLETED:
            if poll.images:
                return Move(TaskState.SUCCEEDED, f"completed with {len(poll.images)} image(s)")
            if repeats >= BELIEVED:
                return Move(TaskState.LOST, "completed, but no image URL could be read from the answer")
            return None
        case Polled.FAILED:
            why = poll.message or poll.code or "failed without a word"
            # What was charged for all the same is not bought again by itself.
            final = bool(poll.cost) or is_moderation(poll.code, poll.message)
            return Move(TaskState.FAILED, why, poll.code, final=final)
        case Polled.NOT_FOUND if age >= NOT_FOUND_GRACE and repeats >= BELIEVED:
            return Move(TaskState.LOST, "the service does not know this task id (404)")
        case Polled.RUNNING | Polled.NOT_FOUND:
            return Move(TaskState.LOST, f"not ended {age:.0f} s after it was accepted") if overdue else None
        case Polled.UNAUTHORIZED | Polled.RATE_LIMITED | Polled.NO_ANSWER:
            # Nothing was said of the task, so nothing is known that could end it.
            return None
    assert_never(poll.kind)


def combine(polls: Sequence[Poll], age: float, *, overdue: bool = False) -> Poll:
    """The looks at all task ids of one submission as one look; `age` in seconds since the submission.

    It has ended when every part has. What some parts delivered counts, though others failed, or though the deadline
    passed before they ended.
    """
    if len(polls) == 1:
        return polls[0]
    parts = len(polls)
    if overdue and _any(polls, Polled.COMPLETED):
        polls = [poll for poll in polls if poll.kind is not Polled.RUNNING]
    for kind in (Polled.UNAUTHORIZED, Polled.RATE_LIMITED, Polled.NO_ANSWER, Polled.RUNNING):
        for poll in polls:
            if poll.kind is kind:
                return poll
    done = [poll for poll in polls if poll.kind is Polled.COMPLETED]
    if not done or (len(done) < len(polls) and age < NOT_FOUND_GRACE and _any(polls, Polled.NOT_FOUND)):
        missing = next((poll for poll in polls if poll.kind is Polled.NOT_FOUND), None)
        return missing or _all_failed(polls)
    known = [poll.cost for poll in polls if poll.cost is not None]
    whole = len(polls) == parts and all(poll.cost is not None for poll in done)
    lost = [f"a part {poll.kind}: {poll.message}" for poll in polls if poll.kind is not Polled.COMPLETED]
    return Poll(
        Polled.COMPLETED,
        images=tuple(image for poll in done for image in poll.images),
        # A part that was dropped may still be billed, so the estimate has to stand.
        cost=sum(known) if whole else None,
        status=done[0].status,
        notes=(*(note for poll in done for note in poll.notes), *lost),
        errors=(*(error for poll in done for error in poll.errors), *lost),
        kept=next((poll.kept for poll in polls if poll.kept is not None), None),
    )


def _all_failed(polls: Sequence[Poll]) -> Poll:
    """One failure for all: what any part was charged counts, and a refusal by moderation says more than another."""
    told = next((poll for poll in polls if is_moderation(poll.code, poll.message)), polls[0])
    known = [poll.cost for poll in polls if poll.cost is not None]
    return replace(told, cost=sum(known) if known else None)


def _any(polls: Sequence[Poll], kind: Polled) -> bool:
    return any(poll.kind is kind for poll in polls)


def backoff(tries: int, *, random: Random) -> float:
    """Seconds to wait after `tries` failures in a row: full jitter over an exponential, at least a tenth of it."""
    ceiling = min(BACKOFF_CAP, BACKOFF_BASE * 2.0 ** min(tries - 1, 30))
    return ceiling * (0.1 + 0.9 * random.random())


def _told(submission: Submission) -> str:
    status = f"HTTP {submission.status}: " if submission.status else ""
    return f"{status}{submission.message or submission.kind}"
