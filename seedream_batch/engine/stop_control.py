"""Wait in a run: for a time or an event, and never past the end of the run."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

_T = TypeVar("_T")


class RunStopped(Exception):
    """The run is ending: waits are cancelled, writes in progress finish first."""


class Signal:
    """A resettable event, waited for with `Waits.until`."""

    def __init__(self) -> None:
        self.is_set = False
        self.waiting: set[asyncio.Future[None]] = set()

    def set(self) -> None:
        """Set the event and wake all waiters."""
        self.is_set = True
        for sleeper in self.waiting:
            _wake(sleeper)

    def clear(self) -> None:
        """Reset the event."""
        self.is_set = False


class StopControl:
    """All waits of a run. A thousand tasks wait several times each, so a wait is one future and no task."""

    def __init__(self) -> None:
        self.over = False
        self._sleepers: set[asyncio.Future[None]] = set()
        self._free: set[asyncio.Timeout] = set()

    def end(self) -> None:
        """End the run: wake all waiters, and cancel work that is free to repeat."""
        self.over = True
        now = asyncio.get_running_loop().time()
        for limit in self._free:
            if not limit.expired():
                limit.reschedule(now)
        for sleeper in self._sleepers:
            _wake(sleeper)

    def check(self) -> None:
        """Raise `RunStopped` if the run is ending."""
        if self.over:
            raise RunStopped

    async def free(self, work: Coroutine[object, object, _T]) -> _T:
        """Return the result of work that is free to repeat; cancel it and raise `RunStopped` when the run ends."""
        if self.over:
            work.close()
            raise RunStopped
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._free.add(limit)
                try:
                    return await work
                finally:
                    self._free.discard(limit)
        except TimeoutError:
            if limit.expired():
                raise RunStopped from None
            raise

    async def until(self, happening: Signal | None, seconds: float | None = None) -> None:
        """Wait until the event is set or the seconds have passed; raise `RunStopped` as soon as the run ends."""
        self.check()
        if (happening is not None and happening.is_set) or (seconds is not None and seconds <= 0):
            return
        loop = asyncio.get_running_loop()
        sleeper: asyncio.Future[None] = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, _wake, sleeper)
        self._sleepers.add(sleeper)
        if happening is not None:
            happening.waiting.add(sleeper)
        try:
            await sleeper
        finally:
            if timer is not None:
                timer.cancel()
            self._sleepers.discard(sleeper)
            if happening is not None:
                happening.waiting.discard(sleeper)
        self.check()


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)
