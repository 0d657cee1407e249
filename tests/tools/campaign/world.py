"""A job folder, the service it talks to, files of others in between, and the verdict of the oracle on it."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import oracle
from forge import Child, Ended, fork, here
from oracle import Allowed, Manifest
from PIL import Image
from service import ServiceProcess
from shim import Blow

KEY = "canary-key-5b1f0c77e2"

JOB = """\
version: 1
name: five
matrix:
  subject:
    - {id: panda, text: a panda in a bamboo forest, n: 1}
    - {id: fox, text: a fox in the snow, n: 1}
    - {id: hare, text: a hare on a meadow, n: 1}
    - {id: owl, text: an owl at night, n: 1}
    - {id: pair, text: two swans on a lake, n: 2}
request:
  prompt: "{{ subject.text }}, watercolour"
  image_urls: [ref.png]
  n: "{{ subject.n }}"
output: {dir: out, path: "{{ subject.id }}/picture"}
budget: {max_cost_usd: 5}
run: {on_unknown: ON_UNKNOWN, attempts: 2, max_in_flight: IN_FLIGHT}
"""
CAP = 5_000_000

FOREIGN = {
    "notes.txt": b"a text of mine",
    "panda/mine.jpg": None,
    "fox/.hidden": b"not yours",
    "superseded/old.txt": b"mine, too",
}
"""Files of others in the output folder; None: a picture."""


Pictures = dict[str, tuple[int, int] | str]


@dataclass(frozen=True, slots=True)
class Variant:
    """How the service and the job deal with submissions in doubt."""

    name: str
    on_unknown: str
    honour_keys: bool
    in_flight: int = 64

    @property
    def allowed(self) -> Allowed:
        """What the rules allow in such a world; the job's budget is its cap."""
        return Allowed(keys_honoured=self.honour_keys, cap=CAP)


TRUSTED = Variant("keys trusted and honoured", "resend", honour_keys=True)
HELD = Variant("in doubt is held", "hold", honour_keys=True)
NO_KEYS = Variant("keys not honoured", "hold", honour_keys=False)
ONE_BY_ONE = Variant("trusted, one at a time", "resend", honour_keys=True, in_flight=1)
VARIANTS = {"trusted": TRUSTED, "held": HELD, "no keys": NO_KEYS}

POLLS_OF_LOST = 5
"""Polls of a lost task in one run, at most."""


