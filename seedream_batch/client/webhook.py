"""Webhooks: one request that tells somebody how a run ended."""

from __future__ import annotations

from urllib.parse import urlsplit

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from seedream_batch._version import __version__
from seedream_batch.client.connections import Exchange, Resolver, open_session
from seedream_batch.client.proxies import proxy_for
from seedream_batch.client.service import _FAILURES, UNUSED, describe, http_proxy, is_loopback
from seedream_batch.client.trust import tls
from seedream_batch.errors import ServiceError

WHOLE_TIMEOUT = 20.0
"""Seconds for the whole exchange: nobody waits longer for a run that is over."""


def address_fault(url: str) -> str:
    """What keeps an address from being a webhook, without repeating it; empty if nothing does."""
    try:
        parts = urlsplit(url)
        host = httpx.URL(url).host
        port = parts.port
    except (ValueError, httpx.InvalidURL):
        return "is no address; it has to look like https://example.com/hook"
    if parts.scheme not in {"http", "https"} or not host or port == 0:
        return "is no address; it has to look like https://example.com/hook"
    if "@" in parts.netloc:
        return "has a user name or a password in it; put the secret into the path or the query"
    if parts.scheme == "http" and not is_loopback(host):
        return "would send it unencrypted; only https is used, except on this machine"
    return ""


async def deliver(url: str, method: str, body: bytes | None) -> None:
    """Sends a JSON body, or none. Raises `ServiceError`, which names the host and nothing else of the address."""
    host = urlsplit(url).hostname or ""
    told = ""
    try:
        status = await _exchange(url, method, body)
    except TimeoutError:
        told = "no answer in time"
    except _FAILURES as error:
        told = describe(error)
        # The rest of the address is as good as a password.
        if url in told or (len(urlsplit(url).path) > 1 and urlsplit(url).path in told):
            told = type(error).__name__
    else:
        # Redirects are not followed: they would carry the summary to an address that nobody wrote down.
        if not 200 <= status < 300:
            told = f"HTTP {status}"
    # Not from within the handler: the errors of the HTTP library have the whole address in them.
    if told:
        raise ServiceError(f"{host} was not notified: {told}")


async def _exchange(url: str, method: str, body: bytes | None) -> int:
    headers = {"User-Agent": f"seedream-batch/{__version__}"}
    if body is not None:
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    # Proxies of the environment are for the outside.
    proxy = None if is_loopback(urlsplit(url).hostname or "") else proxy_for(url)
    context = tls() if url.startswith("https:") else None

    def session() -> aiohttp.ClientSession:
        return open_session(connections=1, proxy=proxy, context=context, resolver=Resolver())

    transport = AiohttpTransport(verify=UNUSED, client=session, proxy=http_proxy(proxy))
    request = httpx.Request(
        method, url, headers=headers, content=body,
        extensions={"timeout": {"read": WHOLE_TIMEOUT}},
    )  # fmt: skip
    try:
        async with Exchange(WHOLE_TIMEOUT):
            response = await transport.handle_async_request(request)
            await response.aclose()
            return response.status_code
    finally:
        await transport.aclose()
