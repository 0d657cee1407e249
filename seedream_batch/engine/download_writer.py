"""Write a download to its file: a thread hashes and writes each block while the next one is received."""

from __future__ import annotations

import asyncio

from seedream_batch.files.temp_file import HELD_BACK, TempFile


class DownloadWriter:
    """Writes one download to its temp file. A download no larger than a block stays in memory and needs no thread."""

    def __init__(self, temp_file: TempFile) -> None:
        self._temp_file = temp_file
        self._block: list[bytes] = []
        self._size = 0
        self._writing: asyncio.Future[None] | None = None

    async def take(self, data: bytes) -> None:
        """Take the next bytes; wait while the disk is behind. Raise the errors of writing."""
        self._block.append(data)
        self._size += len(data)
        if self._size >= HELD_BACK:
            await self.settle()
            block, self._block, self._size = self._block, [], 0
            self._writing = asyncio.ensure_future(asyncio.to_thread(_write, self._temp_file, block))

    async def settle(self) -> None:
        """Wait until no thread is writing to the file. Raise the errors of writing."""
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing

    def finish(self) -> None:
        """Write and sync the rest.

        Every byte was received and `settle` has returned. Blocks: call it on a thread. Raise the errors of writing.
        """
        _write(self._temp_file, self._block)
        self._block = []
        self._temp_file.finish()


def _write(temp_file: TempFile, block: list[bytes]) -> None:
    for data in block:
        temp_file.take(data)
