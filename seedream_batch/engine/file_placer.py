"""Giving verified files their final names, many at a time: one hand-over to a thread, one sync of a folder for all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from seedream_batch.files.destination import Destination

_Placing = tuple[Path, str, "asyncio.Future[None]"]


class Placer:
    """Places files as they come; those that come while others are being placed are the next to go, together.

    No task of the loop does this: a task that is cancelled takes only its own file with it.
    """

    def __init__(self, folder: Destination) -> None:
        self._folder = folder
        self._waiting: list[_Placing] = []
        self._busy = False

    async def place(self, part: Path, path: str) -> None:
        """Gives a synced file its final name, durably. Raises `Occupied` and `StorageError`."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append((part, path, done))
        if not self._busy:
            self._busy = True
            # Those that are about to come in this turn of the loop go along.
            loop.call_soon(self._next)
        await done

    def _next(self) -> None:
        batch = [placing for placing in self._waiting if not placing[2].cancelled()]
        self._waiting.clear()
        self._busy = bool(batch)
        if not batch:
            return
        files = [(part, path) for part, path, _ in batch]
        try:
            work = asyncio.get_running_loop().run_in_executor(None, self._folder.place, files)
        except RuntimeError as error:
            # No thread is to be had. Whether one takes this up later is not known: as after a kill, the next run looks.
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
