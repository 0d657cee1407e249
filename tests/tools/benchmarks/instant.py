"""A service that answers at once: the endpoints of the API that a run needs, on bare sockets.

    python tests/tools/benchmarks/instant.py [--image-bytes N]

It serves as many requests a second as a process of Python can, several times as many as the emulator, so that clients
are compared and not the service: no account, no ledger, no rules, and every task has ended when it is first looked at.
Images are one JPEG that is encoded once, with the task id in a comment, so that no two are the same file: tiny ones, or
2048 x 2048 pixels with noise in them and exactly so many bytes. It prints its URL.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import json
import re
import signal
import struct
import time

from PIL import Image, ImageFilter

TASK_ID = "task_%026d"
MOST_COMMENT = 65533
NOISE = 60

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_EXPECTS = re.compile(rb"\r\nexpect: *100-continue", re.IGNORECASE)


def picture(size: int | None) -> bytes:
    """A JPEG without its first two bytes; of `size` bytes less what `named` puts in, or as small as it gets."""
    side = 128 if size is None else 2048
    bands = [Image.effect_noise((side, side), NOISE).filter(ImageFilter.GaussianBlur(0.6)) for _ in range(3)]
    buffer = io.BytesIO()
    quality = 85 if size is None else 96
    while True:
        buffer.seek(0)
        buffer.truncate()
        Image.merge("RGB", bands).save(buffer, "JPEG", quality=quality)
        left = None if size is None else size - len(named(buffer.getvalue()[2:], TASK_ID % 0))
        # A comment has at least its head of 4 bytes.
        if left is None or left >= 4 or quality == 1:
            break
        quality -= 5 if quality > 5 else 1
    if left is not None and left < 4:
        raise ValueError(f"2048 x 2048 pixels of noise do not fit into {size} bytes")
    data = buffer.getvalue()[2:]
    while left:
        part = left if left <= MOST_COMMENT else min(MOST_COMMENT, left - 4)
        data = _comment(bytes(part - 4)) + data
        left -= part
    return data


def named(data: bytes, name: str) -> bytes:
    """The picture as a file of its own."""
    return b"\xff\xd8" + _comment(name.encode()) + data


def _comment(text: bytes) -> bytes:
    return b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text


class Connection(asyncio.Protocol):
    """One connection: request after request, each answered as soon as it is whole."""

    def __init__(self, data: bytes, origin: list[str], numbers: itertools.count[int]) -> None:
        self._data = data
        self._origin = origin
        self._numbers = numbers
        self._buffer = b""
        self._continued = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            length = _LENGTH.search(head)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < whole:
                if not self._continued and _EXPECTS.search(head):
                    self._continued = True
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            self._buffer, self._continued = self._buffer[whole:], False
            method, path, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
            self._answer(method, path.partition("?")[0])

    def _answer(self, method: str, path: str) -> None:
        last = path.rpartition("/")[2]
        if path.startswith("/images/"):
            self._send(named(self._data, last.partition(".")[0]), kind="image/jpeg")
        elif method == "POST" and path == "/v1/images/generations":
            self._tell({"code": 200, "data": [{"status": "submitted", "task_id": TASK_ID % next(self._numbers)}]})
        elif path.startswith("/v1/tasks/"):
            now = int(time.time())
            url = f"{self._origin[0]}/images/{last}.jpg"
            task = {"id": last, "status": "completed", "progress": 100, "cost": 0.035, "credits_cost": 0.35}
            task |= {"created": now, "estimated_time": 1, "completed": now, "actual_time": 0}
            task |= {"result": {"images": [{"url": [url], "expires_at": now + 86400}]}}
            self._tell({"code": 200, "data": task})
        elif path == "/v1/balance":
            self._tell({"success": True, "remain_balance": -1, "used_balance": 0, "unlimited_quota": True})
        else:
            self._send(b"{}", status="404 Not Found")

    def _tell(self, document: object) -> None:
        self._send(json.dumps(document).encode())

    def _send(self, body: bytes, *, status: str = "200 OK", kind: str = "application/json") -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        if len(body) > 65536:
            # Not put together first: that would copy the picture once more.
            self._transport.write(head)
            self._transport.write(body)
        else:
            self._transport.write(head + body)


async def serve(size: int | None) -> None:
    """Serves until SIGINT or SIGTERM."""
    data = picture(size)
    origin, numbers, stop = [""], itertools.count(1), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(lambda: Connection(data, origin, numbers), "127.0.0.1", 0, backlog=1024)
    origin[0] = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    print(f"instant service on {origin[0]}", flush=True)
    await stop.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-bytes", type=int)
    asyncio.run(serve(parser.parse_args().image_bytes))
