"""The stored images of a job, one at a time, in the job's order."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from seedream_batch.files.integrity import ExpectedFile
from seedream_batch.manifest.image_readers import DeliveryReader
from seedream_batch.manifest.reader import TaskImages
from seedream_batch.manifest.sync_job import known_as
from seedream_batch.model.cell import CellFilter
from seedream_batch.model.document import Json
from seedream_batch.model.job import MICRO
from seedream_batch.model.task import ImageState, TaskSpec, TaskState, home_of
from seedream_batch.selection.picks import Picks

_BATCH = 500
"""Tasks that are looked up together, which bounds the memory."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A stored image: where it is with its recorded properties, and where the job wants it.

    `about` has the columns of an export that do not depend on it, with times in ISO 8601 and money in USD.
    """

    file: ExpectedFile
    path: str
    cell: Mapping[str, Json]
    prompt: str
    index: int
    about: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Pictures:
    """The images of the job's tasks, read again in each iteration.

    `chooses` selects cells and `picks` images; None: all.
    """

    reader: DeliveryReader
    tasks: Callable[[], Iterable[TaskSpec]]
    chooses: CellFilter | None
    picks: Picks | None = None

    def __iter__(self) -> Iterator[Picture]:
        for pictures, _ in self.by_task():
            yield from pictures

    def by_task(self) -> Iterator[tuple[list[Picture], int]]:
        """Yield the stored images of each task, and the number of its images that are not stored."""
        source = iter(self.tasks())
        while batch := list(itertools.islice(source, _BATCH)):
            batch = known_as(batch, self.reader.lookup)
            deliveries = self.reader.deliveries([spec.fingerprint for spec in batch])
            for spec in batch:
                cell = json.loads(spec.cell)
                delivery = deliveries.get(spec.fingerprint)
                # Also for cells that are not selected: otherwise their entries would be reported as matching nothing.
                left_out = self._unpicked(delivery)
                if self.chooses is None or self.chooses(cell):
                    stored, lacking = _images_of_task(spec, cell, delivery)
                    # If only kept images are wanted, no image that is not stored is missing.
                    lacking = 0 if self.picks is not None and self.picks.keeps else lacking
                    yield [picture for picture in stored if picture.index not in left_out], lacking

    def _unpicked(self, delivery: TaskImages | None) -> set[int]:
        """Return the indexes of a task's images that are stored but not picked."""
        if self.picks is None or delivery is None:
            return set()
        return {
            image.index
            for image, _ in delivery.images
            if image.state is ImageState.STORED
            and not self.picks.takes(delivery.task.fingerprint, image.index, image.sha256 or "")
        }


def _images_of_task(spec: TaskSpec, cell: Mapping[str, Json], delivery: TaskImages | None) -> tuple[list[Picture], int]:
    if delivery is None:
        return [], spec.images
    prompt = str(json.loads(spec.body).get("prompt", ""))
    task, stored = delivery.task, []
    for image, at in delivery.images:
        if image.state is ImageState.STORED:
            file = ExpectedFile.of(image)
            cost = share(task.cost, len(delivery.images), image.index)
            about: dict[str, Json] = {
                "prompt": prompt,
                "size": spec.size,
                "resolution": spec.resolution,
                "width": file.width,
                "height": file.height,
                "format": (image.format or "").lower(),
                "task_id": ",".join(task.task_ids),
                "sample": spec.sample,
                "index": image.index,
                "cost_usd": None if cost is None else cost / MICRO,
                "sha256": file.sha256,
                "bytes": file.bytes,
                "submitted_at": _iso(task.submitted_at),
                "ended_at": _iso(delivery.ended_at),
                "stored_at": _iso(at),
            }
            # Not where the file is now: it may wait for the next run to move it.
            stored.append(Picture(file, home_of(spec, image), cell, prompt, image.index, about))
    # A completed series may have fewer images than requested; no more of them will come.
    ended = task.state is TaskState.SUCCEEDED
    expected = len(delivery.images) if ended else max(spec.images, len(delivery.images))
    return stored, expected - len(stored)


def _iso(at: float | None) -> str | None:
    """Return unix seconds as ISO 8601 in UTC, to the second."""
    return None if at is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def share(cost: int | None, images: int, index: int) -> int | None:
    """Return the cost of one of a task's images; the shares of all add up to the task's cost exactly."""
    if cost is None:
        return None
    quotient, remainder = divmod(cost, images)
    return quotient + (index <= remainder)
