"""How a run stops: why, and waits that end with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TypeVar

from seedream_batch.engine.events import Event, EventKind, StopReason

_T = TypeVar("_T")


class RunStopped(Exception):
    """The run is ending: waits are cancelled, writes in progress finish first."""


class Signal:
    """A resettable event, waited for with `StopControl.until`."""

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
    """Why and how a run stops, and all waits of a run.

    A thousand tasks wait several times each, so a wait is one future and no task. `emit` receives the events of the
    run. `give_up` is called when the run ends: connections that are not established yet are not worth waiting for.
    """

    def __init__(self, emit: Callable[[Event], None], give_up: Callable[[], None]) -> None:
        self.emit = emit
        self._give_up = give_up
        self.reason: StopReason | None = None
        self.text = ""
        self.over = False
        self._sleepers: set[asyncio.Future[None]] = set()
        self._free: set[asyncio.Timeout] = set()

    def warn(self, text: str) -> None:
        """Emit a warning."""
        self.emit(Event(EventKind.WARNING, text))

    def may_submit(self) -> bool:
        """Return whether nothing has stopped submissions yet."""
        return self.reason is None

    def stop_submitting(self, reason: StopReason, text: str, *, more: str = "") -> None:
        """Stop submitting; polling and downloads continue.

        Only the first reason is kept. `more` is added to the message, and not kept.
        """
        if self.reason is None:
            self.reason = reason
            self.text = text
            self.emit(Event(EventKind.STOPPING, f"{text}; {more}" if more else text, {"reason": str(reason)}))

    def end(self, reason: StopReason, text: str, *, more: str = "") -> None:
        """Start nothing new: cancel waits and work that is free to repeat; requests and writes in progress finish."""
        if self.over:
            return
        # Why the run ends (Ctrl-C, a time limit, a full disk) matters more than why it stopped submitting earlier.
        self.reason = None
        self.stop_submitting(reason, text, more=more)
        self.over = True
        now = asyncio.get_running_loop().time()
        for limit in self._free:
            if not limit.expired():
                limit.reschedule(now)
        for sleeper in self._sleepers:
            _wake(sleeper)
        self._give_up()

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

    async def rest(self, seconds: float) -> None:
        """Sleep this many seconds; raise `RunStopped` as soon as the run ends."""
        await self.until(None, seconds)

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
