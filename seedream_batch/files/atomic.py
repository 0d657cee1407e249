"""Replace a file, or create a folder, atomically: others see all of the old bytes or all of the new ones.

A folder is written under a hidden name beside its final path, synced and renamed.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

from seedream_batch.errors import StorageError, UsageError, translate_os_errors
from seedream_batch.files.local_folder import MOST_KNOWN, PART, sync, sync_folder
from seedream_batch.model.document import Json

Ours = Callable[[bytes], bool]
"""Tells from the bytes of a file whether an earlier run wrote it."""

MOST_READ = 4 * 1024 * 1024
"""Most bytes read of a file to tell whose it is; a larger one is not ours."""

_SYSTEM = ("/proc/", "/sys/", "/dev/")
_MEMORY = "/dev/shm/"  # noqa: S108 - a folder like any other


def replaceable(path: Path, ours: Ours) -> Path:
    """Return the file that a path leads to, with links resolved: missing, empty, or written by an earlier run.

    Call it before the work whose result the file is for. Raise `UsageError` for anything else, and `StorageError` if
    the file cannot be written.
    """
    try:
        final = path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"{str(path)!r} is not a valid path: {error}") from None
    with translate_os_errors(path):
        named = f"{os.path.abspath(path)}/"  # noqa: PTH100 - links are not followed: /dev/stdout is one
        system = any(text.startswith(_SYSTEM) and not text.startswith(_MEMORY) for text in (named, f"{final}/"))
        if system or (final.exists() and not final.is_file()):
            raise UsageError(f"{path} is not a regular file; name a file")
        if path.is_symlink() and not final.exists():
            raise UsageError(f"{path} is a link to {final}, which does not exist; name a file")
        if not final.parent.is_dir():
            raise UsageError(f"{path}: the folder {final.parent} does not exist; create it first")
        if not _may_replace(final, ours):
            raise UsageError(
                f"{path} exists and was not written by an earlier run, so it is not overwritten; name another file"
            )
        temp_path = _temp_path(final)
        temp_path.write_bytes(b"")
        temp_path.unlink()
    return final


def replace_file(final: Path, data: bytes, ours: Ours) -> None:
    """Write the file, if it may still be replaced as `replaceable` says. Raise `StorageError`."""
    temp_path = _temp_path(final)
    with translate_os_errors(final):
        if not _may_replace(final, ours):
            raise StorageError(f"{final} was created by another program meanwhile, so it is not overwritten")
        try:
            with temp_path.open("xb") as stream:
                stream.write(data)
                sync(stream)
            temp_path.replace(final)
        except BaseException:
            with suppress(OSError):
                temp_path.unlink(missing_ok=True)
            raise
        sync_folder(final.parent)


def _may_replace(final: Path, ours: Ours) -> bool:
    """Return whether nothing is lost with the file: it is missing, empty, or written by an earlier run."""
    if not os.path.lexists(final):
        return True
    if final.is_symlink() or not final.is_file():
        return False
    with final.open("rb") as stream:
        data = stream.read(MOST_READ + 1)
    return not data or (len(data) <= MOST_READ and ours(data))


def _temp_path(final: Path) -> Path:
    # Hidden, and with a suffix that programs which collect files ignore.
    return final.parent / f"{PART}{secrets.token_hex(8)}.part"


_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
"""Errors of file systems that cannot create hard links."""


class WholeFolder:
    """A folder being written: `keep` gives it its name; leaving the context without that leaves nothing behind.

    `marker` is the file in it that identifies it later: a folder without one is never touched. Methods raise
    `StorageError`.
    """

    def __init__(self, final: Path, marker: str, *, replace: bool) -> None:
        """Raise `UsageError` if the path is taken: by something else or, without `replace`, by an earlier folder."""
        # The last component is not resolved: a link at that path is not ours.
        final = Path(os.path.abspath(final))  # noqa: PTH100 - the other would follow it
        try:
            self.final = final.parent.resolve() / final.name
        except (OSError, RuntimeError, ValueError) as error:
            raise UsageError(f"{final} is not a valid path: {error}") from None
        # Hashed, since the name itself may have the maximum length.
        self._stem = f".seedream-export-{hashlib.sha256(os.fsencode(final.name)).hexdigest()[:16]}"
        self._marker = marker
        self._replace = replace
        self._streams: list[BinaryIO] = []
        self._known: set[Path] = set()
        """Folders created so far."""
        self._check_target()

    def __enter__(self) -> Self:
        with translate_os_errors(self.final.parent):
            self.final.parent.mkdir(parents=True, exist_ok=True)
            self._clear()
            self._check_target()
            self._temp = self._hidden("making")
            self._temp.mkdir()
            # Held as long as this process lives, so that only leftovers of a killed one are cleared.
            self._lock = os.open(self._temp, os.O_RDONLY | os.O_DIRECTORY)
            # Without locks on the file system, nothing is cleared.
            with suppress(OSError):
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return self

    def __exit__(self, *_: object) -> None:
        for stream in self._streams:
            # It failed before, or it is synced already.
            with suppress(OSError):
                stream.close()
        shutil.rmtree(self._temp, ignore_errors=True)
        os.close(self._lock)

    def open(self, name: str) -> BinaryIO:
        """Create a file in the folder; `close` it once it is complete."""
        path = self._place(name)
        with translate_os_errors(path):
            stream = path.open("xb")
        self._streams.append(stream)
        return stream

    def write(self, stream: BinaryIO, data: bytes) -> None:
        with translate_os_errors(self._temp):
            stream.write(data)

    def close(self, stream: BinaryIO) -> None:
        """Sync and close a file."""
        with translate_os_errors(self._temp):
            sync(stream)
            stream.close()
        self._streams.remove(stream)

    def link(self, source: Path, name: str, size: int) -> bool:
        """Create a hard link to an ordinary file of `size` bytes; return whether the file system can do that."""
        path = self._place(name)
        with translate_os_errors(path):
            try:
                os.link(source, path, follow_symlinks=False)
            except OSError as error:
                if error.errno not in _NO_LINK:
                    raise
                return False
            status = path.lstat()
        if status.st_size != size or not stat.S_ISREG(status.st_mode):
            raise StorageError(f"{source} was changed during the export; export again")
        return True

    def put_bytes(self, data: bytes, name: str) -> None:
        stream = self.open(name)
        self.write(stream, data)
        self.close(stream)

    def keep(self, about: Json) -> None:
        """Write the marker with this content, sync everything and give the folder its name."""
        stream = self.open(self._marker)
        self.write(stream, json.dumps(about, ensure_ascii=False, indent=2).encode() + b"\n")
        self.close(stream)
        with translate_os_errors(self._temp):
            for folder, _, _ in os.walk(self._temp, topdown=False):
                sync_folder(Path(folder))
        # Checked again: the path may have been taken meanwhile.
        self._check_target()
        with translate_os_errors(self.final):
            old = self._hidden("replaced")
            if self.final.exists():
                self.final.rename(old)
            self._temp.rename(self.final)
            sync_folder(self.final.parent)
        shutil.rmtree(old, ignore_errors=True)

    def _place(self, name: str) -> Path:
        path = self._temp / name
        if path.parent not in self._known:
            with translate_os_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known.add(path.parent)
        return path

    def _check_target(self) -> None:
        final = self.final
        if not os.path.lexists(final):
            return
        if final.is_symlink() or not (final / self._marker).is_file():
            raise UsageError(f"{final} exists and is not an export, so it is not replaced; choose another folder")
        if not self._replace:
            raise UsageError(f"{final} is an earlier export; to replace it and everything in it, add --replace")

    def _hidden(self, what: str) -> Path:
        return self.final.parent / f"{self._stem}.{secrets.token_hex(8)}.{what}"

    def _clear(self) -> None:
        """Remove what a killed export left, and restore a folder that it was about to replace."""
        pattern = re.compile(rf"{re.escape(self._stem)}\.[0-9a-f]{{16}}\.(making|replaced)")
        for entry in list(os.scandir(self.final.parent)):
            match = pattern.fullmatch(entry.name)
            if match is None or not entry.is_dir(follow_symlinks=False):
                continue
            if match[1] == "replaced" and not os.path.lexists(self.final):
                Path(entry.path).rename(self.final)
            elif _is_abandoned(Path(entry.path)):
                shutil.rmtree(entry.path, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True
