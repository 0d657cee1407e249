"""The exit codes: stable, documented, and defined only here."""

from __future__ import annotations

import signal
from enum import IntEnum
from typing import TYPE_CHECKING

from seedream_batch import errors
from seedream_batch.engine.events import StopReason
from seedream_batch.model.task import ImageState, TaskState

if TYPE_CHECKING:
    from seedream_batch.engine.session import RunResult


class Exit(IntEnum):
    """The exit codes of commands."""

    DONE = 0
    BUG = 1
    USAGE = 2
    SOME_FAILED = 3
    SOME_UNCERTAIN = 4
    NO_MONEY = 5
    NO_ACCESS = 6
    WORK_LEFT = 7
    NO_STORAGE = 8
    FLAGGED = 9
    WORK_TO_DO = 10
    LOCKED = 75


_STOPPED = {
    StopReason.BUDGET: Exit.NO_MONEY,
    StopReason.BALANCE: Exit.NO_MONEY,
    StopReason.CREDENTIALS: Exit.NO_ACCESS,
    StopReason.TIME: Exit.WORK_LEFT,
    StopReason.OUTAGE: Exit.WORK_LEFT,
    StopReason.DOWNLOADS: Exit.WORK_LEFT,
    StopReason.UNCLEAR: Exit.SOME_UNCERTAIN,
    StopReason.REFUSED: Exit.SOME_FAILED,
    StopReason.STORAGE: Exit.NO_STORAGE,
    StopReason.FAULT: Exit.BUG,
}


def of_run(result: RunResult) -> int:
    """Return the exit code of a run: why it stopped, or else its worst result."""
    if result.signal is not None:
        return 128 + result.signal
    if result.stop_reason is StopReason.TIME and not result.left:
        return of_state(result)
    if result.stop_reason is not None and result.stop_reason is not StopReason.INTERRUPTED:
        return _STOPPED[result.stop_reason]
    return of_state(result)


def of_verification(result: RunResult) -> int:
    """Return the exit code of a verification: why it stopped, or else what is missing."""
    lacking = result.not_there
    if result.signal is not None or result.stop_reason is not None:
        return of_run(result)
    if result.verified.unread:
        return Exit.NO_STORAGE
    if lacking is not None and lacking.count:
        return Exit.SOME_FAILED
    if lacking is not None and lacking.waiting:
        return Exit.WORK_LEFT
    return Exit.FLAGGED if result.flagged else Exit.DONE


def of_state(result: RunResult) -> Exit:
    """Return the exit code for the manifest's state after a run that was not stopped."""
    tasks, images = result.tasks, result.images
    if tasks.get(TaskState.UNCERTAIN):
        return Exit.SOME_UNCERTAIN
    if any(tasks.get(state) for state in (TaskState.FAILED, TaskState.LOST)):
        return Exit.SOME_FAILED
    if any(images.get(state) for state in (ImageState.REJECTED, ImageState.EXPIRED, ImageState.MISSING)):
        return Exit.SOME_FAILED
    if result.stats.trouble:
        return Exit.WORK_LEFT
    return Exit.FLAGGED if result.flagged else Exit.DONE


_OF_ERRORS = (
    (errors.ManifestLocked, Exit.LOCKED),
    ((errors.UsageError, errors.InvalidJob), Exit.USAGE),
    (errors.CredentialsRefused, Exit.NO_ACCESS),
    (errors.ServiceError, Exit.WORK_LEFT),
    ((errors.StorageError, errors.ManifestError), Exit.NO_STORAGE),
)
"""The codes of errors; the first that fits counts."""


def of_error(error: errors.SeedreamBatchError) -> Exit:
    """Return the exit code of a command that failed with this error."""
    return next((code for kinds, code in _OF_ERRORS if isinstance(error, kinds)), Exit.BUG)


INTERRUPTED = 128 + signal.SIGINT

_MEANINGS = {
    0: "success, or nothing to do",
    1: "a bug in seedream-batch",
    2: "wrong usage or an invalid job",
    3: "finished; some tasks failed or were lost, or images are missing",
    4: "finished; some tasks are uncertain: they may have been charged",
    5: "stopped by the budget or the account balance",
    6: "the service rejected the API key",
    7: "stopped early with work left; run again",
    8: "cannot read or write the images or the manifest",
    9: "finished; some results differ from the request",
    10: "there is work to do (plan --detailed-exitcode)",
    75: "another run is using the job, or other workers took over from this one",
}


def meaning(code: int) -> str:
    """Return the meaning of an exit code in a few words."""
    return _MEANINGS[code] if code < 128 else f"interrupted by {signal.Signals(code - 128).name}"


_ROWS = "\n".join(f"{code:>5}  {text}" for code, text in _MEANINGS.items())

HELP = f"""\b
Exit codes:
{_ROWS}
  130, 143  interrupted by Ctrl-C, SIGTERM"""
