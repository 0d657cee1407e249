"""What the writers of all formats have in common."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

from seedream_batch.errors import StorageError
from seedream_batch.export.columns import Columns
from seedream_batch.export.split_layout import Layout
from seedream_batch.export.stored_images import Picture
from seedream_batch.files.atomic import WholeFolder
from seedream_batch.files.destination import Destination

IMAGES = "images"
"""Folder of the images next to a table."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a writer needs to know in advance, and where its images come from.

    `link` links files rather than copying them. `splits` are those to write; "" stands for all images together.
    """

    job: str
    target: WholeFolder
    folder: Destination
    link: bool
    columns: Columns
    layout: Layout
    splits: tuple[str, ...]
    embed: bool
    shard_size: int
    ending: str
    """Extension of all images, for a format that needs a single one."""

    def put(self, picture: Picture, name: str) -> None:
        file = self.folder.file(picture.file.path)
        if not (self.link and file is not None and self.target.link(file, name, picture.file.bytes)):
            self.target.put_bytes(self.read(picture), name)

    def read(self, picture: Picture) -> bytes:
        """Return the bytes of the file. Raises `StorageError` if they are not what was stored."""
        data = self.folder.read(picture.file.path, picture.file.bytes + 1)
        if hashlib.sha256(data).hexdigest() != picture.file.sha256:
            raise StorageError(f"{self.folder.named(picture.file.path)} was changed during the export; export again")
        return data


class Writer(ABC):
    """A context manager that writes one format; finishes it on a normal exit, drops everything after an exception."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    @abstractmethod
    def add(self, picture: Picture, split: str) -> None:
        """Add an image to a split."""

    @abstractmethod
    def finish(self) -> None:
        """Write the rest."""

    def drop(self) -> None:  # noqa: B027 - most formats have nothing to release
        """Release what is half written."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.finish()
        else:
            self.drop()
