"""A disk that does not take what it is given: single calls that fail, full disks, read-only ones, limits on files.

Whatever fails, nothing that is paid for is lost: a task id that neither the manifest nor the side file could take was
at least printed. Then the disk is whole again, the job runs to its end, and is judged once more.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bench import with_limits
from conclusion import conclude, undisturbed
from forge import Ended
from moments import MOMENTS
from shim import DISK, Blow, Strike
from world import VARIANTS, World

MOST_CALLS = 520
"""Calls by which a run of five tasks changes the disk, and a few more; how many there are is a matter of chance."""

PICTURES: Mapping[str, Mapping[str, Any]] = {
    "small pictures": {},
    "pictures of 150 KB": {"image_bytes": 150_000},
    "pictures of 400 KB": {"image_bytes": 400_000},
    "pictures of their real size": {"image_size": "exact"},
}

_NO_RESERVE = {"seedream_batch.engine.scheduler.LARGEST_IMAGE": 1}
"""Without it nothing would be bought that the disk has no room for."""

READ_ONLY = {
    "first run": ("run",),
    "tasks at work": ("run",),
    "images to fetch and tasks at work": ("run", "--collect"),
    "killed while submitting": ("run",),
    "tasks in doubt": ("resolve", "--resend"),
    "failed tasks planned again": ("run", "--limit", "1"),
}
"""Moments, and the command that is given while the folder is read-only."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One way in which the disk fails; `number` counts calls or bytes."""

    what: str
    number: int
    how: str
    variant: str

    @property
    def name(self) -> str:
        """The cell in words."""
        return f"{self.what} {self.number:,}, {self.how}, {self.variant}"


def cells(step: int = 1) -> list[Cell]:
    """Every call, or every `step`-th, then the disks and limits; without those that have to be mounted, if need be."""
    failing = [("one fails", "ENOSPC", "trusted"), ("one fails", "EIO", "held"), ("one fails", "EIO", "trusted")]
    failing += [("all fail from", name, variant) for name in ("ENOSPC", "EIO") for variant in ("trusted", "held")]
    found = [
        Cell(f"call: {what}", number, name, variant)
        for number in range(1, MOST_CALLS + 1, step)
        for what, name, variant in failing
    ]
    found += [
        Cell("file size limit", size, pictures, variant)
        for size in range(8_192, 600_000, 16_384)
        for pictures in ("small pictures", "pictures of 400 KB")
        for variant in ("trusted", "held")
    ]
    if not skipped():
        found += [
            Cell("full disk", size, pictures, variant)
            for size in range(300_000, 3_000_000, 90_000)
            for pictures in ("pictures of 150 KB", "pictures of their real size")
            for variant in ("trusted", "held")
        ]
        found += [Cell("read-only folder", 0, moment, variant) for moment in READ_ONLY for variant in VARIANTS]
    return found


@cache
def skipped() -> str:
    """Why the cells with file systems of their own are left out; empty where they are not."""
    if os.geteuid() != 0:
        return "full disks and read-only folders are left out: only root may mount file systems"
    with tempfile.TemporaryDirectory() as folder:
        tried = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=False, capture_output=True, text=True)
        if tried.returncode:
            return f"full disks and read-only folders are left out: {tried.stderr.strip()}"
        subprocess.run(["umount", folder], check=True)
    return ""


def run(cell: Cell, root: Path, port: int) -> list[str]:
    """Tries one cell; what is wrong."""
    kinds: dict[str, Callable[[Cell, World], list[str]]] = {
        "file size limit": _limited,
        "full disk": _full,
        "read-only folder": _read_only,
    }
    reference = undisturbed(root, port)
    world = World(root / "world", port, VARIANTS[cell.variant], **PICTURES.get(cell.how, {}))
    with contextlib.ExitStack() as ends:
        ends.callback(world.close)
        try:
            world.make()
            if cell.what in {"full disk", "read-only folder"}:
                ends.enter_context(_mounted(world))
            wrong = kinds.get(cell.what, _failing_calls)(cell, world)
            usual = cell.how != "pictures of their real size"
            return wrong + conclude(world, reference if usual else None, alone=world.variant.on_unknown == "resend")
        except TimeoutError as error:
            return [str(error)]


def _failing_calls(cell: Cell, world: World) -> list[str]:
    """A call fails, or it and all after it."""
    how = Strike.FAIL_ONE if cell.what.endswith("one fails") else Strike.FAIL_FROM
    ended = world.call("run", blow=Blow(cell.number, how, getattr(errno, cell.how), DISK))
    return _judged(world, ended)


def _limited(cell: Cell, world: World) -> list[str]:
    """No file may grow beyond a size: the write that would make it is cut short, the next one fails."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (cell.number, cell.number))

    world.before = limit
    ended = world.call("run")
    world.before = None
    return _judged(world, ended)


def _full(cell: Cell, world: World) -> list[str]:
    """The disk of the output folder fills up while the run is at work."""
    _mount(world, "remount", f"size={cell.number}")
    world.before = with_limits(_NO_RESERVE)
    ended = world.call("run")
    wrong = _judged(world, ended)
    # Once more on the full disk, which then already has a manifest.
    bills = len(world.service.ledger())
    wrong += _judged(world, world.call("run"), bills)
    world.before = None
    _mount(world, "remount", "size=100m")
    return wrong


def _read_only(cell: Cell, world: World) -> list[str]:
    """The output folder cannot be written to: the command says so before it asks anything of the service."""
    MOMENTS[cell.how].prepare(world)
    before, bills = world.service.requests(), len(world.service.ledger())
    _mount(world, "remount,ro")
    ended = world.call(*READ_ONLY[cell.how])
    _mount(world, "remount,rw")
    wrong = _judged(world, ended, bills)
    if ended.code != 8:
        wrong.append(f"left {ended.code}: {ended.out} {ended.err}")
    if asked := world.service.requests() - before:
        wrong.append(f"{asked} requests were made")
    return wrong


def _judged(world: World, ended: Ended, bills: int = 0) -> list[str]:
    """What is wrong right after a command that the disk failed; there were so many bills and refunds before it."""
    wrong = world.violations()
    if ended.code not in {0, 8}:
        wrong.append(f"left {ended.code}: {ended.out[-700:]} {ended.err[-1500:]}")
    if "Traceback" in ended.err:
        wrong.append(f"a traceback: {ended.err[-1500:]}")
    manifest = world.manifest()
    known = set(manifest.rescued)
    for attempt in manifest.attempts:
        known |= set(json.loads(attempt["task_ids"] or "[]"))
    for entry in world.service.ledger()[bills:]:
        if entry["task_id"] not in known and entry["task_id"] not in ended.out + ended.err:
            wrong.append(f"the bill {entry['task_id']} was neither written down nor printed: {ended.err[-1500:]}")
    if ended.code == 0:
        open_images = [image for image in manifest.images if image["state"] != "stored"]
        if set(manifest.states()) != {"succeeded"} or open_images:
            wrong.append(f"left 0 with work undone: {dict(manifest.states())}, {len(open_images)} images")
    return wrong


@contextlib.contextmanager
def _mounted(world: World) -> Iterator[None]:
    """A file system of its own for the output folder."""
    kept = world.root / "kept"
    world.out.rename(kept)
    world.out.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(world.out)], check=True)
    try:
        shutil.copytree(kept, world.out, dirs_exist_ok=True)
        shutil.rmtree(kept)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(world.out)], check=True)


def _mount(world: World, *options: str) -> None:
    subprocess.run(["mount", "-o", ",".join(options), str(world.out)], check=True)
