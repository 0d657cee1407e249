"""Gives out encoded images: drawn in threads, each once at a time, the latest ones kept."""

import asyncio
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

from seedream_batch.emulator.world.images import EncodedImage, draw
from seedream_batch.emulator.world.tasks import Plan

_WORKERS = 2
_KEPT_BYTES = 64 * 1024 * 1024


class ImageCache:
    """Images of tasks on demand. Used from the event loop; drawing and encoding happen in threads."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="emulator-pictures")
        self._kept: OrderedDict[tuple[str, int], EncodedImage] = OrderedDict()
        self._bytes = 0
        self._drawing: dict[tuple[str, int], asyncio.Future[EncodedImage]] = {}

    async def image(self, plan: Plan, index: int) -> EncodedImage:
        """The image of a task with this index, from 0."""
        key = (plan.id, index)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        if key not in self._drawing:
            future = asyncio.get_running_loop().run_in_executor(self._pool, draw, plan, index)
            self._drawing[key] = future
            future.add_done_callback(lambda done: self._finished(key, done))
        # Shielded: a client that goes away must not cancel the drawing that others wait for.
        return await asyncio.shield(self._drawing[key])

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _finished(self, key: tuple[str, int], done: "asyncio.Future[EncodedImage]") -> None:
        del self._drawing[key]
        if done.cancelled() or done.exception() is not None:
            return
        self._kept[key] = done.result()
        self._bytes += len(done.result().data)
        while self._bytes > _KEPT_BYTES and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= len(dropped.data)
