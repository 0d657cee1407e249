"""Another key, another job, another place between two commands: nothing is polled or bought where it does not belong.

Two accounts are two emulators behind one address; which one answers is decided by the key. What one account made, the
other one does not know.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import oracle
from bench import in_state
from between import Gateway
from conclusion import undisturbed
from moments import MOMENTS, Moment
from service import ServiceProcess, free_port
from settle import CODES, crashed, settle
from world import JOB, VARIANTS, World

OTHER_KEY = "canary-key-of-another-account-77"

_REFUSED = CODES | {2}

# A killed run leaves its requests to a gateway, which goes on waiting for their answers.
_STATES = ("tasks at work", "images to fetch and tasks at work", "tasks in doubt")
_OPEN = {name: MOMENTS[name] for name in _STATES}
"""States in which something is open."""


def _gone(world: World) -> None:
    world.call("run")
    for name in ("fox/picture.jpg", "pair/picture-2.jpg"):
        (world.out / name).unlink()
        world.allow_gone(name)
    # As after a check that found them missing while the service could not be asked.
    world.service.set_faults([{"on": "poll", "action": "status", "status": 503}])
    world.call("verify")
    world.service.set_faults([])


_OPEN["images that are missing"] = Moment("images that are missing", _gone, ())

COMMANDS = (
    ("run",),
    ("run", "--collect"),
    ("run", "--submit-only"),
    ("verify",),
    ("retry",),
    ("retry", "--missing"),
    ("resolve", "--resend"),
)


@dataclass(frozen=True, slots=True)
class Cell:
    """A state of the job and a command under another key; or a way in which jobs and manifests are mixed up."""

    name: str
    moment: str = ""
    command: tuple[str, ...] = ()
    variant: str = "trusted"


def cells() -> list[Cell]:
    """Every state with every command, and every mix-up with every command."""
    keys = [
        Cell(f"another key: {moment}, {' '.join(command)}, {variant}", moment, command, variant)
        for moment in _OPEN
        for command in COMMANDS
        for variant in ("trusted", "held")
    ]
    commands = (*COMMANDS, ("prune", "--yes"), ("resolve", "--forget"))
    mixed = [Cell(f"{mix}: {' '.join(command)}", mix, command) for mix in MIXED for command in commands]
    doubtful = [
        Cell(f"{mix}, tasks in doubt: {' '.join(command)}", mix, command, "held")
        for mix in MIXED
        if mix not in _SAME
        for command in commands
    ]
    return [*mixed, *doubtful, *keys]


def run(cell: Cell, root: Path, port: int) -> list[str]:
    """Tries one cell; what is wrong."""
    if cell.moment in MIXED:
        return _mixed(cell, root, port)
    world = World(root / "world", port, VARIANTS[cell.variant])
    world.make()
    other = ServiceProcess(root / "other", free_port())
    gateway = Gateway(free_port(), {"": world.service.port, OTHER_KEY: other.port})
    other.start()
    gateway.start()
    try:
        world.environment = {"APIMART_BASE_URL": gateway.url}
        _OPEN[cell.moment].prepare(world)
        before = _lasting(world)
        world.environment["APIMART_API_KEY"] = OTHER_KEY
        wrong = crashed(world.call(*cell.command), _REFUSED)
        wrong += crashed(world.call("run", "--max-duration", "2s"), _REFUSED)
        wrong += _asked(other) + world.violations() + oracle.secrets(world.root, OTHER_KEY)
        wrong += [f"under the other key, {one}" for one in _lost(before, _lasting(world))]
        del world.environment["APIMART_API_KEY"]
        return wrong + settle(world)
    except TimeoutError as error:
        return [str(error)]
    finally:
        gateway.stop()
        other.stop()
        world.close()
        shutil.rmtree(root / "other", ignore_errors=True)


def _asked(other: ServiceProcess) -> list[str]:
    """What the account was asked that has nothing to do with the job."""
    stats = other.ask("GET", "stats")
    return [
        f"the other account got {stats[what]} requests of the kind {what}"
        for what in ("submit", "poll", "upload")
        if stats.get(what)
    ]


def _lasting(world: World) -> dict[str, int]:
    """What must not grow under another key."""
    manifest = world.manifest()
    states = manifest.states()
    images = [image["state"] for image in manifest.images]
    return {"lost": states["lost"], "failed": states["failed"], "expired": images.count("expired"),
            "uncertain": len(in_state(manifest, "uncertain", "submitting"))}  # fmt: skip


def _lost(before: dict[str, int], after: dict[str, int]) -> list[str]:
    return [f"{after[what] - many} became {what}" for what, many in before.items() if after[what] > many]


# Jobs and manifests that are mixed up. Each gives the job file for the next command.


def _second_job(world: World) -> Path:
    """Another job of the same name in the same folder, with prompts of its own."""
    second = world.folder / "second.yaml"
    second.write_text(_text(world).replace("watercolour", "in oil"))
    return second


def _second_job_elsewhere(world: World) -> Path:
    """The same in another folder, which names the same output folder."""
    elsewhere = world.root / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(world.folder / "ref.png", elsewhere)
    second = elsewhere / "job.yaml"
    second.write_text(_text(world).replace("watercolour", "in oil").replace("dir: out", f"dir: {world.out}"))
    return second


def _another_name(world: World) -> Path:
    """A job of another name that has the same output folder."""
    second = world.folder / "second.yaml"
    second.write_text(_text(world).replace("name: five", "name: six").replace("watercolour", "in oil"))
    return second


def _moved_folder(world: World) -> Path:
    """The folder with the job and all it made has another place."""
    world.folder = world.folder.rename(world.root / "moved")
    world.out = world.folder / "out"
    return world.folder / "job.yaml"


def _renamed_job(world: World) -> Path:
    """The job file has another name."""
    return world.job.rename(world.folder / "renamed.yaml")


def _copied_without_the_log(world: World) -> Path:
    """The manifest is a copy of its main file alone, made while its newest part was in another file."""
    path = world.out / "manifest.db"
    kept = path.read_bytes()
    for one in ("manifest.db-wal", "manifest.db-shm"):
        (world.out / one).unlink(missing_ok=True)
    path.write_bytes(kept)
    return world.job


MIXED: dict[str, Callable[[World], Path]] = {
    "another job of the same name": _second_job,
    "another job of the same name, elsewhere": _second_job_elsewhere,
    "a job of another name": _another_name,
    "a folder that was moved": _moved_folder,
    "a job file that was renamed": _renamed_job,
    "a manifest without its log": _copied_without_the_log,
}
_SAME = {"a folder that was moved", "a job file that was renamed", "a manifest without its log"}
"""Those in which the job is still the one that was paid for, so that nothing is to be bought."""


def _text(world: World) -> str:
    return JOB.replace("ON_UNKNOWN", world.variant.on_unknown).replace("IN_FLIGHT", str(world.variant.in_flight))


def _mixed(cell: Cell, root: Path, port: int) -> list[str]:
    """The job is done, or in doubt; a command meets it under other circumstances; then the first job goes on."""
    reference = undisturbed(root, port)
    world = World(root / "world", port, VARIANTS[cell.variant])
    world.make()
    job = world.job
    try:
        if cell.variant == "held":
            MOMENTS["tasks in doubt"].prepare(world)
        wrong = crashed(world.call("run"))
        bills = len(world.service.ledger())
        tasks = _ordered(world)
        world.job = MIXED[cell.moment](world)
        wrong += crashed(world.call(*cell.command), _REFUSED | {8})
        if cell.moment in _SAME:
            wrong += crashed(world.call("run"))
        if len(world.service.ledger()) > bills:
            wrong.append(f"{len(world.service.ledger()) - bills} bills more")
        world.job = job if job.exists() else world.job
        if _ordered(world) != tasks:
            wrong.append("the tasks of the first job are no longer those that it has")
        return wrong + world.violations() + settle(world) + world.finish(reference)
    except TimeoutError as error:
        return [str(error)]
    finally:
        world.close()


def _ordered(world: World) -> list[tuple[int, str, str]]:
    """The tasks of the job, with their states."""
    tasks = [task for task in world.manifest().tasks if task["ordinal"] is not None]
    return sorted((task["ordinal"], task["fingerprint"], task["state"]) for task in tasks)
