"""Download result images: a separate client without credentials, restricted to public addresses."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import re
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

import aiohttp
import httpx
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult

from seedream_batch._version import __version__
from seedream_batch.client.connections import Exchange, Resolver, open_session
from seedream_batch.client.error_details import retry_after
from seedream_batch.client.lenient_parser import LONGEST_FIELD
from seedream_batch.client.proxies import SOCKS, Proxy, proxy_for
from seedream_batch.client.service import _FAILURES, ForbiddenAddress, describe, is_loopback, not_connected
from seedream_batch.client.trust import tls
from seedream_batch.model.outcome import Fetched

MAX_IMAGE = 100 * 1024 * 1024
"""Most bytes read of an image; the largest seen have 16 MB."""
READ_TIMEOUT = 30.0
"""Seconds without a byte after which a connection is closed."""
SLOW_WINDOW = 60.0
SLOWEST = 10_000
"""Least bytes per `SLOW_WINDOW` seconds. The total time is not limited, since the image is paid for."""
MAX_REDIRECTS = 5
MOST_PAUSES = 5
"""Times in a row that a resumed download may bring nothing more."""
RESUME_PAUSE = 1.0
"""Seconds before a download is resumed; doubled each time that brought nothing."""
LONGEST_RESUME_PAUSE = 60.0
"""Longest pause in seconds that a host may request before a resume, since the partial file stays open meanwhile."""
BUFFER = 256 * 1024
"""Bytes buffered before the sender is throttled; they arrive in chunks of up to twice this size."""

ACCEPT = "image/jpeg, image/png, image/*;q=0.8, */*;q=0.5"


@dataclass(frozen=True, slots=True)
class Download:
    """The result of a download; `bytes` were received.

    `retry_after` is the seconds that the host asks to wait; with `lasting`, retrying soon is of little use.
    """

    kind: Fetched
    bytes: int = 0
    message: str = ""
    status: int | None = None
    retry_after: float | None = None
    lasting: bool = False


class PublicResolver(AbstractResolver):
    """Resolves to public addresses only: a result URL must not make this machine send requests into its own network.

    It also returns addresses in 198.18.0.0/15: local proxies that resolve every name themselves use that range, and
    nothing else does. As literals in a URL they are not public.
    """

    def __init__(self) -> None:
        self._inner = Resolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the public addresses of `host`. Raise `ForbiddenAddress` if it has none."""
        found = await self._inner.resolve(host, port, family)
        public = [address for address in found if _may_be_asked(address["host"])]
        if not public:
            raise ForbiddenAddress(
                f"{host} resolves to {found[0]['host'] if found else 'nothing'}, which is not public"
            )
        return public

    async def close(self) -> None:
        """Close the inner resolver."""
        await self._inner.close()


def _may_be_asked(address: str) -> bool:
    at = ipaddress.ip_address(address.partition("%")[0])
    return is_public(at) or at in _FAKE


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Return whether an address is on the public internet; an embedded IPv4 address is checked too."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address.teredo is not None:
            inner = address.teredo[1]
        elif any(address in network for network in _CARRIERS):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(inner)
        # Of the other IPv6 addresses, only this range is in use.
        if address not in _GLOBAL_UNICAST:
            return False
    return address.is_global and not address.is_multicast and address not in _RELAYS


_CARRIERS = tuple(ipaddress.IPv6Network(text) for text in ("64:ff9b::/96", "::/96", "::ffff:0:0:0/96"))
"""Networks whose addresses end in an IPv4 address."""
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_RELAYS = ipaddress.IPv4Network("192.88.99.0/24")
_FAKE = ipaddress.IPv4Network("198.18.0.0/15")
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
_PLAIN = re.compile(
    r"https?://[a-z0-9.-]{1,253}(:[1-5]?[0-9]{1,4})?/[A-Za-z0-9/._~%-]*(\?[A-Za-z0-9/._~%=&-]*)?", re.ASCII
)
"""URLs that need no normalisation: most do not, and normalising is slow."""
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


