"""Random walks: commands, kills, faults, edits and changes of files in any order, judged after every command.

    tests/tools/campaign/run --only walk --steps 100000
    tests/tools/campaign/run --only walk --match "seed 17,"

Each walk is drawn from its seed. A violation is told with the seed and the shortest sequence of steps that was found
to lead to it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from steps import Walk, drawn, take

STEPS = 10_000
"""Steps in all, also of a sample, unless `--steps` says so."""
LENGTH = 50
"""Steps of one walk."""
MINIMISING = 40.0
"""Seconds in which a shorter sequence is looked for."""

_VARIANTS = ("trusted", "trusted", "held", "no keys")

Sequence_ = Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Cell:
    """One walk."""

    seed: int
    steps: int
    variant: str

    @property
    def name(self) -> str:
        """The walk in words."""
        return f"seed {self.seed}, {self.steps} steps, {self.variant}"


def cells(steps: int) -> list[Cell]:
    """Walks of so many steps in all."""
    return [
        Cell(seed, min(LENGTH, steps - seed * LENGTH), _VARIANTS[seed % len(_VARIANTS)])
        for seed in range((steps + LENGTH - 1) // LENGTH)
    ]


def run(cell: Cell, root: Path, port: int) -> list[str]:
    """Takes one walk; what is wrong, with the steps that lead to it."""
    steps = drawn(cell.seed, cell.steps)
    wrong, taken = _play(steps, cell.variant, root, port)
    if not wrong:
        return []
    shortest = _minimised(steps[:taken], _kind(wrong[0]), cell.variant, root, port)
    told = " > ".join(f"{name} {seed}" for name, seed in shortest)
    return [f"{one}\n      after {len(shortest)} steps: {told}" for one in wrong[:3]]


def _play(steps: Sequence_, variant: str, root: Path, port: int) -> tuple[list[str], int]:
    """What is wrong, and after how many steps."""
    walk = Walk(root, port, variant)
    walk.open()
    try:
        for number, (name, seed) in enumerate(steps, 1):
            take(walk, name, seed)
            if walk.wrong:
                return walk.wrong, number
        walk.end()
        return walk.wrong, len(steps)
    finally:
        walk.close()


def _kind(wrong: str) -> str:
    """What makes two violations the same one."""
    words = "".join(char for char in wrong if not char.isdigit()).split()
    return " ".join(words[:1] if words[0].startswith("I") else words[:4])


def _minimised(steps: Sequence_, kind: str, variant: str, root: Path, port: int) -> list[tuple[str, int]]:
    """The steps without those that are not needed, as far as the time goes."""
    left = list(steps)
    deadline = time.monotonic() + MINIMISING
    size = max(1, len(left) // 2)
    while size:
        at = 0
        while at < len(left):
            if time.monotonic() > deadline:
                return left
            fewer = left[:at] + left[at + size :]
            wrong, taken = _play(fewer, variant, root, port)
            if wrong and _kind(wrong[0]) == kind:
                left = fewer[:taken]
            else:
                at += size
        size //= 2
    return left
