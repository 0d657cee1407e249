"""Requests and responses below the level of aiohttp: resets, wrong lengths, incomplete bodies, held requests."""

import asyncio
import http.client
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from typing import Any

from aiohttp import web

from seedream_batch.emulator.http.responses import Response

_LINGER_ZERO = struct.pack("ii", 1, 0)
_POLL_SECONDS = 0.01


class NoResponse(web.Response):
    """Stands for a response that was sent already or never will be: aiohttp sends nothing more."""

    async def prepare(self, request: web.BaseRequest) -> None:
        """Send nothing."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Send nothing."""


class Finished(Exception):
    """Ends a request early, with this response."""

    def __init__(self, response: web.StreamResponse) -> None:
        super().__init__()
        self.response = response


def to_aiohttp(response: Response) -> web.Response:
    return web.Response(
        status=response.status, body=response.body, headers=response.headers, content_type=response.content_type
    )


def reset(request: web.BaseRequest) -> NoResponse:
    """Close the connection with a TCP reset."""
    transport = request.transport
    if transport is not None:
        connection: socket.socket = transport.get_extra_info("socket")
        # Closing a socket that lingers for zero seconds makes the kernel send RST and drop unsent data.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        transport.abort()
    return NoResponse()


def is_disconnected(request: web.BaseRequest) -> bool:
    return request.transport is None or request.transport.is_closing()


def close_connection(request: web.BaseRequest) -> NoResponse:
    """Close the connection after sending what was written."""
    if request.transport is not None:
        request.transport.close()
    return NoResponse()


def send_raw(request: web.BaseRequest, data: bytes) -> None:
    if request.transport is not None:
        request.transport.write(data)


def response_head(response: Response, *, length: int | None) -> bytes:
    """Return status line and headers, with this Content-Length, right or wrong, or chunked if it is None."""
    phrase = http.client.responses.get(response.status, "")
    lines = [f"HTTP/1.1 {response.status} {phrase}", f"Content-Type: {response.content_type}"]
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    lines.append("Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}")
    # The connection is closed after such a response; a client that kept it would fail on its next request.
    lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def send_truncated(request: web.BaseRequest, response: Response, keep: float) -> NoResponse:
    """Announce the whole body, send this fraction of it, and close the connection."""
    part = response.body[: int(len(response.body) * keep)]
    send_raw(request, response_head(response, length=len(response.body)) + part)
    return close_connection(request)


async def read_body(request: web.BaseRequest, limit: int) -> bytes | None:
    """Return the body of a request; None if it is above the limit in bytes.

    Raises `Finished` if the client disconnects before the end.
    """
    if request.content_length is not None and request.content_length > limit:
        return None
    body = bytearray()
    async for part in _parts(request):
        body += part
        if len(body) > limit:
            return None
    return bytes(body)


async def read_some(request: web.BaseRequest, least: int) -> None:
    """Wait for this many bytes of the request's body, or for its end.

    Raises `Finished` if the client disconnects before that.
    """
    size = 0
    async for part in _parts(request):
        size += len(part)
        if size >= least:
            return


async def _parts(request: web.BaseRequest) -> AsyncIterator[bytes]:
    try:
        async for part in request.content.iter_any():
            yield part
    except (ConnectionError, web.RequestPayloadError) as error:
        raise Finished(NoResponse()) from error


class HeldRequests:
    """Requests that a fault holds until they are released or their client disconnects."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[dict[str, Any], asyncio.Event]] = {}
        self._count = 0

    async def hold(self, request: web.BaseRequest, about: Mapping[str, Any]) -> bool:
        """Hold a request; return whether its client is still connected."""
        self._count += 1
        number, released = self._count, asyncio.Event()
        self._held[number] = ({"number": number, **about}, released)
        try:
            # aiohttp doesn't notify a handler of a closed connection.
            while not released.is_set() and not is_disconnected(request):
                try:
                    await asyncio.wait_for(released.wait(), _POLL_SECONDS)
                except TimeoutError:
                    continue
            return not is_disconnected(request)
        finally:
            del self._held[number]

    def as_json(self) -> list[dict[str, Any]]:
        """Return the held requests, the longest waiting first."""
        return [about for about, _ in self._held.values()]

    def release(self) -> int:
        """Release all of them, and return how many there were."""
        for _, released in self._held.values():
            released.set()
        return len(self._held)