Take = Callable[[bytes], Awaitable[object]]
"""Takes the next bytes of a download; no more are read before it returns."""


@dataclass(slots=True)
class _PartialDownload:
    """A download that may take several requests: the bytes so far, and which version of the image they belong to."""

    take: Take
    received: int = 0
    version: str = ""
    """Its ETag or Last-Modified; without one it cannot be resumed."""
    whole: int | None = None
    """Its total bytes, if known."""
    cookies: dict[str, dict[str, str]] = field(default_factory=dict)
    """Cookies that redirects set, by the origin that set them: some hosts send the image only with them."""


class ImageClient:
    """Streams result images. Use as an async context manager.

    If the service is on this machine, images come from this machine over http; else only over https and from public
    addresses. `monotonic` returns seconds.
    """

    def __init__(self, origin: str, *, connections: int = 16, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.local = is_loopback(urlsplit(origin).hostname or "")
        self.calls = 0
        """Requests made so far."""

        self._connections = connections
        self._monotonic = monotonic
        self._context = None if self.local else tls()
        self._proxy = None if self.local else proxy_for("https://")
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for session in self._sessions.values():
            await session.close()

    def _session(self, proxy: Proxy | None) -> aiohttp.ClientSession:
        """Return the session for requests through the proxy, or for direct ones."""
        proxied = proxy is not None
        if proxied not in self._sessions:
            # A proxy resolves names itself, and its own address is often private.
            self._sessions[proxied] = open_session(
                connections=self._connections,
                proxy=proxy,
                context=self._context,
                resolver=Resolver() if self.local or proxied else PublicResolver(),
                headers={
                    "User-Agent": f"seedream-batch/{__version__}", "Accept": ACCEPT, "Accept-Encoding": "identity"
                },
                timeout=aiohttp.ClientTimeout(total=None, sock_read=READ_TIMEOUT),
                auto_decompress=False,
                read_bufsize=BUFFER,
                lenient=MAX_IMAGE,
                max_line_size=LONGEST_FIELD,
                max_field_size=LONGEST_FIELD,
            )  # fmt: skip
        return self._sessions[proxied]

    def refusal(self, url: yarl.URL) -> str:
        """Return why this URL must not be requested; empty if it may be."""
        host = url.raw_host or ""
        if not host or url.scheme not in {"http", "https"}:
            return "not an http(s) URL"
        if self.local:
            return "" if is_loopback(host) else f"{host} is not on this machine, but the service is"
        if url.scheme != "https":
            return "images are only downloaded over https"
        try:
            public = is_public(ipaddress.ip_address(host))
        except ValueError:
            # A name: the resolver checks its addresses. One that ends in a number is an address in disguise.
            public = bool(_NAME.fullmatch(host)) and not _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2])
            public = public and not f".{host.rstrip('.')}".endswith(".localhost")
        return "" if public else f"{host} is not a public address"

    async def fetch(self, url: str, take: Take) -> Download:
        """Stream one image into `take`; return failures of HTTP as outcomes, and raise what `take` raises.

        An interrupted download is resumed as long as more bytes arrive. There is no time limit: cancel it to end it.
        """
        if url[:5].lower() == "data:":
            return await _inline(url, take)
        partial = _PartialDownload(take)
        pauses = 0
        while True:
            before = partial.received
            download = await self._follow(url, partial)
            resumable = partial.received > 0 and partial.version and not download.lasting
            if download.kind is not Fetched.BROKEN or not resumable:
                return download
            pauses = 0 if partial.received - before >= SLOWEST else pauses + 1
            wait = max(RESUME_PAUSE * 2.0**pauses, download.retry_after or 0.0)
            if pauses > MOST_PAUSES or wait > LONGEST_RESUME_PAUSE:
                return download
            await asyncio.sleep(wait)

    async def _follow(self, url: str, partial: _PartialDownload) -> Download:
        """Request the missing rest once, following redirects."""
        for _ in range(MAX_REDIRECTS + 1):
            asked = read_url(url)
            if asked is not None and asked.scheme == "http" and not self.local:
                asked = _safe(asked)
            refusal = "the URL cannot be read" if asked is None else self.refusal(asked)
            if asked is None or refusal:
                return Download(Fetched.REFUSED, partial.received, refusal, lasting=True)
            answer = await self._get(asked, partial)
            if isinstance(answer, Download):
                return answer
            url = answer
        return Download(Fetched.BROKEN, partial.received, f"more than {MAX_REDIRECTS} redirects", lasting=True)

    async def _get(self, url: yarl.URL, partial: _PartialDownload) -> Download | str:
        """Return the download, or the URL of a redirect."""
        self.calls += 1
        proxy = self._proxy if self._proxy is not None and proxy_for(str(url.origin())) else None
        named = proxy if proxy is not None and proxy.scheme not in SOCKS else None
        wanted = {"Range": f"bytes={partial.received}-", "If-Range": partial.version} if partial.received else {}
        if cookies := partial.cookies.get(str(url.origin())):
            wanted["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
        exchange = Exchange()
        try:
            async with exchange:
                response = await self._session(proxy).get(
                    url,
                    headers=wanted,
                    allow_redirects=False,
                    proxy=None if named is None else named.url,
                    proxy_headers=None if named is None else named.headers,
                )
        except _FAILURES as error:
            if exchange.connected:
                return Download(Fetched.BROKEN, partial.received, describe(error))
            failure = not_connected(error, proxy)
            return Download(Fetched.BROKEN, partial.received, str(failure), lasting=failure.lasting)
        try:
            status = response.status
            if status in {301, 302, 303, 307, 308} and "location" in response.headers:
                kept = {name: morsel.coded_value for name, morsel in response.cookies.items() if morsel.value}
                partial.cookies.setdefault(str(url.origin()), {}).update(kept)
                return _target(str(url), response.headers["location"])
            if status in {403, 404, 410}:
                return Download(Fetched.GONE, partial.received, f"HTTP {status}", status)
            fault = _begin(partial, status, response.headers)
            if fault is not None:
                wait = retry_after(_lower(response.headers), time.time())
                return Download(Fetched.BROKEN, partial.received, fault, status, wait, _is_lasting(status, partial))
            return await self._stream(response, partial)
        finally:
            # A response read to its end has already released its connection.
            response.close()

    async def _stream(self, response: aiohttp.ClientResponse, partial: _PartialDownload) -> Download:
        def broken(message: str, *, lasting: bool = False) -> Download:
            return Download(Fetched.BROKEN, partial.received, message, response.status, lasting=lasting)

        # Except with status 206 the body starts at the first byte again: skip what was already received.
        known = partial.received if response.status in _WHOLE else 0
        since, mark = self._monotonic(), 0
        came = 0
        while True:
            # Only the network's failures are outcomes; what `take` raises (a full disk) is the caller's.
            try:
                chunk = await response.content.readany()
            except _FAILURES as error:
                return broken(describe(error))
            if not chunk:
                break
            came += len(chunk)
            now = self._monotonic()
            if now - since > SLOW_WINDOW:
                if came - mark < SLOWEST:
                    return broken(f"only {came - mark:,} bytes received in {now - since:.0f} s")
                since, mark = now, came
            fresh, known = chunk[known:], max(0, known - len(chunk))
            if not fresh:
                continue
            partial.received += len(fresh)
            if partial.received > MAX_IMAGE:
                return broken(f"more than {MAX_IMAGE:,} bytes", lasting=True)
            await partial.take(fresh)
            # The time to write is not counted against the host.
            since += self._monotonic() - now
        if partial.whole is not None and partial.whole != partial.received:
            return broken(f"only {partial.received:,} of {partial.whole:,} bytes received")
        return Download(Fetched.WHOLE, partial.received, status=response.status)


def _begin(partial: _PartialDownload, status: int, headers: Mapping[str, str]) -> str | None:
    """Record the version and length of a body; return what is wrong with it, or None."""
    version = _version(headers)
    part = _RANGE.fullmatch(headers.get("content-range", "").strip())
    if status in _WHOLE or (status == 206 and not partial.received and part is None):
        if partial.received and version != partial.version:
            partial.version = ""
            return "the download was interrupted, and the image has changed since"
        length = headers.get("content-length", "")
        partial.version, partial.whole = version, int(length) if length.isdecimal() else None
        return None
    if status == 206 and not partial.received and part is not None and int(part[1]) == 0:
        # Not asked for: some hosts send every image as a range, or only its first part.
        partial.version, partial.whole = version, int(part[2]) + 1 if part[3] == "*" else int(part[3])
        return None
    if status == 206 and partial.received:
        fits = part is not None and int(part[1]) == partial.received and (not version or version == partial.version)
        if part is None or not fits or (partial.whole is not None and part[3] not in {"*", str(partial.whole)}):
            partial.version = ""
            return "the rest of the image does not match the first part"
        partial.whole = int(part[2]) + 1 if part[3] == "*" else int(part[3])
        return None
    return f"HTTP {status}" if status else "an answer that is not HTTP"


_WHOLE = {200, 203}
"""Statuses of a whole image; proxies that change what they pass on say 203."""

_RANGE = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15}|\*)", re.ASCII)


