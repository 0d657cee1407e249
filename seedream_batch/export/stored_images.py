"""The stored images of a job, one after the other, in the order of the job."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from seedream_batch.files.integrity import ExpectedFile
from seedream_batch.manifest.export_reader import Delivery, DeliveryReader
from seedream_batch.manifest.sync_job import known_as
from seedream_batch.model.document import Json
from seedream_batch.model.task import ImageRecord, ImageState, TaskSpec, TaskState, home_of
from seedream_batch.selection.picks import Picks

Chooses = Callable[[Mapping[str, Json]], bool]

_BATCH = 500
"""Tasks that are looked up together; so many, and not the job, are in memory."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A stored image with all that an export says of it; times in unix seconds, money in millionths of a USD.

    `file` is where it is and what is known of it; `path` is where the job wants it.
    """

    file: ExpectedFile
    path: str
    cell: Mapping[str, Json]
    prompt: str
    size: str
    resolution: str
    format: str
    task_id: str
    sample: int
    index: int
    cost: int | None
    submitted_at: float | None
    ended_at: float | None
    stored_at: float | None


class Pictures:
    """The images of the job's tasks, made anew each time that they are gone through."""

    def __init__(
        self,
        reader: DeliveryReader,
        tasks: Callable[[], Iterable[TaskSpec]],
        chooses: Chooses | None,
        picks: Picks | None = None,
    ) -> None:
        """`tasks` gives the job's tasks; `chooses` takes the cells that are meant, `picks` the images; None: all."""
        self._reader = reader
        self._tasks = tasks
        self._chooses = chooses
        self._picks = picks

    def __iter__(self) -> Iterator[Picture]:
        for pictures, _ in self.by_task():
            yield from pictures

    def by_task(self) -> Iterator[tuple[list[Picture], int]]:
        """The stored images of each task, and how many more it has or asks for that are not stored."""
        source = iter(self._tasks())
        while batch := list(itertools.islice(source, _BATCH)):
            batch = known_as(batch, self._reader.lookup)
            deliveries = self._reader.deliveries([spec.fingerprint for spec in batch])
            for spec in batch:
                cell = json.loads(spec.cell)
                delivery = deliveries.get(spec.fingerprint)
                # Whether its cell is meant or not: else an entry for another cell would seem to be about nothing.
                left_out = self._left_out(delivery)
                if self._chooses is None or self._chooses(cell):
                    stored, lacking = _of_task(spec, cell, delivery)
                    # Where only what is kept is wanted, nothing that is not stored is.
                    lacking = 0 if self._picks is not None and self._picks.keeps else lacking
                    yield [picture for picture in stored if picture.index not in left_out], lacking

    def _left_out(self, delivery: Delivery | None) -> set[int]:
        """The images of a task that are stored, and not chosen."""
        if self._picks is None or delivery is None:
            return set()
        return {
            image.index
            for image, _ in delivery.images
            if image.state is ImageState.STORED
            and not self._picks.takes(delivery.task.fingerprint, image.index, image.sha256 or "")
        }


def _of_task(spec: TaskSpec, cell: Mapping[str, Json], delivery: Delivery | None) -> tuple[list[Picture], int]:
    if delivery is None:
        return [], spec.images
    prompt = str(json.loads(spec.body).get("prompt", ""))
    stored = [
        _picture(spec, cell, prompt, delivery, image, at)
        for image, at in delivery.images
        if image.state is ImageState.STORED
    ]
    # A series may have fewer images than it was asked for, and then there is no more of it to come.
    ended = delivery.task.state is TaskState.SUCCEEDED
    whole = len(delivery.images) if ended else max(spec.images, len(delivery.images))
    return stored, whole - len(stored)


def _picture(
    spec: TaskSpec, cell: Mapping[str, Json], prompt: str, delivery: Delivery, image: ImageRecord, at: float | None
) -> Picture:
    task = delivery.task
    return Picture(
        file=ExpectedFile.of(image),
        # Not where the file is: it may wait under a hidden name, or aside, for the next run to move it.
        path=home_of(spec, image),
        cell=cell,
        prompt=prompt,
        size=spec.size,
        resolution=spec.resolution,
        format=(image.format or "").lower(),
        task_id=",".join(task.task_ids),
        sample=spec.sample,
        index=image.index,
        cost=share(task.cost, len(delivery.images), image.index),
        submitted_at=task.submitted_at,
        ended_at=delivery.ended_at,
        stored_at=at,
    )


def share(cost: int | None, images: int, index: int) -> int | None:
    """What one of so many images cost: the shares of all of them are the cost of the task, to the millionth."""
    if cost is None:
        return None
    whole, rest = divmod(cost, images)
    return whole + (index <= rest)
