"""`seedream-batch retry`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from seedream_batch.cli.options import EMULATE, JOB, MANIFEST, SAME_ACCOUNT, SELECT

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

Lost tasks are polled first, which is free: what the service has after all is fetched, and not bought again. That
needs the key and the network; tasks that could not be polled are left as they are, and the exit code is 7. With
--no-poll they are planned all the same, and may be paid for twice. A task that was submitted more than 7 days ago is
not polled any more.

The next run submits them, as new attempts that are paid for as such. What moderation refused will be refused
again: change the prompt instead.

--missing pays again for images that were delivered once: those that are missing, expired or rejected, and that no link
gives any more, as `seedream-batch verify` found. A task of several images is generated again as a whole;
those of its images that are stored stay as they are.

--choice pays again for the images that were rejected in the gallery (`seedream-batch report`), as its exported file
says. Their files go to superseded/ and stay there. Images that were generated again since are left alone.

--flagged pays again for tasks whose result is not what was requested: images lacking, of another ratio or size, or the
same as another one. All files of such a task go to superseded/. Tasks of which images are lacking are polled first,
as lost tasks are: images that the service has by now are fetched, and not bought again."""


@click.command("retry", epilog=_EPILOG)
@JOB
@SELECT
@click.option("--missing", is_flag=True, help="Generate images again that are missing and cannot be downloaded again.")
@click.option(
    "--choice",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Generate images again that were rejected in the gallery; FILE is the choice that it exports.",
)
@click.option("--flagged", is_flag=True, help="Generate results again that are not what was requested.")
@click.option("--no-poll", is_flag=True, help="Do not poll lost or incomplete tasks first: they may be paid for twice.")
@SAME_ACCOUNT
@EMULATE
@MANIFEST
def command(
    job: str,
    select: tuple[str, ...],
    missing: bool,  # noqa: FBT001
    choice: Path | None,
    flagged: bool,  # noqa: FBT001
    no_poll: bool,  # noqa: FBT001
    same_account: bool,  # noqa: FBT001
    emulate: bool,  # noqa: FBT001
    manifest: str | None,
) -> int:
    """Plan failed and lost tasks again, or those whose images are not there or were rejected."""
    from seedream_batch.cli.job_target import made, named
    from seedream_batch.cli.output.picks_view import read_choice, show_rejected
    from seedream_batch.errors import UsageError
    from seedream_batch.jobfile.select_option import chosen as checked
    from seedream_batch.operations.reject import reject_images

    if missing + (choice is not None) + flagged > 1:
        raise UsageError("give one of --missing, --choice and --flagged")
    loaded = made(job, emulate=emulate, manifest=manifest)
    target = loaded.job
    path = named(job, emulate=emulate, manifest=manifest)
    chooses = checked(select, target)
    then = f"`seedream-batch run {path}` submits them"
    if choice is not None:
        rejected = reject_images(target, read_choice(choice, target).reject, chooses)
        show_rejected(rejected, then, "the choice rejects no image of the job")
        return 0
    if missing:
        return _remake(target, chooses, path, then)
    polled = _Polled(answers=None)
    if not no_poll:
        polled = _poll_first(loaded, chooses, flagged=flagged, emulate=emulate, same_account=same_account)
    return (_retry_flagged if flagged else _retry)(target, chooses, then, polled)


def _remake(target: Job, chooses: CellFilter, path: str, then: str) -> int:
    """Plan tasks again of which images are beyond all links; return the exit code."""
    from seedream_batch.cli.output.console import number, say, wrapped
    from seedream_batch.cli.output.run_view import show_chosen
    from seedream_batch.operations.resolve import remake

    replanned, others = remake(target, chooses)
    if replanned:
        images = number(sum(task.images for task in replanned), "image")
        show_chosen(replanned, f"planned again, {images} to be paid for", then, "")
    else:
        say("no image is known to be beyond all links; nothing was changed")
    if others:
        what = f"{number(others, 'more task lacks', 'more tasks lack')} an image that may still be had, free of charge"
        say(wrapped(f"{what}: `seedream-batch verify {path}` asks for it."))
    return 0


@dataclass(slots=True)
class _Polled:
    """Results of polling before anything is paid for: the last answer per task, what was found, what failed.

    Without answers, nothing was polled, as a person decided.
    """

    answers: Mapping[int, Polled] | None = field(default_factory=dict)
    found: int = 0
    trouble: str = ""
    refused: bool = False


def _poll_first(loaded: LoadedJob, chooses: CellFilter, *, flagged: bool, emulate: bool, same_account: bool) -> _Polled:
    """Poll the selected tasks that are lost, or those with too few images, and fetch what is found: that is free."""
    from seedream_batch.cli.execute import perform
    from seedream_batch.engine.events import Recheck, RunOptions, StopReason
    from seedream_batch.engine.work import PollAgain
    from seedream_batch.environment import api_key
    from seedream_batch.errors import UsageError
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
    return _Polled(result.rechecks, result.stats.found + result.stats.added, result.stop_text, refused)


def _retry(job: Job, chooses: CellFilter, then: str, polled: _Polled) -> int:
    """Plan failed and finally lost tasks again; return the exit code."""
    from seedream_batch.cli.output.console import number, say, usd, wrapped
    from seedream_batch.cli.output.run_view import show_chosen
    from seedream_batch.operations.resolve import retry_tasks

    retried = retry_tasks(job, chooses, polled.answers)
    if polled.found:
        say(wrapped(f"{number(polled.found, 'lost task')} found again at the service, at no cost."))
    what = f"planned again, {number(retried.images, 'image')} for about {usd(retried.cost)}"
    none = "there is no failed or lost task" if not retried.left else "there is no task to plan again"
    show_chosen(retried.tasks, what, then, none)
    return _report_left_alone(len(retried.left), "lost task", polled)


def _retry_flagged(job: Job, chooses: CellFilter, then: str, polled: _Polled) -> int:
    """Plan tasks that are still flagged again; return the exit code."""
    from seedream_batch.cli.output.console import number, say, wrapped
    from seedream_batch.cli.output.picks_view import show_rejected
    from seedream_batch.operations.reject import reject_flagged

    rejected = reject_flagged(job, chooses, polled.answers)
    if polled.found:
        say(wrapped(f"{number(polled.found, 'image')} delivered since then, at no cost."))
    show_rejected(rejected, then, "there is no flagged result")
    return _report_left_alone(rejected.unclear, "flagged task", polled)


def _report_left_alone(count: int, what: str, polled: _Polled) -> int:
    """Report tasks that were not planned again because a poll may still find their images; return the exit code."""
    from seedream_batch.cli.exit_codes import Exit
    from seedream_batch.cli.output.console import number, say, wrapped

    if not count:
        return Exit.DONE
    why = f" ({polled.trouble})" if polled.trouble else ""
    say(
        wrapped(
            f"{number(count, what)} left alone: a poll got no clear answer{why}, and the service"
            " may have completed them. Try again, or give --no-poll to plan them all the same: they may then be paid"
            " for twice."
        )
    )
    return Exit.NO_ACCESS if polled.refused else Exit.WORK_LEFT
