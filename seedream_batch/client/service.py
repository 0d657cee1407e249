"""Call the image service over HTTP, one method per endpoint."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import re
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from types import TracebackType
from typing import Any, NoReturn, Self, cast
from urllib.parse import quote, urljoin, urlsplit

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from seedream_batch._version import __version__
from seedream_batch.client import wire
from seedream_batch.client.connections import CONNECT_TIMEOUT, Exchange, Resolver, no_connection_in_time, open_session
from seedream_batch.client.documents import Answer, unpacked
from seedream_batch.client.error_details import fault_of, is_web_page, one_line
from seedream_batch.client.lenient_parser import LONGEST_FIELD
from seedream_batch.client.proxies import SOCKS, Proxy, proxy_for
from seedream_batch.client.secret import ApiKey
from seedream_batch.client.trust import distrusted, tls
from seedream_batch.errors import (
    AccessRefused,
    BalanceTooLow,
    CredentialsRefused,
    NotReached,
    RequestRefused,
    ServiceError,
    UsageError,
)
from seedream_batch.model.outcome import Poll, Polled, Submission, Submitted
from seedream_batch.model.service_messages import is_balance

MAX_ANSWER = 64 * 1024 * 1024
"""Most bytes read of a response; a task document has a few thousand, but may contain images."""

SUBMIT_TIMEOUT = 120.0
"""Seconds without a byte after which a submission counts as unanswered.

Long, since waiting costs less than an uncertain task.
"""
POLL_TIMEOUT = 30.0
SLOWEST_UPLOAD = 50_000.0
"""Slowest rate of a large request in bytes per second; inlined references make megabytes."""
TRICKLE = 60.0
"""Seconds that a whole exchange may take on top of its timeout."""
KEEP_ALIVE = 5.0
"""Seconds an idle connection is kept; servers keep theirs for 15 s and more. Submissions never use one."""

PIECE = 256 * 1024
"""Bytes of a request sent at once: inlined references make bodies of many MB, and other requests wait meanwhile."""

SUBMIT = "/images/generations"

UPLOAD_LIFETIME = 72 * 3600.0
"""Seconds for which an uploaded image can be used."""

_FAILURES: tuple[type[Exception], ...] = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.StreamError,
    aiohttp.ClientError,
    OSError,
    TimeoutError,
    ValueError,
)
"""What the transport raises when an exchange fails; it passes on some of aiohttp's own errors."""


class NotExecuted(OSError):
    """The service did not execute the request: there was no connection, or it answered with a redirect.

    `lasting` if waiting does not help: a certificate, a proxy, an address.
    """

    def __init__(self, message: str, *, lasting: bool, status: int | None = None) -> None:
        super().__init__(message)
        self.lasting = lasting
        self.status = status


class ForbiddenAddress(OSError):
    """A host name resolved only to addresses that must not be requested."""


def origin_of(base_url: str) -> str:
    """Return the origin of a base URL given with or without `/v1`. Raise `UsageError` if it is not an http(s) URL."""
    try:
        parts = urlsplit(base_url.strip())
        port = parts.port
        host = httpx.URL(base_url.strip()).raw_host.decode("ascii")
    except (ValueError, httpx.InvalidURL):
        raise UsageError(f"{base_url!r} {_NO_BASE_URL}") from None
    if "@" in parts.netloc:
        raise UsageError("the base URL contains a user name or a password; remove them, the API key is enough")
    if parts.scheme not in {"http", "https"} or not _HOST.fullmatch(host) or port == 0 or parts.query or parts.fragment:
        raise UsageError(f"{base_url!r} {_NO_BASE_URL}")
    path = parts.path.rstrip("/").removesuffix("/v1")
    if parts.scheme == "http" and not is_loopback(host):
        raise UsageError(f"{base_url!r} would send the API key unencrypted; use https, except on this machine")
    return f"{parts.scheme}://{parts.netloc}{path}"


