"""Draws images on demand in threads, each once, and keeps the most recently used ones."""

import asyncio
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

from seedream_batch.emulator.world.images import EncodedImage, draw
from seedream_batch.emulator.world.tasks import TaskPlan

_THREADS = 2
_MAX_BYTES = 64 * 1024 * 1024


class ImageCache:
    """The images of tasks. Used from the event loop only; drawing and encoding happen in threads."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="emulator-images")
        self._images: OrderedDict[tuple[str, int], EncodedImage] = OrderedDict()
        self._bytes = 0
        self._drawing: dict[tuple[str, int], asyncio.Future[EncodedImage]] = {}

    async def image(self, plan: TaskPlan, index: int) -> EncodedImage:
        """Return the image of a task with this index, from 0."""
        key = (plan.id, index)
        if key in self._images:
            self._images.move_to_end(key)
            return self._images[key]
        if key not in self._drawing:
            future = asyncio.get_running_loop().run_in_executor(self._pool, draw, plan, index)
            self._drawing[key] = future
            future.add_done_callback(lambda done: self._keep(key, done))
        # Shielded: a client that disconnects must not cancel the drawing that others wait for.
        return await asyncio.shield(self._drawing[key])

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _keep(self, key: tuple[str, int], done: "asyncio.Future[EncodedImage]") -> None:
        del self._drawing[key]
        if done.cancelled() or done.exception() is not None:
            return
        self._images[key] = done.result()
        self._bytes += len(done.result().data)
        while self._bytes > _MAX_BYTES and len(self._images) > 1:
            _, dropped = self._images.popitem(last=False)
            self._bytes -= len(dropped.data)
