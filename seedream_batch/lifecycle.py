"""What an outcome moves a task to, and how long to wait before trying again: all pure."""

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
"""Seconds that the first pause after a failure may have at most."""
BACKOFF_CAP = 60.0
"""Seconds that any such pause may have at most."""

LEAST_POLLS = 3
"""Polls in a row that have to show an odd end before a task is given up for it, ..."""

WATCHED = 300.0
"""... over at least so many seconds, ..."""

WATCHED_OVERDUE = 10.0
"""... or over so many once its deadline has passed."""

WATCHED_TOGETHER = 20.0
"""Seconds over which several tasks have to show the same odd end, and none another, to be taken for an outage."""

CONFIRMED = 5.0
"""Seconds over which a task has to be reported as failed, or as completed with too few images, to be believed."""

PATIENCE = 120.0
"""Seconds past its deadline after which a run stops polling a task, whatever the answers were."""

GOOD_FOR = 600.0
"""Seconds for which an answer that makes sense speaks for the way to the service."""

POLL_PAUSE = 2.0
"""Seconds between the first two polls that show an odd end; each further pause is twice as long, ..."""

LONGEST_POLL_PAUSE = 60.0
"""... up to so many seconds."""


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


@dataclass(frozen=True, slots=True)
class Series:
    """Polls of one task in a row that showed the same: what, how many, and since when (seconds of a steady clock)."""

    what: str
    count: int
    since: float

    def lasted(self, now: float) -> float:
        """Seconds from the first of them to now."""
        return now - self.since


def series(before: Series | None, poll: Poll, now: float) -> Series:
    """The series that a poll continues or begins."""
    what = f"{poll.kind}, {len(poll.images)}" if poll.kind is Polled.COMPLETED else str(poll.kind)
    if before is None or before.what != what:
        return Series(what, 1, now)
    return replace(before, count=before.count + 1)


def is_odd(poll: Poll, *, age: float, least: int = 1) -> bool:
    """Return whether a poll shows an end that is believed only when it is repeated.

    `age` is the seconds since the submission, `least` the number of images that a completed task has to have.
    """
    short = poll.kind is Polled.COMPLETED and len(poll.images) < least
    return poll.kind is Polled.FAILED or short or (poll.kind is Polled.NOT_FOUND and age >= NOT_FOUND_GRACE)


def makes_sense(poll: Poll) -> bool:
    """Whether only a service that knows the task answers like this."""
    return poll.kind in {Polled.RUNNING, Polled.COMPLETED, Polled.FAILED} and not _is_empty(poll)


def poll_pause(polls: int) -> float:
    """Seconds to wait after so many polls in a row that showed an odd end."""
    return float(min(LONGEST_POLL_PAUSE, POLL_PAUSE * 2.0 ** min(polls - 1, 30)))


def says_nothing(poll: Poll) -> bool:
    """Return whether a poll got no answer about the task itself."""
    return poll.kind in {Polled.NO_ANSWER, Polled.RATE_LIMITED, Polled.UNAUTHORIZED}


