"""A folder with a job, an emulator on a real socket, and the command line run the way a user runs it."""

import functools
import hashlib
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image
from program import called

from seedream_batch.emulator import Emulator, EmulatorConfig

KEY = "canary-key-7f3a9b2c"

JOB = """\
version: 1
name: test
matrix:
  subject:
    - {id: panda, text: a panda in a bamboo forest}
    - {id: fox, text: a fox in the snow}
  size: [1:1, 16:9, 9:16]
request:
  prompt: "{{ subject.text }}, watercolour"
output:
  dir: out
  path: "{{ subject.id }}/{{ size }}"
"""


QUICK = {
    "BACKOFF_BASE": 0.05,
    "POLL_PAUSE": 0.02,
    "LONGEST_POLL_PAUSE": 0.2,
    "CONFIRMED": 0.04,
    "WATCHED": 0.3,
    "WATCHED_OVERDUE": 0.1,
    "WATCHED_TOGETHER": 0.1,
}
"""Pauses and periods of the runs in this process, in seconds: what they are for does not depend on their length."""


class Done:
    """What a command left behind."""

    def __init__(self, code, out, err):
        self.code = code
        self.out = out
        self.err = err

    def __repr__(self):
        return f"exit {self.code}\n--- out\n{self.out}\n--- err\n{self.err}"


@functools.cache
def decoded_size(data):
    """The size of a picture that can be decoded; most pictures are the same in many tests."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image.size


class Bench:
    """One job folder and the service it talks to."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder
        self.job = folder / "job.yaml"
        self.out = folder / "out"
        self.job.write_text(JOB)
        self._monkeypatch = monkeypatch
        self.emulator = None

    def serve(self, emulator):
        self.emulator = emulator
        self._monkeypatch.setenv("APIMART_BASE_URL", emulator.url)
        self._monkeypatch.setenv("APIMART_API_KEY", KEY)
        return emulator

    def write(self, text):
        self.job.write_text(text)

    def edit(self, old, new):
        text = self.job.read_text()
        assert old in text
        self.job.write_text(text.replace(old, new))

    def call(self, verb, *args):
        """A command in this process: quick, with the real client on a real socket."""
        done = called(verb, self.job, *args)
        return Done(done.returncode, done.stdout, done.stderr)

    def run(self, *args):
        return self.call("run", *args)

    def start(self, *args):
        """A run as a process of its own, to be killed."""
        command = [sys.executable, "-m", "seedream_batch", "run", str(self.job), *args]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def rows(self, query, *values):
        connection = sqlite3.connect(f"file:{self.out / 'manifest.db'}?mode=ro", uri=True)
        try:
            return connection.execute(query, values).fetchall()
        finally:
            connection.close()

    def states(self):
        return Counter(state for (state,) in self.rows("SELECT state FROM tasks WHERE ordinal IS NOT NULL"))

    def files(self):
        """The images under final names, by their path below the output folder."""
        found = [path for path in self.out.rglob("*") if path.suffix in {".jpg", ".png"}]
        return {path.relative_to(self.out).as_posix(): path for path in found}

    def charges(self):
        return [entry for entry in self.emulator.ledger() if entry["event"] == "charge"]

    def requests(self):
        """Requests that the service has seen so far, images included."""
        return len(self.emulator.requests())

    def check(self):
        """What has to hold at any time, whatever happened."""
        charges = self.charges()
        keys = Counter(charge["key"] for charge in charges)
        assert all(count == 1 for count in keys.values()) or not self.honours_keys, keys
        attempts = dict(self.rows("SELECT key, outcome FROM attempts"))
        rows = self.rows("SELECT task_ids FROM attempts WHERE task_ids IS NOT NULL")
        known = {task_id for (ids,) in rows for task_id in json.loads(ids)}
        for charge in charges:
            assert charge["key"] in attempts, "a bill without an intent"
            outcome = attempts[charge["key"]]
            assert charge["task_id"] in known or outcome in {"uncertain", "open"}, outcome
        totals = self.rows("SELECT reserved_images, reserved, images, cost FROM totals")[0]
        sums = self.rows("SELECT sum(reserved_images), sum(reserved), sum(images), sum(cost) FROM attempts")[0]
        assert totals == tuple(value or 0 for value in sums)
        stored = self.rows("SELECT path, bytes, sha256, width, height FROM images WHERE state = 'stored'")
        for path, size, sha256, width, height in stored:
            data = (self.out / path).read_bytes()
            assert len(data) == size
            assert hashlib.sha256(data).hexdigest() == sha256
            assert decoded_size(data) == (width, height)
        for path in self.out.rglob("*"):
            if path.is_file():
                assert KEY.encode() not in path.read_bytes(), path

    @property
    def honours_keys(self):
        return self.emulator is not None and self.emulator_config.honour_keys


@pytest.fixture(autouse=True)
def in_haste(in_haste):
    """For all tests here."""


@pytest.fixture
def bench(tmp_path, monkeypatch):
    for name, seconds in QUICK.items():
        monkeypatch.setattr(f"seedream_batch.lifecycle.{name}", seconds)
    monkeypatch.setattr("seedream_batch.engine.downloader.TRYING", 1.0)
    monkeypatch.setattr("seedream_batch.engine.downloader.SETTLING", 0.1)
    monkeypatch.setattr("seedream_batch.engine.polls.PATIENCE", 0.3)
    monkeypatch.setattr("seedream_batch.engine.service_health.DEAD_END_LIMIT", 0.2)
    monkeypatch.setattr("seedream_batch.engine.service_health.PROBING", 0.3)
    monkeypatch.setattr("seedream_batch.client.images.RESUME_PAUSE", 0.01)
    monkeypatch.chdir(tmp_path)
    return Bench(tmp_path, monkeypatch)


@pytest.fixture
def serve(bench):
    """Starts an emulator with these settings, and points the bench at it."""
    started = []

    def begin(**settings):
        config = EmulatorConfig(**{"image_size": "tiny", "task_seconds": "fixed:0.05", **settings})
        emulator = Emulator(config)
        emulator.start()
        started.append(emulator)
        bench.emulator_config = config
        return bench.serve(emulator)

    yield begin
    for emulator in started:
        emulator.stop()


@pytest.fixture
def end():
    """Ends processes that a test leaves behind."""
    processes = []
    yield processes.append
    for process in processes:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def repository():
    return Path(__file__).parents[2]
