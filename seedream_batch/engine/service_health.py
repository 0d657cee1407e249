"""What a run knows about the service: whether it answers, asks for pauses, and accepts the key."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from seedream_batch.client.service import Service
from seedream_batch.engine.events import Event, EventKind, StopReason
from seedream_batch.engine.stop_control import StopControl
from seedream_batch.errors import CredentialsRefused, ServiceError
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

FRESH = 60.0
"""Seconds for which the verdict of the balance endpoint on the key is reused."""

MOST_REFUSED = 20
"""Refusals for the same reason, with nothing accepted, after which the tasks are not to blame."""

MOST_BLOCKED = 5
"""The same for requests blocked in front of the service (a firewall, a gateway)."""

WITH_SUCCESS = 5
"""Factor on both limits once the run had a task accepted."""

_VARYING = re.compile(r"\"[^\"]*\"|'[^']*'|`[^`]*`|[\w.-]*\d[\w.-]*")


class ServiceHealth:
    """Ends the run when the service does not answer, or only asks to wait. `monotonic` returns seconds."""

    def __init__(
        self, service: Service, control: StopControl, limiter: AdaptiveRateLimiter, monotonic: Callable[[], float]
    ) -> None:
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
        self._key_lock = asyncio.Lock()
        self._key_refused: bool | None = None
        """What the balance endpoint said about the key; None if it is not offered, or did not answer."""
        self._key_checked: float | None = None

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

    async def refuses_key(self, status: int | None) -> bool:
        """Return whether an answer with this status (401 or 403) is about the key rather than one request.

        The balance, which is free, tells; it is requested once for all requests refused at the same time. If the
        endpoint gives no verdict, a 401 counts as about the key: that is its documented meaning.
        """
        async with self._key_lock:
            if self._key_checked is None or self._monotonic() - self._key_checked > FRESH:
                try:
                    await self._service.balance()
                    self._key_refused = False
                except CredentialsRefused:
                    self._key_refused = True
                except ServiceError:
                    self._key_refused = None
                self._key_checked = self._monotonic()
        return status == 401 if self._key_refused is None else self._key_refused


class Refusals:
    """Counts consecutive refusals for one reason. Refusals for content are not reported here: they never stop a run."""

    def __init__(self) -> None:
        self.count = 0
        self._reason = ""
        self.successes = 0

    def accepted(self) -> None:
        """Record an accepted task."""
        self.successes += 1
        self.count = 0

    def refused(self, reason: str, *, blocked: bool) -> bool:
        """Record a refusal; return whether there are so many that all tasks would be refused."""
        masked = _VARYING.sub("…", reason)
        self.count = self.count + 1 if masked == self._reason else 1
        self._reason = masked
        most = MOST_BLOCKED if blocked else MOST_REFUSED
        return self.count >= most * (WITH_SUCCESS if self.successes else 1)
