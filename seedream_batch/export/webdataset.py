"""Tar files of bounded size with two members per sample: the image and its row as JSON."""

from __future__ import annotations

import json
import re
import tarfile
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

from seedream_batch.export.stored_images import Picture
from seedream_batch.export.writer import Plan, Writer

MIXED = ".jpg"
"""Extension of all images if their formats differ: samples need the same keys, and readers detect the format."""

_PASSED_OVER = re.compile(r"__[^/]*__(/|$)")

_ALL = "train"
"""The split of images that are in none."""


@dataclass(slots=True)
class _Shards:
    """The shards of one split: the number of finished ones, and the open one with its size in bytes."""

    done: int = 0
    file: BinaryIO | None = None
    size: int = 0


class WebDataset(Writer):
    """Writes `JOB-SPLIT-000000.tar` and so on; the same job and files always give the same bytes."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._splits: dict[str, _Shards] = {}

    def add(self, picture: Picture, split: str) -> None:
        """Add a sample to the open shard of its split, or to a new one if it would exceed the size."""
        plan = self.plan
        split = split or _ALL
        name, ending = sample_name(picture.path)[0], plan.ending
        row = json.dumps(plan.columns.nested(picture, name + ending), ensure_ascii=False).encode()
        sample = _member(name + ending, plan.read(picture)) + _member(f"{name}.json", row)
        shards = self._splits.setdefault(split, _Shards())
        if shards.file is not None and _archive_size(shards.size + len(sample)) > plan.shard_size:
            self._end(shards)
        if shards.file is None:
            shards.file = plan.target.open(f"{plan.job}-{split}-{shards.done:06d}.tar")
        plan.target.write(shards.file, sample)
        shards.size += len(sample)

    def finish(self) -> None:
        for shards in self._splits.values():
            self._end(shards)

    def _end(self, shards: _Shards) -> None:
        if shards.file is not None:
            self.plan.target.write(shards.file, bytes(_archive_size(shards.size) - shards.size))
            self.plan.target.close(shards.file)
        shards.done, shards.file, shards.size = shards.done + 1, None, 0


def sample_name(path: str) -> tuple[str, str]:
    """Return the name and the extension of a sample; dots in the name are escaped, as readers end it at the first dot.

    The start of a top folder like `__this__` is escaped too, because readers skip such folders.
    """
    pure = PurePosixPath(path)
    name = str(pure.with_name(pure.stem.replace("%", "%25").replace(".", "%2E")))
    return f"%5F{name[1:]}" if _PASSED_OVER.match(name) else name, pure.suffix


def _member(name: str, data: bytes) -> bytes:
    """Return a member of the archive, without information about the machine, the user or the time."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(data), 0o644, 0
    head = info.tobuf(tarfile.PAX_FORMAT)
    return head + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def _archive_size(size: int) -> int:
    """Return the size in bytes of an archive with its end: two empty blocks, padded to a full record."""
    records, rest = divmod(size + 2 * tarfile.BLOCKSIZE, tarfile.RECORDSIZE)
    return (records + bool(rest)) * tarfile.RECORDSIZE
