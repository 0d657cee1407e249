"""Whether the service refuses the API key itself: the balance endpoint knows, and asking it is free."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum, auto

from seedream_batch.client.service import Service
from seedream_batch.errors import CredentialsRefused, ServiceError

FRESH = 60.0
"""Seconds in which a verdict is not asked for again."""


class Verdict(Enum):
    """What the balance endpoint says of the key."""

    GOOD = auto()
    REFUSED = auto()
    UNKNOWN = auto()
    """It is not offered, or does not answer."""


class KeyCheck:
    """Asks once for all requests that were refused at the same time. `monotonic` gives seconds."""

    def __init__(self, service: Service, monotonic: Callable[[], float]) -> None:
        self._service = service
        self._monotonic = monotonic
        self._lock = asyncio.Lock()
        self._known: tuple[float, Verdict] | None = None

    async def verdict(self) -> Verdict:
        """What is known of the key by now."""
        async with self._lock:
            if self._known is None or self._monotonic() - self._known[0] > FRESH:
                verdict = await self._ask()
                self._known = self._monotonic(), verdict
            return self._known[1]

    async def is_refused(self, status: int | None) -> bool:
        """Whether an answer with this status (401 or 403) is about the key, and not about one request.

        Where the balance endpoint does not tell, 401 is: that is what the service documents it for.
        """
        verdict = await self.verdict()
        return verdict is Verdict.REFUSED or (verdict is Verdict.UNKNOWN and status == 401)

    async def _ask(self) -> Verdict:
        try:
            await self._service.balance()
        except CredentialsRefused:
            return Verdict.REFUSED
        except ServiceError:
            return Verdict.UNKNOWN
        return Verdict.GOOD
