"""Scans everything to be exported before writing: are the files intact, and what do the tables need?"""

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
"""Most files that are named; all are counted."""


@dataclass(slots=True)
class Survey:
    """The result of a scan: images and bytes, and images per split."""

    images: int = 0
    not_stored: int = 0
    bytes: int = 0
    splits: dict[str, int] = field(default_factory=dict)
    names: Names = field(default_factory=Names)
    learner: Learner = field(default_factory=Learner)
    endings: set[str] = field(default_factory=set)
    """The extensions of the files."""


def survey(pictures: Pictures, folder: Destination, splits: Splits | None, *, learn: bool, verify: bool) -> Survey:
    """Check the size of every file, or its bytes with `verify`; with `learn`, also learn the columns.

    Raises `StorageError` naming the files that are missing or changed.
    """
    scan = Survey(splits=dict.fromkeys(splits.names, 0) if splits else {})
    faults: list[str] = []
    count = 0
    for stored, not_stored in pictures.by_task():
        scan.not_stored += not_stored
        for picture in stored:
            scan.images += 1
            scan.bytes += picture.file.bytes
            scan.names.learn(picture.path)
            scan.endings.add(PurePosixPath(picture.path).suffix)
            if learn:
                scan.learner.learn(picture)
            if splits:
                scan.splits[splits.of(picture.cell)] += 1
            fault = _fault(folder, picture, verify=verify)
            count += bool(fault)
            if fault and len(faults) < SHOWN:
                faults.append(fault)
    if count > len(faults):
        faults.append(f"and {count - len(faults):,} more")
    if faults:
        raise StorageError("\n  ".join(["nothing was exported; these files are not what was stored:", *faults]))
    return scan


def _fault(folder: Destination, picture: Picture, *, verify: bool) -> str:
    """Return what is wrong with a file, and where it is; empty if nothing is."""
    try:
        result = check(folder, picture.file, deep=False) if verify else check_size(folder, picture.file)
    except StorageError as error:
        return str(error)
    return f"{folder.named(picture.file.path)}: {result.wrong}" if result.wrong else ""
