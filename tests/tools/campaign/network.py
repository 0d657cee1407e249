"""Every fault of the network and of the service, in every state of a job that it can strike.

A cell is a fault, the moment that it strikes, how often it does, and how the job deals with doubt. The command is run
with the fault and judged at once; then the fault is over, the job runs to its end, persons decide what is left to
them, and it is judged again: every image is there, and paid for once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench import posts, wait_for, with_limits, with_mark
from conclusion import FOR_PERSONS, conclude, given, undisturbed
from faults import FAULTS, OFTEN, Fault, Kind
from lines import IMPATIENT, LINES, Line, service_down
from moments import MOMENTS, Moment
from verdict import Look, left_as_documented, reached_right, right_codes, sent_right
from world import JOB, TRUSTED, VARIANTS, Pictures, World


@dataclass(frozen=True, slots=True)
class Cell:
    """One fault at one moment."""

    fault: str
    moment: str
    variant: str
    often: str

    @property
    def name(self) -> str:
        """The cell in words."""
        return f"{self.fault}, {self.often}, {self.moment}, {self.variant}"


def cells() -> list[Cell]:
    """Every fault at every moment that asks what it strikes, for each way to deal with doubt where that matters."""
    found = [
        Cell(fault.name, moment.name, variant, often)
        for fault in FAULTS.values()
        for moment in MOMENTS.values()
        if fault.on in moment.asks and moment.name in (fault.moments or MOMENTS)
        for variant in _variants(moment, fault.on)
        for often in fault.often or OFTEN
        if often != "four times" or (variant == "trusted" and fault.kind in _PULLS_THROUGH)
    ]
    found += [
        Cell(line.name, moment, variant, "always")
        for line in LINES.values()
        for moment in line.moments
        for variant in _variants(MOMENTS[moment], "submit")
    ]
    return found


_PULLS_THROUGH = {
    Kind.NOT_EXECUTED, Kind.UNCLEAR, Kind.SILENT, Kind.UNKNOWN_ID,
    Kind.BROKEN, Kind.BAD, Kind.SPOILT, Kind.DEAD, Kind.NO_UPLOAD,
}  # fmt: skip
"""Kinds that a run pulls through by itself if they last for a while only, so that the while is worth a cell."""


def _variants(moment: Moment, on: str) -> tuple[str, ...]:
    if moment.resends:
        return ("trusted", "held")
    if on == "submit" or moment.doubts or moment.name == "first run":
        return tuple(VARIANTS)
    return ("trusted",)


def run(cell: Cell, root: Path, port: int) -> list[str]:
    """Tries one cell; what is wrong."""
    reference = undisturbed(root, port)
    fault = FAULTS.get(cell.fault)
    world = World(root / "world", port, VARIANTS[cell.variant])
    try:
        world.make(_job(fault, cell.often))
        MOMENTS[cell.moment].prepare(world)
        if fault is None:
            return _cut_off(cell, LINES[cell.fault], world, reference)
        return _struck(cell, fault, world, reference)
    except TimeoutError as error:
        return [str(error)]
    finally:
        world.close()


def _job(fault: Fault | None, often: str) -> str:
    if fault is not None and fault.kind is Kind.RUNNING and (often == "always" or fault.on == "submit"):
        return JOB.replace("attempts: 2", "attempts: 2, task_timeout: 1s")
    return JOB


def _struck(cell: Cell, fault: Fault, world: World, reference: Pictures) -> list[str]:
    """The command with the fault, and all that comes after it."""
    moment, before, sent = MOMENTS[cell.moment], world.manifest(), len(posts(world))
    settings = dict(world.service.ask("GET", "config"))
    world.service.ask("PATCH", "config", dict(fault.service))
    world.service.set_faults([{**OFTEN[cell.often], **rule} for rule in fault.rules])
    world.before = with_limits({**fault.limits, **(IMPATIENT if cell.often == "always" else {})})
    ended = world.call(*moment.command)
    fired = [rule["fired"] for rule in world.service.ask("GET", "faults")]
    wrong = world.violations()
    look = Look(
        fault.name, fault.kind, cell.often, moment, world.variant, ended, sum(fired), before, world.manifest(),
        posts(world)[sent:],
    )  # fmt: skip
    if not all(fired):
        wrong.append("did not fire")
    wrong += left_as_documented(look, right_codes(look)) + sent_right(look, fault.pause) + reached_right(look, fault.on)
    world.service.set_faults([])
    world.service.ask("DELETE", "waiting")
    world.service.ask("PATCH", "config", {name: settings[name] for name in fault.service})
    world.before = None
    if fault.kind is Kind.LATE:
        return wrong + _first_word_counts(world)
    alone = world.variant is TRUSTED and fault.kind not in FOR_PERSONS
    return wrong + conclude(world, reference if fault.as_usual else None, alone=alone)


def _first_word_counts(world: World) -> list[str]:
    """The image of a task that was completed and then failed is not to be had; the task is not bought again for it."""
    sent = len(posts(world))
    wrong = given(world, "run", code=7) + world.violations()
    if set(states := world.manifest().states()) != {"succeeded"} or len(posts(world)) != sent:
        wrong.append(f"the first word does not count: {dict(states)}, {len(posts(world)) - sent} submissions")
    return wrong


def _cut_off(cell: Cell, line: Line, world: World, reference: Pictures) -> list[str]:
    """The command with a service that cannot be reached, and all that comes after it."""
    moment, before, sent = MOMENTS[cell.moment], world.manifest(), len(posts(world))
    bills = len(world.service.ledger())
    tried = world.root / "tried"
    world.before = with_mark(tried, with_limits({**line.limits, **({} if line.comes_back else IMPATIENT)}))
    with line.open(world) as address:
        world.environment = {"APIMART_BASE_URL": address}
        child = world.start(*moment.command)
        if line.comes_back:
            wait_for(tried.exists)
            sent = bills = 0
        else:
            child.wait()
    ended = child.wait()
    world.before, world.environment = None, {}
    wrong = world.violations()
    after = world.manifest()
    look = Look(line.name, None, cell.often, moment, world.variant, ended, 1, before, after, posts(world)[sent:])
    codes = {moment.code(world.variant)} if line.comes_back else {7}
    # A resend is tried a few times only; after that the task waits for the next run.
    codes |= {4} if look.settles and (moment.doubts or moment.resends) else set()
    wrong += left_as_documented(look, codes)
    if not line.comes_back:
        wrong += [f"{len(look.posts)} submissions were sent"] if look.posts and line.open is not service_down else []
        wrong += ["something was billed"] if len(world.service.ledger()) != bills else []
    if changed := (look.new("uncertain") - look.in_doubt_before) | look.new("failed", "lost"):
        wrong.append(f"nothing was sent, and {len(changed)} tasks are in doubt, failed or lost")
    if line.elsewhere:
        refused = world.call("run")
        wrong += [f"another service was not refused: {refused}"] if refused.code != 2 else []
        return wrong + world.violations()
    return wrong + conclude(world, reference, alone=world.variant is TRUSTED)
