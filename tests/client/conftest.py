"""A server that plays one conversation, byte by byte, and counts what really arrived."""

import asyncio
import fcntl
import json
import socket
import struct
import termios
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import pytest

from seedream_batch.client.images import ImageClient
from seedream_batch.client.secret import ApiKey
from seedream_batch.client.service import Service

KEY = "sk-canary-7f3a9b2c51"


@dataclass(frozen=True)
class Request:
    """One request as it came over the wire."""

    method: str
    target: str
    headers: dict
    body: bytes


TLS = b"\x16"
"""How a greeting begins."""


class Wire:
    """One accepted connection. Nothing is read before the conversation reads it."""

    def __init__(self, server, sock):
        self._server = server
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._kept = b""

    async def read(self, size=65536):
        data = await self._loop.sock_recv(self._socket, size)
        self._server.received += data
        return data

    async def request(self):
        """The next whole request, None when the client is gone."""
        data = self._kept
        while b"\r\n\r\n" not in data:
            more = await self.read()
            if not more:
                return None
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        length = int(headers.get("content-length", 0))
        while len(body) < length:
            body += await self.read()
        self._kept = body[length:]
        request = Request(method, target, headers, body[:length])
        self._server.requests.append(request)
        return request

    async def send(self, *parts):
        for part in parts:
            await self._loop.sock_sendall(self._socket, part)

    def close(self):
        """A regular end, or a reset by the kernel where something was left unread."""
        if self._socket.fileno() >= 0:
            waiting = struct.unpack("i", fcntl.ioctl(self._socket, termios.FIONREAD, b"\0\0\0\0"))[0]
            if waiting and not self._server.received:
                self._server.greeted = self._socket.recv(1, socket.MSG_PEEK) == TLS
            self._server.unread += waiting
            self._socket.close()

    def reset(self):
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


class Server:
    """Listens on loopback; `received` are the bytes that were read, `unread` counts those that were left lying."""

    def __init__(self, play):
        self._play = play
        self.received = bytearray()
        self.unread = 0
        self.greeted = False
        """Whether nothing but a TLS greeting came, which was not even read."""
        self.requests = []
        self.connections = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]
        self.origin = f"http://127.0.0.1:{self.port}"
        self._talks = set()

    @property
    def arrived(self):
        """Bytes of requests that reached this machine; a TLS greeting is none."""
        return 0 if self.greeted or self.received[:1] == TLS else len(self.received) + self.unread

    async def serve(self):
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(self._socket)
            sock.setblocking(False)
            self.connections += 1
            talk = asyncio.create_task(self._talk(Wire(self, sock)))
            self._talks.add(talk)

    async def _talk(self, wire):
        try:
            with suppress(ConnectionError):
                await self._play(wire)
        finally:
            wire.close()

    async def stop(self, serving):
        for task in (serving, *self._talks):
            task.cancel()
        results = await asyncio.gather(serving, *self._talks, return_exceptions=True)
        self._socket.close()
        for result in results:
            if isinstance(result, Exception):
                raise result


@asynccontextmanager
async def listening(play):
    server = Server(play)
    serving = asyncio.create_task(server.serve())
    try:
        yield server
    finally:
        await server.stop(serving)


def http(status=200, body=b"", *, headers=(), length=None, reason="Reason"):
    """The bytes of an HTTP answer; `length` is what Content-Length says, "" leaves it out."""
    if isinstance(body, (dict, list)):
        body = json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} {reason}", *headers]
    if length != "":
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answering(*answers):
    """A conversation that gives one answer to each request; the last one again and again."""

    async def play(wire):
        left = list(answers)
        while await wire.request() is not None:
            await wire.send(left[0])
            if len(left) > 1:
                left.pop(0)

    return play


def into(got):
    """Takes the bytes of a download."""

    async def take(data):
        got.extend(data)

    return take


class Talk:
    """Runs calls of the real client against one conversation; `server` is the last one."""

    KEY = KEY
    http = staticmethod(http)
    answering = staticmethod(answering)
    listening = staticmethod(listening)

    def __init__(self):
        self.server = None

    def run(self, play, call, *, origin=None, clock=lambda: 1_800_000_000.0):
        """`await call(service)` against a server that plays `play`."""

        async def main():
            async with listening(play) as self.server:
                at = origin(self.server) if origin else self.server.origin
                async with Service(at, ApiKey(KEY), clock=clock) as service:
                    return await call(service)

        return asyncio.run(main())

    def submit(self, play, body="{}", **more):
        return self.run(play, lambda service: service.submit(body, "key-1"), **more)

    def poll(self, play, task_id="task_1", **more):
        return self.run(play, lambda service: service.poll(task_id), **more)

    into = staticmethod(into)

    def fetch(self, play, path="/0.png", take=None, *, origin=None):
        """A download from a server that plays `play`: what came of it, and the bytes."""
        got = bytearray()

        async def main():
            async with listening(play) as self.server, ImageClient(origin or self.server.origin) as images:
                url = path(self.server) if callable(path) else self.server.origin + path
                return await images.fetch(url, take or into(got)), bytes(got)

        return asyncio.run(main())


@pytest.fixture
def talk():
    return Talk()
