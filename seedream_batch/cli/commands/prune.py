"""`seedream-batch prune`."""

from __future__ import annotations

import click

from seedream_batch.cli.options import EMULATE, JOB, MANIFEST
from seedream_batch.cli.output.console import give

_EPILOG = """\b
Examples:
  seedream-batch prune jobs/quickstart.yaml                             (only show)
  seedream-batch prune jobs/quickstart.yaml --yes

Deletes images of cells that were removed from the job, including those in superseded/. Files that were changed since
they were stored are kept. The cost of deleted images stays in the totals. If a cell is added again, it is charged
again. Tasks in flight are kept, and the next run downloads their images."""


@click.command("prune", epilog=_EPILOG)
@JOB
@click.option("--yes", is_flag=True, help="Delete the files instead of only showing them.")
@EMULATE
@MANIFEST
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(job: str, yes: bool, emulate: bool, manifest: str | None, as_json: bool) -> int:
    """Delete stored images that are no longer in JOB."""
    from seedream_batch.cli.exit_codes import Exit
    from seedream_batch.cli.job_target import made, named
    from seedream_batch.cli.output.maintenance_view import SHOWN, pruned_json, show_pruned
    from seedream_batch.operations.prune import prune

    loaded = made(job, emulate=emulate, manifest=manifest)
    pruned = prune(loaded.job, loaded.tasks(), delete=yes, named=None if as_json else SHOWN)
    if as_json:
        give(pruned_json(pruned))
    else:
        show_pruned(pruned, loaded.job, named(job, emulate=emulate, manifest=manifest))
    return int(Exit.NO_STORAGE if pruned.unreadable else Exit.DONE)
