"""Decide the state transitions of tasks, and how long to wait before a retry. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import assert_never

from seedream_batch.model.outcome import Poll, Polled, Submission, Submitted
from seedream_batch.model.service_messages import is_moderation
from seedream_batch.model.task import TaskState

NOT_FOUND_GRACE = 60.0
"""Seconds after its submission in which a 404 does not yet mean that a task id is unknown."""

BACKOFF_BASE = 1.0
"""Longest first pause after a failure, in seconds."""
BACKOFF_CAP = 60.0
"""Longest pause after repeated failures, in seconds."""

LEAST_POLLS = 3
"""Polls in a row that have to show an odd end before it is believed."""

WATCHED = 300.0
"""Seconds over which these polls have to be spread before the deadline of the task."""

WATCHED_OVERDUE = 10.0
"""Seconds over which these polls have to be spread after the deadline of the task."""

WATCHED_TOGETHER = 20.0
"""Seconds for which several tasks have to show the same odd end, and none another, to count as an outage."""

CONFIRMED = 5.0
"""Seconds for which a failure, or a completion with too few images, has to be repeated to be believed."""

PATIENCE = 120.0
"""Seconds after its deadline after which a run stops polling a task, whatever the answers were."""

GOOD_FOR = 600.0
"""Seconds for which a plausible answer proves that the service is reached."""

POLL_PAUSE = 2.0
"""Seconds between the first two polls that show an odd end; doubled for each further pause."""

LONGEST_POLL_PAUSE = 60.0
"""Longest of these pauses, in seconds."""


@dataclass(frozen=True, slots=True)
class Move:
    """A state transition of a task, with its reason.

    `held` leaves an uncertain task to the user's decision; `final` rules out another attempt.
    """

    to: TaskState
    why: str
    code: str = ""
    held: bool = False
    final: bool = False


def after_submission(state: TaskState, submission: Submission) -> Move | None:
    """Return the transition of a task after a submission; None if it stays in its state.

    `state` is `submitting` for a first send and `uncertain` for a resend under the same key. That a resend was not
    executed says nothing about the first send, so an uncertain task stays uncertain.
    """
    message = _message(submission)
    first = state is TaskState.SUBMITTING
    match submission.kind:
        case Submitted.ACCEPTED:
            return Move(TaskState.ACCEPTED, "replayed by the service" if submission.replayed else "accepted")
        case Submitted.REFUSED:
            final = is_moderation(submission.code, submission.message)
            return Move(TaskState.FAILED, message, submission.code, final=final) if first else None
        case Submitted.BLOCKED:
            return Move(TaskState.FAILED, f"blocked: {message}", submission.code) if first else None
        case (
            Submitted.UNREACHABLE
            | Submitted.RATE_LIMITED
            | Submitted.UNAVAILABLE
            | Submitted.UNAUTHORIZED
            | Submitted.UNPAID
            | Submitted.NO_MODEL
        ):
            return Move(TaskState.PLANNED, message, submission.code) if first else None
        case Submitted.IN_PROGRESS | Submitted.UNKNOWN:
            return Move(TaskState.UNCERTAIN, message, submission.code) if first else None
        case Submitted.INDETERMINATE:
            return Move(TaskState.UNCERTAIN, message, submission.code, held=True) if first else None
    assert_never(submission.kind)


@dataclass(frozen=True, slots=True)
class Series:
    """Consecutive polls of one task with the same result: which, how many, and since when (monotonic seconds)."""

    what: str
    count: int
    since: float

    def lasted(self, now: float) -> float:
        """Return the seconds from the first of them to `now`."""
        return now - self.since


def series(before: Series | None, poll: Poll, now: float) -> Series:
    """Return the series that a poll continues or starts; `now` in monotonic seconds."""
    what = f"{poll.kind}, {len(poll.images)}" if poll.kind is Polled.COMPLETED else str(poll.kind)
    if before is None or before.what != what:
        return Series(what, 1, now)
    return replace(before, count=before.count + 1)


def is_odd(poll: Poll, *, age: float, least: int = 1) -> bool:
    """Return whether a poll shows an end that is believed only when it is repeated.

    `age` is the seconds since the submission, `least` the number of images that a completed task must have.
    """
    short = poll.kind is Polled.COMPLETED and len(poll.images) < least
    return poll.kind is Polled.FAILED or short or (poll.kind is Polled.NOT_FOUND and age >= NOT_FOUND_GRACE)


def makes_sense(poll: Poll) -> bool:
    """Return whether only a service that knows the task answers like this."""
    return poll.kind in {Polled.RUNNING, Polled.COMPLETED, Polled.FAILED} and not _is_empty(poll)


def poll_pause(polls: int) -> float:
    """Return the seconds to wait after this many consecutive polls that showed an odd end."""
    return float(min(LONGEST_POLL_PAUSE, POLL_PAUSE * 2.0 ** min(polls - 1, 30)))


def says_nothing(poll: Poll) -> bool:
    """Return whether a poll got no answer about the task itself."""
    return poll.kind in {Polled.NO_ANSWER, Polled.RATE_LIMITED, Polled.UNAUTHORIZED}


def after_poll(
    poll: Poll, *, age: float, overdue: bool, polls: int, lasted: float, asked: int = 1, least: int = 1
) -> Move | None:
    """Return the transition of an accepted task after a poll; None to keep polling.

    `age` is the seconds since its submission, `overdue` whether its deadline passed, `polls` how many consecutive
    polls, this one included, showed the same, and `lasted` the seconds since the first of them. A single odd answer
    never loses a task: it has to be repeated for a while. After its deadline a task without an end is lost, not failed,
    because it may still be billed. With `asked` images it has ended, unless the service says that more follow; fewer
    than `least` have to be repeated, since the service may still be adding images.
    """
    believed = polls >= LEAST_POLLS and lasted >= (WATCHED_OVERDUE if overdue else WATCHED)
    match poll.kind:
        case Polled.COMPLETED:
            if len(poll.images) >= least or (poll.images and polls >= LEAST_POLLS and lasted >= CONFIRMED):
                return Move(TaskState.SUCCEEDED, f"completed with {len(poll.images)} image(s)")
            if poll.images:
                return None
            why = "completed, but the answer contains no image URL"
            return Move(TaskState.LOST, why) if believed else None
        case Polled.FAILED:
            moderated = is_moderation(poll.code, poll.message)
            # Moderation is final. Any other failure may be that of a relay, while the task itself still completes.
            if not moderated and (polls < 2 or lasted < CONFIRMED):
                return None
            why = poll.message or poll.code or "failed; the service gave no reason"
            # A failed task that was charged for is not bought again automatically.
            return Move(TaskState.FAILED, why, poll.code, final=bool(poll.cost) or moderated)
        case Polled.NOT_FOUND:
            if not believed or (age < NOT_FOUND_GRACE and not overdue):
                return None
            status = f" (HTTP {poll.status})" if poll.status else ""
            return Move(TaskState.LOST, f"the service does not know this task id{status}")
        case Polled.RUNNING if len(poll.images) >= asked and not poll.partial:
            return Move(TaskState.SUCCEEDED, f"all of {len(poll.images)} image(s) delivered")
        case Polled.RUNNING:
            why = f"not finished {age:.0f} s after the service accepted it"
            if not (overdue and believed):
                return None
            # Images that exist are not given up because of the status.
            return Move(TaskState.SUCCEEDED if poll.images else TaskState.LOST, why)
        case Polled.UNAUTHORIZED | Polled.RATE_LIMITED | Polled.NO_ANSWER:
            # No answer about the task, so nothing ends it.
            return None
    assert_never(poll.kind)


def richer(best: Poll | None, poll: Poll) -> Poll | None:
    """Return the one of two polls that showed more images; None if neither showed any."""
    return poll if len(poll.images) > (len(best.images) if best else 0) else best


def with_images(poll: Poll, move: Move, best: Poll | None) -> tuple[Poll, Move]:
    """Return the poll and transition that count: images of an earlier poll outweigh a later answer without them.

    Only a failure outweighs images of a task that was still running. `best` is the earlier poll with the most images.
    """
    if best is None or move.to is TaskState.SUCCEEDED:
        return poll, move
    if move.to is TaskState.FAILED and best.kind is not Polled.COMPLETED:
        return poll, move
    return best, Move(TaskState.SUCCEEDED, f"{len(best.images)} image(s) delivered, then: {move.why}")


class Outlook:
    """Compares the latest polls of several tasks: if none is plausible, the service is at fault, not the tasks.

    A key of another account, a gateway to another service and a service that lost its data all answer this way. Times
    are monotonic seconds.
    """

    def __init__(self) -> None:
        self._odd: dict[int, Series] = {}
        self._good_at: dict[bool, float] = {}
        """When the last plausible answer came, by whether it had images."""

    def note(self, task: int, poll: Poll, series: Series, now: float) -> None:
        """Record a poll of a task, and the series it belongs to."""
        if says_nothing(poll):
            return
        if makes_sense(poll):
            self._good_at[bool(poll.images)] = now
        if poll.kind is Polled.NOT_FOUND or _is_empty(poll):
            self._odd[task] = series
        else:
            self._odd.pop(task, None)

    def forget(self, task: int) -> None:
        """Remove a task that is no longer polled."""
        self._odd.pop(task, None)

    def doubtful(self, now: float) -> bool:
        """Return whether several tasks show the same odd end, and none has shown anything else for a while."""
        alike = {odd.what for odd in self._odd.values()}
        # If every task ends without images, only one that ends with images proves that the service is reached.
        kinds = [True] if alike == {_EMPTY} else [True, False]
        good = any(now - self._good_at[kind] < GOOD_FOR for kind in kinds if kind in self._good_at)
        return len(self._odd) > 1 and not good and len(alike) == 1

    def outage(self, now: float) -> int:
        """Return how many tasks show the same odd end if that has lasted long enough for an outage; else 0."""
        lasting = all(odd.count >= LEAST_POLLS and odd.lasted(now) >= WATCHED_TOGETHER for odd in self._odd.values())
        return len(self._odd) if lasting and self.doubtful(now) else 0


_EMPTY = f"{Polled.COMPLETED}, 0"


def _is_empty(poll: Poll) -> bool:
    return poll.kind is Polled.COMPLETED and not poll.images


def combine(polls: Sequence[Poll], age: float, *, overdue: bool = False) -> Poll:
    """Combine the polls of all task ids of one submission into one; `age` in seconds since the submission.

    It has ended when every part has. Images of some parts count, even if others failed, or if the deadline passed
    before they ended.
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
    complete = len(polls) == parts and all(poll.cost is not None for poll in done)
    lost = [f"a part {poll.kind}: {poll.message}" for poll in polls if poll.kind is not Polled.COMPLETED]
    return Poll(
        Polled.COMPLETED,
        images=tuple(image for poll in done for image in poll.images),
        # A dropped part may still be billed, so the estimate stays.
        cost=sum(known) if complete else None,
        status=done[0].status,
        notes=(*(note for poll in done for note in poll.notes), *lost),
        errors=(*(error for poll in done for error in poll.errors), *lost),
        kept=next((poll.kept for poll in polls if poll.kept is not None), None),
    )


def _all_failed(polls: Sequence[Poll]) -> Poll:
    """Return one failure for all parts: their charges add up, and a refusal by moderation takes precedence."""
    chosen = next((poll for poll in polls if is_moderation(poll.code, poll.message)), polls[0])
    known = [poll.cost for poll in polls if poll.cost is not None]
    return replace(chosen, cost=sum(known) if known else None)


def _any(polls: Sequence[Poll], kind: Polled) -> bool:
    return any(poll.kind is kind for poll in polls)


def backoff(tries: int, *, random: Random) -> float:
    """Return the seconds to wait after `tries` consecutive failures: exponential, capped, with full jitter.

    Never less than a tenth of the ceiling.
    """
    ceiling = min(BACKOFF_CAP, BACKOFF_BASE * 2.0 ** min(tries - 1, 30))
    return ceiling * (0.1 + 0.9 * random.random())


def _message(submission: Submission) -> str:
    status = f"HTTP {submission.status}: " if submission.status else ""
    return f"{status}{submission.message or submission.kind}"
