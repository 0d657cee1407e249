"""`seedream-batch run`."""

from __future__ import annotations

from pathlib import Path

import click

from seedream_batch.cli.exit_codes import HELP as EXIT_CODES
from seedream_batch.cli.lazy_imports import importing
from seedream_batch.cli.options import EMULATE, JOB, MANIFEST, MAX_TASKS, SAME_ACCOUNT, SELECT, Duration, OutputPath
from seedream_batch.errors import UsageError

_EPILOG = f"""\b
Examples:
  seedream-batch run jobs/quickstart.yaml --emulate
  seedream-batch run jobs/postcards.yaml --limit 10
  seedream-batch run jobs/postcards.yaml --select subject=fox --select size=1:1,16:9
  seedream-batch run jobs/postcards.yaml --quiet --max-duration 50m     (from cron)

--select chooses what is bought, and what is sent again; what is in flight is paid for, and collected whole.

May be stopped and started again at any moment: it goes on where it was. The API key is taken from APIMART_API_KEY, or
from the file that APIMART_API_KEY_FILE names; APIMART_BASE_URL is the address of the service.

{EXIT_CODES}"""


@click.command("run", epilog=_EPILOG)
@JOB
@SELECT
@EMULATE
@MANIFEST
@SAME_ACCOUNT
@click.option("--limit", type=click.IntRange(0, 10**12), metavar="N", help="Submit at most N new tasks.")
@click.option(
    "--max-duration", type=Duration(), metavar="TIME", help="Leave in good order after this time (50m, 1h30m)."
)
@click.option("--collect", is_flag=True, help="Finish what is in flight; submit nothing.")
@click.option("--submit-only", is_flag=True, help="Submit; leave polling and fetching to a later run.")
@click.option("--dry-run", is_flag=True, help="Show the plan instead.")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing when all goes well.")
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True,
    help="How events are written to standard error.",
)  # fmt: skip
@click.option(
    "--summary", metavar="FILE", type=OutputPath(path_type=Path), help="Write how the run ended into FILE, as JSON."
)
@click.option(
    "--metrics", metavar="FILE", type=OutputPath(path_type=Path),
    help="Write how it ended into FILE, for the textfile collector of Prometheus.",
)  # fmt: skip
@MAX_TASKS
@click.pass_context
def command(
    ctx: click.Context,
    job: str,
    select: tuple[str, ...],
    emulate: bool,  # noqa: FBT001
    manifest: str | None,
    same_account: bool,  # noqa: FBT001
    limit: int | None,
    max_duration: float | None,
    collect: bool,  # noqa: FBT001
    submit_only: bool,  # noqa: FBT001
    dry_run: bool,  # noqa: FBT001
    quiet: bool,  # noqa: FBT001
    log_format: str,
    summary: Path | None,
    metrics: Path | None,
    max_tasks: int,
) -> int:
    """Make every image that JOB asks for and that is not there yet."""
    if collect and submit_only:
        raise UsageError("--collect and --submit-only contradict each other")
    if dry_run:
        from seedream_batch.cli.commands.plan import command as plan

        if summary or metrics:
            raise UsageError("--dry-run makes no run, so there is none for --summary or --metrics to tell of")
        return int(ctx.invoke(plan, job=job, select=select, emulate=emulate, manifest=manifest, max_tasks=max_tasks))
    with importing():
        from seedream_batch.cli.execute import perform, show_end
        from seedream_batch.cli.job_target import load, named, trusts_keys
        from seedream_batch.cli.run_report.run_report import RunReporter, files
        from seedream_batch.engine.events import RunOptions

    with RunReporter(job, files(summary, metrics), emulated=emulate, log_format=log_format) as ending:
        loaded = load(job, emulate=emulate, manifest=manifest, max_tasks=max_tasks)
        ending.about(loaded.job)
        options = RunOptions(
            limit=limit,
            max_duration=max_duration,
            collect=collect,
            submit_only=submit_only,
            resend=trusts_keys(loaded.job, emulate=emulate),
            same_account=same_account,
        )
        result = perform(loaded, emulate=emulate, options=options, select=select, quiet=quiet, log_format=log_format)
        ending.result = result
    try:
        show_end(result, loaded.job, named(job, emulate=emulate, manifest=manifest), code=ending.code, quiet=quiet)
    finally:
        # Also after another Ctrl-C.
        ending.notify()
    return ending.code
