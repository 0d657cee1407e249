"""The Python example of the provider's documentation, with what people add to it first: retries, threads, files.

    python retrying_script.py URL TASKS THREADS FOLDER

The retries are those of urllib3 for every method, after 429, 500, 502, 503, 504 and broken connections. An image whose
file exists is skipped, so it can be started again.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

HEADERS = {"Authorization": "Bearer benchmark"}
ORIGIN = sys.argv[1]
FOLDER = Path(sys.argv[4])
RETRY = Retry(total=10, backoff_factor=0.1, status_forcelist=(429, 500, 502, 503, 504), allowed_methods=None)


def generate(number: int) -> None:
    """Generate one image, from its prompt to its file."""
    file = FOLDER / f"{number}.jpg"
    if file.exists():
        return
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=RETRY))
        payload = {
            "model": "doubao-seedance-4-5",
            "prompt": f"a fox in the snow, number {number}",
            "size": "1:1",
            "resolution": "2K",
            "n": 1,
        }
        response = session.post(f"{ORIGIN}/v1/images/generations", json=payload, headers=HEADERS, timeout=120)
        response.raise_for_status()
        task_id = response.json()["data"][0]["task_id"]
        while True:
            task = session.get(f"{ORIGIN}/v1/tasks/{task_id}", headers=HEADERS, timeout=120).json()["data"]
            if task["status"] == "completed":
                break
            time.sleep(0.2)
        image = session.get(task["result"]["images"][0]["url"][0], timeout=120)
        image.raise_for_status()
        file.write_bytes(image.content)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    with ThreadPoolExecutor(int(sys.argv[3])) as pool:
        list(pool.map(generate, range(1, int(sys.argv[2]) + 1)))
