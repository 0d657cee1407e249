"""A last place for task ids that were paid for, when the manifest cannot take them."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from seedream_batch.errors import translate_os_errors
from seedream_batch.manifest.flock import lock_now

NAME = "manifest.rescue"
_SUFFIX = ".rescue"
SIZE = 256 * 1024
"""Bytes set aside before anything is sent: on a full disk, what is allocated already can still be written."""

PATIENCE = 5.0
"""Seconds to wait for somebody who looks whether the file was left behind."""


@dataclass(frozen=True, slots=True)
class Rescued:
    """Task ids that came back for a submission, by its key; `at` in unix seconds."""

    key: str
    task_ids: tuple[str, ...]
    at: float


def name_of_worker(manifest: str, run: int) -> str:
    """The file of a worker: several may use one folder, and more than one manifest may have done so."""
    return f"{_prefix(manifest)}{run}{_SUFFIX}"


def _prefix(manifest: str) -> str:
    return f"manifest-{manifest}-"


class RescueFile:
    """A file of fixed size beside the manifest, with a line of JSON for each rescued answer and zeros behind them.

    Whoever writes into it has a lock on it, which ends with the process: nobody takes away what is not left behind.
    `sync` brings the names in a folder to the disk, and may raise `OSError`.
    """

    def __init__(self, folder: Path, sync: Callable[[Path], None], name: str = NAME) -> None:
        self.path = folder / name
        self._sync = sync
        self.used = False
        """Whether something was added."""
        self._handle: int | None = None
        self._end = 0
        self._added = b""

    def prepare(self) -> None:
        """Sets the space aside, once; what stands there already stays. Raises `StorageError`."""
        if self._handle is not None:
            return
        with translate_os_errors(self.path):
            handle = self._locked()
            try:
                found = _lines(_whole(handle)) + self._added
                self._end = len(found)
                os.pwrite(handle, found.ljust(SIZE, b"\0"), 0)
                os.fsync(handle)
                # What is written into it must not go with its name.
                self._sync(self.path.parent)
            except BaseException:
                os.close(handle)
                raise
        self._handle = handle

    def add(self, rescued: Rescued) -> None:
        """Writes one answer down, durable on return. Raises `StorageError`."""
        self.prepare()
        record = {"key": rescued.key, "task_ids": list(rescued.task_ids), "at": rescued.at}
        line = json.dumps(record).encode() + b"\n"
        with translate_os_errors(self.path):
            assert self._handle is not None  # noqa: S101 - what `prepare` is for
            os.pwrite(self._handle, line, self._end)
            os.fsync(self._handle)
            in_place = _is_in_place(self._handle, self.path)
        self._end += len(line)
        self._added += line
        self.used = True
        if not in_place:
            # Somebody has taken it away in spite of the lock: not every network has those of other machines.
            os.close(self._handle)
            self._handle = None
            self.prepare()

    def close(self) -> None:
        """Nothing more is written. A file with nothing in it goes, any other is left behind."""
        if self._handle is None:
            return
        if not self.used:
            with suppress(OSError):
                if not _records(_whole(self._handle)):
                    self.path.unlink(missing_ok=True)
        os.close(self._handle)
        self._handle = None
        self._added = b""

    def _locked(self) -> int:
        """The open file, with the lock, under its name."""
        deadline = time.monotonic() + PATIENCE
        while True:
            handle = os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600)
            try:
                if lock_now(handle) and _is_in_place(handle, self.path):
                    return handle
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)
            if time.monotonic() > deadline:
                raise OSError(0, "another process has it")
            time.sleep(0.01)


class OrphanedLog:
    """A file that a run which is over has left, with this process' lock on it."""

    def __init__(self, path: Path, handle: int) -> None:
        self._path = path
        self.rescued = _records(_whole(handle))

    def imported(self, known: int) -> None:
        """So many of the answers are in the manifest by now, durably. Raises `StorageError`.

        With all of them there, the file goes. One that belongs to no attempt is somebody's task id all the same, and
        stays.
        """
        if known == len(self.rescued):
            with translate_os_errors(self._path):
                self._path.unlink(missing_ok=True)


@dataclass(slots=True)
class OrphanedLogs:
    """What runs that are over have left in a folder."""

    files: list[OrphanedLog]
    held: bool = False
    """Whether there is one more, which another process has: it writes into it, or takes it in itself."""


@contextmanager
def orphaned_logs(folder: Path, manifest: str, *, at_work: Collection[int] | None) -> Iterator[OrphanedLogs]:
    """The files in a folder that runs of this manifest left; nobody else takes them in meanwhile.

    `at_work` are the workers whose files stay, whatever their locks say; None where there were never any. Raises
    `StorageError`.
    """
    names = [NAME]
    if at_work is not None:
        kept = {name_of_worker(manifest, run) for run in at_work}
        with translate_os_errors(folder):
            found = sorted(entry.name for entry in os.scandir(folder))
        ours = (name for name in found if name.startswith(_prefix(manifest)) and name.endswith(_SUFFIX))
        names += [name for name in ours if name not in kept]
    handles: list[int] = []
    left = OrphanedLogs([])
    try:
        for name in names:
            path = folder / name
            with translate_os_errors(path):
                try:
                    handle = os.open(path, os.O_RDWR)
                    handles.append(handle)
                    if not lock_now(handle):
                        left.held = True
                    elif _is_in_place(handle, path):
                        left.files.append(OrphanedLog(path, handle))
                except OSError as error:
                    # Somebody has just taken it away.
                    if error.errno not in {errno.ENOENT, errno.ESTALE}:
                        raise
        yield left
    finally:
        for handle in handles:
            os.close(handle)


def _is_in_place(handle: int, path: Path) -> bool:
    """Whether an open file is still the one under its name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _whole(handle: int) -> bytes:
    return os.pread(handle, os.fstat(handle).st_size, 0)


def _lines(data: bytes) -> bytes:
    """What stands in front of the zeros, as whole lines: one that was cut off must not take the next one with it."""
    found = data.split(b"\0", 1)[0]
    return found if not found or found.endswith(b"\n") else found + b"\n"


def _records(data: bytes) -> Sequence[Rescued]:
    """The answers in a file; a last line that was cut off is passed over."""
    found = []
    for line in data.split(b"\0", 1)[0].split(b"\n")[:-1]:
        try:
            record = json.loads(line)
            found.append(Rescued(str(record["key"]), tuple(map(str, record["task_ids"])), float(record["at"])))
        except (ValueError, TypeError, KeyError):
            continue
    return found
