"""A run that is ended at moments that the service chooses: in the middle of each of its requests.

The service holds the k-th request of a kind, before or after it did what it was asked, or in the middle of its
answer. Then the run is killed, or told to end, once or twice. What it leaves is judged, the request is let go, the
job runs to its end, and is judged again.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

import oracle
from bench import in_state, wait_for
from conclusion import conclude, undisturbed
from forge import Child, Ended
from oracle import Manifest
from world import VARIANTS, World

POINTS = {
    "submit": (("before_bill", "after_bill", "mid_body"), 5),
    "image": (("before_bill", "mid_body"), 6),
    "poll": (("before_bill", "mid_body"), 5),
    "upload": (("before_bill", "after_bill", "mid_body"), 1),
    "balance": (("before_bill", "mid_body"), 1),
}
"""Where a request of each kind is held, and how many of them a run makes at least."""

HOW = {
    "SIGKILL": (signal.SIGKILL, 1),
    "SIGTERM": (signal.SIGTERM, 1),
    "SIGTERM twice": (signal.SIGTERM, 2),
    "SIGINT": (signal.SIGINT, 1),
    "SIGINT twice": (signal.SIGINT, 2),
    "SIGHUP": (signal.SIGHUP, 1),
}
"""The signal that ends the run, and how often it is sent."""

_SOON = 20.0
"""Seconds in which a run that was told to end has to have ended."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One moment and one way to end."""

    on: str
    at: str
    number: int
    how: str
    variant: str

    @property
    def name(self) -> str:
        """The cell in words."""
        return f"{self.how} while {self.on} {self.number} is held, {self.at}, {self.variant}"


def cells() -> list[Cell]:
    """Every request, every place in it, every way to end."""
    return [
        Cell(on, at, number, how, variant)
        for on, (places, most) in POINTS.items()
        for at in places
        for number in range(1, most + 1)
        for how in HOW
        for variant in VARIANTS
    ]


def run(cell: Cell, root: Path, port: int) -> list[str]:
    """Tries one cell; what is wrong."""
    reference = undisturbed(root, port)
    world = World(root / "world", port, VARIANTS[cell.variant])
    try:
        world.make()
        world.service.set_faults(
            [{"on": cell.on, "action": "hang", "at": cell.at, "after": cell.number - 1, "count": 1}]
        )
        child = world.start("run")
        try:
            wait_for(lambda: world.service.ask("GET", "waiting"))
            ended = _end(cell, child, world)
        finally:
            child.kill()
        wrong = world.violations() + _ended_right(cell, ended) + _left(cell, world.manifest(), world)
        world.service.ask("DELETE", "waiting")
        wait_for(lambda: not world.service.ask("GET", "waiting"))
        return wrong + conclude(world, reference, alone=cell.variant == "trusted")
    except TimeoutError as error:
        return [str(error)]
    finally:
        world.close()


def _end(cell: Cell, child: Child, world: World) -> Ended:
    """Ends the run the way the cell says."""
    number, times = HOW[cell.how]
    child.signal(number)
    if number != signal.SIGKILL:
        wait_for(lambda: f"stopping: interrupted ({number.name})" in child.err.read_text(errors="replace"))
        if times == 1:
            # What is being sent or written is finished: only the answer is missing for that.
            world.service.ask("DELETE", "waiting")
        else:
            child.signal(number)
    return child.wait(_SOON)


def _ended_right(cell: Cell, ended: Ended) -> list[str]:
    number = HOW[cell.how][0]
    code = -number if number == signal.SIGKILL else 128 + number
    # A second signal that comes when the run has just ended finds nobody to handle it: for a shell, that is the same.
    wrong = [] if ended.code in {code, -number} else [f"left {ended.code} instead of {code}: {ended.out} {ended.err}"]
    return wrong + ([f"a traceback: {ended.err[-1500:]}"] if "Traceback" in ended.err else [])


def _left(cell: Cell, manifest: Manifest, world: World) -> list[str]:
    """What a run that finished what it had begun leaves, and what one leaves that did not."""
    number, times = HOW[cell.how]
    in_order = times == 1 and number != signal.SIGKILL
    wrong = []
    # All but a submission is free to repeat: it is cancelled, and the run may have ended before the second signal.
    either = times == 2 and cell.on != "submit"
    if bool(manifest.runs[-1]["ended_at"]) != in_order and not either:
        wrong.append(f"the manifest says of the run: {manifest.runs[-1]['outcome']}")
    if in_order:
        if unclear := in_state(manifest, "submitting", "uncertain"):
            wrong.append(f"{len(unclear)} tasks are in doubt after an end in good order")
        wrong += oracle.leftovers(world.out)
    elif cell.on == "submit" and not in_state(manifest, "submitting"):
        wrong.append("a submission was held, and no task is being submitted")
    return wrong
