"""What a run, and every command that reads pictures, asks of the place where they are kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class FileStat:
    """What stands at a path: its bytes, and whether it is an ordinary file and no folder or link."""

    bytes: int
    ordinary: bool = True


class Destination(ABC):
    """Keeps pictures under their paths: each whole, or not at all, and none in the place of something else.

    Paths are relative, with `/` between names. A new picture is first written into a file on this machine, a part, and
    then placed. Methods block: all but `free_bytes` and `knows`, and `existing` where it is `near`, belong on a thread.
    All raise `StorageError`.
    """

    spool: Path
    """The folder on this machine that new pictures are written into, and that the rest of a job's state is kept in."""

    near: bool
    """Whether a look at names takes no longer than a disk does."""

    parallel: int
    """Pictures that are best read at the same time."""

    @abstractmethod
    def file(self, path: str) -> Path | None:
        """The file of this machine that a picture is, where it is one."""

    @property
    @abstractmethod
    def link(self) -> str | None:
        """The URL in front of the path of a picture, for a browser that may read it.

        None where they are files of this machine.
        """

    @abstractmethod
    def named(self, path: str) -> str:
        """A path for people, with the place that it is in."""

    @abstractmethod
    def prepare(self) -> None:
        """Makes what has to be there, and proves that pictures can be kept. Nothing is bought before that.

        Raises `UsageError` where they never could.
        """

    @abstractmethod
    def free_bytes(self) -> int:
        """Bytes for which there is room on this machine."""

    @abstractmethod
    def knows(self, path: str) -> bool:
        """Whether `new_part` takes no time for this path."""

    @abstractmethod
    def new_part(self, path: str) -> Path:
        """The name of a file, not there yet, that the picture of this path is to be written into."""

    @abstractmethod
    def discard(self, part: Path) -> None:
        """Removes a part that did not become a picture, if it is still there."""

    @abstractmethod
    def sweep(self) -> None:
        """Removes the parts that a killed run left."""

    @abstractmethod
    def place(self, files: Sequence[tuple[Path, str]]) -> list[Exception | None]:
        """Gives whole, synced parts their final paths, durably; the parts are gone then.

        For each what went wrong with it, and with no other: `Occupied` when something stands there already,
        `StorageError` when it is not known to be kept, None when it is.
        """

    @abstractmethod
    def move(self, old: str, new: str, sha256: str) -> None:
        """Moves the picture that has this hash, durably.

        Raises `Occupied` when something else has the new path, and `Changed` when the old one has no such picture.
        """

    @abstractmethod
    def end_move(self, old: str, new: str) -> None:
        """Ends a move that was cut off after the picture had come to its new path."""

    @abstractmethod
    def existing(self, paths: Iterable[str]) -> list[str]:
        """Those of these paths at which anything stands."""

    @abstractmethod
    def look(self, path: str) -> FileStat | None:
        """What stands at a path, without reading it; None if nothing does."""

    @abstractmethod
    def read(self, path: str, most: int) -> bytes:
        """The bytes of a picture, at most so many."""

    @abstractmethod
    def sha256(self, path: str) -> str | None:
        """The hash in hex of the bytes that are kept under a path, or None where there is no ordinary file."""

    @abstractmethod
    def unlink(self, path: str) -> None:
        """Deletes a picture; durable only once its path is settled."""

    @abstractmethod
    def sync(self, paths: Iterable[str]) -> None:
        """Makes it durable what has these paths and what has not: a run that was killed may have left that open."""

    @abstractmethod
    def settle(self, paths: Iterable[str]) -> None:
        """Makes it durable that pictures are gone from these paths, and tidies up behind them."""

    @abstractmethod
    def drop_if_empty(self, name: str) -> None:
        """Removes a folder of pictures if it is there and empty."""
