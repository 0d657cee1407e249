"""Connections: how they are made, through which proxy, and whether an exchange ever had one."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from contextlib import suppress
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from seedream_batch.client.lenient_parser import read_anyway
from seedream_batch.client.proxies import SOCKS, Proxy

CONNECT_TIMEOUT = 15.0
"""Seconds for a connection: the name, TCP, the proxy and TLS together."""


def no_connection_in_time() -> str:
    """What to say when it took longer."""
    return f"no connection within {CONNECT_TIMEOUT:.0f} s"


_CURRENT: ContextVar[Exchange] = ContextVar("exchange")


class Exchange:
    """One request and its answer, as a context: bounded in time, and with the word on whether it was ever sent.

    `connected` becomes true as soon as there is a connection, through a proxy and TLS where those are used: only from
    then on can the service have seen anything of the request. `seconds` bounds the rest; None: nothing does.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self.connected = False
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
        """Whether its time was up."""
        return self._limit.expired()

    def connecting(self) -> None:
        """A connection is being made for it."""
        self._limit_to(CONNECT_TIMEOUT)

    def has_connection(self) -> None:
        """It has a connection, and the request goes out."""
        self.connected = True
        self._limit_to(self._seconds)

    def give_up_connecting(self) -> None:
        """Ends it with a `TimeoutError`, unless it has a connection."""
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
    lenient: bool = False,
    **more: Any,
) -> aiohttp.ClientSession:
    """A session whose requests tell the `Exchange` that they are made in of their connection.

    A SOCKS proxy is a matter of the connections; an HTTP proxy has to be named with each request.
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
    if lenient:
        read_anyway(connector)
    return aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trace_configs=[_watch()], **more
    )


def _watch() -> aiohttp.TraceConfig:
    async def connecting(*_: object) -> None:
        _CURRENT.get().connecting()

    async def connected(*_: object) -> None:
        _CURRENT.get().has_connection()

    watch = aiohttp.TraceConfig()
    watch.on_connection_create_start.append(connecting)
    watch.on_connection_create_end.append(connected)
    watch.on_connection_reuseconn.append(connected)
    return watch


class Resolver(AbstractResolver):
    """Looks names up on threads that nobody waits for: a name server that is silent must not hold up the end of a run.

    Those of an executor are waited for when a loop, or the interpreter, ends.
    """

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Addresses of `host`. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[ResolveResult]] = loop.create_future()

        def tell(result: list[ResolveResult] | OSError) -> None:
            if found.done():
                return
            if isinstance(result, OSError):
                found.set_exception(result)
            else:
                found.set_result(result)

        def look_up() -> None:
            try:
                result: list[ResolveResult] | OSError = _addresses(host, port, family)
            except OSError as error:
                result = error
            except UnicodeError:
                result = socket.gaierror(socket.EAI_NONAME, "no host name")
            # Once the loop has ended, nobody waits any more.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(tell, result)

        threading.Thread(target=look_up, name=f"name {host[:40]}", daemon=True).start()
        return await found

    async def close(self) -> None:
        """Nothing is open."""


def _addresses(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    found = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [
        ResolveResult(hostname=host, host=str(at[0]), port=int(at[1]), family=kind, proto=proto, flags=numeric)
        for kind, _, proto, _, at in found
        # A link-local address is of use with its interface alone, and no service or image lives there.
        if not (kind == socket.AF_INET6 and len(at) == 4 and at[3])
    ]
