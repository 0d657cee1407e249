"""Writes the manifest for an event loop: many calls to one commit, which a thread waits for."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from seedream_batch.errors import ManifestBusy, StorageError
from seedream_batch.manifest.connection import Transaction
from seedream_batch.manifest.store import Manifest

Result = TypeVar("Result")
_Call = tuple[Callable[[Manifest], Any], asyncio.Future[Any]]
_Outcome = tuple[asyncio.Future[Any], Any, BaseException | None]


class ManifestWriter:
    """Runs calls on the manifest in the order they were made; has it to itself until `close`.

    Calls that are made together share one commit; each still fails or succeeds by itself, and its result is given
    only when it is durable. Their statements take microseconds and run where the calls are made: on a thread, each of
    them would wait for the interpreter. What takes its time, the sync of a commit, has a thread.
    """

    def __init__(self, manifest: Manifest, *, most_together: int = 256) -> None:
        self.manifest = manifest
        self._most = most_together
        self._loop = asyncio.get_running_loop()
        self._calls: deque[_Call] = deque()
        self._called = asyncio.Event()
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="manifest-writer")
        manifest.wait_for_lock(0)
        self._work = self._loop.create_task(self._carry_out_all())

    async def do(self, call: Callable[[Manifest], Result]) -> Result:
        """The result of `call(manifest)`, once it is durable; its error if it failed.

        A cancelled wait does not undo the call: it is carried out all the same.
        """
        if self._closed:
            raise RuntimeError("the manifest's writer is closed")
        future: asyncio.Future[Result] = self._loop.create_future()
        self._calls.append((call, future))
        self._called.set()
        return await future

    async def close(self) -> None:
        """Waits until every call is done and ends the thread; the manifest stays open."""
        self._closed = True
        self._called.set()
        await asyncio.shield(self._work)
        self._thread.shutdown()
        self.manifest.wait_for_lock()

    async def _carry_out_all(self) -> None:
        while self._calls or not self._closed:
            if self._calls:
                batch = [self._calls.popleft() for _ in range(min(len(self._calls), self._most))]
                _give(await self._carry_out(batch))
            else:
                self._called.clear()
                await self._called.wait()

    async def _carry_out(self, batch: list[_Call]) -> list[_Outcome]:
        """The outcomes of these calls, when they are durable."""
        try:
            transaction, sql = await self._begin()
            before = sql.total_changes
            try:
                outcomes = self._run(batch, sql)
            except BaseException as error:
                transaction.__exit__(type(error), error, error.__traceback__)
                raise
            if sql.total_changes == before:
                # Nothing to wait for.
                transaction.__exit__(None, None, None)
            else:
                await self._loop.run_in_executor(self._thread, transaction.__exit__, None, None, None)
        except Exception as error:  # noqa: BLE001 - it is not swallowed: every caller gets it
            return [(future, None, error) for _, future in batch]
        return outcomes

    async def _begin(self) -> tuple[Transaction, sqlite3.Connection]:
        transaction = self.manifest.group()
        try:
            return transaction, transaction.__enter__()
        except ManifestBusy:
            # Somebody looks into the manifest with a tool that locks it.
            return transaction, await self._loop.run_in_executor(self._thread, self._begin_later, transaction)

    def _begin_later(self, transaction: Transaction) -> sqlite3.Connection:
        self.manifest.wait_for_lock()
        try:
            return transaction.__enter__()
        finally:
            self.manifest.wait_for_lock(0)

    def _run(self, batch: list[_Call], sql: sqlite3.Connection) -> list[_Outcome]:
        outcomes: list[_Outcome] = []
        for call, future in batch:
            try:
                # A savepoint of its own: a call that makes several changes makes all of them or none.
                with self.manifest.group():
                    result = call(self.manifest)
                outcomes.append((future, result, None))
            except StorageError:
                raise
            except Exception as error:  # noqa: BLE001 - it is not swallowed: the caller gets it
                outcomes.append((future, None, error))
            if not sql.in_transaction:
                # SQLite gave up the whole transaction by itself, what came before in it included.
                raise StorageError(f"{self.manifest.path}: the transaction was lost")
        return outcomes


def _give(outcomes: list[_Outcome]) -> None:
    for future, result, error in outcomes:
        if future.cancelled():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
            future.exception()  # a waiter that was cancelled must not turn this into a warning