def http_proxy(proxy: Proxy | None) -> httpx.Proxy | None:
    """Return the proxy for the transport; None for a SOCKS proxy, which the connector handles."""
    return None if proxy is None or proxy.scheme in SOCKS else httpx.Proxy(proxy.url, headers=proxy.headers)


UNUSED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Passed to the transport, which would otherwise load certificates that it does not use; trusts nothing."""

_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")
_NO_BASE_URL = "is not a base URL; write it like https://api.apimart.ai"


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Return whether a host name means this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def longest_submission(body: str) -> float:
    """Return the seconds after which a submission with this body has ended, whatever its outcome."""
    return CONNECT_TIMEOUT + _longest_exchange(SUBMIT_TIMEOUT, len(body.encode()))


def _longest_exchange(timeout: float, length: int) -> float:
    return timeout + TRICKLE + length / SLOWEST_UPLOAD


class Service:
    """A client of one service with one key. Use as an async context manager.

    It neither retries nor follows redirects (they would get the key), and decides nothing: each method makes one
    exchange and returns its outcome. `clock` returns Unix seconds, for Retry-After dates.
    """

    def __init__(
        self, origin: str, key: ApiKey, *, connections: int = 64, clock: Callable[[], float] = time.time
    ) -> None:
        self.origin = origin
        self._clock = clock
        self._key = key
        self.connections = connections
        """Requests that can be outstanding at the same time."""
        self.calls = 0
        """Requests made so far."""
        self.reached = False
        """Whether the service has ever answered."""
        self.dead_end = False
        """Whether the last request failed for a reason that waiting does not fix."""
        self._no_service: Answer | None = None
        """What answered for the balance, if it may not be the service at all."""
        # A service on this machine is reached without the environment's proxy.
        self._proxy = proxy = None if is_loopback(urlsplit(origin).hostname or "") else proxy_for(origin)
        context = tls() if origin.startswith("https:") else None
        self._unconnected: set[Exchange] = set()

        def session() -> aiohttp.ClientSession:
            return open_session(
                connections=connections,
                proxy=proxy,
                context=context,
                resolver=Resolver(),
                lenient=MAX_ANSWER,
                incomplete=True,
                keepalive_timeout=KEEP_ALIVE,
                max_line_size=LONGEST_FIELD,
                max_field_size=LONGEST_FIELD,
            )

        # The bare transport: an httpx client adds redirects, cookies and credentials of its own, which are not wanted
        # here, and take longer than the exchange.
        self._transport = AiohttpTransport(verify=UNUSED, client=session, proxy=http_proxy(proxy))
        self._submit = httpx.URL(f"{origin}/v1{SUBMIT}")
        self._headers = [
            (b"User-Agent", f"seedream-batch/{__version__}".encode()),
            (b"Accept", b"application/json"),
            (b"Accept-Encoding", b"gzip, deflate"),
        ]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.aclose()

    async def submit(self, body: str, key: str) -> Submission:
        """Send one generation request under its Idempotency-Key; return its outcome."""
        headers = [
            (b"Content-Type", b"application/json"),
            (b"Idempotency-Key", key.encode("ascii")),
            (b"Connection", b"close"),
        ]
        try:
            answer = await self._exchange("POST", SUBMIT, SUBMIT_TIMEOUT, headers=headers, content=body.encode())
        except NotExecuted as error:
            return Submission(Submitted.UNREACHABLE, message=self._key.masked(str(error)), status=error.status)
        except _FAILURES as error:
            return Submission(Submitted.UNKNOWN, message=self._key.masked(describe(error)))
        outcome = wire.submission(answer, self._clock())
        if outcome.kind is not Submitted.UNKNOWN:
            self._no_service = None
        elif self._no_service is not None and _are_alike(answer, self._no_service):
            text = f"{self.origin} answers HTTP {answer.status} to every request, so it is not the service"
            return Submission(Submitted.UNREACHABLE, message=f"{text}; check APIMART_BASE_URL", status=answer.status)
        return outcome

    async def poll(self, task_id: str) -> Poll:
        """Poll one task id; return what it showed."""
        try:
            path = f"/tasks/{quote(task_id, safe='')}?language=en"
            answer = await self._exchange("GET", path, POLL_TIMEOUT)
        except _FAILURES as error:
            status = error.status if isinstance(error, NotExecuted) else None
            return Poll(Polled.NO_ANSWER, message=self._key.masked(describe(error)), status=status)
        return wire.poll(answer, self._clock(), task_id, self.origin)

    async def upload(self, data: bytes, media_type: str) -> str:
        """Upload a reference image; return its URL, valid for `UPLOAD_LIFETIME`. Raise `ServiceError`."""
        name = f"reference.{'jpg' if media_type == 'image/jpeg' else 'png'}"
        files = {"file": (name, data, media_type)}
        answer = await self._run_exchange(
            "uploading a reference image", self._exchange("POST", "/uploads/images", SUBMIT_TIMEOUT, files=files)
        )
        url = wire.upload_url(wire.parse(answer), self.origin) if answer.succeeded else None
        if url is None:
            self._refuse(answer, "uploading a reference image", "no URL in the answer")
        return url

    async def balance(self) -> wire.Balance:
        """Return the account's balance. Raise `CredentialsRefused`, `NotReached` or `ServiceError`."""
        answer = await self._run_exchange(
            f"requesting the balance from {self.origin}", self._exchange("GET", "/balance", POLL_TIMEOUT)
        )
        balance = wire.balance(wire.parse(answer)) if answer.succeeded else None
        # The service itself answers neither with 404 nor with a web page.
        own = isinstance(wire.parse(answer), dict)
        self._no_service = answer if answer.status == 404 or (answer.status < 300 and not own) else None
        if balance is None:
            self._refuse(answer, "requesting the balance", "no balance in the answer")
        return balance

    async def is_there(self) -> bool:
        """Return whether the service itself answers a free request, whatever it says."""
        try:
            answer = await self._exchange("GET", "/balance", POLL_TIMEOUT)
        except _FAILURES:
            return False
        return answer.status < 500 and isinstance(wire.parse(answer), dict)

    async def _run_exchange(self, doing: str, exchange: Awaitable[Answer]) -> Answer:
        failure: ServiceError
        try:
            return await exchange
        except NotExecuted as error:
            failure = NotReached(doing, self._key.masked(str(error)))
        except _FAILURES as error:
            failure = ServiceError(f"{doing}: {self._key.masked(describe(error))}")
        # Raised outside the handler: the `repr` of some errors of the HTTP library contains the key.
        raise failure

    def give_up_connecting(self) -> None:
        """End the requests that have no connection yet; those that have one are still answered."""
        for exchange in self._unconnected:
            exchange.give_up_connecting()

    def _refuse(self, answer: Answer, doing: str, lacking: str) -> NoReturn:
        fault = fault_of(wire.parse(answer), answer)
        message = fault.message or (lacking if answer.succeeded else "")
        kind: type[ServiceError]
        if answer.status in {402, 403, 429} and is_balance(fault.code, fault.type, message):
            kind = BalanceTooLow
        elif answer.status == 401:
            kind = CredentialsRefused
        elif answer.status == 403 and not is_web_page(answer.body):
            kind = AccessRefused
        elif answer.status == 402:
            kind = BalanceTooLow
        elif answer.status == 403:
            kind = ServiceError
        elif 400 <= answer.status < 500 and answer.status not in {404, 408, 409, 425, 429}:
            kind = RequestRefused
        else:
            kind = ServiceError
        status = f"HTTP {answer.status}" if answer.status else ""
        error = kind(": ".join(filter(None, (doing, status, message))))
        error.status = answer.status or None
        raise error

    async def _exchange(
        self,
        method: str,
        path: str,
        timeout: float,  # noqa: ASYNC109 - the transport's read timeout, not a cancel scope
        *,
        headers: Sequence[tuple[bytes, bytes]] = (),
        content: bytes | None = None,
        files: Mapping[str, tuple[str, bytes, str]] | None = None,
    ) -> Answer:
        self.calls += 1
        length = [] if content is None else [(b"Content-Length", b"%d" % len(content))]
        request = httpx.Request(
            method,
            self._submit if path == SUBMIT else f"{self.origin}/v1{path}",
            headers=[*self._headers, *headers, *length, (b"Authorization", self._key.header().encode())],
            **_body(content, files),
            extensions={"timeout": {"read": timeout}},
        )
        # Set here, so that httpx does not detect it for each request.
        request.headers.encoding = "ascii"
        if isinstance(request.stream, httpx.ByteStream):
            request.read()
        # A body that trickles in either direction never triggers the read timeout; this limits the whole exchange.
        exchange = Exchange(_longest_exchange(timeout, len(content or b"")), fresh=path == SUBMIT)
        self._unconnected.add(exchange)
        failure: NotExecuted | None = None
        try:
            return await self._answer(exchange, request)
        except _FAILURES as error:
            if exchange.connected:
                raise
            failure = not_connected(error, self._proxy)
        finally:
            self._unconnected.discard(exchange)
        # Raised outside the handler, as above.
        self.dead_end = failure.lasting and not self.reached
        raise failure

    async def _answer(self, exchange: Exchange, request: httpx.Request) -> Answer:
        async with exchange:
            response = await self._transport.handle_async_request(request)
            try:
                body = bytearray()
                whole = True
                # The stream itself: `aiter_raw` splits it anew, which takes as long as the transport.
                async for chunk in cast("httpx.AsyncByteStream", response.stream):
                    body += chunk
                    if len(body) > MAX_ANSWER:
                        whole = False
                        del body[MAX_ANSWER:]
                        break
            except asyncio.CancelledError:
                # The time limit of the exchange also ends the body; what was received counts as below.
                if not exchange.expired:
                    raise
                whole = False
            except _FAILURES:
                # The status line was received, and the partial body may contain a complete, paid task id.
                whole = False
            finally:
                await response.aclose()
        plain = unpacked(bytes(body), response.headers.get("content-encoding", ""))
        # A service that repeats the key in a message must not get it into logs and the manifest.
        answer = Answer(response.status_code, self._masked(response.headers), self._key.removed_from(plain), whole)
        if 300 <= answer.status < 400 and not self._executed(request.method, answer):
            self.dead_end = True
            raise NotExecuted(_redirected(self.origin, answer), lasting=True, status=answer.status)
        self.reached, self.dead_end = True, False
        return answer

    def _executed(self, method: str, answer: Answer) -> bool:
        """Return whether a request answered with a redirect may have been executed: See Other or a task id says so."""
        if method == "GET":
            return answer.status not in {301, 302, 303, 307, 308}
        return answer.status not in {301, 302, 307, 308} or bool(wire.submission(answer, self._clock()).task_ids)

    def _masked(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        text = "\n".join(headers.values())
        if self._key.masked(text) == text:
            return headers
        return httpx.Headers({name: self._key.masked(value) for name, value in headers.items()})


def _are_alike(answer: Answer, other: Answer) -> bool:
    """Return whether the same server, which is not the service, may have written both: the same text, or two pages."""
    pages = is_web_page(answer.body) and is_web_page(other.body)
    return answer.status == other.status and (pages or answer.body == other.body != b"")


def _redirected(origin: str, answer: Answer) -> str:
    """Return the message for a redirect, with only the origin of its target: the rest may contain the key."""
    target = ""
    try:
        parts = urlsplit(urljoin(origin, answer.headers.get("location", "")))
        target = f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
    except ValueError:
        pass
    text = f"{origin} redirects (HTTP {answer.status})"
    if not target.isprintable() or not target.startswith(("http://", "https://")) or target == origin:
        return f"{text}, which is not followed; check the address of the service in APIMART_BASE_URL"
    return f"{text} to {target}, which is not followed; if the service has moved there, set APIMART_BASE_URL={target}"


def _body(content: bytes | None, files: Mapping[str, tuple[str, bytes, str]] | None) -> dict[str, Any]:
    """Return the body of a request as arguments for httpx; a small one as a ready stream, which skips its detection."""
    if files is not None:
        return {"files": files}
    if content is not None and len(content) > PIECE:
        return {"content": _pieces(content)}
    return {"stream": httpx.ByteStream(content or b"")}


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), PIECE):
        yield content[start : start + PIECE]


