"""A look at all that is to be exported, before anything is written: is it there, and what will the tables need."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath

from seedream_batch.errors import StorageError
from seedream_batch.export.columns import Learner
from seedream_batch.export.split_layout import Names
from seedream_batch.export.splits import Splits
from seedream_batch.export.stored_images import Picture, Pictures
from seedream_batch.files.destination import Destination
from seedream_batch.files.integrity import check, check_size

SHOWN = 20
"""Files that are named; the count is whole."""


@dataclass(slots=True)
class Survey:
    """What there is, in images and bytes, and for each split."""

    images: int = 0
    not_stored: int = 0
    bytes: int = 0
    splits: dict[str, int] = field(default_factory=dict)
    names: Names = field(default_factory=Names)
    learner: Learner = field(default_factory=Learner)
    endings: set[str] = field(default_factory=set)
    """The endings of the files."""


def survey(pictures: Pictures, folder: Destination, splits: Splits | None, *, learn: bool, verify: bool) -> Survey:
    """Looks at every file: its size, and with `verify` its bytes; with `learn` at the columns, too.

    Raises `StorageError` with the files that are in disorder.
    """
    found = Survey(splits=dict.fromkeys(splits.names, 0) if splits else {})
    wrong: list[str] = []
    count = 0
    for stored, not_stored in pictures.by_task():
        found.not_stored += not_stored
        for picture in stored:
            found.images += 1
            found.bytes += picture.file.bytes
            found.names.learn(picture.path)
            found.endings.add(PurePosixPath(picture.path).suffix)
            if learn:
                found.learner.learn(picture)
            if splits:
                found.splits[splits.of(picture.cell)] += 1
            why = _disorder(folder, picture, verify=verify)
            count += bool(why)
            if why and len(wrong) < SHOWN:
                wrong.append(why)
    if count > len(wrong):
        wrong.append(f"and {count - len(wrong):,} more")
    if wrong:
        raise StorageError("\n  ".join(["nothing was exported; these files are not what was stored:", *wrong]))
    return found


def _disorder(folder: Destination, picture: Picture, *, verify: bool) -> str:
    """What is wrong with a file, and where it is; empty if nothing is."""
    try:
        seen = check(folder, picture.file, deep=False) if verify else check_size(folder, picture.file)
    except StorageError as error:
        return str(error)
    return f"{folder.named(picture.file.path)}: {seen.wrong}" if seen.wrong else ""
