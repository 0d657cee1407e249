"""`seedream-batch run`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from seedream_batch.cli.exit_codes import HELP as EXIT_CODES
from seedream_batch.cli.lazy_imports import importing
from seedream_batch.cli.options import (
    EMULATE,
    JOB,
    MANIFEST,
    MAX_TASKS,
    SAME_ACCOUNT,
    SELECT,
    Count,
    Duration,
    OutputPath,
)
from seedream_batch.errors import UsageError

_EPILOG = f"""\b
Examples:
  seedream-batch run jobs/quickstart.yaml --emulate
  seedream-batch run jobs/postcards.yaml --limit 10
  seedream-batch run jobs/postcards.yaml --select subject=fox --select size=1:1,16:9
  seedream-batch run jobs/postcards.yaml --quiet --max-duration 50m     (from cron)

--select limits what is submitted. Tasks in flight are already paid for, so they are always downloaded.

You can stop a run at any time (Ctrl-C); the next run resumes it. The API key is read from APIMART_API_KEY, or from the
file named in APIMART_API_KEY_FILE. APIMART_BASE_URL sets the address of the service.

{EXIT_CODES}"""


@click.command("run", epilog=_EPILOG)
@JOB
@SELECT
@EMULATE
@MANIFEST
@SAME_ACCOUNT
@click.option("--limit", type=Count(), metavar="N", help="Submit at most N tasks.")
@click.option("--max-duration", type=Duration(), metavar="TIME", help="Stop cleanly after this time (50m, 1h30m).")
@click.option("--collect", is_flag=True, help="Finish the tasks in flight; submit nothing.")
@click.option("--submit-only", is_flag=True, help="Submit tasks; let a later run poll and download them.")
@click.option("--dry-run", is_flag=True, help="Show the plan instead of running it.")
@click.option("--quiet", "-q", is_flag=True, help="Print only problems.")
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True,
    help="Format of events on standard error.",
)  # fmt: skip
@click.option(
    "--summary", metavar="FILE", type=OutputPath(path_type=Path), help="Write a summary of the run to FILE, as JSON."
)
@click.option(
    "--metrics", metavar="FILE", type=OutputPath(path_type=Path),
    help="Write metrics to FILE, for the textfile collector of Prometheus.",
)  # fmt: skip
@MAX_TASKS
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> int:
    """Generate the missing images of JOB."""
    flags = _Flags(**given)
    if flags.collect and flags.submit_only:
        raise UsageError("use --collect or --submit-only, not both")
    if flags.dry_run:
        return _plan(ctx, flags)
    with importing():
        from seedream_batch.cli.execute import perform, show_end
        from seedream_batch.cli.job_target import load, named, trusts_keys
        from seedream_batch.cli.run_report.run_report import RunReporter, files
        from seedream_batch.engine.events import RunOptions

    emulate, quiet, log_format = flags.emulate, flags.quiet, flags.log_format
    with RunReporter(flags.job, files(flags.summary, flags.metrics), emulated=emulate, log_format=log_format) as ending:
        loaded = load(flags.job, emulate=emulate, manifest=flags.manifest, max_tasks=flags.max_tasks)
        ending.about(loaded.job)
        options = RunOptions(
            limit=flags.limit,
            max_duration=flags.max_duration,
            collect=flags.collect,
            submit_only=flags.submit_only,
            resend=trusts_keys(loaded.job, emulate=emulate),
            same_account=flags.same_account,
        )
        select = flags.select
        result = perform(loaded, emulate=emulate, options=options, select=select, quiet=quiet, log_format=log_format)
        ending.result = result
    try:
        path = named(flags.job, emulate=emulate, manifest=flags.manifest)
        show_end(result, loaded.job, path, code=ending.code, quiet=quiet)
    finally:
        # Also after another Ctrl-C.
        ending.notify()
    return ending.code


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flags:
    """The parameters of the command line; None for an option that was not given."""

    job: str
    select: tuple[str, ...]
    emulate: bool
    manifest: str | None
    same_account: bool
    limit: int | None
    max_duration: float | None
    collect: bool
    submit_only: bool
    dry_run: bool
    quiet: bool
    log_format: str
    summary: Path | None
    metrics: Path | None
    max_tasks: int


def _plan(ctx: click.Context, flags: _Flags) -> int:
    from seedream_batch.cli.commands.plan import command as plan

    if flags.summary or flags.metrics:
        raise UsageError("--summary and --metrics do not work with --dry-run, which runs nothing")
    shared = {name: getattr(flags, name) for name in ("job", "select", "emulate", "manifest", "max_tasks")}
    return int(ctx.invoke(plan, **shared))
