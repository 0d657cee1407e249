"""The parts of the campaign: which units of work each has, in full and as a sample."""

from __future__ import annotations

import importlib.util
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import account
import between_runs
import clock
import crashes
import cron
import gateway
import kills
import mutations
import network
import powerloss
import secrecy
import storage
import streams
import user_edits
import walk
from scenarios import SCENARIOS


@dataclass(slots=True)
class Result:
    """What was tried and what was wrong; times in seconds."""

    cells: int = 0
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, other: Result) -> None:
        """Takes in what another unit tried."""
        self.cells += other.cells
        self.wrong += other.wrong
        self.notes += [note for note in other.notes if note not in self.notes]

    def as_json(self) -> dict[str, Any]:
        """The result for machines."""
        return {
            "cells": self.cells,
            "violations": self.wrong,
            "notes": self.notes,
            "seconds": round(self.seconds, 1),
        }


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of work for one worker."""

    name: str
    what: Any


@dataclass(frozen=True, slots=True)
class Part:
    """A kind of trouble, its pieces of work, and how one is done."""

    what: str
    units: Callable[..., list[Unit]]
    run: Callable[[Unit, Path, int], Result]
    most_jobs: int = 64


def _single_units(*, sample: bool) -> list[Unit]:
    # The calls of a scenario are shared out evenly; a sample takes every 61st.
    if sample:
        return [Unit(f"{name} 7+61i", (name, 7 + 9 * i, 61)) for i, name in enumerate(SCENARIOS)]
    return [Unit(f"{name} {start}+4i", (name, start, 4)) for name in SCENARIOS for start in range(1, 5)]


def _single(unit: Unit, root: Path, port: int) -> Result:
    name, start, step = unit.what
    return _crash(name, root, port, lambda points: points.single(itertools.count(start, step)))


def _compound_units(*, sample: bool) -> list[Unit]:
    if sample:
        return [Unit(f"{name} 5+50i x 1+40i", (name, 5, 50, 40)) for name in list(SCENARIOS)[::3]]
    return [Unit(name, (name, 1, 1, 1)) for name in SCENARIOS]


def _compound(unit: Unit, root: Path, port: int) -> Result:
    name, start, step, again = unit.what
    return _crash(name, root, port, lambda points: points.compound(itertools.count(start, step), again))


def _crash(name: str, root: Path, port: int, strike: Callable[[crashes.Crashes], crashes.Tally]) -> Result:
    with crashes.Crashes(name, root, port) as points:
        _, wrong = points.reference()
        tally = strike(points)
        return Result(tally.cells, [f"{name}, undisturbed: {one}" for one in wrong] + tally.wrong)


def _loss_units(*, sample: bool) -> list[Unit]:
    names = [name for name, scenario in SCENARIOS.items() if scenario.arm is None]
    whole = [Unit(name, (name,)) for name in names]
    # The syncs of a scenario are shared out evenly; a sample takes every 31st.
    if sample:
        return whole + [Unit(f"{name}, killed, 2+31i", (name, 2 + i, 31)) for i, name in enumerate(names)]
    return whole + [Unit(f"{name}, killed, {start}+4i", (name, start, 4)) for name in names for start in range(4)]


def _loss(unit: Unit, root: Path, port: int) -> Result:
    name, *points = unit.what
    return Result(*(powerloss.resumed(name, *points, root, port) if points else powerloss.run(name, root, port)))


def _cells(module: Any, every: int) -> Part:
    """A part whose units are its cells; a sample takes every n-th."""

    def units(*, sample: bool) -> list[Unit]:
        cells: Sequence[Any] = module.cells()
        return [Unit(cell.name, cell) for cell in (cells[every // 2 :: every] if sample else cells)]

    def run(unit: Unit, root: Path, port: int) -> Result:
        told = module.run(unit.what, root, port)
        return Result(1, [f"{unit.name}: {one}" for one in told])

    return Part(module.__doc__.split("\n", 1)[0], units, run)


def _cron_units(*, sample: bool) -> list[Unit]:
    return [Unit(f"{minutes} minutes, seed {seed}", (minutes, seed)) for minutes, seed in cron.days(sample=sample)]


def _cron(unit: Unit, root: Path, port: int) -> Result:
    starts, wrong = cron.run(*unit.what, root, port)
    return Result(starts, [f"{unit.name}: {one}" for one in wrong])


FUZZED = ("job", "template", "response", "url", "image")


def _fuzz_units(*, sample: bool) -> list[Unit]:
    return [Unit(target, (target, 3_000 if sample else 1_000_000)) for target in FUZZED]


def _fuzz(unit: Unit, root: Path, port: int) -> Result:
    """One fuzzed target; cells are executions."""
    del port
    if importlib.util.find_spec("atheris") is None:
        return Result(notes=["left out: atheris is not installed, see tests/tools/campaign/fuzz_requirements.txt"])
    target, executions = unit.what
    table = root / "table.json"
    script = str(Path(__file__).with_name("fuzz.py"))
    command = [sys.executable, script, target, "--executions", str(executions), "--json", str(table)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not table.exists():
        return Result(wrong=[f"{target}: the fuzzer itself failed: {done.stderr[-700:]}"])
    told = json.loads(table.read_text())
    wrong = [f"{target}: {name} (see {told['inputs']})" for name in told["names"]]
    if told["executions"] < executions:
        wrong.append(f"{target}: only {told['executions']:,} of {executions:,} executions were reached")
    return Result(told["executions"], wrong)


def _walk_units(*, sample: bool) -> list[Unit]:
    del sample
    return [Unit(cell.name, cell) for cell in walk.cells(walk.STEPS)]


def _walk(unit: Unit, root: Path, port: int) -> Result:
    return Result(unit.what.steps, [f"{unit.name}: {one}" for one in walk.run(unit.what, root, port)])


PARTS = {
    "crashes": Part("a kill before every call of a command", _single_units, _single),
    "compound": Part("a kill before every call, then one before every call of the resume", _compound_units, _compound),
    "powerloss": Part("what is durable when something leaves the machine, after a kill as well", _loss_units, _loss),
    "kills": _cells(kills, 40),
    "network": _cells(network, 160),
    "storage": _cells(storage, 200),
    "clock": _cells(clock, 48),
    "gateway": _cells(gateway, 70),
    "account": _cells(account, 9),
    "clock-between-runs": _cells(between_runs, 31),
    "user-edits": _cells(user_edits, 21),
    "streams": _cells(streams, 17),
    "walk": Part("random walks of commands, kills, faults and edits, in steps", _walk_units, _walk),
    "secrecy": _cells(secrecy, 1),
    "fuzz": Part("job files, templates, answers, URLs and pictures by a fuzzer, in executions", _fuzz_units, _fuzz),
    # What `powerloss` has to notice takes minutes: of the sample, which CI runs, these are not.
    "mutations": _cells(mutations, 24),
    "cron": Part("a run a minute against a flaky service", _cron_units, _cron),
}
