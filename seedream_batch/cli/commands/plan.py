"""`seedream-batch plan`."""

from __future__ import annotations

import click

from seedream_batch.cli.options import EMULATE, JOB, MANIFEST, MAX_TASKS, SELECT
from seedream_batch.cli.output.console import give

_EPILOG = """\b
Examples:
  seedream-batch plan jobs/quickstart.yaml
  seedream-batch plan jobs/quickstart.yaml --select subject=fox --select size=1:1
  seedream-batch plan jobs/quickstart.yaml --json | jq .to_buy
  seedream-batch plan jobs/quickstart.yaml --detailed-exitcode; echo $?

Changes nothing. Works offline and without a key."""


@click.command("plan", epilog=_EPILOG)
@JOB
@SELECT
@EMULATE
@MANIFEST
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.option("--detailed-exitcode", is_flag=True, help="Exit with 10 if there is work to do, with 0 if not.")
@MAX_TASKS
def command(
    job: str,
    select: tuple[str, ...],
    emulate: bool,
    manifest: str | None,
    as_json: bool,
    detailed_exitcode: bool,
    max_tasks: int,
) -> int:
    """Show what a run would do, why, and what it would cost."""
    from seedream_batch.batch import plan
    from seedream_batch.cli.job_target import load, trusts_keys, warn_of_unset_variables
    from seedream_batch.cli.output.run_view import show_plan
    from seedream_batch.planning import as_json as plan_json

    loaded = load(job, emulate=emulate, manifest=manifest, max_tasks=max_tasks)
    planned = plan(loaded, select=select, resend=trusts_keys(loaded.job, emulate=emulate))
    if as_json:
        give(plan_json(planned))
    else:
        show_plan(planned, loaded.job)
        if not emulate:
            warn_of_unset_variables(loaded.job)
    return 10 if detailed_exitcode and planned.work else 0
