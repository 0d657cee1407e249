"""Waiting in a run: for a time, for something that happens, and never past the end of the run."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

_T = TypeVar("_T")


class Stopping(Exception):
    """The run is to end: whatever waits gives up, whatever writes finishes first."""


class Happening:
    """Something that happens again and again, and can be waited for by `Waits.until` from its `clear` on."""

    def __init__(self) -> None:
        self.is_set = False
        self.waiting: set[asyncio.Future[None]] = set()

    def set(self) -> None:
        """It happened: whoever waits goes on."""
        self.is_set = True
        for sleeper in self.waiting:
            _wake(sleeper)

    def clear(self) -> None:
        """From here on only what happens anew counts."""
        self.is_set = False


class Waits:
    """All who wait in a run. A thousand tasks wait several times each, so a wait is one future and no task."""

    def __init__(self) -> None:
        self.over = False
        self._sleepers: set[asyncio.Future[None]] = set()
        self._free: set[asyncio.Timeout] = set()

    def end(self) -> None:
        """From here on nobody waits any more."""
        self.over = True
        now = asyncio.get_running_loop().time()
        for limit in self._free:
            if not limit.expired():
                limit.reschedule(now)
        for sleeper in self._sleepers:
            _wake(sleeper)

    def check(self) -> None:
        """Raises `Stopping` when the run is to end."""
        if self.over:
            raise Stopping

    async def free(self, work: Coroutine[object, object, _T]) -> _T:
        """What work gives that is free to repeat; cancels it and raises `Stopping` as soon as the run is to end."""
        if self.over:
            work.close()
            raise Stopping
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
                raise Stopping from None
            raise

    async def until(self, happening: Happening | None, seconds: float | None = None) -> None:
        """Waits until something has happened, or for so long; raises `Stopping` as soon as the run is to end."""
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
