"""The gallery: a folder with one page that shows all images of a job, and needs no network."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from urllib.parse import quote

from seedream_batch._version import __version__
from seedream_batch.errors import UsageError
from seedream_batch.files.destination import Destination
from seedream_batch.files.local_folder import resolved
from seedream_batch.manifest import ManifestReader
from seedream_batch.manifest.reader import Shown
from seedream_batch.model.document import Json
from seedream_batch.model.job import MICRO
from seedream_batch.model.locations import Place
from seedream_batch.model.task import ImageState
from seedream_batch.report.axes import Axes
from seedream_batch.report.gallery_chunks import Batch, Chunks, drop_others
from seedream_batch.report.gallery_folder import ReportFolder
from seedream_batch.report.gallery_records import detail_record, grid_record, tiles
from seedream_batch.report.page import write_assets, write_page
from seedream_batch.report.page_text import clean, script
from seedream_batch.report.thumbnails import Thumbnails
from seedream_batch.report.timeline import timeline

PAGE = 250
"""Tasks that are read together; so many records are in memory."""

GRID_CHUNK = 2000
"""Tasks of a file that the grid loads at once."""

Chooses = Callable[[str], bool]
"""Whether a cell (JSON text) is shown."""


@dataclass(frozen=True, slots=True)
class Gallery:
    """What was written: the page, how many cells, tasks and images it shows, and how many thumbnails were made."""

    index: Path
    cells: int
    tasks: int
    images: int
    thumbnails: int


def write_gallery(
    manifest: Place,
    images: Destination,
    to: Path,
    *,
    chooses: Chooses,
    running: bool,
    progress: Callable[[int, int], None],
) -> Gallery:
    """Writes the gallery of the job with this manifest into the folder `to`, or brings it up to date there.

    `progress` is told how many tasks of how many are done. Raises `UsageError`, `StorageError`, `ManifestError`.
    """
    folder = resolved(images.spool)
    if resolved(to).is_relative_to(folder) or folder.is_relative_to(resolved(to)):
        raise UsageError(f"{to} is in the folder of the images, or around it: give another folder with --to")
    with ManifestReader(manifest) as reader, ReportFolder(to) as report:
        thumbnails = Thumbnails(images, report)
        try:
            records = _Records(report, thumbnails)
            numbers = reader.wanted_ids()
            done = 0
            for page in _pages(numbers):
                records.add([one for one in reader.shown(page) if chooses(one.task.cell)])
                done += len(page)
                progress(done, len(numbers))
            records.end()
        finally:
            thumbnails.close()
        write_assets(report)
        report.write("data/index.js", script("begin", _index(reader, images, to, records, running=running)))
        write_page(report, reader.fact("job"))
        drop_others(report, [records.grid, records.details])
        thumbnails.drop_others()
    shown = records.states
    return Gallery(to / "index.html", len(records.cells), records.tasks, shown[ImageState.STORED], thumbnails.made)


class _Records:
    """Brings tasks into chunks, and counts what passes by."""

    def __init__(self, report: ReportFolder, thumbnails: Thumbnails) -> None:
        self.grid = Chunks(report, "cells")
        self.details = Chunks(report, "details")
        self.axes = Axes()
        self.states: Counter[str] = Counter()
        self.cells: set[int] = set()
        """The hash of each cell: samples of one are one cell."""
        self.tasks = 0
        self._thumbnails = thumbnails
        self._batch = Batch()
        self._details: list[Json] = []

    def add(self, page: list[Shown]) -> None:
        """One page of tasks, after their thumbnails."""
        stored = [image for one in page for image, _ in one.images if image.state is ImageState.STORED]
        why = self._thumbnails.ensure(stored)
        gone = {(image.task, image.index): told for image, told in zip(stored, why, strict=True) if told}
        for one in page:
            found = tiles(one, gone)
            self._batch.records.append(grid_record(one, found, self.axes, self._batch.prompts))
            self._details.append(detail_record(one, found))
            self.states.update(tile.state for tile in found)
            self.cells.add(hash(one.task.cell))
            self.tasks += 1
            if len(self._details) == PAGE:
                self._end_details()
            if len(self._batch) == GRID_CHUNK:
                self._end_grid()

    def end(self) -> None:
        """Writes what is left."""
        if self._details:
            self._end_details()
        if len(self._batch):
            self._end_grid()

    def _end_details(self) -> None:
        self.details.add(self._details)
        self._details = []

    def _end_grid(self) -> None:
        self.grid.add(self._batch.value())
        self._batch = Batch()


def _index(
    reader: ManifestReader, images: Destination, to: Path, records: _Records, *, running: bool
) -> Mapping[str, Json]:
    """What the page loads first."""
    totals = reader.totals()
    return {
        "job": clean(reader.fact("job")),
        "id": reader.fact("manifest_id"),
        "version": __version__,
        "at": round(time.time(), 3),
        "images": _link(images.spool, to) if images.link is None else images.link,
        "elsewhere": images.link is not None,
        "running": running,
        "axes": records.axes.told(),
        "tasks": records.tasks,
        "cells": len(records.cells),
        "states": dict(records.states),
        "spent": totals.cost / MICRO,
        "held": totals.reserved / MICRO,
        "timeline": timeline(reader),
        "grid": records.grid.names,
        "details": records.details.names,
        "details_each": PAGE,
    }


def _link(images: Path, to: Path) -> str:
    """How the page finds the folder of the images: from its own, so that both can be moved together."""
    here, there = resolved(to), resolved(images)
    if os.path.commonpath([here, there]) == os.sep:
        return f"{there.as_uri()}/"
    return f"{quote(Path(os.path.relpath(there, here)).as_posix())}/"


def _pages(numbers: Iterable[int]) -> Iterator[list[int]]:
    rest = iter(numbers)
    while page := list(islice(rest, PAGE)):
        yield page
