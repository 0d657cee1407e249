"""The folder of a gallery: its files, and no others, are replaced atomically one by one."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from seedream_batch.errors import StorageError, UsageError
from seedream_batch.files.local_folder import OutputFolder

MARKER = ".seedream-report"
"""File that marks a folder as a gallery, and holds the lock of the command that writes it."""

_NOTICE = b"This folder is written by `seedream-batch report`, which may replace or remove what it made here.\n"


class ReportFolder:
    """Writes a folder that is new, empty or an earlier gallery. Raises `UsageError` and `StorageError`.

    All of it can be generated again at any time, so nothing is synced. Links in the folder are not followed out of it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files = OutputFolder(root)
        self._lock = -1

    def __enter__(self) -> Self:
        marker = self.root / MARKER
        with _translate_os_errors(self.root):
            ours = marker.is_file() and not marker.is_symlink()
            if self.root.exists() and not self.root.is_dir():
                raise UsageError(f"{self.root} is not a folder; choose another one with --to")
            if self.root.is_dir() and any(self.root.iterdir()) and not ours:
                raise UsageError(
                    f"{self.root} is not empty and is not a gallery; nothing was changed. Choose another folder with"
                    " --to"
                )
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(marker, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not os.fstat(self._lock).st_size:
                    os.write(self._lock, _NOTICE)
                self._files.sweep()
            except BlockingIOError:
                os.close(self._lock)
                raise UsageError(
                    f"another `seedream-batch report` is writing {self.root}; wait until it ends"
                ) from None
            except BaseException:
                os.close(self._lock)
                raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def write(self, path: str, data: bytes) -> None:
        """Write these bytes to a file, unless it already has them."""
        final = self._files.locate(path)
        with _translate_os_errors(final):
            if not final.is_symlink() and final.is_file() and final.read_bytes() == data:
                return
            temp_file = self._files.new_part(path)
            try:
                temp_file.write_bytes(data)
                temp_file.replace(final)
            except BaseException:
                with suppress(OSError):
                    temp_file.unlink(missing_ok=True)
                raise

    def names(self, folder: str, pattern: re.Pattern[str]) -> set[str]:
        """Return the paths below a folder that match a pattern and whose files are not empty."""
        paths = set()
        for path in self._walk(folder):
            if pattern.fullmatch(path):
                with suppress(FileNotFoundError):
                    if os.lstat(self.root / path).st_size:
                        paths.add(path)
        return paths

    def keep_only(self, folder: str, pattern: re.Pattern[str], wanted: Collection[str]) -> None:
        """Delete the files below a folder that match a pattern and are not wanted; no others."""
        for path in list(self._walk(folder)):
            if pattern.fullmatch(path) and path not in wanted:
                self._files.unlink(path)

    def copy(self, source: Path, path: str) -> None:
        """Copy a file of the program to a path of the gallery."""
        with _translate_os_errors(source):
            data = source.read_bytes()
        self.write(path, data)

    def _walk(self, folder: str) -> Iterator[str]:
        """Yield the regular files below a folder; skips links, whatever they lead to."""
        with _translate_os_errors(self.root / folder):
            for at, _, names in os.walk(self._files.locate(f"{folder}/any").parent, followlinks=False):
                for name in names:
                    file = Path(at, name)
                    if file.is_file() and not file.is_symlink():
                        yield file.relative_to(self.root).as_posix()


@contextmanager
def _translate_os_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        more = "; free some space, then run `report` again" if error.errno == errno.ENOSPC else ""
        raise StorageError(f"{path}: {error.strerror or error}{more}") from error
