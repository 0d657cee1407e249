"""Workers of one manifest on a server, in one process, and what can happen to them."""

import os
import platform

import pytest
from postgres import asked

from seedream_batch.errors import Fenced
from seedream_batch.manifest import Manifest
from seedream_batch.manifest.task_queue import Intent
from seedream_batch.manifest.task_store import Delivery

NOW = 1_800_000_000.0
HERE = platform.node()
NOBODY = 2**22 + 1
"""The number of no process."""


class Crew:
    """Opens workers of one manifest; the first one brings twenty tasks."""

    def __init__(self, place, spec_of):
        self.place = place
        self._spec_of = spec_of
        self._opened = []

    def __call__(self, *, pid=None, host=HERE):
        manifest = Manifest(self.place, shared=True)
        self._opened.append(manifest)
        manifest.workers.begin_run(now=NOW, pid=pid or os.getpid(), host=host, version="1", service="http://127.0.0.1")
        if len(self._opened) == 1:
            manifest.sync_job([self._spec_of(number) for number in range(1, 21)], NOW)
        return manifest

    def close(self):
        for manifest in self._opened:
            manifest.close()


def record_delivery(manifest, task, images, *, cost, why, now, default_expiry):
    """The images of a task that has succeeded."""
    return manifest.tasks.succeed_all([Delivery(task, images, cost, why, now, default_expiry)])[0].images


def intents(tasks):
    return [Intent(task.id) for task in tasks]


def numbers(tasks):
    return [task.id for task in tasks]


def silence(manifest, other):
    """As if nothing had been heard of the other one for longer than its lease."""
    manifest.connection.rows("UPDATE workers SET until = 0 WHERE run = ? RETURNING run", (other.connection.worker,))


def comes_back(manifest):
    """What one does that was taken away, and hears of it."""
    with pytest.raises(Fenced):
        manifest.connection.reconnect()
    manifest.workers.detach()


def waits(place):
    """Whether any session waits for another one."""
    return asked(place, "SELECT 1 FROM pg_locks WHERE NOT granted") != []


def cut(manifest):
    """The server ends the session of this connection."""
    pid = manifest.connection._raw.info.backend_pid
    asked(manifest.place, f"SELECT pg_terminate_backend({pid}, 10000)")
