"""A file while it is being written: under a hidden name, and as long as it is small in memory alone."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from seedream_batch.errors import translate_os_errors
from seedream_batch.files.local_folder import sync

HELD_BACK = 512 * 1024
"""Bytes that are held back: a file with fewer is made, hashed, written and synced in one go, which has a thread."""


class TempFile:
    """A new file that takes its bytes as they come; `writing` gives it.

    Methods raise `OSError`, which `writing` tells as `StorageError`. A file that is there already is not touched.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: list[bytes] = []
        self._holding = 0
        self._digest = hashlib.sha256()
        self.bytes = 0
        """How many were written."""
        self._stream: BinaryIO | None = None
        self._closed = False
        self._lock = threading.Lock()

    @property
    def made(self) -> bool:
        """Whether there is a file that may have to be removed."""
        return self._stream is not None

    @property
    def sha256(self) -> str:
        """The hash of what was written, in hex."""
        return self._digest.hexdigest()

    def take(self, data: bytes) -> None:
        """Some more bytes."""
        self._held.append(data)
        self._holding += len(data)
        if self._holding >= HELD_BACK:
            self._write()

    def finish(self) -> None:
        """Brings all bytes to the disk. It takes its time, and belongs on a thread."""
        # A failure is final: the file has to be written anew.
        sync(self._write())

    def replace(self, data: bytes) -> None:
        """Other bytes in place of all that were written, brought to the disk."""
        stream = self._open()
        stream.seek(0)
        stream.truncate()
        self._digest = hashlib.sha256(data)
        self.bytes = len(data)
        stream.write(data)
        sync(stream)

    def close(self) -> None:
        """Writes nothing more; the file need not be whole."""
        with self._lock:
            self._closed = True
            if self._stream is not None:
                self._stream.close()

    def _write(self) -> BinaryIO:
        stream = self._open()
        for data in self._held:
            self._digest.update(data)
            self.bytes += len(data)
            stream.write(data)
        self._held.clear()
        self._holding = 0
        return stream

    def _open(self) -> BinaryIO:
        with self._lock:
            if self._closed:
                # Whoever waited for the thread has gone and removed the file; it must not come back.
                raise ValueError(f"{self.path} is closed")
            if self._stream is None:
                # Buffered, because a write to a bare file may take less than it was given, and says so only in its
                # result.
                self._stream = self.path.open("xb")
            return self._stream


@contextmanager
def writing(path: Path) -> Iterator[TempFile]:
    """A file to write, closed at the end, and removed again when anything goes wrong."""
    part = TempFile(path)
    try:
        with translate_os_errors(path):
            try:
                yield part
            finally:
                part.close()
    except BaseException:
        if part.made:
            # What went wrong first says more than that the rest of it could not be removed either.
            with suppress(OSError):
                path.unlink(missing_ok=True)
        raise
