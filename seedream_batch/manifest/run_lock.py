"""One run at a time: an operating system lock that ends with its process."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from seedream_batch.errors import ManifestError, ManifestLocked, StorageError, translate_os_errors
from seedream_batch.manifest.db.open import is_held
from seedream_batch.manifest.flock import lock_now, unlock
from seedream_batch.manifest.reader import ManifestReader
from seedream_batch.model.locations import MANIFEST, Place, Server

LOCK = "manifest.lock"
WORKERS = "manifest.workers"
"""File that names the manifest on a server that the users of the folder work on."""

_MOST = 4096
"""Largest size of this file in bytes."""

PATIENCE = 0.2
"""Seconds for which a run tries to get the lock."""


@contextmanager
def run_lock(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Lock an output folder, and a manifest in it, for this process. Raises `ManifestLocked` if another run holds it.

    A manifest on a server is locked by the connection that writes it; its workers lock the folder `shared`, so that no
    other manifest uses it.
    """
    if shared:
        with _shared_lock(folder):
            yield
        return
    lock = FileLock(folder / LOCK, mode=0o600)
    try:
        # Retry: `is_locked` takes the lock for a moment, and a status must not make a run fail.
        lock.acquire(timeout=PATIENCE, poll_interval=PATIENCE / 20)
    except Timeout:
        held = folder / MANIFEST if (folder / MANIFEST).exists() else folder
        raise ManifestLocked(f"another run is using {held} ({_holder(folder)}); wait until it ends") from None
    except OSError as error:
        raise StorageError(f"{folder / LOCK}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _shared_lock(folder: Path) -> Iterator[None]:
    with _opened(folder / LOCK) as handle:
        if not _comes_true(lambda: _shared_now(handle, folder / LOCK), PATIENCE):
            raise ManifestLocked(f"another run is using {folder} ({_holder(folder)}); wait until it ends")
        yield


@contextmanager
def lock_for_workers(folder: Path, manifest: str, name: str) -> Iterator[None]:
    """Lock a folder for the workers of one manifest on a server. Raises `ManifestLocked` if others use it.

    The first worker writes the id of the `manifest` into the file, where the others find it.
    """
    with _opened(folder / WORKERS) as handle:
        if not _comes_true(lambda: _is_theirs(handle, folder / WORKERS, manifest, name), 5 * PATIENCE):
            raise ManifestLocked(
                f"runs with another manifest than {name} are using {folder}; set another output.dir in the job"
            )
        yield


def _comes_true(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until a condition holds; return whether it did in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(PATIENCE / 20)
    return True


def manifest_of(folder: Path) -> tuple[str, str] | None:
    """Return the id and name of the server's manifest that a folder was last used with; None if there is none."""
    lines = _lines(folder / WORKERS)
    if not lines or not lines[0]:
        return None
    # Earlier versions did not write a name.
    return lines[0], lines[1] if len(lines) > 1 else "on a server that it was last used with"


def folder_id(folder: Path) -> str:
    """Return the id that distinguishes a folder from those of other machines; empty if it has none."""
    lines = _lines(folder / WORKERS)
    return lines[2] if len(lines) > 2 else ""


def _lines(file: Path) -> list[str]:
    try:
        return file.read_bytes()[:_MOST].decode(errors="replace").splitlines()
    except OSError:
        return []


def _is_theirs(handle: int, path: Path, manifest: str, name: str) -> bool:
    """Return whether all holders of the file, now including this process, work on this manifest."""
    with translate_os_errors(path):
        if lock_now(handle):
            own = folder_id(path.parent) or secrets.token_hex(6)
            os.truncate(handle, 0)
            os.pwrite(handle, f"{manifest}\n{name[: _MOST // 8]}\n{own}\n".encode(), 0)
    # Changing an exclusive lock to a shared one is not atomic: another process may have written meanwhile.
    if not _shared_now(handle, path):
        return False
    if os.pread(handle, _MOST, 0).decode(errors="replace").partition("\n")[0] == manifest:
        return True
    unlock(handle)
    return False


def _shared_now(handle: int, path: Path) -> bool:
    with translate_os_errors(path):
        return lock_now(handle, shared=True)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    with translate_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        yield handle
    finally:
        os.close(handle)


def _holder(folder: Path) -> str:
    try:
        with ManifestReader(folder / MANIFEST) as reader:
            run = reader.last_run()
    except (ManifestError, StorageError):
        run = None
    if run is None or run.ended_at is not None:
        return "it has just started"
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.started_at))
    return f"pid {run.pid} on {run.host}, started {started}"


def is_locked(place: Place) -> bool:
    """Return whether a run holds the manifest right now; locks and creates nothing."""
    if isinstance(place, Server):
        return is_held(place)
    try:
        handle = os.open(place.with_name(LOCK), os.O_RDONLY)
    except OSError:
        return False
    try:
        # A shared lock is refused while a run holds its exclusive one, and ends when the file is closed.
        return not lock_now(handle, shared=True)
    except OSError:
        # The file system has no locks, so nobody holds one.
        return False
    finally:
        os.close(handle)
