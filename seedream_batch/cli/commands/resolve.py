"""`seedream-batch resolve`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

from seedream_batch.cli.options import EMULATE, JOB, MANIFEST, SAME_ACCOUNT, SELECT
from seedream_batch.cli.output.console import say
from seedream_batch.errors import UsageError

if TYPE_CHECKING:
    from seedream_batch.jobfile import LoadedJob
    from seedream_batch.model.cell import CellFilter
    from seedream_batch.model.job import Job

_EPILOG = """\b
Examples:
  seedream-batch status jobs/quickstart.yaml                            (lists them)
  seedream-batch resolve jobs/quickstart.yaml --resend
  seedream-batch resolve jobs/quickstart.yaml --select subject=fox --task-id task_01K8...
  seedream-batch resolve jobs/quickstart.yaml --forget
  seedream-batch resolve jobs/quickstart.yaml --give-up
  seedream-batch resolve jobs/quickstart.yaml --accept
  seedream-batch resolve jobs/quickstart.yaml --cost 0.035

\b
--resend    resend the same request now, with the same Idempotency-Key. A service that honours
            keys returns the first task; one that does not may charge a second time.
--task-id   record the id of the task, as shown by `status`, or by the service's website or support
--forget    queue it again with a new key: it may be charged twice
--give-up   mark it as failed; its possible cost still counts towards the budget
--lost      mark accepted tasks as lost, if the service no longer knows any of them (a run treats
            that as an outage)
--accept    accept flagged results, which differ from the request, as they are
--cost      correct the cost of tasks: those whose cost `status` shows as odd or, with --select,
            every selected task that was charged. Price estimates follow."""


@click.command("resolve", epilog=_EPILOG)
@JOB
@SELECT
@click.option("--resend", "what", flag_value="resend", help="Resend them with the same key.")
@click.option("--forget", "what", flag_value="forget", help="Resubmit them as new (may charge twice).")
@click.option("--give-up", "what", flag_value="give-up", help="Mark them as failed.")
@click.option("--lost", "what", flag_value="lost", help="Mark accepted tasks as lost.")
@click.option("--accept", "what", flag_value="accept", help="Accept flagged results as they are.")
@click.option("--task-id", metavar="ID", help="Record the task id of the one selected task.")
@click.option(
    "--cost",
    type=click.FloatRange(min=0, max=1_000_000),
    metavar="USD",
    help="Correct what a task cost.",
)
@EMULATE
@MANIFEST
@SAME_ACCOUNT
def command(
    job: str,
    select: tuple[str, ...],
    what: str | None,
    task_id: str | None,
    cost: float | None,
    emulate: bool,
    manifest: str | None,
    same_account: bool,
) -> int:
    """Decide about uncertain tasks (may have been charged), flagged results and odd costs."""
    from seedream_batch.cli.job_target import made, named
    from seedream_batch.cli.output.run_view import queued_again, show_chosen
    from seedream_batch.operations import resolve as decide
    from seedream_batch.report.status import cells_in_doubt
    from seedream_batch.selection.cell_filter import chosen

    if sum(given is not None for given in (what, task_id, cost)) != 1:
        actions = "--resend, --task-id ID, --forget, --give-up, --lost, --accept, --cost USD"
        raise UsageError(f"choose one of {actions}")
    loaded = made(job, emulate=emulate, manifest=manifest)
    target = loaded.job
    if cost is not None:
        return _correct(target, select, cost)
    path = named(job, emulate=emulate, manifest=manifest)
    # An uncertain task may no longer be in the job.
    chooses = chosen(select, target, also=cells_in_doubt(target.manifest) if select else ())
    if what == "resend":
        return _resend(loaded, path, chooses, emulate=emulate, same_account=same_account)
    none = "no uncertain tasks"
    next_run = f"`seedream-batch run {path}`"
    if task_id is not None:
        task = decide.identify_task(target, chooses, task_id)
        show_chosen([task], "identified", f"{next_run} polls it", none)
    elif what == "forget":
        tasks = decide.forget_tasks(target, chooses)
        show_chosen(tasks, queued_again(tasks, decide.estimate(target, tasks)), f"{next_run} submits them as new", none)
        if tasks:
            say("Their earlier requests may have been charged as well.")
    elif what == "accept":
        show_chosen(decide.accept_results(target, chooses), "accepted as they are", "", "no flagged results")
    elif what == "lost":
        then = f"`seedream-batch retry {path}` polls them again, then queues them"
        show_chosen(decide.lose_tasks(target, chooses), "marked as lost", then, "no accepted tasks")
    else:
        then = f"`seedream-batch retry {path}` queues them again"
        show_chosen(decide.give_up_tasks(target, chooses), "marked as failed", then, none)
    return 0


def _correct(job: Job, select: tuple[str, ...], cost: float) -> int:
    """Correct what tasks cost, in USD each; return the exit code."""
    from seedream_batch.cli.output.run_view import show_chosen
    from seedream_batch.jobfile.units import micro_usd
    from seedream_batch.operations.resolve import correct_costs
    from seedream_batch.selection.cell_filter import chosen

    if not math.isfinite(cost):
        raise UsageError(f"--cost {cost} is not an amount")
    corrected = correct_costs(job, chosen(select, job), micro_usd(cost), noted=not select)
    show_chosen(corrected, f"corrected to {cost:g} USD each", "", "no tasks with an odd cost")
    return 0


def _resend(loaded: LoadedJob, path: str, chooses: CellFilter, *, emulate: bool, same_account: bool) -> int:
    """Send the selected uncertain tasks again under their keys; return the exit code."""
    from seedream_batch.cli.execute import perform
    from seedream_batch.cli.exit_codes import of_run
    from seedream_batch.cli.output.run_view import show_chosen, show_result
    from seedream_batch.engine.events import RunOptions
    from seedream_batch.operations.resolve import let_resend_tasks

    tasks = let_resend_tasks(loaded.job, chooses)
    show_chosen(tasks, "to be resent", "", "no uncertain tasks")
    if not tasks:
        return 0
    only = frozenset(task.id for task in tasks)
    options = RunOptions(limit=0, resend=True, resend_only=only, same_account=same_account)
    result = perform(loaded, emulate=emulate, options=options)
    show_result(result, loaded.job, path)
    return of_run(result)
