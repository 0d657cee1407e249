"""A last place for task ids that were paid for, when the manifest cannot take them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from seedream_batch.errors import StorageError

NAME = "manifest.rescue"
_OF_WORKERS = re.compile(r"manifest-(\d+)\.rescue")
SIZE = 256 * 1024
"""Bytes set aside before anything is sent: on a full disk, what is allocated already can still be written."""


@dataclass(frozen=True, slots=True)
class Rescued:
    """Task ids that came back for a submission, by its key; `at` in unix seconds."""

    key: str
    task_ids: tuple[str, ...]
    at: float


def name_of_worker(run: int) -> str:
    """The file of a worker: several may use one folder."""
    return f"manifest-{run}.rescue"


def found_in(folder: Path, at_work: Collection[int]) -> list[str]:
    """The names of the files in a folder, but for those of workers that are at work. Raises `StorageError`."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder))
    except OSError as error:
        raise StorageError(f"{folder}: {error.strerror or error}") from error
    workers = {name: int(match[1]) for name in names if (match := _OF_WORKERS.fullmatch(name))}
    return [name for name in names if name == NAME or (name in workers and workers[name] not in at_work)]


class RescueFile:
    """A file of fixed size beside the manifest, with a line of JSON for each rescued answer and zeros behind them.

    `sync` brings the names in a folder to the disk, and may raise `OSError`.
    """

    def __init__(self, folder: Path, sync: Callable[[Path], None], name: str = NAME) -> None:
        self.path = folder / name
        self._sync = sync
        self.used = False
        """Whether something was added."""
        self._end = 0
        self._ready = False

    def prepare(self) -> None:
        """Sets the space aside, once; what stands there already stays. Raises `StorageError`."""
        if self._ready:
            return
        found = self.path.read_bytes().split(b"\0", 1)[0] if self.path.exists() else b""
        self._end = len(found)
        if found and not found.endswith(b"\n"):
            # A line that was cut off must not take the next one with it.
            found += b"\n"
            self._end += 1
        try:
            handle = os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600)
            try:
                os.pwrite(handle, found.ljust(SIZE, b"\0"), 0)
                os.fsync(handle)
            finally:
                os.close(handle)
            # What is written into it must not go with its name.
            self._sync(self.path.parent)
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror or error}") from error
        self._ready = True

    def add(self, rescued: Rescued) -> None:
        """Writes one answer down, durable on return. Raises `StorageError`."""
        record = {"key": rescued.key, "task_ids": list(rescued.task_ids), "at": rescued.at}
        line = json.dumps(record).encode() + b"\n"
        try:
            handle = os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o600)
            try:
                os.pwrite(handle, line, self._end)
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror or error}") from error
        self._end += len(line)
        self.used = True

    def read(self) -> Sequence[Rescued]:
        """What an earlier run left here; a last line that was cut off is passed over."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror or error}") from error
        found = []
        for line in data.split(b"\0", 1)[0].split(b"\n")[:-1]:
            try:
                record = json.loads(line)
                found.append(Rescued(str(record["key"]), tuple(map(str, record["task_ids"])), float(record["at"])))
            except (ValueError, TypeError, KeyError):
                continue
        return found

    def drop_if_empty(self) -> None:
        """Takes the file away unless it has something in it."""
        with suppress(StorageError, OSError):
            if not self.read():
                self.drop()

    def drop(self) -> None:
        """Takes the file away: everything in it is in the manifest by now."""
        self.path.unlink(missing_ok=True)
