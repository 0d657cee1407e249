"""Calls the webhook of a submission when its task has ended.

The service posts the task's document to `<webhook>/callback`, without a signature, and retries up to three times.
Only addresses on this machine are called: an emulator must not send requests elsewhere. A restart forgets the calls
that are due.
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
    """The pending calls. Used from the event loop only."""

    def __init__(self) -> None:
        self._calls: set[asyncio.Task[None]] = set()

    def call_later(
        self, webhook: str, seconds: float, document: Callable[[], Response], *, retries: Sequence[float]
    ) -> None:
        """Post a document after a delay to the base URL of a webhook; ignore any that is not on this machine.

        `retries` are the seconds to wait before each further attempt, until one succeeds.
        """
        if _is_local(webhook):
            call = asyncio.create_task(_call(webhook.rstrip("/") + "/callback", seconds, document, retries))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    async def close(self) -> None:
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
