"""Make connections: through which proxy, within which time; and tell whether a request ever had one."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from contextlib import suppress
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Self, cast

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from seedream_batch.client.lenient_parser import read_anyway
from seedream_batch.client.proxies import SOCKS, Proxy

CONNECT_TIMEOUT = 15.0
"""Seconds for a connection: name resolution, TCP, proxy and TLS together."""


def no_connection_in_time() -> str:
    """Return the message for a connection that took longer."""
    return f"no connection within {CONNECT_TIMEOUT:.0f} s"


_CURRENT: ContextVar[Exchange] = ContextVar("exchange")


class Exchange:
    """One request and its response, as a context manager that limits their time and knows whether it was ever sent.

    `connected` becomes true once there is a connection, including proxy and TLS where they are used: before that, the
    service cannot have seen anything of the request. `seconds` limits the time after that; None: no limit. With
    `fresh`, it gets a connection of its own.
    """

    def __init__(self, seconds: float | None = None, *, fresh: bool = False) -> None:
        self.connected = False
        self.fresh = fresh
        self._seconds = seconds
        self._limit = asyncio.timeout(seconds)

    async def __aenter__(self) -> Self:
        await self._limit.__aenter__()
        self._token: Token[Exchange] = _CURRENT.set(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _CURRENT.reset(self._token)
        await self._limit.__aexit__(kind, error, trace)

    @property
    def expired(self) -> bool:
        """Whether the time limit was exceeded."""
        return self._limit.expired()

    def connecting(self) -> None:
        """Start the time limit of a new connection."""
        self._limit_to(CONNECT_TIMEOUT)

    def has_connection(self) -> None:
        """Record the connection; the request is sent now."""
        self.connected = True
        self._limit_to(self._seconds)

    def give_up_connecting(self) -> None:
        """End the exchange with a `TimeoutError`, unless it has a connection."""
        if not self.connected:
            self._limit_to(0.0)

    def _limit_to(self, seconds: float | None) -> None:
        if not self._limit.expired():
            self._limit.reschedule(None if seconds is None else asyncio.get_running_loop().time() + seconds)


def open_session(
    *,
    connections: int,
    proxy: Proxy | None,
    context: ssl.SSLContext | None,
    resolver: AbstractResolver,
    lenient: int = 0,
    incomplete: bool = False,
    **more: Any,
) -> aiohttp.ClientSession:
    """Return a session whose requests report their connection to the current `Exchange`.

    With `lenient`, responses that violate HTTP are read up to so many bytes; with `incomplete`, also those without a
    valid end. A SOCKS proxy is set up here, for all connections; an HTTP proxy has to be named with each request.
    """
    limits: dict[str, Any] = {"limit": connections, "ssl": context or True}
    if "keepalive_timeout" in more:
        limits["keepalive_timeout"] = more.pop("keepalive_timeout")
    if proxy is not None and proxy.scheme in SOCKS:
        from seedream_batch.client.socks import ProxyType, SocksConnector  # noqa: PLC0415 - it needs an extra

        connector: aiohttp.TCPConnector = SocksConnector(
            proxy_type=ProxyType.SOCKS5 if SOCKS[proxy.scheme] == 5 else ProxyType.SOCKS4,
            host=proxy.host, port=proxy.port, username=proxy.user, password=proxy.password, rdns=True, **limits,
        )  # fmt: skip
    else:
        connector = aiohttp.TCPConnector(resolver=resolver, **limits)
    _report_connections(connector)
    if lenient:
        read_anyway(connector, lenient, incomplete=incomplete)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), **more)


def _report_connections(connector: aiohttp.TCPConnector) -> None:
    """Report connections to the current `Exchange`, and open a new one for every fresh exchange.

    A server may be closing an idle connection at the moment when a request is sent on it. Nobody knows then whether it
    was executed. Tracing would report connections too, but takes long for what it offers besides.
    """
    reuse, create = connector._get, connector._create_connection  # noqa: SLF001 - no other way

    async def get(key: Any, traces: Any) -> Any:
        exchange = _CURRENT.get()
        if not exchange.fresh:
            if (connection := await reuse(key, traces)) is not None:
                exchange.has_connection()
            return connection
        idle = connector._conns  # noqa: SLF001
        if idle.get(key) and len(idle[key]) + len(connector._acquired) >= connector.limit:  # noqa: SLF001
            # The limit is that of all connections, since each is an open file.
            idle[key].popleft()[0].abort()
            if not idle[key]:
                del idle[key]
        return None

    async def connect(*request: Any) -> Any:
        exchange = _CURRENT.get()
        exchange.connecting()
        protocol = await create(*request)
        exchange.has_connection()
        return protocol

    connector._get, connector._create_connection = cast("Any", get), cast("Any", connect)  # type: ignore[method-assign] # noqa: SLF001


class Resolver(AbstractResolver):
    """Resolves names on daemon threads, so that a silent name server does not delay the end of a run.

    The threads of an executor are joined when a loop, or the interpreter, ends.
    """

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of `host`. Raise `OSError`."""
        loop = asyncio.get_running_loop()
        resolved: asyncio.Future[list[ResolveResult]] = loop.create_future()

        def tell(result: list[ResolveResult] | OSError) -> None:
            if resolved.done():
                return
            if isinstance(result, OSError):
                resolved.set_exception(result)
            else:
                resolved.set_result(result)

        def look_up() -> None:
            try:
                result: list[ResolveResult] | OSError = _addresses(host, port, family)
            except OSError as error:
                result = error
            except UnicodeError:
                result = socket.gaierror(socket.EAI_NONAME, "no host name")
            # Raised once the loop is closed, when nobody waits any more.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(tell, result)

        threading.Thread(target=look_up, name=f"name {host[:40]}", daemon=True).start()
        return await resolved

    async def close(self) -> None:
        """Do nothing: no resource is open."""


def _addresses(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    found = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [
        ResolveResult(hostname=host, host=str(at[0]), port=int(at[1]), family=kind, proto=proto, flags=numeric)
        for kind, _, proto, _, at in found
        # A link-local address needs an interface, and hosts no service or image.
        if not (kind == socket.AF_INET6 and len(at) == 4 and at[3])
    ]
