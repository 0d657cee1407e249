"""Write a temp file under a hidden name; a small one stays in memory until it is complete."""

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
"""Bytes buffered: a smaller file is created, hashed, written and synced in one go, on a thread."""


class TempFile:
    """A new temp file that takes its bytes as they arrive; opened by `writing`.

    Methods raise `OSError`, which `writing` turns into `StorageError`. An existing file is not touched.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: list[bytes] = []
        self._holding = 0
        self._digest = hashlib.sha256()
        self.bytes = 0
        """Bytes written so far."""
        self._stream: BinaryIO | None = None
        self._closed = False
        self._lock = threading.Lock()

    @property
    def made(self) -> bool:
        """Whether the file was created and may have to be removed."""
        return self._stream is not None

    @property
    def sha256(self) -> str:
        """The SHA-256 in hex of the bytes written so far."""
        return self._digest.hexdigest()

    def take(self, data: bytes) -> None:
        self._held.append(data)
        self._holding += len(data)
        if self._holding >= HELD_BACK:
            self._write()

    def finish(self) -> None:
        """Write and sync all bytes. Blocks: call it on a thread."""
        # After a failed sync the state of the file is unknown: it has to be written again.
        sync(self._write())

    def replace(self, data: bytes) -> None:
        """Replace all bytes by others, and sync them."""
        stream = self._open()
        stream.seek(0)
        stream.truncate()
        self._digest = hashlib.sha256(data)
        self.bytes = len(data)
        stream.write(data)
        sync(stream)

    def close(self) -> None:
        """Close the file, complete or not."""
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
                # The task that waited for this thread has removed the file; it must not be created again.
                raise ValueError(f"{self.path} is closed")
            if self._stream is None:
                # Buffered, since an unbuffered write may write only a part, which it reports only in its result.
                self._stream = self.path.open("xb")
            return self._stream


@contextmanager
def writing(path: Path) -> Iterator[TempFile]:
    """Yield a temp file; close it at the end, and remove it if anything fails. Raise `StorageError`."""
    temp_file = TempFile(path)
    try:
        with translate_os_errors(path):
            try:
                yield temp_file
            finally:
                temp_file.close()
    except BaseException:
        if temp_file.made:
            # The first error says more than the failure to remove the file.
            with suppress(OSError):
                path.unlink(missing_ok=True)
        raise
