"""One thread that writes the manifest for an event loop, many transactions to one sync of the disk."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from seedream_batch.errors import StorageError
from seedream_batch.manifest.store import Manifest

Result = TypeVar("Result")
_Call = tuple[Callable[[], Any], asyncio.Future[Any]]


class ManifestWriter:
    """Runs calls on the manifest on a thread of its own, in the order they were made.

    Calls that arrive together share one commit; each still fails or succeeds by itself, and its result is given
    only when it is durable. The event loop never waits for the disk.
    """

    def __init__(self, manifest: Manifest, *, most_together: int = 256) -> None:
        self.manifest = manifest
        self._most = most_together
        self._loop = asyncio.get_running_loop()
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="manifest-writer", daemon=True)
        self._thread.start()

    async def do(self, call: Callable[[Manifest], Result]) -> Result:
        """The result of `call(manifest)`, once it is durable; its error if it failed.

        A cancelled wait does not undo the call: it is carried out all the same.
        """
        if self._closed:
            raise RuntimeError("the manifest's writer is closed")
        future: asyncio.Future[Result] = self._loop.create_future()
        self._calls.put((lambda: call(self.manifest), future))
        return await asyncio.shield(future)

    async def close(self) -> None:
        """Waits until every call is done and ends the thread; the manifest stays open."""
        self._closed = True
        self._calls.put(None)
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        open_for_calls = True
        while open_for_calls:
            batch: list[_Call] = []
            call = self._calls.get()
            while call is not None:
                batch.append(call)
                if len(batch) >= self._most or self._calls.empty():
                    break
                call = self._calls.get()
            open_for_calls = call is not None
            if batch:
                outcomes = self._carry_out(batch)
                self._loop.call_soon_threadsafe(_give, outcomes)

    def _carry_out(self, batch: list[_Call]) -> list[tuple[asyncio.Future[Any], Any, BaseException | None]]:
        outcomes: list[tuple[asyncio.Future[Any], Any, BaseException | None]] = []
        try:
            with self.manifest.group() as sql:
                for call, future in batch:
                    try:
                        # A savepoint of its own: a call that makes several changes makes all of them or none.
                        with self.manifest.group():
                            result = call()
                        outcomes.append((future, result, None))
                    except StorageError:
                        raise
                    except Exception as error:  # noqa: BLE001 - it is not swallowed: the caller gets it
                        outcomes.append((future, None, error))
                    self._still_in(sql)
        except Exception as error:  # noqa: BLE001 - it is not swallowed: every caller gets it
            return [(future, None, error) for _, future in batch]
        return outcomes

    def _still_in(self, sql: sqlite3.Connection) -> None:
        if not sql.in_transaction:
            # SQLite gave up the whole transaction by itself, what came before in it included.
            raise StorageError(f"{self.manifest.path}: the transaction was lost")


def _give(outcomes: list[tuple[asyncio.Future[Any], Any, BaseException | None]]) -> None:
    for future, result, error in outcomes:
        if future.cancelled():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
            future.exception()  # a waiter that was cancelled must not turn this into a warning
