"""An emulator on a real socket for each test, and a small client for it that accepts every response."""

import base64
import io
import logging
import time

import httpx
import pytest
from PIL import Image

from seedream_batch.emulator import Emulator, EmulatorConfig

REQUEST = {"model": "doubao-seedance-4-5", "prompt": "a fox in the snow"}
REFERENCE = "https://example.com/reference.png"


class Api:
    """Sends requests to an emulator with a valid key."""

    def __init__(self, emulator):
        self.emulator = emulator
        # Nothing here is https, and loading certificates would take longer than most tests.
        plain = {"timeout": 10, "verify": False}
        self.http = httpx.Client(base_url=emulator.url, headers={"Authorization": "Bearer a-key"}, **plain)
        # Images are fetched without the key, by a client that has never had it.
        self.bare = httpx.Client(**plain)
        self.fetch = self.bare.get

    def submit(self, *, key=None, headers=None, **fields):
        body = {name: value for name, value in {**REQUEST, **fields}.items() if value is not ...}
        more = {} if key is None else {"Idempotency-Key": key}
        return self.http.post("/v1/images/generations", json=body, headers={**more, **(headers or {})})

    def task(self, **fields):
        """Return the id of a new task."""
        answer = self.submit(**fields)
        assert answer.status_code in {200, 202}, answer.text
        return answer.json()["data"][0]["task_id"]

    def poll(self, task_id, **query):
        return self.http.get(f"/v1/tasks/{task_id}", params=query)

    def ended(self, task_id):
        """Wait for the end of a task, and return its document."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            data = self.poll(task_id).json()["data"]
            if data["status"] in {"completed", "failed", "cancelled"}:
                return data
            time.sleep(0.005)
        raise AssertionError(f"{task_id} does not end")

    def urls(self, **fields):
        """Return the result URLs of a new task, in order."""
        images = self.ended(self.task(**fields))["result"]["images"]
        return [url for image in images for url in ([image["url"]] if isinstance(image["url"], str) else image["url"])]

    def balance(self):
        return self.http.get("/v1/balance").json()


@pytest.fixture
def emulate(caplog):
    """Return a function that starts emulators; by default with tiny images and tasks of 20 ms."""
    caplog.set_level(logging.WARNING)
    started = []

    def start(**settings):
        config = EmulatorConfig(**{"task_seconds": "fixed:0.02", "image_size": "tiny", **settings})
        emulator = Emulator(config)
        emulator.start()
        api = Api(emulator)
        started.append((emulator, api))
        return api

    yield start
    for emulator, api in started:
        api.http.close()
        api.bare.close()
        emulator.stop()
    # The server logs errors in handlers, and responds with a 500.
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.fixture
def api(emulate):
    return emulate()


@pytest.fixture
def picture():
    """Return a function that creates an image of some size and format."""

    def make(width=64, height=64, kind="PNG"):
        buffer = io.BytesIO()
        Image.new("RGB", (width, height), (200, 30, 30)).save(buffer, kind)
        return buffer.getvalue()

    return make


@pytest.fixture
def data_uri(picture):
    """Return a function that creates a data URI with an image of some size."""

    def make(width=64, height=64, kind="PNG", declared=None):
        payload = base64.b64encode(picture(width, height, kind)).decode()
        return f"data:image/{declared or kind.lower()};base64,{payload}"

    return make
