"""Find out whether the service refuses the API key itself, by asking for the balance, which is free."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum, auto

from seedream_batch.client.service import Service
from seedream_batch.errors import CredentialsRefused, ServiceError

FRESH = 60.0
"""Seconds for which a verdict is reused."""


class Verdict(Enum):
    """What the balance endpoint says about the key."""

    GOOD = auto()
    REFUSED = auto()
    UNKNOWN = auto()
    """The endpoint is not offered, or does not answer."""


class KeyCheck:
    """Checks the key once for all requests refused at the same time. `monotonic` returns seconds."""

    def __init__(self, service: Service, monotonic: Callable[[], float]) -> None:
        self._service = service
        self._monotonic = monotonic
        self._lock = asyncio.Lock()
        self._known: tuple[float, Verdict] | None = None

    async def verdict(self) -> Verdict:
        """Return the verdict on the key, at most `FRESH` seconds old."""
        async with self._lock:
            if self._known is None or self._monotonic() - self._known[0] > FRESH:
                verdict = await self._ask()
                self._known = self._monotonic(), verdict
            return self._known[1]

    async def is_refused(self, status: int | None) -> bool:
        """Return whether an answer with this status (401 or 403) is about the key rather than one request.

        Where the balance endpoint gives no verdict, a 401 counts as about the key: that is its documented meaning.
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
