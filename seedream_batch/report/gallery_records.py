"""Tasks as records of a gallery: what the grid needs of each, and what only the detail view needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from seedream_batch.manifest.reader import TaskImages
from seedream_batch.model.document import Json
from seedream_batch.model.job import MICRO
from seedream_batch.model.task import NOT_THERE, ImageRecord, ImageState, TaskState, image_path
from seedream_batch.report.page import clean, label


@dataclass(frozen=True, slots=True)
class Tile:
    """What the grid shows for one image, or for a task without one: a state and its reason."""

    index: int
    state: str
    reason: str
    path: str
    image: ImageRecord | None
    changed_at: float | None

    @property
    def shown(self) -> list[Json]:
        """The hash and the size of an image that can be shown; empty for any other tile."""
        if self.image is None or self.state != ImageState.STORED:
            return []
        return [self.image.sha256, self.image.width, self.image.height]


def tiles(shown: TaskImages, gone: Mapping[tuple[int, int], str]) -> list[Tile]:
    """Return the tiles of a task; `gone` has the reason for each stored image that cannot be shown."""
    task = shown.task
    if not shown.images:
        indices = range(1, task.images + 1) if len(task.paths) > 1 else [1]
        paths = [image_path(task.paths, task.images, index, task.fingerprint) for index in indices]
        return [Tile(1, task.state, task.reason, paths[0], None, None)]
    task_tiles = []
    for image, changed_at in shown.images:
        state, reason = str(image.state), image.reason
        path = image.path or image_path(task.paths, task.images, image.index, task.fingerprint)
        fault = gone.get((image.task, image.index), "")
        if fault:
            state, reason = ImageState.MISSING, f"{fault}; run `seedream-batch verify`"
        elif image.state in NOT_THERE and task.state is not TaskState.SUCCEEDED:
            # It is being regenerated: the progress of that matters more than the earlier image.
            state, reason = task.state, task.reason or reason
        task_tiles.append(Tile(image.index, state, reason, path, image, changed_at))
    return task_tiles


def grid_record(shown: TaskImages, task_tiles: list[Tile], axes: Axes, prompts: dict[str, int]) -> Json:
    """Return what the grid needs of a task, as a list: keys would take half of the file."""
    task = shown.task
    numbers = axes.add(json.loads(task.cell), task.sample)
    prompt = clean(str(json.loads(task.body).get("prompt", "")))
    return [
        task.fingerprint,
        task.sample,
        [numbers.get(axis, -1) for axis in range(max(numbers) + 1)],
        prompts.setdefault(prompt, len(prompts)),
        clean(task.size),
        " ".join(clean(task_id) for task_id in task.task_ids),
        [[tile.index, tile.state, clean(tile.path), clean(tile.reason), *tile.shown] for tile in task_tiles],
    ]


def detail_record(shown: TaskImages, task_tiles: list[Tile]) -> Json:
    """Return what the detail view shows of a task in addition to the grid."""
    task = shown.task
    return {
        "state": str(task.state),
        "cell": clean(json.dumps(json.loads(task.cell), ensure_ascii=False, indent=2)),
        "body": clean(json.dumps(json.loads(task.body), ensure_ascii=False, indent=2)),
        "ids": [clean(task_id) for task_id in task.task_ids],
        "attempt": task.attempt,
        "cost": None if task.cost is None else task.cost / MICRO,
        "images": task.images,
        "submitted": task.submitted_at,
        "ended": shown.ended_at,
        "changed": task.updated_at,
        "code": clean(task.code),
        "reason": clean(task.reason),
        "files": [
            {
                "index": tile.index,
                "sha256": tile.image.sha256,
                "bytes": tile.image.bytes,
                "format": tile.image.format,
                "at": tile.changed_at,
            }
            for tile in task_tiles
            if tile.image is not None
        ],
    }


SAMPLE = "sample"


class Axes:
    """Collects the values of each axis from the cells, and numbers them."""

    def __init__(self) -> None:
        self._numbers: dict[str, dict[str, int]] = {}
        self._labels: dict[str, dict[str, int]] = {}

    def add(self, cell: Mapping[str, Json], sample: int) -> dict[int, int]:
        """Return the numbers of the cell's values, by the number of their axis."""
        return {
            self._axis(name): self._value(name, value)
            for name, value in (*cell.items(), *([] if SAMPLE in cell else [(SAMPLE, sample)]))
        }

    def as_json(self) -> list[dict[str, Json]]:
        """Return the axes in order of appearance, each with the labels of its values."""
        return [{"name": clean(name), "values": list(labels)} for name, labels in self._labels.items()]

    def _axis(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = {}
            self._labels[name] = {}
        return list(self._numbers).index(name)

    def _value(self, name: str, value: Json) -> int:
        numbers, labels = self._numbers[name], self._labels[name]
        key = json.dumps(value, sort_keys=True)
        if key not in numbers:
            text = unique = label(value)
            # Different values may have the same label, but need a row each.
            while unique in labels:
                unique = f"{text} ({len(labels) + 1})"
            numbers[key] = labels[unique] = len(numbers)
        return numbers[key]
