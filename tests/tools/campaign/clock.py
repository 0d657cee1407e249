"""A clock that jumps by hours or by a year, during a run or between two: nothing is lost, bought twice or waited for.

The run is a process of its own under libfaketime, which leaves the monotonic clock alone, as a jump of the real clock
does. What time it is stands in a file, and the file is written anew while the service holds one of the run's
requests, or while the run waits for something by itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bench import asked, posts, wait_for
from conclusion import conclude, undisturbed
from forge import Ended
from moments import MOMENTS
from world import KEY, VARIANTS, World

JUMPS = {"two hours on": "+2h", "two hours back": "-2h", "a year on": "+1y", "a year back": "-1y"}
"""Jumps as libfaketime takes them."""

_SOON = 90.0
"""Seconds in which a run has to have ended; without a jump it takes a few of them."""

_MOST_POLLS = 150
"""Looks at five tasks that a run without a jump does not nearly need."""

_PAUSE = 2.0
"""Seconds of the pauses that a jump meets."""

Rule = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Point:
    """Where in a run the clock jumps: what the service is told, and what is waited for; then what is held goes on."""

    rules: tuple[Rule, ...]
    there: Callable[[World], object]
    pause: bool = False
    """Whether the submission that was struck may only be sent again after `_PAUSE`."""


def _held(on: str, at: str) -> Point:
    rule = {"on": on, "action": "hang", "at": at, "count": 1}
    return Point((rule,), lambda world: world.service.ask("GET", "waiting"))


def _row(query: str) -> Callable[[World], object]:
    return lambda world: asked(world, query)


POINTS = {
    "the balance is asked for": _held("balance", "before_bill"),
    "a reference is uploaded": _held("upload", "before_bill"),
    "a task is sent": _held("submit", "before_bill"),
    "a task was billed": _held("submit", "after_bill"),
    "a task is looked at": _held("poll", "before_bill"),
    "an image comes": _held("image", "mid_body"),
    "all tasks are at work": Point(
        ({"on": "poll", "action": "never_end"},),
        _row("SELECT 1 WHERE (SELECT count(*) FROM tasks WHERE state = 'accepted') = 5"),
    ),
    "a submission has to wait": Point(
        ({"on": "submit", "action": "rate_limit", "retry_after": str(_PAUSE), "count": 1},),
        _row("SELECT 1 FROM attempts WHERE outcome = 'not executed'"),
        pause=True,
    ),
    "a submission has to wait until a date": Point(
        (
            {"on": "balance", "action": "hang", "count": 1},
            {"on": "submit", "action": "rate_limit", "retry_after": "date", "count": 1},
        ),
        lambda world: world.service.ask("GET", "waiting"),
    ),
    "a failed task waits": Point(
        ({"on": "submit", "action": "fail", "prompt": "fox", "count": 1},),
        _row("SELECT 1 FROM tasks WHERE state = 'planned' AND failures = 1"),
    ),
    "a link does not work for a while": Point(
        (
            {"on": "image", "action": "hang", "at": "before_bill", "prompt": "fox", "count": 1},
            {"on": "image", "action": "status", "status": 403, "prompt": "fox", "count": 3},
        ),
        lambda world: world.service.ask("GET", "waiting"),
    ),
}

BETWEEN = (
    "tasks at work",
    "images to fetch and tasks at work",
    "killed while submitting",
    "tasks in doubt",
    "failed tasks planned again",
    "a submission had to wait",
    "tasks sent under another clock",
)
"""States of a job that a run under another clock finds, or leaves to one under the right clock."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One jump at one point."""

    jump: str
    when: str
    variant: str

    @property
    def name(self) -> str:
        """The cell in words."""
        return f"{self.jump}, {self.when}, {self.variant}"


def cells() -> list[Cell]:
    """Every jump at every point; none without libfaketime."""
    if skipped():
        return []
    return [
        Cell(jump, when, variant)
        for jump in JUMPS
        for when in (*(f"while {point}" for point in POINTS), *(f"between runs: {moment}" for moment in BETWEEN))
        for variant in ("trusted", "held")
    ]


def skipped() -> str:
    """Why nothing is tried; empty where it is."""
    return "" if _library() else "left out: libfaketime is not installed (Debian: apt-get install libfaketime)"


@cache
def _library() -> str:
    places = [
        Path(folder).rglob("libfaketimeMT.so.1") for folder in ("/usr/lib", "/usr/local/lib", "/opt/homebrew/lib")
    ]
    return next((str(path) for place in places for path in place), "")


def run(cell: Cell, root: Path, port: int) -> list[str]:
    """Tries one cell; what is wrong."""
    reference = undisturbed(root, port)
    during, _, what = cell.when.partition(" ")
    point = POINTS[what] if during == "while" else None
    world = World(root / "world", port, VARIANTS[cell.variant])
    try:
        world.make()
        wrong = _during(cell, point, world) if point else _between(cell, what.removeprefix("runs: "), world)
        return wrong + conclude(world, reference, alone=_alone(cell))
    except TimeoutError as error:
        return [str(error)]
    finally:
        world.close()


