"""Downloads of result images: another client, without credentials, that goes only where images may be."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urljoin, urlsplit

import aiohttp
import httpx
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver

from seedream_batch import __version__
from seedream_batch.api.proxies import proxy_for
from seedream_batch.api.service import _FAILURES, CONNECT_TIMEOUT, ForbiddenAddress, describe, is_loopback
from seedream_batch.model.outcome import Fetched

MAX_IMAGE = 100 * 1024 * 1024
"""Bytes of an image that are read; the largest seen have 16 MB."""
READ_TIMEOUT = 30.0
WHOLE_TIMEOUT = 600.0
"""Seconds for one image: 100 MB at less than 2 Mbit/s."""
MAX_REDIRECTS = 5
BUFFER = 256 * 1024
"""Bytes of an image that wait to be taken before the sender is held up; they come in pieces of up to twice that."""


@dataclass(frozen=True, slots=True)
class Download:
    """What became of a download; `bytes` arrived."""

    kind: Fetched
    bytes: int = 0
    message: str = ""
    status: int | None = None


class PublicResolver(AbstractResolver):
    """Gives only public addresses: a result URL must not make this machine ask its own network."""

    def __init__(self) -> None:
        self._inner = DefaultResolver()

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        """Addresses of `host`. Raises `ForbiddenAddress` when one of them is not public."""
        found = await self._inner.resolve(host, port, family)  # type: ignore[arg-type]
        for one in found:
            if not is_public(ipaddress.ip_address(one["host"].partition("%")[0])):
                raise ForbiddenAddress(f"{host} resolves to {one['host']}, which is not public")
        return found

    async def close(self) -> None:
        """Ends the inner resolver."""
        await self._inner.close()


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is one of the public internet, also where it carries an IPv4 address inside."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address.teredo is not None:
            inner = address.teredo[1]
        elif address in _NAT64 or int(address) >> 32 == 0:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local:
            return False
    return address.is_global and not address.is_multicast


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
_PLAIN = re.compile(
    r"https?://[a-z0-9.-]{1,253}(:[1-5]?[0-9]{1,4})?/[A-Za-z0-9/._~%-]*(\?[A-Za-z0-9/._~%=&-]*)?", re.ASCII
)
"""URLs in which there is nothing to write in another way: most are, and looking closer takes a while."""
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


Take = Callable[[bytes], Awaitable[object]]
"""Takes some bytes of a download; the next ones are read when it has done so."""


class ImageClient:
    """Streams result images. Use as an async context manager.

    Against a service on this machine, images come from this machine, over http; else only over https
    and from public addresses.
    """

    def __init__(self, origin: str, *, connections: int = 16) -> None:
        self.local = is_loopback(urlsplit(origin).hostname or "")
        self.calls = 0
        """Requests made so far."""

        self._connections = connections
        self._proxy = None if self.local else proxy_for("https://")
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for session in self._sessions.values():
            await session.close()

    def _session(self, *, proxied: bool) -> aiohttp.ClientSession:
        """The connections through the proxy, or the direct ones."""
        if proxied not in self._sessions:
            # A proxy resolves names itself, and its own address is often a private one.
            resolver = None if self.local or proxied else PublicResolver()
            self._sessions[proxied] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections, resolver=resolver),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": f"seedream-batch/{__version__}", "Accept-Encoding": "identity"},
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT),
                auto_decompress=False,
                read_bufsize=BUFFER,
            )
        return self._sessions[proxied]

    def refusal(self, url: yarl.URL) -> str:
        """Why this URL must not be asked; empty if it may be."""
        host = url.raw_host or ""
        if not host or url.scheme not in {"http", "https"}:
            return "the URL is no http(s) URL"
        if self.local:
            return "" if is_loopback(host) else f"{host} is not on this machine, but the service is"
        if url.scheme != "https":
            return "images are only fetched over https"
        try:
            public = is_public(ipaddress.ip_address(host))
        except ValueError:
            # A name: the resolver looks at its addresses. What ends in a number is an address in disguise.
            public = bool(_NAME.fullmatch(host)) and not _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2])
            public = public and not f".{host.rstrip('.')}".endswith(".localhost")
        return "" if public else f"{host} is not a public address"

    async def fetch(self, url: str, take: Take) -> Download:
        """Streams one image into `take`, which may raise what it likes; the failures of HTTP come back as outcomes."""
        limit = asyncio.timeout(WHOLE_TIMEOUT)
        try:
            async with limit:
                for _ in range(MAX_REDIRECTS + 1):
                    asked = read_url(url)
                    refusal = "the URL cannot be read" if asked is None else self.refusal(asked)
                    if asked is None or refusal:
                        return Download(Fetched.REFUSED, message=refusal)
                    answer = await self._get(asked, take)
                    if isinstance(answer, Download):
                        return answer
                    url = answer
            return Download(Fetched.BROKEN, message=f"more than {MAX_REDIRECTS} redirects")
        except TimeoutError:
            if not limit.expired():
                raise  # from `take`: a disk can time out, too
            return Download(Fetched.BROKEN, message=f"not whole after {WHOLE_TIMEOUT:.0f} s")

    async def _get(self, url: yarl.URL, take: Take) -> Download | str:
        """The download, or the URL that it was redirected to."""
        self.calls += 1
        proxy = self._proxy if self._proxy is not None and proxy_for(str(url)) else None
        try:
            response = await self._session(proxied=proxy is not None).get(
                url,
                allow_redirects=False,
                proxy=None if proxy is None else str(proxy.url),
                proxy_headers=None if proxy is None else proxy.headers,
            )
        except _FAILURES as error:
            return Download(Fetched.BROKEN, message=describe(error))
        try:
            status = response.status
            if status in {301, 302, 303, 307, 308} and "location" in response.headers:
                return _target(str(url), response.headers["location"])
            if status in {403, 404, 410}:
                return Download(Fetched.GONE, message=f"HTTP {status}", status=status)
            if status != 200:
                return Download(Fetched.BROKEN, message=f"HTTP {status}", status=status)
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                return Download(Fetched.BROKEN, message="the image came compressed", status=status)
            return await self._stream(response, take)
        finally:
            # What was read to its end has given its connection back already.
            response.close()

    async def _stream(self, response: aiohttp.ClientResponse, take: Take) -> Download:
        announced = response.headers.get("content-length", "")
        received = 0
        while True:
            # Only the network's failures are outcomes; what `take` raises (a full disk) is the caller's.
            try:
                chunk = await response.content.readany()
            except _FAILURES as error:
                return Download(Fetched.BROKEN, received, describe(error), response.status)
            if not chunk:
                break
            received += len(chunk)
            if received > MAX_IMAGE:
                return Download(Fetched.BROKEN, received, f"more than {MAX_IMAGE:,} bytes", response.status)
            await take(chunk)
        if announced.isdecimal() and int(announced) != received:
            told = f"{received:,} of {int(announced):,} bytes came"
            return Download(Fetched.BROKEN, received, told, response.status)
        return Download(Fetched.WHOLE, received, status=response.status)


def read_url(url: str) -> yarl.URL | None:
    """A URL as it will be asked, and not written in another way again, for it may be signed; None: it is none."""
    if _PLAIN.fullmatch(url):
        return yarl.URL(url, encoded=True)
    try:
        # Names in other letters are written in ASCII here, so that what is looked at is what will be asked: a full
        # stop of other scripts, for example, makes 127.0.0.1 of 127\u30020\u30020\u30021.
        return yarl.URL(str(httpx.URL(url)), encoded=True)
    except (httpx.InvalidURL, ValueError):
        return None


def _target(url: str, location: str) -> Download | str:
    try:
        return urljoin(url, location)
    except ValueError:
        return Download(Fetched.BROKEN, message="redirected to what is no URL")
