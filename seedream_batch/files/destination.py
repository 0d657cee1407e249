"""Define the interface to the storage of images, used by runs and by every command that reads images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class FileStat:
    """What is at a path: its size in bytes, and whether it is an ordinary file rather than a folder or link."""

    bytes: int
    ordinary: bool = True


class Destination(Protocol):
    """Stores images under their paths: each completely or not at all, and never in place of something else.

    Paths are relative, with `/` between names. A new image is first written to a temp file on this machine, a part, and
    then placed. Methods block: call them on a thread, except `free_bytes` and `knows`, and `existing` if it is `near`.
    All raise `StorageError`.
    """

    spool: Path
    """The folder on this machine for temp files and the rest of a job's state."""

    near: bool
    """Whether checking a path takes no longer than a local disk does."""

    parallel: int
    """How many images to read at the same time."""

    def file(self, path: str) -> Path | None:
        """Return the local file of an image; None if images are not local files."""

    @property
    def link(self) -> str | None:
        """The URL prefix of image paths, for a browser that may read them; None for files of this machine."""

    def named(self, path: str) -> str:
        """Return a path for messages, with its folder or store."""

    def prepare(self) -> None:
        """Create what is needed, and verify that images can be stored; nothing is bought before that.

        Raise `UsageError` if they never can.
        """

    def free_bytes(self) -> int:
        """Return the free bytes on this machine."""

    def knows(self, path: str) -> bool:
        """Return whether `new_part` is quick for this path."""

    def new_part(self, path: str) -> Path:
        """Return the path of a temp file, not created yet, for the image of this path."""

    def discard(self, temp_path: Path) -> None:
        """Remove a temp file that did not become an image, if it still exists."""

    def sweep(self) -> None:
        """Remove the temp files of killed runs."""

    def place(self, files: Sequence[tuple[Path, str]]) -> list[Exception | None]:
        """Give complete, synced temp files their final paths, durably; the temp files are removed.

        Return an error or None for each file, independent of the others: `Occupied` if something is at its path
        already, `StorageError` if it is not known to be stored, None if it is.
        """

    def move(self, old: str, new: str, sha256: str) -> None:
        """Move the image that has this hash, durably.

        Raise `Occupied` if something else is at the new path, and `Changed` if the image is not at the old one.
        """

    def end_move(self, old: str, new: str) -> None:
        """Finish a move that was interrupted after the image had reached its new path."""

    def existing(self, paths: Iterable[str]) -> list[str]:
        """Return those of these paths at which there is anything."""

    def look(self, path: str) -> FileStat | None:
        """Return what is at a path, without reading it; None if there is nothing."""

    def read(self, path: str, most: int) -> bytes:
        """Return the bytes of an image, at most this many."""

    def sha256(self, path: str) -> str | None:
        """Return the SHA-256 in hex of the bytes at a path; None if there is no ordinary file."""

    def unlink(self, path: str) -> None:
        """Delete an image; durable only after `settle` of its path."""

    def sync(self, paths: Iterable[str]) -> None:
        """Make the presence or absence of these paths durable: a killed run may not have synced it."""

    def settle(self, paths: Iterable[str]) -> None:
        """Make the deletion of these paths durable, and remove folders left empty."""

    def drop_if_empty(self, name: str) -> None:
        """Remove a folder of images if it exists and is empty."""
