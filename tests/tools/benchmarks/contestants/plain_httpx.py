"""The HTTP calls of a run with httpx as it comes: its own transport, its default limits, no manifest, no files.

    python plain_httpx.py URL TASKS CONCURRENCY

It prints the seconds that the loop took, without the start of Python.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator

import httpx


async def work(client: httpx.AsyncClient, origin: str, numbers: Iterator[int]) -> None:
    """Task after task, until there are no more."""
    for number in numbers:
        accepted = await client.post(
            f"{origin}/v1/images/generations",
            json={"model": "doubao-seedance-4-5", "prompt": f"a fox in the snow, number {number}"},
            headers={"Authorization": "Bearer benchmark"},
        )
        task_id = accepted.raise_for_status().json()["data"][0]["task_id"]
        while True:
            told = await client.get(
                f"{origin}/v1/tasks/{task_id}?language=en", headers={"Authorization": "Bearer benchmark"}
            )
            task = told.raise_for_status().json()["data"]
            if task["status"] == "completed":
                break
        for image in task["result"]["images"]:
            for url in image["url"]:
                (await client.get(url)).raise_for_status()


async def main(origin: str, tasks: int, concurrency: int) -> float:
    """Makes the calls of so many tasks; the seconds."""
    numbers = iter(range(1, tasks + 1))
    # Sixty-four at once are too many for it to answer each in the 5 s that it waits by default.
    async with httpx.AsyncClient(timeout=120) as client:
        begin = time.perf_counter()
        await asyncio.gather(*(work(client, origin, numbers) for _ in range(concurrency)))
        return time.perf_counter() - begin


if __name__ == "__main__":
    print(asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
