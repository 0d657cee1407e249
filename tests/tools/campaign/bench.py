"""A world looked at from outside: what the service and the manifest say, and waiting for it."""

from __future__ import annotations

import importlib
import sqlite3
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from oracle import Manifest
from world import World


def in_state(manifest: Manifest, *states: str) -> set[int]:
    """The tasks in one of these states, by their numbers."""
    return {task["id"] for task in manifest.tasks if task["state"] in states}


def posts(world: World) -> list[dict[str, Any]]:
    """The submissions that the service has seen since its start."""
    found: list[dict[str, Any]] = world.service.ask("GET", "requests?endpoint=submit")
    return found


def asked(world: World, query: str) -> list[tuple[Any, ...]]:
    """Rows of a manifest that a command is at work on; none as long as there is no manifest."""
    try:
        connection = sqlite3.connect(f"file:{world.out / 'manifest.db'}?mode=ro", uri=True)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()
    except sqlite3.OperationalError:
        return []


def with_limits(limits: Mapping[str, Any]) -> Callable[[], None]:
    """Sets these settings, for a child to call first."""

    def set_them() -> None:
        for name, value in limits.items():
            module, _, attribute = name.rpartition(".")
            setattr(importlib.import_module(module), attribute, value)

    return set_them


def with_mark(path: Path, first: Callable[[], None]) -> Callable[[], None]:
    """Calls `first`, and creates this file as soon as the child opens a connection."""

    def set_up() -> None:
        first()
        sys.addaudithook(lambda event, _: path.touch() if event == "socket.connect" else None)

    return set_up


def wait_for(condition: Callable[[], object], patience: float = 20.0) -> None:
    """Waits until something of another process holds. Raises `TimeoutError` when it does not."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"what was waited for did not happen within {patience:.0f} s")
        time.sleep(0.002)
