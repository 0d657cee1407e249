"""How a disturbed job comes to its end: runs, persons who decide, and what has to be true then."""

from __future__ import annotations

import json
from pathlib import Path

import oracle
from bench import in_state
from faults import Kind
from moments import expect
from oracle import Manifest
from world import Pictures, World

FOR_PERSONS = {Kind.INDETERMINATE, Kind.REFUSED, Kind.RUNNING, Kind.UNKNOWN_ID, Kind.EMPTY}
"""Kinds that leave something for a person to decide, whoever trusts the keys."""


def conclude(world: World, reference: Pictures | None, *, alone: bool) -> list[str]:
    """Runs the job to its end, with persons who decide what is left to them; what is wrong on the way or then.

    Whatever happened before: all tasks succeed in the end, and each is paid for once, and as often again as a person
    bought it anew. With `alone`, nothing may be left to persons.
    """
    if not alone and world.stuck():
        # All tasks get the same bad answer, which runs take for an outage: a person says that they are lost.
        given(world, "resolve", "--lost")
    wrong = _finished(world, reference)
    manifest = world.manifest()
    doubts, failed, lost = (in_state(manifest, state) for state in ("uncertain", "failed", "lost"))
    gone = [image for image in manifest.images if image["state"] in {"rejected", "expired"}]
    if alone and doubts | failed | lost:
        wrong.append(f"a person is needed: {dict(manifest.states())}")
    if doubts:
        wrong += _look_up(world, manifest, doubts)
    if failed | lost:
        world.allow(len(lost))
        wrong += given(world, "retry")
    if gone:
        # Free of charge: the service is asked for other links.
        wrong += given(world, "verify")
    if doubts | failed | lost or gone:
        wrong += _finished(world, reference, complete=True)
    if in_state(world.manifest(), "lost"):
        # The service says for ever that they run: a person buys them again.
        wrong += given(world, "retry", "--no-poll") + _finished(world, reference, complete=True)
    if set(states := world.manifest().states()) != {"succeeded"}:
        wrong.append(f"not all tasks succeed in the end: {dict(states)}")
    return wrong


def _finished(world: World, reference: Pictures | None, *, complete: bool = False) -> list[str]:
    """What is wrong after runs to the end, without the images that are known to be gone, unless `complete`."""
    wrong = world.finish(reference)
    manifest = world.manifest()
    names = {task["id"]: json.loads(task["paths"])[0] for task in manifest.tasks}
    gone = [image for image in manifest.images if image["state"] in {"rejected", "expired"} and not complete]
    if reference is None:
        # Their number or kind is another one than asked for: the manifest says which there have to be.
        wrong = [one for one in wrong if not one.startswith("I7")]
        wrong += [
            f"I7 {names[image['task']]}: image {image['index']} is {image['state']}"
            for image in manifest.images
            if image["state"] != "stored" and image not in gone
        ]
    absent = [f"I7 {names[image['task']]}" for image in gone]
    return [one for one in wrong if not (one.endswith("missing") and one.startswith(tuple(absent)))]


def _look_up(world: World, manifest: Manifest, doubts: set[int]) -> list[str]:
    """A person looks up what is in doubt on the service's pages: what is there gets its id, the rest is bought anew."""
    known = {entry["key"]: entry["task_id"] for entry in world.service.ledger() if entry["event"] == "charge"}
    wrong = []
    for task in manifest.tasks:
        if task["id"] not in doubts:
            continue
        key = next(a["key"] for a in manifest.attempts if (a["task"], a["number"]) == (task["id"], task["attempt"]))
        subject = json.loads(task["paths"])[0].split("/")[0]
        what = ("--task-id", known[key]) if key in known else ("--forget",)
        wrong += given(world, "resolve", "--select", f"subject={subject}", *what)
    return wrong


def given(world: World, *command: str, code: int = 0) -> list[str]:
    ended = world.call(*command)
    return [] if ended.code == code else [f"{' '.join(command)} left {ended.code}: {ended.out} {ended.err}"]


_undisturbed: Pictures = {}


def undisturbed(root: Path, port: int) -> Pictures:
    """The pictures of a job that nothing disturbed; made once in a process."""
    if not _undisturbed:
        world = World(root / "undisturbed", port)
        try:
            world.make()
            expect(world, {0}, "run")
            _undisturbed.update(oracle.pictures(world.out))
        finally:
            world.close()
    return _undisturbed
