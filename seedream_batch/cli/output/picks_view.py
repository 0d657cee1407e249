"""The picks that a gallery exports: reading them, and showing what was done with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from seedream_batch.cli.output.console import number, say
from seedream_batch.cli.output.run_view import queued_again, show_chosen
from seedream_batch.errors import UsageError
from seedream_batch.manifest import ManifestReader
from seedream_batch.manifest.db.connection import UNLIMITED
from seedream_batch.manifest.reader import Flagged
from seedream_batch.model.document import Json
from seedream_batch.model.job import Job
from seedream_batch.model.task import ImageState
from seedream_batch.operations.reject import Rejected
from seedream_batch.selection.cell_filter import chosen
from seedream_batch.selection.picks import Choice, Picked, parse_choice

SHOWN = 20
"""Images that are named as left alone; all are counted."""


def read_choice(path: Path, job: Job) -> Choice:
    """Read the picks from a file, which must be of this job. Raises `UsageError`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}; name a file exported by the gallery") from error
    choice = parse_choice(data, str(path))
    if choice.job != job.name:
        raise UsageError(f"{path} is a choice for the job {choice.job!r}, but this job is {job.name!r}")
    return choice


def chosen_results(select: Sequence[str], job: Job, *, flagged: bool) -> Callable[[Mapping[str, Json]], bool] | None:
    """Return the cell predicate for `--select` and `--flagged`; None if neither is given. Raises `UsageError`."""
    chooses = chosen(select, job) if select else None
    if not flagged:
        return chooses
    cells = {json.dumps(json.loads(result.task.cell), sort_keys=True) for result in flagged_results(job)}
    return lambda cell: json.dumps(cell, sort_keys=True) in cells and (chooses is None or chooses(cell))


def flagged_choice(job: Job, *, keep: bool) -> Choice:
    """Return picks of the images with flagged results, or of all others. Raises `UsageError` if none is flagged."""
    flagged = flagged_results(job)
    if keep and not flagged:
        raise UsageError("this job has no flagged results")
    picked = set()
    with ManifestReader(job.manifest) as reader:
        for result in flagged:
            # A warning of the task concerns all its images; otherwise only images with a warning are meant.
            images = reader.images_of([result.task.id])[result.task.id] if result.task.warning else result.images
            picked |= {
                Picked(result.task.fingerprint, image.index) for image in images if image.state is ImageState.STORED
            }
    return Choice(job.name, frozenset(picked if keep else ()), frozenset(() if keep else picked))


def flagged_results(job: Job) -> list[Flagged]:
    """Return all results of the job that differ from the request."""
    with ManifestReader(job.manifest) as reader:
        return reader.flagged(UNLIMITED)


def show_rejected(rejected: Rejected, then: str, none: str) -> None:
    """Print what will be regenerated, where the rejected files are, and what was left alone."""
    none = "no tasks to queue" if rejected.unclear else none
    show_chosen(rejected.tasks, queued_again(rejected.tasks, rejected.cost), then, none)
    if rejected.files:
        say(f"{number(len(rejected.files), 'rejected file')} moved to superseded/; delete them there when you like.")
    if rejected.left:
        show_left_alone(rejected.left, "skipped")


def show_left_alone(images: Sequence[str], how: str, *, err: bool = False) -> None:
    """Print the images that the picks did not affect, each with its reason."""
    say(f"{number(len(images), 'image')} {how}:", err=err)
    for reason in images[:SHOWN]:
        say(f"  {reason}", err=err)
    if len(images) > SHOWN:
        say(f"  and {len(images) - SHOWN:,} more", err=err)