def not_connected(error: BaseException, proxy: Proxy | None) -> NotExecuted:
    """Return the error for a request that never had a connection, with what to do about it."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ForbiddenAddress):
            return NotExecuted(str(cause), lasting=True)
        if isinstance(cause, aiohttp.ClientConnectorCertificateError):
            cause = cause.certificate_error  # noqa: PLW2901
        if isinstance(cause, ssl.SSLCertVerificationError):
            return NotExecuted(f"no TLS connection: {distrusted(cause.verify_message)}", lasting=True)
        if isinstance(cause, aiohttp.ClientHttpProxyError) and proxy is not None:
            text = f"the proxy in {proxy.variable} refused the connection: HTTP {cause.status}"
            if cause.status == 407:
                text += f" (it requires a user and a password: {proxy.scheme}://USER:PASSWORD@HOST:PORT)"
            return NotExecuted(text, lasting=True)
    text = no_connection_in_time() if any(isinstance(cause, TimeoutError) for cause in causes) else describe(error)
    if proxy is None:
        return NotExecuted(text, lasting=False)
    if any(isinstance(cause, aiohttp.ClientProxyConnectionError) for cause in causes):
        text = "it cannot be reached"
    elif proxy.scheme in SOCKS:
        text = next((one_line(str(cause)) for cause in causes if type(cause) is ConnectionError), text)
    return NotExecuted(f"no connection through the proxy in {proxy.variable} ({text})", lasting=True)


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        inner = getattr(cause, "os_error", None)
        cause = inner if isinstance(inner, BaseException) else cause.__cause__


def describe(error: BaseException) -> str:
    """Return a short message for a failed exchange, without memory or proxy addresses."""
    cause = error if isinstance(error, aiohttp.ClientConnectorDNSError) else error.__cause__ or error
    if isinstance(cause, asyncio.CancelledError):
        # Cancelled by the time limit of the exchange.
        cause = error
    if isinstance(cause, aiohttp.ClientConnectorDNSError):
        return f"cannot resolve the name {cause.host}"
    if isinstance(cause, aiohttp.ClientSSLError | aiohttp.ClientConnectorCertificateError):
        return f"no TLS connection to {cause.host}: {cause}"
    if isinstance(cause, aiohttp.ClientConnectorError):
        why = os.strerror(cause.errno) if cause.errno else str(cause.os_error)
        return f"cannot connect to {cause.host}:{cause.port} ({why})"
    if isinstance(error, NotExecuted):
        return str(error)
    if isinstance(cause, aiohttp.SocketTimeoutError | TimeoutError | aiohttp.ServerTimeoutError):
        return "no answer in time"
    if isinstance(cause, aiohttp.ServerDisconnectedError):
        return "the connection was closed without an answer"
    if isinstance(cause, ConnectionResetError) or getattr(cause, "errno", None) in {errno.ECONNRESET, errno.EPIPE}:
        return "the connection was reset"
    text = one_line(str(cause))
    return f"{type(cause).__name__}: {text}" if text else type(cause).__name__
