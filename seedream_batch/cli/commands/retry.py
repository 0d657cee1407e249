"""`seedream-batch retry`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from seedream_batch.cli.options import EMULATE, JOB, MANIFEST, SAME_ACCOUNT, SELECT
from seedream_batch.cli.output.console import number, say, wrapped
from seedream_batch.errors import UsageError

if TYPE_CHECKING:
    from seedream_batch.jobfile import LoadedJob
    from seedream_batch.model.cell import CellFilter
    from seedream_batch.model.job import Job
    from seedream_batch.model.outcome import Polled

_EPILOG = """\b
Examples:
  seedream-batch retry jobs/quickstart.yaml
  seedream-batch retry jobs/quickstart.yaml --select subject=fox --select size=16:9,9:16
  seedream-batch retry jobs/quickstart.yaml --missing
  seedream-batch retry jobs/quickstart.yaml --choice quickstart-choice.json
  seedream-batch retry jobs/quickstart.yaml --flagged

The next run submits the queued tasks as new attempts, which are charged. Prompts that moderation rejected will be
rejected again: edit the prompt instead.

Lost tasks are polled first, for free: images that the service has after all are downloaded, not paid for again. That
needs the key and the network. Tasks that cannot be polled are skipped, and the exit code is 7; --no-poll queues them
anyway, and they may be charged twice. Tasks submitted more than 7 days ago are no longer polled.

--missing regenerates images that were delivered once, but are missing, expired or rejected, and that `seedream-batch
verify` could not download again. A task with several images is regenerated as a whole; its stored images are kept.

--choice regenerates the images that were rejected in the gallery (`seedream-batch report`). Their files are moved to
superseded/ and kept. Images that were regenerated since then are skipped.

