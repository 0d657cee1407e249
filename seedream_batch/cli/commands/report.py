"""`seedream-batch report`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from seedream_batch.cli.options import EMULATE, FLAGGED, JOB, MANIFEST, SELECT, OutputPath

_EPILOG = """\b
Examples:
  seedream-batch report jobs/quickstart.yaml
  seedream-batch report jobs/quickstart.yaml --select subject=fox --to fox-gallery

Prints the path of an index.html to open in a browser. Works during a run, offline and without a key. Run it again to
update the gallery."""


@click.command("report", epilog=_EPILOG)
@JOB
@click.option(
    "--to",
    metavar="DIR",
    type=OutputPath(file_okay=False, path_type=Path),
    help="Folder of the gallery.  [default: the output folder with -report added to its name]",
)
@SELECT
@FLAGGED
@EMULATE
@MANIFEST
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    job: str,
    to: Path | None,
    select: tuple[str, ...],
    flagged: bool,  # noqa: FBT001
    emulate: bool,  # noqa: FBT001
    manifest: str | None,
    as_json: bool,  # noqa: FBT001
) -> int:
    """Write an HTML gallery of JOB to search, compare and choose images."""
    from seedream_batch.cli.job_target import existing
    from seedream_batch.cli.output.console import give, number, say, short
    from seedream_batch.cli.output.picks_view import chosen_results
    from seedream_batch.files.open_destination import destination
    from seedream_batch.manifest.run_lock import is_locked
    from seedream_batch.report import write_gallery

    target = existing(job, emulate=emulate, manifest=manifest)[0].job
    folder = to or target.output_dir.with_name(f"{target.output_dir.name}-report")
    chooses = chosen_results(select, target, flagged=flagged)
    with _bar() as progress:
        gallery = write_gallery(
            target.manifest,
            destination(target),
            folder,
            chooses=(lambda cell: chooses(json.loads(cell))) if chooses else lambda _: True,
            running=is_locked(target.manifest),
            progress=progress,
        )
    if as_json:
        result = {
            "index": str(gallery.index),
            "cells": gallery.cells,
            "tasks": gallery.tasks,
            "images": gallery.images,
            "thumbnails_made": gallery.thumbnails,
        }
        give(result)
    else:
        what = f"{number(gallery.cells, 'cell')} ({number(gallery.images, 'image')})"
        say(f"gallery of {what}: {short(gallery.index)}")
    return 0


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on a terminal, because thousands of thumbnails take minutes; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from tqdm import tqdm

    with tqdm(desc="report", unit=" tasks", leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress
