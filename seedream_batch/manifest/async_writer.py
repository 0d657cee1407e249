"""Writes the manifest for an event loop: groups many calls into one commit, which a thread waits for."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from seedream_batch.errors import Collision, ConnectionLost, ManifestBusy, StorageError
from seedream_batch.manifest.db.connection import Transaction
from seedream_batch.manifest.manifest import Manifest

MOST_COLLISIONS = 20
"""Times in a row that a transaction may be aborted because of another one."""

Item = TypeVar("Item")
Result = TypeVar("Result")
Args = ParamSpec("Args")


def repeated(call: Callable[[], Result]) -> Result:
    """Return the result of a call, repeating it if it is aborted because of another worker's transaction."""
    for _ in range(MOST_COLLISIONS):
        try:
            return call()
        except Collision:
            continue
    return call()


_Method = Callable[[Sequence[Any]], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class _Call:
    method: _Method
    item: Any
    future: asyncio.Future[Any]
    reads: bool
    """Whether it only reads."""


_Outcome = tuple[asyncio.Future[Any], Any, BaseException | None]


class _CallFailed(Exception):
    """Raised if a call of a transaction fails: it is rolled back, and its calls are made one by one."""


class ManifestWriter:
    """Runs calls on the manifest in order; has exclusive use of it until `close`.

    Calls that are waiting when a transaction begins share it. Each still fails or succeeds on its own, and its result
    is returned only when it is durable. They share it without savepoints: only if one of them fails, the transaction is
    rolled back and repeated with a savepoint per call. So a call may be made twice, and must change nothing but the
    manifest.

    The statements of a file take microseconds and run in the event loop: on a thread, each of them would wait for the
    interpreter lock. Slow work runs on a thread: the sync of a commit, and with a server every statement. If the
    connection to a server is lost, everything waits for it; what was not committed is done again.

    No task of the loop does the work, so that it cannot be cancelled: every call is carried out. Only an unexpected
    exception such as `KeyboardInterrupt` ends it early, with the same effect as a kill.
    """

    def __init__(
        self, manifest: Manifest, *, most_together: int = 256, lost: Callable[[str], None] = lambda _: None
    ) -> None:
        """Start; `lost` is called in the loop with a message when the connection is lost, while the writer waits."""
        self.manifest = manifest
        self._connection = manifest.connection
        self._lost = lost
        self._most = most_together
        self._loop = asyncio.get_running_loop()
        self._calls: deque[_Call] = deque()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = self._broken = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="manifest-writer")
        # Start the thread here, where that may fail: later, a transaction would depend on it.
        self._thread.submit(int).result()
        if self._connection.in_process:
            self._connection.wait_for_lock(0)

    async def do(self, call: Callable[Args, Result], *args: Args.args, **kwargs: Args.kwargs) -> Result:
        """Return the result of a call once it is durable; raise its error if it failed.

        `call` is a method of a part of the manifest, or a function of such calls. Arguments are evaluated now, not when
        the call is carried out. Cancelling the wait does not undo the call.
        """
        result: Result = await self._enqueue(lambda _: [call(*args, **kwargs)])
        return result

    async def read(self, call: Callable[Args, Result], *args: Args.args, **kwargs: Args.kwargs) -> Result:
        """Like `do`, for a call that only reads; such calls need no transaction on a manifest in a file."""
        result: Result = await self._enqueue(lambda _: [call(*args, **kwargs)], reads=True)
        return result

    async def join(
        self, method: Callable[[Sequence[Item]], Sequence[Result]], item: Item, *, reads: bool = False
    ) -> Result:
        """Return the result for one item of a method that takes many, once it is durable; raise its error if it failed.

        Items for the same method in one transaction are passed to it together, at the turn of the first of them. No
        caller waits for one call before making another of the same transaction, so this changes no visible order.
        `reads` as in `read`.
        """
        result: Result = await self._enqueue(method, item, reads=reads)
        return result

    async def _enqueue(self, method: _Method, item: object = None, *, reads: bool = False) -> Any:
        if self._closed:
            raise RuntimeError("the manifest's writer is closed")
        future: asyncio.Future[Any] = self._loop.create_future()
        self._calls.append(_Call(method, item, future, reads))
        if self._idle.is_set():
            self._idle.clear()
            self._loop.call_soon(self._next)
        return await future

    async def close(self) -> None:
        """Wait until every call is done, even if cancelled repeatedly, and end the thread.

        The manifest stays open, and is available to others again.
        """
        self._closed = True
        cancelled: asyncio.CancelledError | None = None
        while not self._idle.is_set():
            try:
                await self._idle.wait()
            except asyncio.CancelledError as error:
                cancelled = error
        self._thread.shutdown()
        if self._connection.in_process:
            self._connection.wait_for_lock()
        if cancelled is not None:
            raise cancelled

    def _next(self) -> None:
        """Start the next transaction; become idle if there is nothing to do."""
        if self._broken or not self._calls:
            self._idle.set()
            return
        self._start([self._calls.popleft() for _ in range(min(len(self._calls), self._most))])

    def _start(self, batch: list[_Call], *, one_by_one: bool = False) -> None:
        if not self._connection.in_process:
            self._hand_over(batch)
            return
        if all(call.reads for call in batch):
            self._end(batch, self._read(batch), None)
            return
        transaction = self._connection.transaction()
        try:
            transaction.__enter__()
        except ManifestBusy:
            # Another program has locked the file: wait for it on the thread.
            self._hand_over(batch)
        except Exception as error:  # noqa: BLE001 - it is not swallowed: every caller gets it
            self._end(batch, [], error)
        except BaseException:
            self._abort()
            raise
        else:
            self._carry_out(batch, transaction, one_by_one=one_by_one)

    def _hand_over(self, batch: list[_Call]) -> None:
        """Run a transaction on the thread."""
        try:
            self._on_thread(lambda: self._whole(batch), lambda outcomes, error: self._end(batch, outcomes or [], error))
        except RuntimeError as failure:
            self._end(batch, [], failure)

    def _carry_out(self, batch: list[_Call], transaction: Transaction, *, one_by_one: bool) -> None:
        """Run the calls in the loop, and have them committed on the thread."""
        before = self._connection.changes
        try:
            outcomes = self._one_by_one(batch) if one_by_one else self._together(batch)
        except _CallFailed as failure:
            error = _rolled_back(transaction, failure)
            if error is failure:
                self._start(batch, one_by_one=True)
            else:
                self._end(batch, [], error)
            return
        except Exception as failure:  # noqa: BLE001 - it is not swallowed: every caller gets it
            self._end(batch, [], _rolled_back(transaction, failure))
            return
        except BaseException:
            self._abort()
            raise
        if self._connection.changes == before:
            # Nothing has changed, so there is no sync to wait for.
            self._end(batch, outcomes, _committed(transaction))
            return
        try:
            self._on_thread(lambda: _committed(transaction), lambda failure, _: self._end(batch, outcomes, failure))
        except RuntimeError as failure:
            self._end(batch, [], _rolled_back(transaction, failure))

    def _on_thread(self, work: Callable[[], Any], then: Callable[[Any, BaseException | None], None]) -> None:
        """Run `work` on the thread; `then` gets its result and error, back in the loop."""

        def carry_out() -> None:
            result, error = None, None
            try:
                result = work()
            except Exception as failure:  # noqa: BLE001 - it is not swallowed: `then` gets it
                error = failure
            self._loop.call_soon_threadsafe(then, result, error)

        self._thread.submit(carry_out)

    def _end(self, batch: list[_Call], outcomes: list[_Outcome], error: BaseException | None) -> None:
        """Return the outcomes, or the error to all callers, and continue after their next calls."""
        _resolve(outcomes if error is None else [(call.future, None, error) for call in batch])
        self._loop.call_soon(self._next)

    def _whole(self, batch: list[_Call]) -> list[_Outcome]:
        self._connection.wait_for_lock()
        try:
            return self._repeated(batch)
        finally:
            self._connection.wait_for_lock(0)

    def _repeated(self, batch: list[_Call]) -> list[_Outcome]:
        """Run a whole transaction; repeat it if it was aborted or the connection was lost."""
        reported = one_by_one = False
        collisions = 0
        while True:
            outcomes: list[_Outcome] | None = None
            try:
                with self._connection.transaction():
                    outcomes = self._one_by_one(batch) if one_by_one else self._together(batch)
            except _CallFailed:
                one_by_one = True
            except Collision:
                # The server let the other transaction continue.
                collisions += 1
                if collisions > MOST_COLLISIONS:
                    raise
            except ConnectionLost as error:
                if not reported:
                    self._loop.call_soon_threadsafe(self._lost, str(error))
                reported = True
                if self._connection.reconnect() and outcomes is not None:
                    return outcomes
            else:
                return outcomes

    def _together(self, batch: list[_Call]) -> list[_Outcome]:
        """Make all calls, or raise `_CallFailed` if one of them fails."""
        try:
            with self._connection.without_savepoints():
                return self._grouped(batch, self._check_transaction)
        except StorageError:
            raise
        except Exception as error:
            raise _CallFailed from error

    def _read(self, batch: list[_Call]) -> list[_Outcome]:
        """Make calls that only read."""
        try:
            return self._grouped(batch, lambda: None)
        except Exception:  # noqa: BLE001 - whoever made the call that failed gets the error below
            return [self._outcome(call) for call in batch]
        except BaseException:
            self._abort()
            raise

    def _grouped(self, batch: list[_Call], check: Callable[[], None]) -> list[_Outcome]:
        """Make the calls, those of the same method together, and `check` after each."""
        groups: defaultdict[_Method, list[_Call]] = defaultdict(list)
        for call in batch:
            groups[call.method].append(call)
        outcomes: list[_Outcome] = []
        for method, calls in groups.items():
            results = method([call.item for call in calls])
            outcomes += [(call.future, result, None) for call, result in zip(calls, results, strict=True)]
            check()
        return outcomes

    def _one_by_one(self, batch: list[_Call]) -> list[_Outcome]:
        """Make the calls one by one, each with the savepoint that it is rolled back to if it fails."""
        outcomes: list[_Outcome] = []
        for call in batch:
            outcome = self._outcome(call, savepoint=True)
            if isinstance(outcome[2], StorageError):
                raise outcome[2]
            outcomes.append(outcome)
            self._check_transaction()
        return outcomes

    def _outcome(self, call: _Call, *, savepoint: bool = False) -> _Outcome:
        try:
            with self._connection.transaction() if savepoint else nullcontext():
                [result] = call.method([call.item])
        except Exception as error:  # noqa: BLE001 - it is not swallowed: the caller gets it
            return call.future, None, error
        return call.future, result, None

    def _check_transaction(self) -> None:
        """Raise `StorageError` if SQLite rolled the whole transaction back, which it does after some errors."""
        if not self._connection.in_transaction:
            raise StorageError(f"{self.manifest.name}: the transaction was lost")

    def _abort(self) -> None:
        """Stop: an open transaction ends with the connection and is not committed."""
        self._closed = self._broken = True
        self._idle.set()


def _committed(transaction: Transaction) -> BaseException | None:
    """Commit; return the error, if any."""
    try:
        transaction.__exit__(None, None, None)
    except Exception as error:  # noqa: BLE001 - it is not swallowed: every caller gets it
        return error
    return None


def _rolled_back(transaction: Transaction, failure: Exception) -> BaseException:
    """Roll back because of a failure; return it as an error of the manifest."""
    try:
        transaction.__exit__(type(failure), failure, failure.__traceback__)
    except Exception as error:  # noqa: BLE001 - it is not swallowed: every caller gets it
        return error
    return failure


def _resolve(outcomes: list[_Outcome]) -> None:
    for future, result, error in outcomes:
        if future.cancelled():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
            future.exception()  # a waiter that was cancelled must not turn this into a warning
