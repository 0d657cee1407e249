"""What aiohttp is too well-behaved to send: resets, broken lengths, halves of bodies."""

import asyncio
import socket
import struct
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web

from seedream_batch.emulator.http.responses import Response

_LINGER_ZERO = struct.pack("ii", 1, 0)


class NoResponse(web.Response):
    """Stands for an answer that is on the wire already, or never will be: nothing more is sent."""

    async def prepare(self, request: web.BaseRequest) -> None:  # noqa: ARG002 - the signature is aiohttp's
        """Send nothing."""
        return

    async def write_eof(self, data: bytes = b"") -> None:  # noqa: ARG002 - the signature is aiohttp's
        """Send nothing."""
        return


class ClientDisconnected(Exception):
    """The client went away in the middle of its request."""


def respond(response: Response) -> web.Response:
    """The answer as aiohttp sends it."""
    return web.Response(
        status=response.status, body=response.body, headers=response.headers, content_type=response.content_type
    )


def reset(request: web.BaseRequest) -> NoResponse:
    """Cut the connection with a TCP reset instead of an answer."""
    transport = request.transport
    if transport is not None:
        connection: socket.socket = transport.get_extra_info("socket")
        # Closing a socket that lingers for zero seconds makes the kernel send RST and drop what is unsent.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        transport.abort()
    return NoResponse()


def is_disconnected(request: web.BaseRequest) -> bool:
    """Whether the client has closed the connection."""
    return request.transport is None or request.transport.is_closing()


def close_connection(request: web.BaseRequest) -> NoResponse:
    """Close the connection after what was written."""
    if request.transport is not None:
        request.transport.close()
    return NoResponse()


def send_raw(request: web.BaseRequest, data: bytes) -> None:
    """Put bytes on the wire as they are."""
    if request.transport is not None:
        request.transport.write(data)


def response_head(response: Response, *, length: int | None) -> bytes:
    """The head of an answer that says Content-Length, right or wrong, or `chunked` where there is none."""
    lines = [
        f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}",
        f"Content-Type: {response.content_type}",
    ]
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    lines.append("Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}")
    # Whoever sends a head of its own hangs up afterwards; a client that kept the connection would trip over that.
    lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def send_truncated(request: web.BaseRequest, response: Response, keep: float) -> NoResponse:
    """Promise the whole body, send a part of it, close the connection."""
    part = response.body[: int(len(response.body) * keep)]
    send_raw(request, response_head(response, length=len(response.body)) + part)
    return close_connection(request)


async def read_body(request: web.BaseRequest, limit: int) -> bytes | None:
    """The body of the request; None when it is above the limit in bytes.

    Raises:
        Disconnected: when the client goes away before its end.
    """
    if request.content_length is not None and request.content_length > limit:
        return None
    parts: list[bytes] = []
    size = 0
    async for part in _parts(request):
        parts.append(part)
        size += len(part)
        if size > limit:
            return None
    return b"".join(parts)


async def read_some(request: web.BaseRequest, least: int) -> None:
    """Wait for so many bytes of the request's body, or for its end."""
    size = 0
    async for part in _parts(request):
        size += len(part)
        if size >= least:
            return


async def _parts(request: web.BaseRequest) -> Any:
    try:
        async for part in request.content.iter_any():
            yield part
    except (ConnectionError, web.RequestPayloadError) as error:
        raise ClientDisconnected from error


class HeldRequests:
    """Requests that a fault holds: until somebody releases them, or their client goes away."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[dict[str, Any], asyncio.Event]] = {}
        self._count = 0

    async def hold(self, request: web.BaseRequest, about: Mapping[str, Any]) -> bool:
        """Hold a request; whether it was released (and not left by its client)."""
        self._count += 1
        number, released = self._count, asyncio.Event()
        self._held[number] = ({"number": number, **about}, released)
        try:
            while not released.is_set():
                if is_disconnected(request):
                    return False
                # aiohttp tells a handler nothing about its connection, so it is looked at a hundred times a second.
                try:
                    await asyncio.wait_for(released.wait(), 0.01)
                except TimeoutError:
                    continue
            return not is_disconnected(request)
        finally:
            del self._held[number]

    def as_json(self) -> list[dict[str, Any]]:
        """The requests that are held now, the longest waiting first."""
        return [about for about, _ in self._held.values()]

    def release(self) -> int:
        """Let all of them go on; how many there were."""
        for _, released in self._held.values():
            released.set()
        return len(self._held)
