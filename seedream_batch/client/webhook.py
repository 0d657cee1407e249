"""Send a webhook: one request that reports the result of a run."""

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
"""Seconds for the whole exchange: the run is over, and the user waits for the program to end."""


def address_fault(url: str) -> str:
    """Return why an address cannot be a webhook, without repeating it; empty if it can."""
    try:
        parts = urlsplit(url)
        host = httpx.URL(url).host
        port = parts.port
    except (ValueError, httpx.InvalidURL):
        return "is not a URL; write it like https://example.com/hook"
    if parts.scheme not in {"http", "https"} or not host or port == 0:
        return "is not a URL; write it like https://example.com/hook"
    if "@" in parts.netloc:
        return "contains a user name or a password; put the secret in the path or the query"
    if parts.scheme == "http" and not is_loopback(host):
        return "is not encrypted; use https, except on this machine"
    return ""


async def deliver(url: str, method: str, body: bytes | None) -> None:
    """Send a JSON body, or none. Raise `ServiceError`, which names only the host of the address."""
    host = urlsplit(url).hostname or ""
    why = ""
    try:
        status = await _exchange(url, method, body)
    except TimeoutError:
        why = "no answer in time"
    except _FAILURES as error:
        why = describe(error)
        # The path of the address may be a secret.
        if url in why or (len(urlsplit(url).path) > 1 and urlsplit(url).path in why):
            why = type(error).__name__
    else:
        # Redirects are not followed: they would carry the summary to an address that nobody wrote down.
        if not 200 <= status < 300:
            why = f"HTTP {status}"
    # Raised outside the handler: the errors of the HTTP library contain the whole address.
    if why:
        raise ServiceError(f"cannot notify {host}: {why}")


async def _exchange(url: str, method: str, body: bytes | None) -> int:
    headers = {"User-Agent": f"seedream-batch/{__version__}"}
    if body is not None:
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    # A host on this machine is reached without the environment's proxy.
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