--flagged regenerates tasks whose result differs from the request: too few images, another ratio or size, or a copy of
another image. Their files are moved to superseded/. Tasks with too few images are polled first, as lost tasks are."""


@click.command("retry", epilog=_EPILOG)
@JOB
@SELECT
@click.option("--missing", is_flag=True, help="Regenerate images that can no longer be downloaded.")
@click.option(
    "--choice",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Regenerate images rejected in the gallery. FILE is the file that the gallery exports.",
)
@click.option("--flagged", is_flag=True, help="Regenerate results that differ from the request.")
@click.option("--no-poll", is_flag=True, help="Do not poll lost or incomplete tasks first (may charge twice).")
@SAME_ACCOUNT
@EMULATE
@MANIFEST
def command(
    job: str,
    select: tuple[str, ...],
    missing: bool,
    choice: Path | None,
    flagged: bool,
    no_poll: bool,
    same_account: bool,
    emulate: bool,
    manifest: str | None,
) -> int:
    """Queue failed, missing or rejected images for the next run."""
    from seedream_batch.cli.job_target import made, named
    from seedream_batch.cli.output.picks_view import read_choice, show_rejected
    from seedream_batch.operations.reject import reject_images
    from seedream_batch.selection.cell_filter import chosen as checked

    if missing + (choice is not None) + flagged > 1:
        raise UsageError("use only one of --missing, --choice and --flagged")
    loaded = made(job, emulate=emulate, manifest=manifest)
    target = loaded.job
    path = named(job, emulate=emulate, manifest=manifest)
    chooses = checked(select, target)
    then = f"`seedream-batch run {path}` submits them"
    if choice is not None:
        rejected = reject_images(target, read_choice(choice, target).reject, chooses)
        show_rejected(rejected, then, "no rejected images of this job in the choice")
        return 0
    if missing:
        return _remake(target, chooses, path, then)
    polled = _Polled(answers=None)
    if not no_poll:
        polled = _poll_first(loaded, chooses, flagged=flagged, emulate=emulate, same_account=same_account)
    return (_retry_flagged if flagged else _retry)(target, chooses, then, polled)


def _remake(target: Job, chooses: CellFilter, path: str, then: str) -> int:
    """Plan tasks again of which images are beyond all links; return the exit code."""
    from seedream_batch.cli.output.run_view import queued_again, show_chosen
    from seedream_batch.operations.resolve import estimate, remake

    replanned, others = remake(target, chooses)
    if replanned:
        show_chosen(replanned, queued_again(replanned, estimate(target, replanned)), then, "")
    else:
        say("Nothing to regenerate: no image is known to be lost for good.")
    if others:
        what = f"{number(others, 'task has', 'tasks have')} missing images that may still be downloaded for free"
        say(wrapped(f"{what}: `seedream-batch verify {path}`"))
    return 0


@dataclass(slots=True)
class _Polled:
    """Results of polling before anything is paid for: the last answer per task, what was found, what failed.

    `running` counts lost tasks that the service is still working on. Without answers, nothing was polled, as a person
    decided.
    """

    answers: Mapping[int, Polled] | None = field(default_factory=dict)
    found: int = 0
    running: int = 0
    trouble: str = ""
    refused: bool = False


def _poll_first(loaded: LoadedJob, chooses: CellFilter, *, flagged: bool, emulate: bool, same_account: bool) -> _Polled:
    """Poll the selected tasks that are lost, or those with too few images, and fetch what is found: that is free."""
    from seedream_batch.cli.execute import perform
    from seedream_batch.engine.events import Recheck, RunOptions, StopReason
    from seedream_batch.engine.work import PollAgain
    from seedream_batch.environment import api_key
    from seedream_batch.model.outcome import Polled
    from seedream_batch.operations.reject import short_tasks
    from seedream_batch.operations.resolve import lost_tasks

    if not (short_tasks if flagged else lost_tasks)(loaded.job, chooses):
        return _Polled()
    try:
        key = None if emulate else api_key()
    except UsageError as error:
        return _Polled(trouble=str(error))
    options = RunOptions(collect=True, chooses=chooses, same_account=same_account)
    work = PollAgain(Recheck.FLAGGED if flagged else Recheck.LOST)
    result = perform(loaded, key, work=work, emulate=emulate, options=options, quiet=True)
    refused = result.stop_reason is StopReason.CREDENTIALS
    found = result.stats.found + result.stats.added
    running = 0 if flagged else sum(answer is Polled.RUNNING for answer in result.rechecks.values())
    return _Polled(result.rechecks, found - running, running, result.stop_text, refused)


def _retry(job: Job, chooses: CellFilter, then: str, polled: _Polled) -> int:
    """Plan failed and finally lost tasks again; return the exit code."""
    from seedream_batch.cli.output.run_view import queued_again, show_chosen
    from seedream_batch.operations.resolve import retry_tasks

    retried = retry_tasks(job, chooses, polled.answers)
    if polled.running:
        running = number(polled.running, "lost task is", "lost tasks are")
        say(wrapped(f"{running} still running at the service; the next run downloads the result for free."))
    if polled.found:
        say(wrapped(f"{number(polled.found, 'lost task')} found at the service and downloaded for free."))
    none = "no failed or lost tasks" if not retried.left else "no tasks to queue"
    show_chosen(retried.tasks, queued_again(retried.tasks, retried.cost), then, none)
    return _report_left_alone(len(retried.left), "lost task", polled)


def _retry_flagged(job: Job, chooses: CellFilter, then: str, polled: _Polled) -> int:
    """Plan tasks that are still flagged again; return the exit code."""
    from seedream_batch.cli.output.picks_view import show_rejected
    from seedream_batch.operations.reject import reject_flagged

    rejected = reject_flagged(job, chooses, polled.answers)
    if polled.found:
        say(wrapped(f"{number(polled.found, 'image')} delivered since then and downloaded for free."))
    show_rejected(rejected, then, "no flagged results")
    return _report_left_alone(rejected.unclear, "flagged task", polled)


def _report_left_alone(count: int, what: str, polled: _Polled) -> int:
    """Report tasks that were not planned again because a poll may still find their images; return the exit code."""
    from seedream_batch.cli.exit_codes import Exit

    if not count:
        return Exit.DONE
    why = f" ({polled.trouble})" if polled.trouble else ""
    say(
        wrapped(
            f"{number(count, what)} skipped: the service gave no clear answer{why} and may have completed them."
            " Try again later, or use --no-poll to queue them anyway (may charge twice)."
        )
    )
    return Exit.NO_ACCESS if polled.refused else Exit.WORK_LEFT