def _alone(cell: Cell) -> bool:
    """Whether nobody is needed for the end: a key that looks a year old, or not sent yet, is not trusted any more."""
    # The run that is killed while submissions wait may have others on the way. Two hours later a key is still trusted.
    words = ("had to wait",) if cell.jump == "two hours on" else ("killed", "in doubt", "had to wait")
    return cell.variant == "trusted" and not any(word in cell.when for word in words)


def _during(cell: Cell, point: Point, world: World) -> list[str]:
    """The clock jumps while a run is at work."""
    world.service.set_faults(list(point.rules))
    with _running(world, "", "run") as program:
        wait_for(lambda: point.there(world), _SOON)
        program.jump(JUMPS[cell.jump])
        looks = world.service.ask("GET", "stats")["poll"]
        if any(rule["action"] == "never_end" for rule in point.rules):
            # Looks go on as before.
            wait_for(lambda: world.service.ask("GET", "stats")["poll"] >= looks + 10, _SOON)
            world.service.set_faults([])
        world.service.ask("DELETE", "waiting")
        ended = program.wait()
    wrong = _judged(world, ended, {0})
    for rule in world.service.ask("GET", "faults"):
        if rule["fired"] < rule["count"]:
            wrong.append(f"did not fire: {rule}")
    if point.pause:
        first, *others = [post["at"] for post in posts(world) if post["key"] == posts(world)[0]["key"]]
        if not others or others[0] - first < 0.95 * _PAUSE:
            wrong.append(f"sent again after {[other - first for other in others]} s, not {_PAUSE} s")
    world.service.set_faults([])
    return wrong


def _between(cell: Cell, what: str, world: World) -> list[str]:
    """One run under another clock, the others under the right one."""
    jump = JUMPS[cell.jump]
    if what == "a submission had to wait":
        world.service.set_faults([{"on": "submit", "action": "rate_limit", "retry_after": "10"}])
        with _running(world, jump, "run") as program:
            wait_for(lambda: asked(world, "SELECT 1 FROM attempts WHERE outcome = 'not executed'"), _SOON)
            program.process.kill()
        world.service.set_faults([])
        # The end of the pause is far away by the right clock, or long over.
        return _judged(world, world.call("run"), {0} if _alone(cell) else {0, 4})
    if what == "tasks sent under another clock":
        with _running(world, jump, "run", "--submit-only", "--limit", "3") as program:
            return _judged(world, program.wait(), {0, 7})
    moment = MOMENTS[what]
    moment.prepare(world)
    with _running(world, jump, "run") as program:
        usual = moment.code(world.variant)
        return _judged(world, program.wait(), {usual} if _alone(cell) or usual == 4 else {usual, 4})


def _judged(world: World, ended: Ended, codes: set[int]) -> list[str]:
    """What is wrong right after the run under the other clock."""
    wrong = world.violations()
    if ended.code not in codes or "Traceback" in ended.err:
        wrong.append(f"left {ended.code} instead of {sorted(codes)}: {ended.out[-700:]} {ended.err[-1500:]}")
    manifest = world.manifest()
    lost = [task["paths"] for task in manifest.tasks if task["state"] == "lost"]
    gone = [image["state"] for image in manifest.images if image["state"] not in {"stored", "announced"}]
    wrong += [f"tasks were given up: {lost}"] if lost else []
    wrong += [f"images were given up: {gone}"] if gone else []
    if (polls := world.service.ask("GET", "stats")["poll"]) > _MOST_POLLS:
        wrong.append(f"{polls} looks at tasks")
    return wrong


@dataclass(slots=True)
class _Program:
    """The command line in a process of its own, under a clock of its own."""

    process: subprocess.Popen[bytes]
    clock: Path
    log: Path

    def jump(self, to: str) -> None:
        """Sets its clock."""
        part = self.clock.with_suffix(".part")
        part.write_text(to)
        part.replace(self.clock)

    def wait(self) -> Ended:
        """How it ended."""
        try:
            code = self.process.wait(_SOON)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"the run did not end within {_SOON:.0f} s: {self._told('.err')[-700:]}") from None
        return Ended(code, -1, self._told(".out"), self._told(".err"))

    def _told(self, suffix: str) -> str:
        return self.log.with_suffix(suffix).read_text(errors="replace")


@contextmanager
def _running(world: World, clock: str, verb: str, *options: str) -> Iterator[_Program]:
    log = world.root / "logs" / "clock"
    path = world.root / "clock"
    path.write_text(clock or "+0")
    environment = {
        **os.environ,
        "LD_PRELOAD": _library(),
        "FAKETIME_TIMESTAMP_FILE": str(path),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
        "APIMART_API_KEY": KEY,
        "APIMART_BASE_URL": world.service.url,
    }
    with log.with_suffix(".out").open("wb") as out, log.with_suffix(".err").open("wb") as err:
        command = [sys.executable, "-m", "seedream_batch", verb, str(world.job), *options]
        process = subprocess.Popen(command, cwd=world.folder, env=environment, stdout=out, stderr=err)
        try:
            yield _Program(process, path, log)
        finally:
            process.kill()
            process.wait()
