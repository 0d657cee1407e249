"""Calls the webhook of a submission when its task has ended.

The service posts the task's document to `<webhook>/callback`, without a signature, and tries up to three times more.
Only addresses on this machine are called: an emulator has no business elsewhere. Calls that are due are not remembered
over a new start.
"""

import asyncio
import contextlib
import ipaddress
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import aiohttp

from seedream_batch.emulator.http.responses import Response

_TIMEOUT_SECONDS = 10


class Webhooks:
    """The calls that are under way. Used from the event loop alone."""

    def __init__(self) -> None:
        self._calls: set[asyncio.Task[None]] = set()

    def call_later(
        self, webhook: str, seconds: float, document: Callable[[], Response], *, retries: Sequence[float]
    ) -> bool:
        """Post a document after some seconds, and again after each of the waits in `retries` until it is taken.

        Returns whether the address is one that is called.
        """
        if not _is_local(webhook):
            return False
        url = webhook.rstrip("/") + "/callback"
        call = asyncio.create_task(_call(url, seconds, document, retries))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return True

    async def close(self) -> None:
        """Drop the calls that are under way."""
        for call in list(self._calls):
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)


async def _call(url: str, seconds: float, document: Callable[[], Response], retries: Sequence[float]) -> None:
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
    for wait in (seconds, *retries):
        await asyncio.sleep(wait)
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(
                    url, data=document().body, headers={"Content-Type": "application/json"}, allow_redirects=False
                ) as response,
            ):
                if response.ok:
                    return


def _is_local(webhook: str) -> bool:
    try:
        parts = urlsplit(webhook)
        host = parts.hostname or ""
        return parts.scheme in {"http", "https"} and (host == "localhost" or ipaddress.ip_address(host).is_loopback)
    except ValueError:
        return False