def _version(headers: Mapping[str, str]) -> str:
    """Return the validator of a version for If-Range; empty if there is none."""
    tag = headers.get("etag", "").strip()
    if re.fullmatch(r'"[\x21\x23-\x7e]*"', tag):
        return tag
    date = headers.get("last-modified", "").strip()
    return date if re.fullmatch(r"[\x20-\x7e]{1,40}", date) else ""


def _is_lasting(status: int, partial: _PartialDownload) -> bool:
    """Return whether waiting does not change a status."""
    if partial.received and status == 416:
        return True
    return 400 <= status < 500 and status not in {408, 425, 429}


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


async def _inline(url: str, take: Take) -> Download:
    """Read an image from a data URL."""
    head, comma, body = url[5:].partition(",")
    data = b""
    try:
        data = unquote_to_bytes(body)
        if head.lower().rpartition(";")[2].strip() == "base64":
            data = base64.b64decode(b"".join(data.split()) + b"==")
    except ValueError:
        comma = ""
    if not comma or len(data) > MAX_IMAGE:
        return Download(Fetched.REFUSED, message="the data URL cannot be read", lasting=True)
    await take(data)
    return Download(Fetched.WHOLE, len(data))


def host_of(url: str) -> str:
    """Return the host of a URL, with its port; empty if it has none."""
    read = read_url(url)
    return "" if read is None else read.raw_authority


