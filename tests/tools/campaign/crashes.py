"""Crash points: a command killed right before each of its calls, and each resume killed the same way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from oracle import Manifest
from scenarios import SCENARIOS, Scenario
from shim import Blow, Strike
from world import Pictures, World

ENOUGH = 20
"""Violations after which the rest of a scenario is left out: they are told, and more say no more."""


@dataclass(slots=True)
class Tally:
    """What was tried, and what was wrong; `cells` are kills that met their process."""

    cells: int = 0
    finished: int = 0
    """Cells that were run to their end; the others left a state that one before them had left."""
    wrong: list[str] = field(default_factory=list)


class Crashes:
    """The crash points of one scenario, or every n-th of them."""

    def __init__(self, scenario: str, root: Path, port: int) -> None:
        self.scenario: Scenario = SCENARIOS[scenario]
        self._world = World(root / "world", port, self.scenario.variant)
        self._base = root / "base"
        self._killed = root / "killed"
        self._reference: Pictures = {}
        self._allowed = self._world.allowed

    def __enter__(self) -> Self:
        world = self._world
        try:
            world.make()
            self.scenario.prepare(world)
        except BaseException:
            world.close()
            raise
        self._allowed = world.allowed
        world.before = self.scenario.arm
        world.save(self._base)
        return self

    def __exit__(self, *_: object) -> None:
        self._world.close()

    def reference(self) -> tuple[int, list[str]]:
        """The scenario without a kill: the calls of its command, and what is wrong even then."""
        ended = self._world.call(*self.scenario.command)
        wrong = [] if ended.code in self.scenario.codes else [f"left {ended.code}: {ended.out}{ended.err}"]
        wrong += self._world.finish()
        self._reference = _pictures(self._world)
        return ended.calls, wrong

    def single(self, numbers: Iterator[int]) -> Tally:
        """Kills the command before each of these calls, until one comes that it does not have."""
        tally = Tally()
        seen: set[str] = set()
        for number in numbers:
            if len(tally.wrong) > ENOUGH or not self._kill(self._base, number):
                break
            tally.cells += 1
            self._judge(tally, seen, f"killed before call {number}")
        return tally

    def compound(self, numbers: Iterator[int], step: int) -> Tally:
        """Kills the command before each of these calls, then its resume before every `step`-th of its calls.

        First kills that left the same state are resumed once, and writes that follow each other are one call.
        """
        tally = Tally()
        first: set[str] = set()
        second: set[str] = set()
        for number in numbers:
            if len(tally.wrong) > ENOUGH or not self._kill(self._base, number, bursts=True):
                break
            state = fingerprint(self._world)
            if state in first:
                continue
            first.add(state)
            self._world.save(self._killed)
            again = 1
            while self._kill(self._killed, again, bursts=True):
                tally.cells += 1
                self._judge(tally, second, f"killed before call {number}, then before call {again}")
                again += step
        return tally

    def _kill(self, state: Path, number: int, *, bursts: bool = False) -> bool:
        """The command on a saved state, killed before that call; whether it came that far."""
        self._world.load(state)
        self._world.allowed = self._allowed
        ended = self._world.call(*self.scenario.command, blow=Blow(number, Strike.KILL, bursts=bursts))
        return ended.killed

    def _judge(self, tally: Tally, seen: set[str], where: str) -> None:
        world = self._world
        wrong = world.violations()
        state = fingerprint(world)
        if state not in seen:
            seen.add(state)
            tally.finished += 1
            if self.scenario.command[0] != "run":
                # The person gives the same command again, and it may find nothing left to do.
                ended = world.call(*self.scenario.command)
                if ended.code not in {0, 3, 4} or "Traceback" in ended.err:
                    wrong.append(f"given again it left {ended.code}: {ended.err}")
            wrong += world.finish(self._reference)
        tally.wrong += [f"{self.scenario.name}, {where}: {one}" for one in wrong]


def _pictures(world: World) -> Pictures:
    from oracle import pictures

    return pictures(world.out)


def fingerprint(world: World) -> str:
    """What decides how a world goes on, without times and chance: two with the same one end in the same way."""
    manifest = Manifest.read(world.out)
    task = ("fingerprint", "ordinal", "state", "paths", "attempt", "failures", "held", "reason", "code")
    attempt = ("number", "outcome", "reserved", "images", "cost")
    image = ("task", "index", "state", "path", "target", "via", "tries", "reason")
    about = [
        [[row[name] for name in task] + [bool(row["task_ids"])] for row in manifest.tasks],
        sorted([row[name] for name in attempt] + [row["task"], bool(row["task_ids"])] for row in manifest.attempts),
        [[row[name] for name in image] + [bool(row["sha256"])] for row in manifest.images],
        len(manifest.rescued),
        sorted(_shape(path.relative_to(world.out)) for path in world.out.rglob("*") if path.is_file()),
        sorted(
            [entry["event"], (entry.get("key") or "").split("-")[2:], entry["images"]]
            for entry in world.service.ledger()
        ),
        bool(manifest.runs and manifest.runs[-1]["ended_at"] is None),
        manifest.uploads,
        manifest.version,
    ]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _shape(path: Path) -> str:
    """A file's name, the part of chance in it taken out."""
    return str(path.parent / ".part") if path.suffix == ".part" else str(path)
