"""What is interrupted: commands in the states in which people give them."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field

from world import HELD, NO_KEYS, ONE_BY_ONE, TRUSTED, Variant, World


def _nothing(world: World) -> None:
    del world


@dataclass(frozen=True, slots=True)
class Scenario:
    """A command, what comes before it, and what a person allows by giving it."""

    name: str
    command: tuple[str, ...] = ("run",)
    variant: Variant = TRUSTED
    prepare: Callable[[World], None] = _nothing
    """Brings a fresh world into the state in which the command is given."""
    arm: Callable[[], None] | None = None
    """Called in every child before its command."""
    codes: frozenset[int] = field(default=frozenset({0}))
    """What the command leaves with when nothing disturbs it."""


def _done(world: World) -> None:
    _expect(world, 0, "run")


def _expect(world: World, code: int, *command: str) -> None:
    ended = world.call(*command)
    if ended.code != code:
        raise RuntimeError(f"{' '.join(command)} left {ended.code} instead of {code}: {ended.out} {ended.err}")


def _two_failed(world: World) -> None:
    world.service.set_faults([{"on": "submit", "action": "fail", "prompt": "fox|swans"}])
    _expect(world, 3, "run")
    world.service.set_faults([])


def _two_in_doubt(world: World) -> None:
    world.service.set_faults([{"on": "submit", "action": "reset_after_bill", "prompt": "fox|swans"}])
    _expect(world, 4, "run")
    world.service.set_faults([])


def _two_in_doubt_and_unbilled(world: World) -> None:
    world.service.set_faults([{"on": "submit", "action": "status", "status": 500, "prompt": "fox|swans"}])
    _expect(world, 4, "run")
    world.service.set_faults([])


def _to_be_forgotten(world: World) -> None:
    _two_in_doubt(world)
    world.allow(2)


def _files_gone(world: World) -> None:
    _done(world)
    for name in ("fox/picture.jpg", "pair/picture-2.jpg"):
        (world.out / name).unlink()
        world.allow_gone(name)


def _files_gone_for_good(world: World) -> None:
    _files_gone(world)
    world.service.set_faults([{"on": "poll", "action": "not_found"}, {"on": "image", "action": "expired"}])
    _expect(world, 3, "verify")
    world.service.set_faults([])
    world.allow(2)


def _two_rejected(world: World) -> None:
    _done(world)
    manifest = world.manifest()
    fingerprints = {task["id"]: task["fingerprint"] for task in manifest.tasks}
    rejected = [
        {"fingerprint": fingerprints[image["task"]], "index": image["index"], "sha256": image["sha256"]}
        for image in manifest.images
        if image["path"] in {"fox/picture.jpg", "pair/picture-2.jpg"}
    ]
    choice = {"seedream_batch_choice": 1, "job": "five", "reject": rejected}
    (world.folder / "choice.json").write_text(json.dumps(choice))
    world.allow(2)


def _cells_dropped(world: World) -> None:
    _done(world)
    _edit(world, "    - {id: owl, text: an owl at night, n: 1}\n", "")
    _edit(world, "a fox in the snow", "a fox in the rain")
    _expect(world, 0, "run")
    world.allow_gone("owl/picture.jpg", "superseded/fox/picture-2-1.jpg")


def _prompt_edited(world: World) -> None:
    _done(world)
    _edit(world, "a fox in the snow", "a fox in the rain")


def _path_edited(world: World) -> None:
    _done(world)
    _edit(world, "{{ subject.id }}/picture", "all/{{ subject.id }}")


def _places_swapped(world: World) -> None:
    """Each picture gets the place of another one."""
    _edit(world, "{{ subject.id }}/picture", "{{ ['a', 'b', 'c', 'd', 'e'][subject.n + 1] }}-{{ subject.id }}")
    _edit(
        world,
        "{{ ['a', 'b', 'c', 'd', 'e'][subject.n + 1] }}-{{ subject.id }}",
        "{{ {'panda': 'a', 'fox': 'b', 'hare': 'c', 'owl': 'd', 'pair': 'e'}[subject.id] }}",
    )
    _done(world)
    _edit(world, "'panda': 'a', 'fox': 'b', 'hare': 'c'", "'panda': 'b', 'fox': 'c', 'hare': 'a'")


def _submitted_only(world: World) -> None:
    _expect(world, 0, "run", "--submit-only")


def _ids_rescued(world: World) -> None:
    """Task ids wait in the side file, because the manifest did not take them."""
    world.before = _manifest_takes_no_ids
    world.call("run")
    world.before = None


def _manifest_takes_no_ids() -> None:
    errors = importlib.import_module("seedream_batch.errors")
    submissions = importlib.import_module("seedream_batch.manifest.task_store").TaskStore

    def refuse(*_: object, **__: object) -> None:
        raise errors.StorageError("no space is left")

    submissions.accepted = refuse


def _newer_schema() -> None:
    """The program of tomorrow: with one more migration."""
    schema = importlib.import_module("seedream_batch.manifest.db.sqlite_schema")
    reader = importlib.import_module("seedream_batch.manifest.reader")
    more = """
    ALTER TABLE tasks ADD COLUMN tomorrow TEXT NOT NULL DEFAULT '';
    UPDATE tasks SET tomorrow = state;
    CREATE INDEX tasks_tomorrow ON tasks (tomorrow);
    """
    schema.MIGRATIONS = reader.MIGRATIONS = (*schema.MIGRATIONS, more)


def _edit(world: World, old: str, new: str) -> None:
    text = world.job.read_text()
    if old not in text:
        raise RuntimeError(f"{old!r} is not in the job")
    world.job.write_text(text.replace(old, new))


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("run"),
        Scenario("run, one at a time", variant=ONE_BY_ONE),
        Scenario("run, in doubt is held", variant=HELD),
        Scenario("run, keys not honoured", variant=NO_KEYS),
        Scenario("run after --submit-only", prepare=_submitted_only),
        Scenario("run --collect", ("run", "--collect"), prepare=_submitted_only),
        Scenario("run after an edited prompt", prepare=_prompt_edited),
        Scenario("run after an edited path", prepare=_path_edited),
        Scenario("run after places were swapped", prepare=_places_swapped),
        Scenario("run with rescued ids", prepare=_ids_rescued),
        Scenario("run with rescued ids, held", variant=HELD, prepare=_ids_rescued),
        Scenario("migration", prepare=_submitted_only, arm=_newer_schema),
        Scenario("retry", ("retry",), prepare=_two_failed),
        Scenario("retry --missing", ("retry", "--missing"), prepare=_files_gone_for_good),
        Scenario("retry --choice", ("retry", "--choice", "choice.json"), prepare=_two_rejected),
        Scenario("resolve --resend", ("resolve", "--resend"), HELD, _two_in_doubt),
        Scenario("resolve --resend, not billed", ("resolve", "--resend"), HELD, _two_in_doubt_and_unbilled),
        Scenario("resolve --forget", ("resolve", "--forget"), HELD, _to_be_forgotten),
        Scenario("resolve --give-up", ("resolve", "--give-up"), HELD, _two_in_doubt),
        Scenario("verify", ("verify",), prepare=_files_gone),
        Scenario("verify --deep", ("verify", "--deep"), prepare=_files_gone),
        Scenario("prune", ("prune", "--yes"), prepare=_cells_dropped),
    )
}
