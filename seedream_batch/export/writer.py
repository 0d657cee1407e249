"""What the writers of all formats have in common."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from seedream_batch.errors import StorageError
from seedream_batch.export.columns import Columns
from seedream_batch.export.split_layout import Layout
from seedream_batch.export.stored_images import Picture
from seedream_batch.files.atomic_folder import WholeFolder
from seedream_batch.files.destination import Destination

IMAGES = "images"
"""The folder of the images beside a table."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the bytes of the images come from, and whether files are linked instead of copied."""

    folder: Destination
    link: bool

    def put(self, target: WholeFolder, picture: Picture, name: str) -> None:
        """Puts the file into the export."""
        file = self.folder.file(picture.file.path)
        if not (self.link and file is not None and target.link(file, name, picture.file.bytes)):
            target.put_bytes(self.read(picture), name)

    def read(self, picture: Picture) -> bytes:
        """The bytes of the file. Raises `StorageError` if they are not what was stored."""
        data = self.folder.read(picture.file.path, picture.file.bytes + 1)
        if hashlib.sha256(data).hexdigest() != picture.file.sha256:
            raise StorageError(
                f"{self.folder.named(picture.file.path)} was changed while it was exported; export again"
            )
        return data


@dataclass(frozen=True, slots=True)
class Plan:
    """What a writer needs to know beforehand: `splits` are those to write, "" stands for all images together."""

    job: str
    target: WholeFolder
    sources: Sources
    columns: Columns
    layout: Layout
    splits: tuple[str, ...]
    embed: bool
    shard_size: int
    ending: str
    """That of the image of every sample, where a format wants one for all."""


class Writer(ABC):
    """Writes one format. Leaving it in good order brings all of it to the disk; in disorder, everything is dropped."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    @abstractmethod
    def add(self, picture: Picture, split: str) -> None:
        """Adds an image to a split."""

    @abstractmethod
    def finish(self) -> None:
        """Writes what is left."""

    def drop(self) -> None:  # noqa: B027 - most formats have nothing to let go of
        """Lets go of what is half written."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
        else:
            self.drop()
