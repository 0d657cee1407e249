"""The gallery: a folder with one page that shows all images of a job, without network access."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from seedream_batch._version import __version__
from seedream_batch.errors import UsageError
from seedream_batch.files.destination import Destination
from seedream_batch.files.local_folder import resolved
from seedream_batch.manifest.image_readers import GalleryReader, Step
from seedream_batch.manifest.reader import TaskImages
from seedream_batch.model.document import Json
from seedream_batch.model.job import MICRO
from seedream_batch.model.locations import Place
from seedream_batch.model.task import ImageState
from seedream_batch.report.gallery_folder import ReportFolder
from seedream_batch.report.gallery_records import Axes, detail_record, grid_record, tiles
from seedream_batch.report.page import clean, script, write_assets, write_page
from seedream_batch.report.thumbnails import Thumbnails

PAGE = 250
"""Tasks that are read together, which bounds the records in memory."""

GRID_CHUNK = 2000
"""Tasks per file of the grid."""

_DATA = "data"
_CHUNK = re.compile(rf"{_DATA}/(?:cells|details)-\d+-[0-9a-f]{{16}}\.js")

PathFilter = Callable[[str], bool]
"""Returns whether a cell (JSON text) is shown."""


@dataclass(frozen=True, slots=True)
class Gallery:
    """The result: the page, the number of cells, tasks and images in it, and of thumbnails created."""

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
    chooses: PathFilter,
    running: bool,
    progress: Callable[[int, int], None],
) -> Gallery:
    """Write the gallery of a job into the folder `to`, or update it there.

    `progress` is called with the number of finished tasks and of all tasks. Raises `UsageError`, `StorageError` and
    `ManifestError`.
    """
    folder = resolved(images.spool)
    if resolved(to).is_relative_to(folder) or folder.is_relative_to(resolved(to)):
        raise UsageError(f"{to} overlaps with the folder of the images; choose another folder with --to")
    with GalleryReader(manifest) as reader, ReportFolder(to) as report:
        thumbnails = Thumbnails(images, report)
        try:
            records = _Records(report, thumbnails)
            numbers = reader.wanted_ids()
            done = 0
            for start in range(0, len(numbers), PAGE):
                page = numbers[start : start + PAGE]
                records.add([shown for shown in reader.with_images(page) if chooses(shown.task.cell)])
                done += len(page)
                progress(done, len(numbers))
            records.end()
        finally:
            thumbnails.close()
        write_assets(report)
        report.write(f"{_DATA}/index.js", script("begin", _index(reader, images, to, records, running=running)))
        write_page(report, reader.facts.get("job"))
        # The chunks of earlier galleries go.
        report.keep_only(_DATA, _CHUNK, {f"{_DATA}/{name}" for name in (*records.grid.names, *records.details.names)})
        thumbnails.drop_others()
    shown = records.states
    return Gallery(to / "index.html", len(records.cells), records.tasks, shown[ImageState.STORED], thumbnails.made)


class _Chunks:
    """Records of one kind in files of bounded size, each named by its hash: unchanged files are not written again."""

    def __init__(self, report: ReportFolder, kind: str) -> None:
        self._report = report
        self._kind = kind
        self.names: list[str] = []

    def add(self, value: Json) -> None:
        """Write a chunk: a call of `seedream.KIND` with the number of the chunk and the value."""
        data = script(self._kind, len(self.names), value)
        name = f"{self._kind}-{len(self.names)}-{hashlib.sha256(data).hexdigest()[:16]}.js"
        self._report.write(f"{_DATA}/{name}", data)
        self.names.append(name)


class _Records:
    """Collects tasks into chunks, and counts them."""

    def __init__(self, report: ReportFolder, thumbnails: Thumbnails) -> None:
        self.grid = _Chunks(report, "cells")
        self.details = _Chunks(report, "details")
        self.axes = Axes()
        self.states: Counter[str] = Counter()
        self.cells: set[int] = set()
        """Hashes of the cells: all samples of a cell count once."""
        self.tasks = 0
        self._thumbnails = thumbnails
        self._grid: list[Json] = []
        self._prompts: dict[str, int] = {}
        """The prompts of a chunk of the grid, each once: many tasks share theirs."""
        self._details: list[Json] = []

    def add(self, page: list[TaskImages]) -> None:
        """Add one page of tasks, after creating their thumbnails."""
        stored = [image for shown in page for image, _ in shown.images if image.state is ImageState.STORED]
        faults = self._thumbnails.ensure(stored)
        unavailable = {(image.task, image.index): fault for image, fault in zip(stored, faults, strict=True) if fault}
        for shown in page:
            task_tiles = tiles(shown, unavailable)
            self._grid.append(grid_record(shown, task_tiles, self.axes, self._prompts))
            self._details.append(detail_record(shown, task_tiles))
            self.states.update(tile.state for tile in task_tiles)
            self.cells.add(hash(shown.task.cell))
            self.tasks += 1
            if len(self._details) == PAGE:
                self._end_details()
            if len(self._grid) == GRID_CHUNK:
                self._end_grid()

    def end(self) -> None:
        if self._details:
            self._end_details()
        if self._grid:
            self._end_grid()

    def _end_details(self) -> None:
        self.details.add(self._details)
        self._details = []

    def _end_grid(self) -> None:
        self.grid.add({"prompts": list(self._prompts), "tasks": self._grid})
        self._grid, self._prompts = [], {}


def _index(
    reader: GalleryReader, images: Destination, to: Path, records: _Records, *, running: bool
) -> Mapping[str, Json]:
    """Return what the page loads first."""
    totals = reader.totals()
    return {
        "job": clean(reader.facts.get("job")),
        "id": reader.facts.get("manifest_id"),
        "version": __version__,
        "at": round(time.time(), 3),
        "images": _link(images.spool, to) if images.link is None else images.link,
        "elsewhere": images.link is not None,
        "running": running,
        "axes": records.axes.as_json(),
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
    """Return the link to the folder of the images, relative to the page so that both can be moved together."""
    here, there = resolved(to), resolved(images)
    if os.path.commonpath([here, there]) == os.sep:
        return f"{there.as_uri()}/"
    return f"{quote(Path(os.path.relpath(there, here)).as_posix())}/"


POINTS = 240
"""Approximate number of moments in total; each run has at least two."""

MOST_STRETCHES = 30
"""Most runs shown side by side; more are shown as one stretch of time with its pauses."""


def timeline(reader: GalleryReader) -> list[list[list[Json]]]:
    """Return the moments of each run that did something, for a chart without the pauses between runs.

    A moment has unix seconds, and the numbers of submitted, ended and stored, and the cost in USD, up to then.
    """
    stretches = reader.run_periods()
    if len(stretches) > MOST_STRETCHES:
        stretches = [(stretches[0][0], max(end for _, end in stretches))]
    if not stretches:
        return []
    total = sum(end - start for start, end in stretches) or 1.0
    moments = []
    for start, end in stretches:
        steps_there = max(2, round(POINTS * (end - start) / total)) - 1
        moments.append([*(start + (end - start) * step / steps_there for step in range(steps_there)), end])
    counts = dict.fromkeys(Step, 0)
    cost = 0
    series: list[list[list[Json]]] = [[] for _ in moments]
    steps = iter(reader.steps())
    step = next(steps, None)
    for points, times in zip(series, moments, strict=True):
        for moment in times:
            while step is not None and step[0] <= moment:
                counts[step[1]] += 1
                cost += step[2]
                step = next(steps, None)
            points.append([round(moment, 3), *counts.values(), round(cost / 1_000_000, 6)])
    return series
