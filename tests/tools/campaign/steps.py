"""Steps of a person and of chance on one job: commands, kills, faults, edits of the job, and changes of files.

A `Walk` is a world with what its oracle has to know: what a person authorised to be bought again, and which bytes in
the output folder are a person's own. Every step is a name and a seed, so that a sequence can be played again, also
with some of its steps left out.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import in_state
from forge import Ended
from oracle import IN_DOUBT, Manifest
from PIL import Image
from settle import CODES, crashed, settle
from shim import Blow, Strike
from world import CAP, VARIANTS, World

JOB = """\
version: 1
name: walk
matrix:
  subject:
SUBJECTS
request:
  prompt: "{{ subject.text }}, watercolour"
  image_urls: [ref.png]
  n: "{{ subject.n }}"
output: {dir: out, path: "PATH"}
budget: {max_cost_usd: BUDGET}
run: {on_unknown: ON_UNKNOWN, attempts: 2, max_in_flight: IN_FLIGHT}
"""

NAMES = ("panda", "fox", "hare", "owl", "pair", "crow")
_ROUND = {name: NAMES[(at + 1) % len(NAMES)] for at, name in enumerate(NAMES)}
PATHS = (
    "{{ subject.id }}/picture",
    "all/{{ subject.id }}",
    "{{ subject.id }}",
    "deep/{{ subject.id }}/{{ subject.id }}",
    # Every picture has the place that another one has under the first template.
    f"{{{{ {_ROUND}[subject.id] }}}}/picture",
)


@dataclass(frozen=True, slots=True)
class Subject:
    """A line of the job."""

    name: str
    n: int = 1
    version: int = 1
    label: int = 1

    def line(self) -> str:
        """The line in YAML."""
        text = f"a {self.name}, drawing {self.version}"
        return f"    - {{id: {self.name}, text: '{text}', n: {self.n}, label: 'l{self.label}'}}"


@dataclass(slots=True)
class Draft:
    """The job as a person has it in the editor."""

    subjects: list[Subject] = field(
        default_factory=lambda: [Subject(name, 2 if name == "pair" else 1) for name in NAMES[:5]]
    )
    path: str = PATHS[0]
    budget: str = "5"

    def text(self) -> str:
        """The job file."""
        lines = "\n".join(subject.line() for subject in self.subjects)
        return JOB.replace("SUBJECTS", lines).replace("PATH", self.path).replace("BUDGET", self.budget)


Content = tuple[str, bytes | str]
"""What a person put somewhere: a file or a folder with its bytes, or a link with its target."""


class Walk:
    """One world, one draft, and what the oracle has to know."""

    def __init__(self, root: Path, port: int, variant: str = "trusted") -> None:
        self.world = World(root / "world", port, VARIANTS[variant])
        self.draft = Draft()
        self.own: dict[str, Content] = {}
        """What a person put into the output folder, by path."""
        self.kept: dict[str, bytes] = {}
        """Pictures that a person took away, by the path they had."""
        self.back: set[str] = set()
        """Where a person put such a picture back."""
        self.gone: set[str] = set()
        self.again: Counter[str] = Counter()
        """Purchases that a person authorised beyond the first, by prompt."""
        self.calm = False
        """Whether commands are left alone, instead of being killed now and then."""
        self.wrong: list[str] = []
        self._billed = 0
        self._outside = root / "outside"

    @property
    def out(self) -> Path:
        """The output folder."""
        return self.world.out

    def open(self) -> None:
        """A fresh world."""
        shutil.rmtree(self._outside, ignore_errors=True)
        self._outside.mkdir(parents=True)
        self.world.make(self.draft.text())
        context = importlib.import_module("seedream_batch.engine.service_health")
        context.OUTAGE_LIMIT = context.LIMITED_LIMIT = 0.5  # type: ignore[attr-defined]

    def close(self) -> None:
        """Ends the service and takes everything away."""
        self.world.close()
        shutil.rmtree(self._outside, ignore_errors=True)

    def save(self) -> None:
        """Writes the job file as the draft has it."""
        variant = self.world.variant
        text = self.draft.text().replace("ON_UNKNOWN", variant.on_unknown)
        self.world.job.write_text(text.replace("IN_FLIGHT", str(variant.in_flight)))

    def command(self, *arguments: str, blow: Blow | None = None, codes: set[int] = CODES) -> Ended:
        """A command from start to end, and the oracle after it."""
        try:
            ended = self.world.call(*arguments, blow=blow)
        except TimeoutError as error:
            self.wrong.append(f"{' '.join(arguments)}: {error}")
            return Ended(-1, 0, "", "")
        failed = blow is not None and blow.how is not Strike.KILL
        # Some commands refuse a job that has not been run, or whose first run was killed before it wrote anything.
        never = {2, 8} if ended.code in {2, 8} and not self.world.manifest().version else set()
        told = crashed(ended, codes | ({8} if failed or self.own else set()) | never)
        self.wrong += [f"{' '.join(arguments)}: {one}" for one in told]
        if arguments[0] not in {"plan", "status"}:
            self.judge(search=False)
        return ended

    def authorise(self, manifest: Manifest, tasks: set[int]) -> None:
        """A person allowed that these tasks are bought again."""
        for task in manifest.tasks:
            if task["id"] in tasks:
                self.again[_prompt(task)] += 1
        self.world.allow(len(tasks))

    def judge(self, *, search: bool = True) -> None:
        """What is wrong now; files are searched for the key with `search`."""
        self.gone = {path for path in self.gone if not (self.out / path).exists()}
        self.world.allowed = replace(self.world.allowed, gone=frozenset(self.gone) | frozenset(self.own))
        touched = tuple(f"I4 {path} " for path in self.own)
        ledger = self.world.service.ledger()
        self.wrong += [one for one in self.world.violations(ledger, search=search) if not one.startswith(touched)]
        self.wrong += self._own_bytes() + self._bills(ledger)

    def _own_bytes(self) -> list[str]:
        """I8 for what a person put there."""
        return [
            f"I8 {path}, a {content[0]} of a person, was changed or taken away"
            for path, content in self.own.items()
            if _content(self.out / path) != content
        ]

    def _bills(self, ledger: list[dict[str, Any]]) -> list[str]:
        """Bills by prompt: an edit that changes no request must not buy, and the budget is a limit for what is new."""
        refunded = {entry["task_id"] for entry in ledger if entry["event"] == "refund"}
        bought: Counter[str] = Counter()
        for entry in ledger:
            if entry["event"] == "charge" and entry["task_id"] not in refunded:
                bought[f"{entry['request']['prompt']} x {entry['images']}"] += 1
        wrong = [
            f"I1 {prompt!r} was bought {number} times, {self.again[prompt]} more were authorised"
            for prompt, number in bought.items()
            if number > 1 + self.again[prompt]
        ]
        billed = sum(round(entry["usd"] * 1_000_000) for entry in ledger)
        if billed > self._billed and billed > float(self.draft.budget) * 1_000_000:
            wrong.append(f"I3 {billed} was billed, the budget is {self.draft.budget} USD")
        self._billed = billed
        return wrong

    def pictures(self) -> list[str]:
        """The stored pictures that are in their places, by path."""
        return sorted(
            image["path"]
            for image in self.world.manifest().images
            if image["state"] == "stored" and image["path"] not in self.own and (self.out / image["path"]).is_file()
        )

    def put(self, path: str, content: Content) -> None:
        """A person puts something into the output folder, over what is there."""
        place = self.out / path
        self.take_away(path)
        if place.exists() or place.is_symlink() or any(parent.is_file() for parent in place.parents):
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        kind, what = content
        if kind == "file":
            place.write_bytes(what if isinstance(what, bytes) else what.encode())
        elif kind == "folder":
            place.mkdir()
            (place / "inner.txt").write_bytes(what if isinstance(what, bytes) else what.encode())
        else:
            target = self._outside / str(what)
            target.write_bytes(_picture("purple"))
            place.symlink_to(target)
        self.own[path] = content
        self.gone.add(path)

    def take_away(self, path: str) -> None:
        """A person takes away what is at a path, and keeps it, if it is a picture of the job."""
        place = self.out / path
        own = self.own.pop(path, None)
        if place.is_symlink() or place.is_file():
            if own is None:
                self.kept[path] = place.read_bytes()
            place.unlink()
        elif place.is_dir() and own is not None:
            shutil.rmtree(place)
        self.gone.add(path)

    def end(self) -> None:
        """Calms everything down, and brings the job to its end: everything has to come back for free."""
        self.world.service.set_faults([])
        self.draft.budget = "50"
        self.world.allowed = replace(self.world.allowed, cap=10 * CAP)
        self.save()
        manifest = self.world.manifest()
        stored = {image["path"] for image in manifest.images if image["state"] == "stored"}
        # A picture of an earlier prompt that was put back may be in the way of the new one.
        for path in [*self.own, *(self.back - stored - self.own.keys())]:
            self.take_away(path)
        self.judge()
        self.authorise(manifest, _given_up(manifest))
        try:
            told = settle(self.world)
        except TimeoutError as error:
            told = [str(error)]
        self.wrong += [f"at the end: {one}" for one in told]
        self.judge()


def _given_up(manifest: Manifest) -> set[int]:
    """Failed tasks that may have been paid for: a person gave them up, and buys them again with `retry`."""
    doubtful = {one["task"] for one in manifest.attempts if one["outcome"] in IN_DOUBT}
    return in_state(manifest, "failed") & doubtful


def _prompt(task: dict[str, Any]) -> str:
    import json

    body = json.loads(task["body"])
    return f"{body['prompt']} x {task['images']}"


def _content(place: Path) -> Content | None:
    if place.is_symlink():
        return "link", place.readlink().name if place.exists() else ""
    if place.is_dir():
        inner = place / "inner.txt"
        return "folder", inner.read_bytes() if inner.exists() else b""
    return ("file", place.read_bytes()) if place.exists() else None


def _picture(colour: str) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(data, "JPEG")
    return data.getvalue()


STEPS: dict[str, tuple[int, Callable[[Walk, random.Random], None]]] = {}
"""Every step by its name, with its weight."""


def _step(weight: int) -> Callable[[Callable[[Walk, random.Random], None]], Callable[[Walk, random.Random], None]]:
    def register(take: Callable[[Walk, random.Random], None]) -> Callable[[Walk, random.Random], None]:
        STEPS[take.__name__.replace("_", " ")] = weight, take
        return take

    return register


# Commands.


def _blow(walk: Walk, dice: random.Random) -> Blow | None:
    """Now and then a kill at a call, more rarely a disk call that fails."""
    chance = 1.0 if walk.calm else dice.random()
    if chance < 0.25:
        return Blow(dice.randrange(1, 350), Strike.KILL)
    if chance < 0.29:
        return Blow(dice.randrange(1, 120), Strike.FAIL_ONE, error=dice.choice((5, 28)), kinds=1)
    return None


@_step(12)
def run(walk: Walk, dice: random.Random) -> None:
    walk.command("run", "--quiet", "--max-duration", "2s", blow=_blow(walk, dice))


@_step(3)
def run_a_part(walk: Walk, dice: random.Random) -> None:
    walk.command("run", "--max-duration", "2s", "--limit", str(dice.randrange(3)), blow=_blow(walk, dice))


@_step(3)
def submit_only(walk: Walk, dice: random.Random) -> None:
    walk.command("run", "--submit-only", "--max-duration", "2s", blow=_blow(walk, dice))


@_step(2)
def collect(walk: Walk, dice: random.Random) -> None:
    walk.command("run", "--collect", "--max-duration", "2s", blow=_blow(walk, dice))


@_step(3)
def verify(walk: Walk, dice: random.Random) -> None:
    walk.command("verify", *(("--deep",) if dice.random() < 0.3 else ()), blow=_blow(walk, dice))


@_step(1)
def plan(walk: Walk, _: random.Random) -> None:
    walk.command("plan", codes=CODES | {8})


@_step(1)
def status(walk: Walk, _: random.Random) -> None:
    walk.command("status")


@_step(3)
def retry(walk: Walk, dice: random.Random) -> None:
    manifest = walk.world.manifest()
    walk.authorise(manifest, in_state(manifest, "lost") | _given_up(manifest))
    walk.command("retry", blow=_blow(walk, dice))


@_step(1)
def retry_what_is_missing(walk: Walk, dice: random.Random) -> None:
    manifest = walk.world.manifest()
    walk.authorise(manifest, {i["task"] for i in manifest.images if i["state"] not in {"stored", "announced"}})
    walk.command("retry", "--missing", blow=_blow(walk, dice))


@_step(2)
def resolve(walk: Walk, dice: random.Random) -> None:
    how = dice.choice(("--resend", "--forget", "--give-up"))
    if how == "--resend" and not walk.world.variant.honour_keys:
        # The second bill under one key would be the person's own doing, and nobody could tell the two apart.
        how = "--give-up"
    manifest = walk.world.manifest()
    if how == "--forget":
        # What a killed command left in the middle is in doubt, too, once the next one has begun.
        walk.authorise(manifest, in_state(manifest, "uncertain", "submitting"))
    walk.command("resolve", how, blow=_blow(walk, dice))


@_step(1)
def prune(walk: Walk, dice: random.Random) -> None:
    manifest = walk.world.manifest()
    prompts = {f"{_text(subject)} x {subject.n}" for subject in walk.draft.subjects}
    # A cell that comes back after that is bought again, as documented.
    walk.authorise(manifest, {task["id"] for task in manifest.tasks if _prompt(task) not in prompts})
    walk.gone |= set(walk.pictures())
    walk.command("prune", "--yes", blow=_blow(walk, dice))


def _text(subject: Subject) -> str:
    return f"a {subject.name}, drawing {subject.version}, watercolour"


# The service.

FAULTS: tuple[dict[str, Any], ...] = (
    {"on": "any", "action": "reset_before"},
    {"on": "any", "action": "reset_after"},
    {"on": "submit", "action": "reset_after_bill"},
    {"on": "submit", "action": "status", "status": 502, "at": "after_bill", "body": "html"},
    {"on": "submit", "action": "status", "status": 500},
    {"on": "submit", "action": "status", "status": 403, "body": "html"},
    {"on": "submit", "action": "status", "status": 400},
    {"on": "submit", "action": "no_task_id"},
    {"on": "submit", "action": "rate_limit", "retry_after": "0.05"},
    {"on": "submit", "action": "idempotency", "code": "unavailable", "retry_after": "0.05"},
    {"on": "submit", "action": "fail"},
    {"on": "submit", "action": "never_end"},
    {"on": "poll", "action": "status", "status": 503, "body": "html"},
    {"on": "poll", "action": "garbage_body"},
    {"on": "poll", "action": "not_found"},
    {"on": "poll", "action": "unknown_status"},
    {"on": "image", "action": "truncated_image"},
    {"on": "image", "action": "html_200"},
    {"on": "image", "action": "short_length"},
    {"on": "image", "action": "expired"},
    {"on": "image", "action": "status", "status": 404},
    {"on": "upload", "action": "status", "status": 503},
    {"on": "balance", "action": "garbage_body"},
)


@_step(5)
def faults(walk: Walk, dice: random.Random) -> None:
    rules = [{**rule, "count": dice.choice((1, 2, 5))} for rule in dice.sample(FAULTS, dice.choice((1, 2, 3)))]
    # A task that never ends keeps its deadline of half an hour, which no walk waits for.
    walk.world.service.set_faults([rule for rule in rules if rule["action"] != "never_end" or rule["count"] == 0])


@_step(3)
def no_faults(walk: Walk, _: random.Random) -> None:
    walk.world.service.set_faults([])


@_step(1)
def restart_the_service(walk: Walk, _: random.Random) -> None:
    walk.world.service.stop()
    walk.world.service.start()


# The job.


def _change_subject(walk: Walk, dice: random.Random, change: Callable[[Subject], Subject]) -> None:
    if walk.draft.subjects:
        at = dice.randrange(len(walk.draft.subjects))
        walk.draft.subjects[at] = change(walk.draft.subjects[at])
        walk.save()


@_step(4)
def edit_a_prompt(walk: Walk, dice: random.Random) -> None:
    version = dice.randrange(1, 4)
    _change_subject(walk, dice, lambda subject: replace(subject, version=version))


@_step(3)
def edit_a_label(walk: Walk, dice: random.Random) -> None:
    _change_subject(walk, dice, lambda subject: replace(subject, label=subject.label + 1))


@_step(1)
def edit_a_number(walk: Walk, dice: random.Random) -> None:
    n = dice.randrange(1, 4)
    _change_subject(walk, dice, lambda subject: replace(subject, n=n))


@_step(4)
def edit_the_path(walk: Walk, dice: random.Random) -> None:
    walk.draft.path = dice.choice(PATHS)
    walk.save()


@_step(3)
def edit_the_order(walk: Walk, dice: random.Random) -> None:
    dice.shuffle(walk.draft.subjects)
    walk.save()


@_step(3)
def drop_a_subject(walk: Walk, dice: random.Random) -> None:
    if len(walk.draft.subjects) > 2:
        walk.draft.subjects.pop(dice.randrange(len(walk.draft.subjects)))
        walk.save()


@_step(3)
def add_a_subject(walk: Walk, dice: random.Random) -> None:
    there = {subject.name for subject in walk.draft.subjects}
    if missing := [name for name in NAMES if name not in there]:
        name = dice.choice(missing)
        walk.draft.subjects.insert(dice.randrange(len(there) + 1), Subject(name, 2 if name == "pair" else 1))
        walk.save()


@_step(1)
def edit_the_budget(walk: Walk, dice: random.Random) -> None:
    walk.draft.budget = dice.choice(("0.1", "0.5", "5", "5", "5"))
    walk.save()


@_step(1)
def write_the_job_anew(walk: Walk, _: random.Random) -> None:
    """The same job with other line endings and a comment."""
    walk.save()
    text = "# edited\n" + walk.world.job.read_text()
    walk.world.job.write_bytes(text.replace("\n", "\r\n").encode())


# Files.


def _one(walk: Walk, dice: random.Random) -> str | None:
    there = walk.pictures()
    return dice.choice(there) if there else None


@_step(4)
def delete_a_picture(walk: Walk, dice: random.Random) -> None:
    if path := _one(walk, dice):
        walk.take_away(path)
        walk.kept.pop(path, None)


@_step(4)
def take_a_picture_away(walk: Walk, dice: random.Random) -> None:
    if path := _one(walk, dice):
        walk.take_away(path)


@_step(4)
def bring_a_picture_back(walk: Walk, dice: random.Random) -> None:
    """To where it was; where something else is by now, it stays away."""
    if walk.kept:
        path = dice.choice(sorted(walk.kept))
        place = walk.out / path
        if not place.exists() and not place.is_symlink() and not any(parent.is_file() for parent in place.parents):
            data = walk.kept.pop(path)
            if hashlib.sha256(data).hexdigest() not in {image["sha256"] for image in walk.world.manifest().images}:
                # `prune` forgot it, so it is a file like any other by now.
                walk.put(path, ("file", data))
                return
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
            walk.back.add(path)


@_step(3)
def replace_by_another_picture(walk: Walk, dice: random.Random) -> None:
    if path := _one(walk, dice):
        walk.put(path, ("file", _picture(dice.choice(("red", "green", "blue")))))


@_step(2)
def edit_in_place(walk: Walk, dice: random.Random) -> None:
    if path := _one(walk, dice):
        walk.put(path, ("file", (walk.out / path).read_bytes() + b"edited"))


@_step(2)
def replace_by_a_folder(walk: Walk, dice: random.Random) -> None:
    if path := _one(walk, dice):
        walk.put(path, ("folder", b"mine"))


@_step(2)
def replace_by_a_link(walk: Walk, dice: random.Random) -> None:
    if path := _one(walk, dice):
        walk.put(path, ("link", f"target-{dice.randrange(1000)}"))


@_step(2)
def put_something_where_a_picture_goes(walk: Walk, dice: random.Random) -> None:
    path = dice.choice(PATHS[:4]).replace("{{ subject.id }}", dice.choice(NAMES)) + ".jpg"
    place = walk.out / path
    if not place.exists() and not place.is_symlink():
        walk.put(path, ("file", _picture("white")))


@_step(2)
def copy_a_picture(walk: Walk, dice: random.Random) -> None:
    if path := _one(walk, dice):
        walk.put(f"copies/{path}", ("file", (walk.out / path).read_bytes()))


@_step(4)
def take_back_what_was_put(walk: Walk, dice: random.Random) -> None:
    """A person removes a thing of theirs, and puts the picture back that was there."""
    if walk.own:
        path = dice.choice(sorted(walk.own))
        walk.take_away(path)
        if path in walk.kept and dice.random() < 0.7 and not (walk.out / path).exists():
            (walk.out / path).write_bytes(walk.kept.pop(path))
            walk.back.add(path)


@_step(1)
def touch_a_picture(walk: Walk, dice: random.Random) -> None:
    if path := _one(walk, dice):
        os.utime(walk.out / path, (1_000_000_000, 1_000_000_000))


def take(walk: Walk, name: str, seed: int) -> None:
    """Takes one step."""
    STEPS[name][1](walk, random.Random(seed))


def drawn(seed: int, number: int) -> list[tuple[str, int]]:
    """So many steps, by a seed."""
    dice = random.Random(f"walk {seed}")
    names, weights = list(STEPS), [weight for weight, _ in STEPS.values()]
    return [(name, dice.randrange(1 << 30)) for name in dice.choices(names, weights, k=number)]
