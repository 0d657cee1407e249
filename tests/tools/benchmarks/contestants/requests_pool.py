"""The script that one writes first: a pool of threads, requests, a loop that asks and sleeps, a file for each image.

    python requests_pool.py URL TASKS THREADS FOLDER

It prints the seconds that the work took, without the start of Python.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

HEADERS = {"Authorization": "Bearer benchmark"}
ORIGIN = sys.argv[1]
FOLDER = Path(sys.argv[4])


def make(number: int) -> None:
    """One image, from its prompt to its file."""
    body = {"model": "doubao-seedance-4-5", "prompt": f"a fox in the snow, number {number}"}
    answer = requests.post(f"{ORIGIN}/v1/images/generations", json=body, headers=HEADERS, timeout=120)
    answer.raise_for_status()
    task_id = answer.json()["data"][0]["task_id"]
    while True:
        answer = requests.get(f"{ORIGIN}/v1/tasks/{task_id}", headers=HEADERS, timeout=120)
        task = answer.json()["data"]
        if task["status"] == "completed":
            break
        time.sleep(2)
    image = requests.get(task["result"]["images"][0]["url"][0], timeout=120)
    (FOLDER / f"{number}.jpg").write_bytes(image.content)


if __name__ == "__main__":
    FOLDER.mkdir()
    begin = time.perf_counter()
    with ThreadPoolExecutor(int(sys.argv[3])) as pool:
        list(pool.map(make, range(1, int(sys.argv[2]) + 1)))
    print(time.perf_counter() - begin)