def read_url(url: str) -> yarl.URL | None:
    """Return a URL exactly as it will be requested, since it may be signed; None if it is not a URL."""
    try:
        # Non-ASCII names are converted here, so that the checked host is the requested one: a full stop of another
        # script, for example, turns 127\u30020\u30020\u30021 into 127.0.0.1.
        read = yarl.URL(url if _PLAIN.fullmatch(url) else str(httpx.URL(url)), encoded=True)
        # yarl parses parts of a URL only on access, which can fail as well.
        port = read.explicit_port
        sane = read.raw_host and read.origin() and str(read).isascii() and (port is None or 0 < port < 65536)
    except Exception:  # noqa: BLE001 - whatever a library makes of such a text, it is no URL
        return None
    return read if sane else None


def _safe(url: yarl.URL) -> yarl.URL:
    """Return the same URL over https."""
    text = str(url).partition("://")[2]
    if url.explicit_port == 80:
        host, slash, rest = text.partition("/")
        text = host.removesuffix(":80") + slash + rest
    return yarl.URL(f"https://{text}", encoded=True)


def _target(url: str, location: str) -> Download | str:
    try:
        return urljoin(url, location)
    except ValueError:
        return Download(Fetched.BROKEN, message="redirected to an invalid URL", lasting=True)
