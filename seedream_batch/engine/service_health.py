"""What a run knows about the service: whether it answers, asks for pauses, and accepts the key."""

from __future__ import annotations

from collections.abc import Callable

from seedream_batch.client.service import Service
from seedream_batch.engine.events import Event, EventKind, StopReason
from seedream_batch.engine.key_check import KeyCheck
from seedream_batch.engine.stop_control import StopControl
from seedream_batch.lifecycle import poll_pause
from seedream_batch.pacing import AdaptiveRateLimiter

OUTAGE_LIMIT = 120.0
"""Seconds without a usable answer from the service after which the run ends; the next run continues."""

DEAD_END_LIMIT = 3.0
"""Seconds after which a run ends that never got an answer, if waiting cannot help (wrong host, bad certificate)."""

LIMITED_LIMIT = 1800.0
"""Seconds with nothing but "too many requests" answers after which the run ends."""

PROBING = 60.0
"""Seconds for which submissions wait for a sign of life after an unclear answer."""

LONG_PAUSE = 30.0
"""Seconds of requested pauses after which a warning is shown; it is repeated after ten times as long."""


class ServiceHealth:
    """Ends the run when the service does not answer, or only asks to wait. `monotonic` returns seconds."""

    def __init__(
        self, service: Service, control: StopControl, limiter: AdaptiveRateLimiter, monotonic: Callable[[], float]
    ) -> None:
        self.key = KeyCheck(service, monotonic)
        self.limiter = limiter
        self.may_poll = True
        """False once the key is refused. Images need no key, so they are still downloaded."""
        self.unclear = 0
        """Tasks in a row without a clear answer."""
        self.doubtful = False
        """Whether a submission got no clear answer, and nothing was answered since."""
        self.unproven = False
        """Whether not even the balance was answered, nor anything else yet."""
        self.denied = 0
        """Polls in a row for which the key was refused."""
        self._service = service
        self._control = control
        self._monotonic = monotonic
        self._silent_since: float | None = None
        self._limited_since: float | None = None
        self._warn_at = 0.0

    def answered(self) -> None:
        """Record a usable answer."""
        self._silent_since = None
        self._limited_since = None
        self.doubtful = self.unproven = False
        self.denied = 0

    def unanswered(self, why: str) -> None:
        """Record an exchange without a usable answer.

        Ends the run after `OUTAGE_LIMIT` seconds without one, or after `DEAD_END_LIMIT` seconds if waiting cannot help.
        """
        now = self._monotonic()
        if self._silent_since is None:
            self._silent_since = now
        silent, origin = now - self._silent_since, self._service.origin
        if self._service.dead_end and silent > DEAD_END_LIMIT:
            self._control.end(StopReason.OUTAGE, f"cannot use {origin}: {why}")
        elif silent > OUTAGE_LIMIT:
            self._control.end(StopReason.OUTAGE, f"no usable answer from {origin} for {OUTAGE_LIMIT:.0f} s: {why}")

    async def wait_for_life(self) -> None:
        """After an unclear answer, wait until the service answers anything, but not for ever; raise `RunStopped`.

        Asking is free, and every further submission into an outage might become uncertain.
        """
        since, tries = self._monotonic(), 0
        while self.doubtful and self._monotonic() - since < PROBING:
            if await self._control.free(self._service.is_there()):
                self.doubtful, self._silent_since = False, None
                return
            self.unanswered("an unclear answer to a submission, then no answer about the balance")
            tries += 1
            await self._control.rest(poll_pause(tries))

    def asked_to_wait(self, seconds: float, reason: str) -> None:
        """Record a pause that the service asks for; end the run after `LIMITED_LIMIT` seconds of such answers."""
        now, control = self._monotonic(), self._control
        self._silent_since = None
        if self._limited_since is None:
            self._limited_since = now
        limited = now - self._limited_since
        if limited > LIMITED_LIMIT:
            minutes = LIMITED_LIMIT / 60
            control.end(StopReason.OUTAGE, f"rate limited for {minutes:.0f} minutes without a break ({reason})")
        if now >= self._warn_at and max(seconds, limited) >= LONG_PAUSE:
            self._warn_at = now + 10 * LONG_PAUSE
            since = f" for {limited:.0f} s" if limited else ""
            control.warn(f"rate limited by the service{since}; next request in {seconds:.0f} s ({reason})")
        text = f"rate limited by the service for {seconds:.1f} s ({reason})"
        control.emit(Event(EventKind.SLOWED, text, {"seconds": seconds}))
