"""A fallback log for paid task ids that the manifest cannot store."""

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
"""Bytes allocated before anything is sent: allocated space can be written even on a full disk."""

PATIENCE = 5.0
"""Seconds to wait for a process that checks whether the file is orphaned."""


@dataclass(frozen=True, slots=True)
class Rescued:
    """Task ids returned for a submission, by its key; `at` in unix seconds."""

    key: str
    task_ids: tuple[str, ...]
    at: float


def name_of_worker(manifest: str, run: int) -> str:
    """Return the file name of a worker: several workers and manifests may use one folder."""
    return f"{_prefix(manifest)}{run}{_SUFFIX}"


def _prefix(manifest: str) -> str:
    return f"manifest-{manifest}-"


class RescueFile:
    """A file of fixed size next to the manifest: a line of JSON per rescued answer, followed by zeros.

    The writer holds a lock on it, which ends with the process, so that nobody removes a file that is in use. `sync`
    makes the names in a folder durable, and may raise `OSError`.
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
        """Allocate the space, once; existing content stays. Raises `StorageError`."""
        if self._handle is not None:
            return
        with translate_os_errors(self.path):
            handle = self._locked()
            try:
                content = _lines(_read_all(handle)) + self._added
                self._end = len(content)
                os.pwrite(handle, content.ljust(SIZE, b"\0"), 0)
                os.fsync(handle)
                # Make the name durable too, or the content could be lost with it.
                self._sync(self.path.parent)
            except BaseException:
                os.close(handle)
                raise
        self._handle = handle

    def add(self, rescued: Rescued) -> None:
        """Write one answer; durable on return. Raises `StorageError`."""
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
            # Another process removed it despite the lock: not every network file system locks across machines.
            os.close(self._handle)
            self._handle = None
            self.prepare()

    def close(self) -> None:
        """Stop writing. Deletes the file if it is empty, otherwise leaves it for the next run."""
        if self._handle is None:
            return
        if not self.used:
            with suppress(OSError):
                if not _records(_read_all(self._handle)):
                    self.path.unlink(missing_ok=True)
        os.close(self._handle)
        self._handle = None
        self._added = b""

    def _locked(self) -> int:
        """Open the file, lock it, and make sure that it still has its name."""
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
                raise OSError(0, "another process is using it")
            time.sleep(0.01)


class OrphanedLog:
    """A log file that an ended run left behind, locked by this process."""

    def __init__(self, path: Path, handle: int) -> None:
        self._path = path
        self.rescued = _records(_read_all(handle))

    def imported(self, known: int) -> None:
        """Record that `known` answers are durably in the manifest. Raises `StorageError`.

        If that is all of them, deletes the file. An answer that belongs to no attempt is still a paid task id, so then
        the file stays.
        """
        if known == len(self.rescued):
            with translate_os_errors(self._path):
                self._path.unlink(missing_ok=True)


@dataclass(slots=True)
class OrphanedLogs:
    """The log files that ended runs left in a folder."""

    files: list[OrphanedLog]
    held: bool = False
    """Whether another process holds one more, and writes or imports it."""


@contextmanager
def orphaned_logs(folder: Path, manifest: str, *, at_work: Collection[int] | None) -> Iterator[OrphanedLogs]:
    """Lock and return the log files that runs of this manifest left in a folder; nobody else imports them meanwhile.

    `at_work` are the workers whose files stay, whatever their locks say; None if there were never any workers. Raises
    `StorageError`.
    """
    names = [NAME]
    if at_work is not None:
        active = {name_of_worker(manifest, run) for run in at_work}
        with translate_os_errors(folder):
            names_here = sorted(entry.name for entry in os.scandir(folder))
        ours = (name for name in names_here if name.startswith(_prefix(manifest)) and name.endswith(_SUFFIX))
        names += [name for name in ours if name not in active]
    handles: list[int] = []
    logs = OrphanedLogs([])
    try:
        for name in names:
            path = folder / name
            with translate_os_errors(path):
                try:
                    handle = os.open(path, os.O_RDWR)
                    handles.append(handle)
                    if not lock_now(handle):
                        logs.held = True
                    elif _is_in_place(handle, path):
                        logs.files.append(OrphanedLog(path, handle))
                except OSError as error:
                    # Another process has just removed it.
                    if error.errno not in {errno.ENOENT, errno.ESTALE}:
                        raise
        yield logs
    finally:
        for handle in handles:
            os.close(handle)


def _is_in_place(handle: int, path: Path) -> bool:
    """Return whether an open file is still the one with this path."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _read_all(handle: int) -> bytes:
    return os.pread(handle, os.fstat(handle).st_size, 0)


def _lines(data: bytes) -> bytes:
    """Return the content before the zeros, ending in a newline: a truncated line must not damage the next one."""
    content = data.split(b"\0", 1)[0]
    return content if not content or content.endswith(b"\n") else content + b"\n"


def _records(data: bytes) -> Sequence[Rescued]:
    """Return the answers in a file; skips a truncated last line."""
    answers = []
    for line in data.split(b"\0", 1)[0].split(b"\n")[:-1]:
        try:
            record = json.loads(line)
            answers.append(Rescued(str(record["key"]), tuple(map(str, record["task_ids"])), float(record["at"])))
        except (ValueError, TypeError, KeyError):
            continue
    return answers
