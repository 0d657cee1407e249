"""Downloads of result images: another client, without credentials, that goes only where images may be."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver
from httpx_aiohttp import AiohttpTransport

from seedream_batch import __version__
from seedream_batch.api.service import _FAILURES, CONNECT_TIMEOUT, describe, is_loopback
from seedream_batch.model.outcome import Fetched

MAX_IMAGE = 100 * 1024 * 1024
"""Bytes of an image that are read; the largest seen have 16 MB."""
READ_TIMEOUT = 30.0
WHOLE_TIMEOUT = 600.0
"""Seconds for one image: 100 MB at less than 2 Mbit/s."""
MAX_REDIRECTS = 5


@dataclass(frozen=True, slots=True)
class Download:
    """What became of a download; `bytes` arrived."""

    kind: Fetched
    bytes: int = 0
    message: str = ""
    status: int | None = None


class ForbiddenAddress(OSError):
    """A host name resolved to an address that no result image lives at."""


class PublicResolver(AbstractResolver):
    """Gives only public addresses: a result URL must not make this machine ask its own network."""

    def __init__(self) -> None:
        self._inner = DefaultResolver()

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        """Addresses of `host`. Raises `ForbiddenAddress` when one of them is not public."""
        found = await self._inner.resolve(host, port, family)  # type: ignore[arg-type]
        for one in found:
            if not ipaddress.ip_address(one["host"].partition("%")[0]).is_global:
                raise ForbiddenAddress(f"{host} resolves to {one['host']}, which is not public")
        return found

    async def close(self) -> None:
        """Ends the inner resolver."""
        await self._inner.close()


class ImageClient:
    """Streams result images. Use as an async context manager.

    Against a service on this machine, images come from this machine, over http; else only over https
    and from public addresses.
    """

    def __init__(self, origin: str, *, connections: int = 16) -> None:
        self.local = is_loopback(urlsplit(origin).hostname or "")
        self.calls = 0
        """Requests made so far."""

        def session() -> aiohttp.ClientSession:
            # With a proxy it is the proxy that resolves names, and its own address is often a private one.
            direct = not self.local and "https" not in getproxies()
            connector = aiohttp.TCPConnector(limit=connections, resolver=PublicResolver() if direct else None)
            return aiohttp.ClientSession(
                connector=connector, trust_env=not self.local, cookie_jar=aiohttp.DummyCookieJar()
            )

        self._client = httpx.AsyncClient(
            transport=AiohttpTransport(client=session),
            headers={"User-Agent": f"seedream-batch/{__version__}", "Accept-Encoding": "identity"},
            follow_redirects=False,
            timeout=httpx.Timeout(READ_TIMEOUT, connect=CONNECT_TIMEOUT, pool=None),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    def refusal(self, url: str) -> str:
        """Why this URL must not be asked; empty if it may be."""
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
        except ValueError:
            return "the URL cannot be read"
        if not host or parts.scheme not in {"http", "https"}:
            return "the URL is no http(s) URL"
        if self.local:
            return "" if is_loopback(host) else f"{host} is not on this machine, but the service is"
        if parts.scheme != "https":
            return "images are only fetched over https"
        if host == "localhost":
            return "localhost is not public"
        try:
            public = ipaddress.ip_address(host).is_global
        except ValueError:
            return ""  # a name: the resolver looks at its addresses
        return "" if public else f"{host} is not a public address"

    async def fetch(self, url: str, take: Callable[[bytes], object]) -> Download:
        """Streams one image into `take`, which may raise what it likes; the failures of HTTP come back as outcomes."""
        try:
            async with asyncio.timeout(WHOLE_TIMEOUT):
                for _ in range(MAX_REDIRECTS + 1):
                    refusal = self.refusal(url)
                    if refusal:
                        return Download(Fetched.REFUSED, message=refusal)
                    answer = await self._get(url, take)
                    if isinstance(answer, Download):
                        return answer
                    url = answer
            return Download(Fetched.BROKEN, message=f"more than {MAX_REDIRECTS} redirects")
        except TimeoutError:
            return Download(Fetched.BROKEN, message=f"not whole after {WHOLE_TIMEOUT:.0f} s")

    async def _get(self, url: str, take: Callable[[bytes], object]) -> Download | str:
        """The download, or the URL that it was redirected to."""
        self.calls += 1
        try:
            response = await self._client.send(self._client.build_request("GET", url), stream=True)
        except _FAILURES as error:
            return Download(Fetched.BROKEN, message=describe(error))
        try:
            status = response.status_code
            if response.is_redirect and "location" in response.headers:
                return urljoin(url, response.headers["location"])
            if status in {403, 404, 410}:
                return Download(Fetched.GONE, message=f"HTTP {status}", status=status)
            if status != 200:
                return Download(Fetched.BROKEN, message=f"HTTP {status}", status=status)
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                return Download(Fetched.BROKEN, message="the image came compressed", status=status)
            return await self._stream(response, take)
        finally:
            await response.aclose()

    async def _stream(self, response: httpx.Response, take: Callable[[bytes], object]) -> Download:
        announced = response.headers.get("content-length", "")
        received = 0
        chunks = response.aiter_raw()
        while True:
            # Only the network's failures are outcomes; what `take` raises (a full disk) is the caller's.
            try:
                chunk = await anext(chunks, b"")
            except _FAILURES as error:
                return Download(Fetched.BROKEN, received, describe(error), response.status_code)
            if not chunk:
                break
            received += len(chunk)
            if received > MAX_IMAGE:
                return Download(Fetched.BROKEN, received, f"more than {MAX_IMAGE:,} bytes", response.status_code)
            take(chunk)
        if announced.isdecimal() and int(announced) != received:
            told = f"{received:,} of {int(announced):,} bytes came"
            return Download(Fetched.BROKEN, received, told, response.status_code)
        return Download(Fetched.WHOLE, received, status=response.status_code)
