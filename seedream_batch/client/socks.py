"""Connect through a SOCKS proxy; the only module that needs the extra `socks`."""

from __future__ import annotations

import asyncio
from typing import Any

import python_socks
from aiohttp.client_proto import ResponseHandler
from aiohttp_socks import ProxyConnector, ProxyType

__all__ = ["ProxyType", "SocksConnector"]


class SocksConnector(ProxyConnector):
    """Raises `ConnectionError` for any failure before there is a connection: nothing was sent then."""

    async def _connect_via_proxy(self, *args: Any, **settings: Any) -> tuple[asyncio.Transport, ResponseHandler]:
        try:
            return await super()._connect_via_proxy(*args, **settings)
        except Exception as error:
            raise ConnectionError(_message(error)) from error


def _message(error: Exception) -> str:
    # Some messages contain the address of the proxy, which may hold a password.
    if isinstance(error, python_socks.ProxyConnectionError):
        return "it cannot be reached"
    if isinstance(error, EOFError):
        return "it closed the connection"
    return str(error) or type(error).__name__
