"""A clock that jumps between two commands: links, deadlines and keys look older or younger than they are.

The commands run in this machine's time, shifted by hours, days or years; the service keeps the right one. Nothing may
be given up or bought again because of that, and a key whose age cannot be right is not trusted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from moments import MOMENTS
from settle import crashed, settle
from world import VARIANTS, World

HOUR, DAY, YEAR = 3600.0, 86400.0, 31_557_600.0
SHIFTS = {
    "an hour on": HOUR, "two hours back": -2 * HOUR, "three days on": 3 * DAY, "three days back": -3 * DAY,
    "a year on": YEAR, "a year back": -YEAR, "thirty years on": 30 * YEAR, "thirty years back": -30 * YEAR,
}  # fmt: skip

_COMMANDS = (("run",), ("run", "--collect"), ("verify",), ("retry",), ("resolve", "--resend"))
_STATES = tuple(name for name, moment in MOMENTS.items() if moment.command == ("run",))
_MOST_POLLS = 150


@dataclass(frozen=True, slots=True)
class Cell:
    """A shift of the clock, and when it is in force."""

    shift: str
    state: str
    command: tuple[str, ...]
    when: str
    """before: while the state is made; between: for a run in between; after: from the command on."""

    @property
    def name(self) -> str:
        """The cell in words."""
        return f"{self.shift} {self.when} {self.state}, {' '.join(self.command)}"


def cells() -> list[Cell]:
    """Every shift, in every state, for every command, and keys of every age."""
    keys = [Cell(shift, _KEY, ("run",), when) for shift in SHIFTS for when in ("before", "between", "after")]
    return keys + [
        Cell(shift, state, command, when)
        for shift in SHIFTS
        for state in _STATES
        for command in _COMMANDS
        for when in ("before", "after")
        if (state != "first run" or command == ("run",))
        # Links that are refused, and have expired by the clock, are dead.
        and not (state.startswith("images to fetch") and when == "before" and SHIFTS[shift] >= DAY)
    ]


def run(cell: Cell, root: Path, port: int) -> list[str]:
    """Tries one cell; what is wrong."""
    world = World(root / "world", port, VARIANTS["trusted"])
    world.make()
    try:
        return _keys(cell, world) if cell.state == _KEY else _states(cell, world)
    except TimeoutError as error:
        return [str(error)]
    finally:
        world.close()


def _shifted(seconds: float) -> Callable[[], None]:
    def shift() -> None:
        plain = time.time
        time.time = lambda: plain() + seconds

    return shift


def _states(cell: Cell, world: World) -> list[str]:
    shift = _shifted(SHIFTS[cell.shift])
    moment = MOMENTS[cell.state]
    world.before = shift if cell.when == "before" else None
    moment.prepare(world)
    world.before = None if cell.when == "before" else shift
    wrong = crashed(world.call(*cell.command, *(("--max-duration", "5s") if cell.command[0] == "run" else ())))
    wrong += world.violations() + _given_up(world)
    world.before = None
    return wrong + settle(world)


def _given_up(world: World) -> list[str]:
    """Tasks and images that a wrong clock must not end, and looks that it must not multiply."""
    manifest = world.manifest()
    lost = [task["reason"] for task in manifest.tasks if task["state"] == "lost"]
    gone = [image["state"] for image in manifest.images if image["state"] not in {"stored", "announced"}]
    wrong = [f"tasks were given up: {lost}"] if lost else []
    wrong += [f"images were given up: {gone}"] if gone else []
    polls = world.service.ask("GET", "stats")["poll"]
    return wrong + ([f"{polls} looks at tasks"] if polls > _MOST_POLLS else [])


_KEY = "a key in doubt"
_LIFE = DAY
"""Seconds for which a key is trusted at least, as the provider says."""


def _keys(cell: Cell, world: World) -> list[str]:
    """A submission in doubt whose key has another age than it seems; the service has forgotten all keys by then."""
    shift = SHIFTS[cell.shift]
    world.before = _shifted(shift) if cell.when == "before" else None
    world.service.set_faults([{"on": "submit", "action": "reset_after_bill", "prompt": "fox"}])
    child = world.start("run", "--limit", "2")
    _until_doubtful(world)
    child.kill()
    world.service.set_faults([])
    # The age that the key has by the clocks of all commands.
    age = -shift if cell.when == "before" else shift
    wrong = []
    if cell.when == "between":
        age = max(0.0, shift)
        world.before = _shifted(shift)
        wrong = crashed(world.call("run", "--collect"))
    world.before = _shifted(shift) if cell.when == "after" else None
    if not 0 <= age < _LIFE:
        world.service.ask("PATCH", "config", {"honour_keys": False})
    wrong += crashed(world.call("run")) + world.violations()
    world.service.ask("PATCH", "config", {"honour_keys": True})
    world.before = None
    return wrong + settle(world)


def _until_doubtful(world: World) -> None:
    from bench import wait_for

    wait_for(lambda: any(entry["request"]["prompt"].startswith("a fox") for entry in world.service.ledger()))