class World:
    """Everything of one case, below one folder."""

    def __init__(self, root: Path, port: int, variant: Variant = TRUSTED, **service: Any) -> None:
        self.root = root
        self.variant = variant
        self.allowed = variant.allowed
        self.folder = root / "job"
        self.out = self.folder / "out"
        self.job = self.folder / "job.yaml"
        self.service = ServiceProcess(root / "service", port, honour_keys=variant.honour_keys, **service)
        self.before: Callable[[], None] | None = None
        """Called before every command, which then has a child of its own."""
        self.environment: dict[str, str] = {}
        self._number = 0

    def make(self, job: str = JOB) -> None:
        """A fresh folder, with the job, a reference image and files of others, and a running service."""
        shutil.rmtree(self.root, ignore_errors=True)
        (self.root / "logs").mkdir(parents=True)
        self.folder.mkdir()
        text = job.replace("ON_UNKNOWN", self.variant.on_unknown).replace("IN_FLIGHT", str(self.variant.in_flight))
        self.job.write_text(text)
        (self.folder / "ref.png").write_bytes(_picture("PNG"))
        for name, content in FOREIGN.items():
            path = self.out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_picture("JPEG") if content is None else content)
        self.service.start()

    def save(self, to: Path) -> None:
        """Keeps everything as it is now; the service is stopped for that, and goes on."""
        self.service.stop()
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(self.root, to, symlinks=True)
        self.service.start()

    def load(self, saved: Path) -> None:
        """Everything as it was kept."""
        self.service.stop()
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(saved, self.root, symlinks=True)
        self.service.start()

    def close(self) -> None:
        """Ends the service and takes the folder away."""
        self.service.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    def start(self, verb: str, *options: str, blow: Blow | None = None) -> Child:
        """Starts a command on the job."""
        return fork([verb, str(self.job), *options], blow=blow, before=self.before, **self._around())

    def call(self, verb: str, *options: str, blow: Blow | None = None) -> Ended:
        """A command from its start to its end."""
        if blow is None and self.before is None:
            return here([verb, str(self.job), *options], **self._around())
        return self.start(verb, *options, blow=blow).wait()

    def _around(self) -> dict[str, Any]:
        self._number += 1
        environment = {"APIMART_API_KEY": KEY, "APIMART_BASE_URL": self.service.url, **self.environment}
        return {"folder": self.folder, "log": self.root / "logs" / f"{self._number}", "environment": environment}

    def manifest(self) -> Manifest:
        """What the manifest says now."""
        return Manifest.read(self.out)

    def allow(self, bills: int) -> None:
        """A person allowed so many further bills."""
        self.allowed = replace(self.allowed, bills=self.allowed.bills + bills)

    def allow_gone(self, *paths: str) -> None:
        """These files are deleted on purpose."""
        self.allowed = replace(self.allowed, gone=self.allowed.gone | set(paths))

    def violations(self, ledger: list[dict[str, Any]] | None = None, *, search: bool = True) -> list[str]:
        """What is wrong at this moment.

        `ledger` is what the service says now, if it was asked already. Files are searched for the key with `search`.
        """
        charges = self.service.ledger() if ledger is None else ledger
        wrong = oracle.always(self.manifest(), charges, self.out, self.allowed) + _foreign(self.out)
        return wrong + (oracle.secrets(self.root, KEY) if search else [])

    def finish(self, reference: Pictures | None = None, most: int = 12) -> list[str]:
        """Runs until a run finds nothing to do; what is wrong then, I6 included.

        `reference` is what a run that was not disturbed leaves: the pictures have to be the same (I7), except those
        of tasks that are in doubt, failed or lost.
        """
        done = self._converge(most)
        if isinstance(done, str):
            return [done, *self.violations()]
        wrong = self.violations() + oracle.leftovers(self.out)
        before = self.service.requests()
        again = self.call("run", "--quiet")
        # Lost tasks are polled by each run, which is free; a few times each.
        lost = sum(task["state"] == "lost" for task in self.manifest().tasks)
        if (asked := self.service.requests() - before) > POLLS_OF_LOST * lost:
            wrong.append(f"I6 one more run made {asked} requests")
        if again.code != done.code:
            wrong.append(f"I6 one more run left {again.code} after {done.code}: {again.err}")
        return wrong + _crashed(again) + self._same(reference)

    def stuck(self) -> bool:
        """Whether tasks stay at work, run after run."""
        accepted = (0, 0)
        for _ in range(3):
            before, accepted = accepted, (self.call("run", "--quiet").code, self.manifest().states()["accepted"])
            if accepted[0] != 7 or not accepted[1]:
                return False
        return accepted == before

    def _converge(self, most: int) -> Ended | str:
        before = ""
        for _ in range(most):
            done = self.call("run", "--quiet")
            if wrong := _crashed(done):
                return wrong[0]
            now = str(sorted(self.manifest().states().items()))
            # In doubt and held, or failed for good: the code stays, and so do the states.
            if done.code in {0, 9} or (done.code in {3, 4} and now == before):
                return done
            before = now
        return f"I6 {most} runs did not end it: {done.code} {now} {done.err[-300:]}"

    def _same(self, reference: Pictures | None) -> list[str]:
        manifest = self.manifest()
        there = oracle.pictures(self.out)
        wanted, absent = set(), set()
        for task in manifest.tasks:
            if task["ordinal"] is not None:
                names = picture_names(json.loads(task["paths"]), task["images"])
                (wanted if task["state"] == "succeeded" else absent).update(names)
        wrong = [f"I7 {name} is missing" for name in wanted - set(there)]
        wrong += [f"I7 {name} is there, and its task has not succeeded" for name in absent & set(there)]
        if reference is not None:
            expected = {name: pixels for name, pixels in reference.items() if name not in absent}
            wrong += [f"I7 {name} is missing" for name in expected.keys() - there.keys() - wanted]
            wrong += [f"I7 {name} should not be there" for name in there.keys() - expected.keys()]
            wrong += [
                f"I7 {name} is {there[name]}"
                for name in there.keys() & expected.keys()
                if there[name] != expected[name]
            ]
        return wrong


def picture_names(paths: list[str], images: int) -> list[str]:
    """The names of a task's pictures; the paths of the job's templates do not use `index`."""
    return [f"{paths[0]}.jpg"] if images == 1 else [f"{paths[0]}-{index}.jpg" for index in range(1, images + 1)]


def _crashed(ended: Ended) -> list[str]:
    if "Traceback" in ended.err or ended.code == 1:
        return [f"a bug: exit {ended.code}: {ended.err[-1500:]}"]
    return []


def _foreign(out: Path) -> list[str]:
    wrong = []
    for name, content in FOREIGN.items():
        path = out / name
        data = _picture("JPEG") if content is None else content
        if not path.exists():
            wrong.append(f"I8 {name} is gone")
        elif path.read_bytes() != data:
            wrong.append(f"I8 {name} was changed")
    return wrong


@cache
def _picture(form: str) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (32, 32), "teal").save(data, form)
    return data.getvalue()
