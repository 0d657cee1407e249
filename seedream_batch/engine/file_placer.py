"""Give verified files their final names in batches: one call on a thread and one folder sync for many files."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from seedream_batch.files.destination import Destination

_Placing = tuple[Path, str, "asyncio.Future[None]"]


class FilePlacer:
    """Batches commits of files: those that arrive during one batch form the next.

    It runs in callbacks instead of a task of the loop, so that a cancelled task affects only its own file.
    """

    def __init__(self, folder: Destination) -> None:
        self._folder = folder
        self._waiting: list[_Placing] = []
        self._busy = False

    async def place(self, temp_path: Path, path: str) -> None:
        """Give a synced temp file its final name, durably. Raise `Occupied` or `StorageError`."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append((temp_path, path, done))
        if not self._busy:
            self._busy = True
            # Deferred, so that files which become ready in this iteration of the loop join the batch.
            loop.call_soon(self._next)
        await done

    def _next(self) -> None:
        batch = [record_path for record_path in self._waiting if not record_path[2].cancelled()]
        self._waiting.clear()
        self._busy = bool(batch)
        if not batch:
            return
        files = [(temp_path, path) for temp_path, path, _ in batch]
        try:
            work = asyncio.get_running_loop().run_in_executor(None, self._folder.place, files)
        except RuntimeError as error:
            # No thread could be started. The work may be queued all the same: as after a kill, the next run recovers.
            self._busy = False
            _give(batch, [error] * len(batch))
            return
        work.add_done_callback(lambda ended: self._end(batch, ended))

    def _end(self, batch: list[_Placing], ended: asyncio.Future[list[Exception | None]]) -> None:
        fault = asyncio.CancelledError() if ended.cancelled() else ended.exception()
        _give(batch, ended.result() if fault is None else [fault] * len(batch))
        self._next()


def _give(batch: Sequence[_Placing], errors: Sequence[BaseException | None]) -> None:
    for (_, _, done), error in zip(batch, errors, strict=True):
        if done.cancelled():
            continue
        if error is None:
            done.set_result(None)
        elif isinstance(error, asyncio.CancelledError):
            done.cancel()
        else:
            done.set_exception(error)
