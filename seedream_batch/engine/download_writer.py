"""The way of a download into its file: a thread hashes and writes each block while the next one comes."""

from __future__ import annotations

import asyncio

from seedream_batch.files.temp_file import HELD_BACK, Part


class Inlet:
    """Takes the bytes of one download. What is no larger than a block stays in memory, and costs no thread."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._block: list[bytes] = []
        self._size = 0
        self._writing: asyncio.Future[None] | None = None

    async def take(self, data: bytes) -> None:
        """Some more bytes; waits as long as the disk is behind. Raises what the disk does."""
        self._block.append(data)
        self._size += len(data)
        if self._size >= HELD_BACK:
            await self.settle()
            block, self._block, self._size = self._block, [], 0
            self._writing = asyncio.ensure_future(asyncio.to_thread(_write, self._part, block))

    async def settle(self) -> None:
        """Waits until no thread is at work on the file. Raises what the disk does."""
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing

    def finish(self) -> None:
        """Every byte has come, and nothing is being written: brings them to the disk. It belongs on a thread."""
        _write(self._part, self._block)
        self._block = []
        self._part.finish()


def _write(part: Part, block: list[bytes]) -> None:
    for data in block:
        part.take(data)
