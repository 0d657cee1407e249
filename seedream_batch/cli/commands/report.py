"""`seedream-batch report`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seedream_batch.cli.options import EMULATE, FLAGGED, JOB, MANIFEST, SELECT, OutputPath
from seedream_batch.cli.output.console import give, number, say, short

if TYPE_CHECKING:
    from tqdm import tqdm

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
    flagged: bool,
    emulate: bool,
    manifest: str | None,
    as_json: bool,
) -> int:
    """Write an HTML gallery of JOB to search, compare and choose images."""
    from tqdm import tqdm

    from seedream_batch.cli.job_target import existing
    from seedream_batch.cli.output.picks_view import chosen_results
    from seedream_batch.files.open_destination import destination
    from seedream_batch.manifest.run_lock import is_locked
    from seedream_batch.report.gallery import write_gallery

    target = existing(job, emulate=emulate, manifest=manifest)[0].job
    folder = to or target.output_dir.with_name(f"{target.output_dir.name}-report")
    chooses = chosen_results(select, target, flagged=flagged)
    # Thousands of thumbnails take minutes; without a terminal, the bar shows nothing.
    with tqdm(desc="report", unit=" tasks", leave=False, disable=None) as bar:
        gallery = write_gallery(
            target.manifest,
            destination(target),
            folder,
            chooses=(lambda cell: chooses(json.loads(cell))) if chooses else lambda _: True,
            running=is_locked(target.manifest),
            progress=partial(_move, bar),
        )
    if as_json:
        give(
            {
                "index": str(gallery.index),
                "cells": gallery.cells,
                "tasks": gallery.tasks,
                "images": gallery.images,
                "thumbnails_made": gallery.thumbnails,
            }
        )
    else:
        what = f"{number(gallery.cells, 'cell')} ({number(gallery.images, 'image')})"
        say(f"gallery of {what}: {short(gallery.index)}")
    return 0


def _move(bar: tqdm[Any], done: int, total: int) -> None:
    bar.total = total
    bar.update(done - bar.n)
