"""`seedream-batch prune`."""

from __future__ import annotations

import click

from seedream_batch.cli.options import EMULATE, JOB, MANIFEST

_EPILOG = """\b
Examples:
  seedream-batch prune jobs/quickstart.yaml                             (what would go)
  seedream-batch prune jobs/quickstart.yaml --yes

Deletes the images of cells that the job no longer has, also those in superseded/, as far as they are what was stored.
What they cost stays counted. Should the job ask for such a cell again, it is bought again. What is in flight stays: it
is paid for, and the next run collects it."""


@click.command("prune", epilog=_EPILOG)
@JOB
@click.option("--yes", is_flag=True, help="Delete them; else they are only shown.")
@EMULATE
@MANIFEST
@click.option("--json", "as_json", is_flag=True, help="What was found, or deleted, as JSON.")
def command(job: str, yes: bool, emulate: bool, manifest: str | None, as_json: bool) -> int:  # noqa: FBT001
    """Delete the images that JOB no longer asks for."""
    from seedream_batch.cli.exit_codes import Exit
    from seedream_batch.cli.job_target import made, named
    from seedream_batch.cli.output.console import give
    from seedream_batch.cli.output.maintenance_view import SHOWN, pruned_json, show_pruned
    from seedream_batch.operations.prune import prune

    loaded = made(job, emulate=emulate, manifest=manifest)
    pruned = prune(loaded.job, loaded.tasks(), delete=yes, named=None if as_json else SHOWN)
    if as_json:
        give(pruned_json(pruned))
    else:
        show_pruned(pruned, loaded.job, named(job, emulate=emulate, manifest=manifest))
    return int(Exit.NO_STORAGE if pruned.unreadable else Exit.DONE)
