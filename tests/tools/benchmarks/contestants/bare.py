"""The HTTP calls of a run and nothing else, with the clients that the runner uses: no manifest, no checks, no files.

    python bare.py URL TASKS CONCURRENCY

TaskStore and polls go through httpx's transport interface on aiohttp, images through aiohttp. It prints the seconds
that the loop took, without the start of Python.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from collections.abc import Iterator

import aiohttp
import httpx
import yarl
from httpx_aiohttp import AiohttpTransport


class Bare:
    """One loop of calls, with one pool of connections for the API and one for images."""

    def __init__(self, origin: str, concurrency: int) -> None:
        self._origin = origin
        self._submit = httpx.URL(f"{origin}/v1/images/generations")
        self._headers = {"Authorization": "Bearer benchmark", "Accept": "application/json"}
        self._timeout = {"timeout": {"connect": 15.0, "read": 120.0}}

        def session() -> aiohttp.ClientSession:
            connector = aiohttp.TCPConnector(limit=concurrency)
            return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())

        self._transport = AiohttpTransport(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), client=session)
        self._images = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=16),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=256 * 1024,
        )

    async def close(self) -> None:
        await self._transport.aclose()
        await self._images.close()

    async def work(self, numbers: Iterator[int]) -> None:
        """Task after task, until there are no more."""
        for number in numbers:
            await self._task(number)

    async def _task(self, number: int) -> None:
        body = {"model": "doubao-seedance-4-5", "prompt": f"a fox in the snow, number {number}"}
        content = json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(content))}
        accepted = await self._exchange("POST", self._submit, {**headers, "Idempotency-Key": f"bare-{number}"}, content)
        task_id = accepted["data"][0]["task_id"]
        while True:
            told = await self._exchange("GET", f"{self._origin}/v1/tasks/{task_id}?language=en", {}, None)
            if told["data"]["status"] == "completed":
                break
        for image in told["data"]["result"]["images"]:
            for url in image["url"]:
                async with self._images.get(yarl.URL(url, encoded=True)) as response:
                    response.raise_for_status()
                    while await response.content.readany():
                        pass

    async def _exchange(self, method: str, url: httpx.URL | str, headers: dict[str, str], content: bytes | None):
        request = httpx.Request(
            method, url, headers={**self._headers, **headers}, content=content, extensions=self._timeout
        )
        response = await self._transport.handle_async_request(request)
        body = await response.aread()
        if response.status_code != 200:
            raise RuntimeError(f"HTTP {response.status_code}: {body[:200]!r}")
        return json.loads(body)


async def main(origin: str, tasks: int, concurrency: int) -> float:
    """Makes the calls of so many tasks; the seconds."""
    bare = Bare(origin, concurrency)
    numbers = iter(range(1, tasks + 1))
    begin = time.perf_counter()
    await asyncio.gather(*(bare.work(numbers) for _ in range(concurrency)))
    seconds = time.perf_counter() - begin
    await bare.close()
    return seconds


if __name__ == "__main__":
    print(asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