def after_poll(
    poll: Poll, *, age: float, overdue: bool, polls: int, lasted: float, asked: int = 1, least: int = 1
) -> Move | None:
    """What a poll of an accepted task moves it to; None: keep polling.

    `age` is the seconds since its submission, `overdue` whether its deadline passed, `polls` how many polls in a row,
    this one included, showed the same, and `lasted` the seconds since the first of them. One odd answer loses no task:
    it is believed when it is repeated for a while. Past its deadline a task that has not ended is lost, not failed,
    because it may still be billed. With `asked` images there it has ended, unless the service says that more come;
    fewer than `least` are believed when they are repeated for a moment: the service may still be adding images.
    """
    believed = polls >= LEAST_POLLS and lasted >= (WATCHED_OVERDUE if overdue else WATCHED)
    match poll.kind:
        case Polled.COMPLETED:
            if len(poll.images) >= least or (poll.images and polls >= LEAST_POLLS and lasted >= CONFIRMED):
                return Move(TaskState.SUCCEEDED, f"completed with {len(poll.images)} image(s)")
            if poll.images:
                return None
            why = "completed, but no image URL could be read from the answer"
            return Move(TaskState.LOST, why) if believed else None
        case Polled.FAILED:
            moderated = is_moderation(poll.code, poll.message)
            # Moderation is a decision. Anything else may be a relay that gave up on a task which still completes.
            if not moderated and (polls < 2 or lasted < CONFIRMED):
                return None
            why = poll.message or poll.code or "failed without a word"
            # What was charged for all the same is not bought again by itself.
            return Move(TaskState.FAILED, why, poll.code, final=bool(poll.cost) or moderated)
        case Polled.NOT_FOUND:
            if not believed or (age < NOT_FOUND_GRACE and not overdue):
                return None
            status = f" (HTTP {poll.status})" if poll.status else ""
            return Move(TaskState.LOST, f"the service does not know this task id{status}")
        case Polled.RUNNING if len(poll.images) >= asked and not poll.partial:
            return Move(TaskState.SUCCEEDED, f"all of {len(poll.images)} image(s) are there")
        case Polled.RUNNING:
            why = f"not ended {age:.0f} s after it was accepted"
            if not (overdue and believed):
                return None
            # Images that are there are not given up for a word.
            return Move(TaskState.SUCCEEDED if poll.images else TaskState.LOST, why)
        case Polled.UNAUTHORIZED | Polled.RATE_LIMITED | Polled.NO_ANSWER:
            # Nothing was said of the task, so nothing is known that could end it.
            return None
    assert_never(poll.kind)


def richer(best: Poll | None, poll: Poll) -> Poll | None:
    """Of two polls of a task, the one that showed more images; None as long as none was shown."""
    return poll if len(poll.images) > (len(best.images) if best else 0) else best


def with_images(poll: Poll, move: Move, best: Poll | None) -> tuple[Poll, Move]:
    """The poll and the move that count: images shown by an earlier poll, `best`, are not given up for a later answer.

    Only a failure outweighs images of a task that was still running.
    """
    if best is None or move.to is TaskState.SUCCEEDED:
        return poll, move
    if move.to is TaskState.FAILED and best.kind is not Polled.COMPLETED:
        return poll, move
    return best, Move(TaskState.SUCCEEDED, f"{len(best.images)} image(s) delivered, then: {move.why}")


class Outlook:
    """What the latest polls of several tasks say together: when none makes sense, it is not the tasks.

    Another account's key, a gateway that leads elsewhere and a service that was set up anew all answer so. Times are
    seconds of a steady clock.
    """

    def __init__(self) -> None:
        self._odd: dict[int, Series] = {}
        self._good_at: dict[bool, float] = {}
        """When an answer made sense last: by whether it brought images."""

    def note(self, task: int, poll: Poll, series: Series, now: float) -> None:
        """Takes in a poll of the task, and the series that it belongs to."""
        if says_nothing(poll):
            return
        if makes_sense(poll):
            self._good_at[bool(poll.images)] = now
        if poll.kind is Polled.NOT_FOUND or _is_empty(poll):
            self._odd[task] = series
        else:
            self._odd.pop(task, None)

    def forget(self, task: int) -> None:
        """The task is polled no more."""
        self._odd.pop(task, None)

    def doubtful(self, now: float) -> bool:
        """Whether several tasks show the same odd end, and none has shown anything else for a while."""
        alike = {one.what for one in self._odd.values()}
        # Where every task ends without images, only one that ends with them shows that it is not the way.
        speaking = [True] if alike == {_EMPTY} else [True, False]
        good = any(now - self._good_at[one] < GOOD_FOR for one in speaking if one in self._good_at)
        return len(self._odd) > 1 and not good and len(alike) == 1

    def outage(self, now: float) -> int:
        """How many tasks show the same odd end, if that has lasted long enough to be taken for an outage; else 0."""
        lasting = all(one.count >= LEAST_POLLS and one.lasted(now) >= WATCHED_TOGETHER for one in self._odd.values())
        return len(self._odd) if lasting and self.doubtful(now) else 0


_EMPTY = f"{Polled.COMPLETED}, 0"


def _is_empty(poll: Poll) -> bool:
    return poll.kind is Polled.COMPLETED and not poll.images


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
