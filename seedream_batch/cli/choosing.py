"""The choice that the gallery exports, read and carried out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from seedream_batch.cli.show import show_chosen
from seedream_batch.cli.words import number, say
from seedream_batch.errors import UsageError

if TYPE_CHECKING:
    from seedream_batch.choice import Choice
    from seedream_batch.engine.reject import Rejected
    from seedream_batch.model.job import Job

SHOWN = 20
"""Images that are named as left alone; the count is whole."""


def read_choice(path: Path, job: Job) -> Choice:
    """The choice in a file, which has to be of this job. Raises `UsageError`."""
    from seedream_batch.choice import parse_choice

    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}; give the file that the gallery exported") from error
    choice = parse_choice(data, str(path))
    if choice.job != job.name:
        raise UsageError(f"{path} is a choice among the images of {choice.job!r}, and this job is {job.name!r}")
    return choice


def show_rejected(rejected: Rejected, then: str, none: str) -> None:
    """What is made anew, where the rejected files are, and what was left alone."""
    images = number(sum(task.images for task in rejected.tasks), "image")
    show_chosen(rejected.tasks, f"planned again, {images} to be paid for", then, none)
    if rejected.files:
        say(f"{number(len(rejected.files), 'rejected file')} in superseded/, which stays there until you delete it.")
    if rejected.left:
        show_left_alone(rejected.left, "left alone")


def show_left_alone(images: Sequence[str], how: str, *, err: bool = False) -> None:
    """The images about which the choice changed nothing, each with its reason."""
    say(f"{number(len(images), 'image')} {how}:", err=err)
    for told in images[:SHOWN]:
        say(f"  {told}", err=err)
    if len(images) > SHOWN:
        say(f"  and {len(images) - SHOWN:,} more", err=err)
