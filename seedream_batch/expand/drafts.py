"""Tasks made quickly."""

from __future__ import annotations

from typing import cast

from seedream_batch.model.task import TaskSpec


class _Draft:
    """A `TaskSpec` that is not frozen yet.

    To set eleven fields of a frozen dataclass takes four times as long as of an ordinary object, and a large job has
    a million tasks. The two classes have the same slots, so that one can become the other.
    """

    __slots__ = TaskSpec.__slots__

    def __init__(
        self,
        fingerprint: str,
        ordinal: int,
        sample: int,
        body: str,
        images: int,
        paths: tuple[str, ...],
        cell: str,
        model: str,
        size: str,
        resolution: str,
        price: int,
    ) -> None:
        self.fingerprint = fingerprint
        self.ordinal = ordinal
        self.sample = sample
        self.body = body
        self.images = images
        self.paths = paths
        self.cell = cell
        self.model = model
        self.size = size
        self.resolution = resolution
        self.price = price
        self.__class__ = TaskSpec  # type: ignore[assignment]  # the same slots, as it must be


task_spec = cast(type[TaskSpec], _Draft)
"""What `TaskSpec(...)` gives, from the same arguments."""
