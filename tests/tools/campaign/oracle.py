"""What has to hold whatever happened: judged from the disk and the service's ledger, with no code of the program.

I1  at most one bill for a key; for a task, one plus what a person allowed
I2  every bill belongs to an attempt that has its task id, or that is told as in doubt
I3  the ledger is never above what was spent and is reserved, and that never above the budget
I4  what is stored is whole: size, hash, and it decodes; nothing partial under a final name
I5  states move along the declared edges only, and each move begins where the last one ended
I6  what is done makes no request when it is run again
I7  a run that was cut off and finished has the files of one that was not, those in doubt aside
I8  a file that the job did not make is not touched
I9  the API key is in no byte on the disk, and in nothing that is printed
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sqlite3
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

MICRO = 1_000_000

# Written down a second time on purpose: an edge that is added to the code has to be added here, too.
TASK_EDGES = {
    ("planned", "submitting"),
    ("planned", "succeeded"),
    ("submitting", "accepted"),
    ("submitting", "planned"),
    ("submitting", "failed"),
    ("submitting", "uncertain"),
    ("accepted", "succeeded"),
    ("accepted", "failed"),
    ("accepted", "lost"),
    ("failed", "planned"),
    ("lost", "accepted"),
    ("lost", "planned"),
    ("uncertain", "accepted"),
    ("uncertain", "planned"),
    ("uncertain", "failed"),
    ("succeeded", "planned"),
}
IMAGE_EDGES = {
    ("announced", "stored"),
    ("announced", "rejected"),
    ("announced", "expired"),
    ("stored", "missing"),
    ("missing", "stored"),
    ("missing", "announced"),
    ("expired", "announced"),
    ("rejected", "announced"),
}
IN_DOUBT = {"open", "uncertain", "lost", "given up", "forgotten"}
"""Outcomes of an attempt that may have been billed without a task id being known."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What the scenario allows beyond the rule."""

    bills: int = 0
    """Further bills that persons allowed, in all."""
    keys_honoured: bool = True
    cap: int | None = None
    """The budget in millionths of a USD."""
    gone: frozenset[str] = frozenset()
    """Files that somebody deleted, or told the program to: the manifest may not know of it yet."""


@dataclass(slots=True)
class Manifest:
    """Everything that a manifest says, read from a copy of its files, so that looking changes nothing."""

    tasks: list[dict[str, Any]] = field(default_factory=list)
    attempts: list[dict[str, Any]] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    totals: dict[str, Any] = field(default_factory=dict)
    uploads: int = 0
    version: int = 0
    rescued: tuple[str, ...] = ()
    """Task ids in the side file."""
    damage: str = ""

    @classmethod
    def read(cls, out: Path) -> Manifest:
        """The manifest of an output folder; empty where there is none yet."""
        manifest = cls(rescued=_rescued(out / "manifest.rescue"))
        with tempfile.TemporaryDirectory(dir=out.parent.parent) as copy:
            for name in ("manifest.db", "manifest.db-wal"):
                if (out / name).exists():
                    shutil.copy(out / name, copy)
            path = Path(copy, "manifest.db")
            if not path.exists():
                return manifest
            connection = sqlite3.connect(path)
            connection.row_factory = sqlite3.Row
            try:
                manifest._fill(connection)
            finally:
                connection.close()
        return manifest

    def _fill(self, connection: sqlite3.Connection) -> None:
        told = connection.execute("PRAGMA integrity_check").fetchone()[0]
        self.damage = "" if told == "ok" else str(told)
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "tasks" not in tables:
            return
        for name in ("tasks", "attempts", "images", "events", "runs", "answers"):
            if name not in tables:
                continue
            order = " ORDER BY id" if name in {"events", "runs", "answers"} else ""
            getattr(self, name).extend(dict(row) for row in connection.execute(f"SELECT * FROM {name}{order}"))
        self.uploads = connection.execute("SELECT count(*) FROM uploads").fetchone()[0]
        self.version = connection.execute("PRAGMA user_version").fetchone()[0]
        self.totals = dict(connection.execute("SELECT * FROM totals").fetchone())

    def states(self) -> Counter[str]:
        """How many tasks of the job are in each state."""
        return Counter(task["state"] for task in self.tasks if task["ordinal"] is not None)


def _rescued(path: Path) -> tuple[str, ...]:
    if not path.exists():
        return ()
    found: list[str] = []
    for line in path.read_bytes().split(b"\0", 1)[0].split(b"\n")[:-1]:
        try:
            found += json.loads(line)["task_ids"]
        except (ValueError, KeyError, TypeError):
            continue
    return tuple(found)


def always(manifest: Manifest, ledger: list[dict[str, Any]], out: Path, allowed: Allowed) -> list[str]:
    """Violations of what holds at any moment, also right after a kill: I1 to I5."""
    wrong = [f"I4 the manifest is damaged: {manifest.damage}"] if manifest.damage else []
    wrong += _bills(manifest, ledger, allowed)
    wrong += _money(manifest, ledger, allowed)
    wrong += _files(manifest, out, allowed)
    wrong += _edges(manifest.events)
    return wrong


def _task_of(key: str) -> str:
    """The part of a key that names the task."""
    return "-".join(key.split("-")[:3])


def _bills(manifest: Manifest, ledger: list[dict[str, Any]], allowed: Allowed) -> list[str]:
    wrong = []
    charges = [entry for entry in ledger if entry["event"] == "charge"]
    back = {entry["task_id"] for entry in ledger if entry["event"] == "refund"}
    keys = Counter(charge["key"] for charge in charges)
    if allowed.keys_honoured:
        wrong += [f"I1 {number} bills for the key {key}" for key, number in keys.items() if number > 1]
    kept = Counter(_task_of(charge["key"] or "") for charge in charges if charge["task_id"] not in back)
    twice = sum(number - 1 for number in kept.values())
    if twice > allowed.bills:
        wrong.append(f"I1 {twice} bills more than tasks, {allowed.bills} were allowed: {dict(kept)}")
    outcomes = {attempt["key"]: attempt["outcome"] for attempt in manifest.attempts}
    known = set(manifest.rescued)
    for attempt in manifest.attempts:
        known |= set(json.loads(attempt["task_ids"] or "[]"))
    for charge in charges:
        if charge["key"] not in outcomes:
            wrong.append(f"I2 a bill without an intent: {charge['key']}")
        elif charge["task_id"] not in known and outcomes[charge["key"]] not in IN_DOUBT:
            wrong.append(f"I2 the bill {charge['task_id']} is known nowhere; its attempt {outcomes[charge['key']]}")
    return wrong


def _money(manifest: Manifest, ledger: list[dict[str, Any]], allowed: Allowed) -> list[str]:
    wrong = []
    billed = sum(round(entry["usd"] * MICRO) for entry in ledger)
    totals = manifest.totals or {"cost": 0, "reserved": 0, "images": 0, "reserved_images": 0}
    counted = totals["cost"] + totals["reserved"]
    if billed > counted:
        wrong.append(f"I3 the service billed {billed}, the manifest counts {counted}")
    if allowed.cap is not None and counted > allowed.cap:
        wrong.append(f"I3 {counted} is counted, the budget is {allowed.cap}")
    for name in totals:
        if name == "only":
            continue
        summed = sum(attempt[name] for attempt in manifest.attempts)
        if summed != totals[name]:
            wrong.append(f"I3 the total of {name} is {totals[name]}, its attempts have {summed}")
    return wrong


def _files(manifest: Manifest, out: Path, allowed: Allowed) -> list[str]:
    wrong = []
    for image in manifest.images:
        if image["state"] != "stored":
            continue
        places = [out / image["path"]] + ([out / image["via"]] if image["via"] else [])
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            if image["path"] not in allowed.gone:
                wrong.append(f"I4 {image['path']} is stored and not there")
            continue
        data = path.read_bytes()
        if len(data) != image["bytes"] or hashlib.sha256(data).hexdigest() != image["sha256"]:
            wrong.append(f"I4 {image['path']} is stored with other bytes")
        elif (told := _pixels(data)) != (image["width"], image["height"]):
            wrong.append(f"I4 {image['path']} is stored as {image['width']} x {image['height']}, but {told}")
    bad = {name: told for name, told in pictures(out).items() if isinstance(told, str)}
    return wrong + [f"I4 {name} is no whole picture: {told}" for name, told in bad.items()]


def _pixels(data: bytes) -> tuple[int, int] | str:
    digest = hashlib.sha256(data).digest()
    if digest not in _DECODED:
        try:
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                _DECODED[digest] = image.size
        except Exception as error:
            _DECODED[digest] = str(error)
    return _DECODED[digest]


_DECODED: dict[bytes, tuple[int, int] | str] = {}
"""What pictures are, by their hash: the same ones are judged after every command."""


def _edges(events: Iterable[Mapping[str, Any]]) -> list[str]:
    wrong = []
    at: dict[tuple[int, int | None], str] = defaultdict(str)
    for event in events:
        edges = TASK_EDGES if event["image"] is None else IMAGE_EDGES
        move = (event["old"], event["new"])
        corrected = event["old"] == event["new"] and event["why"].startswith("cost of attempt")
        if move not in edges and not corrected:
            wrong.append(f"I5 {event['old']} -> {event['new']} is no edge ({event['why']})")
        what = (event["task"], event["image"])
        if at[what] and at[what] != event["old"]:
            wrong.append(f"I5 {what} was {at[what]} and left {event['old']}")
        at[what] = event["new"]
    return wrong


def pictures(out: Path) -> dict[str, tuple[int, int] | str]:
    """The pictures of an output folder by path, with their pixels."""
    return {
        path.relative_to(out).as_posix(): _pixels(path.read_bytes())
        for path in sorted(out.rglob("*"))
        if path.suffix in {".jpg", ".png"} and path.is_file()
    }


def leftovers(out: Path) -> list[str]:
    """Names that a finished run does not leave behind."""
    found = [path for path in out.rglob("*") if path.name.startswith(".seedream-") or path.name == "manifest.rescue"]
    return [f"I7 {path.relative_to(out)} is left behind" for path in found]


def secrets(folder: Path, secret: str) -> list[str]:
    """I9: files below the folder that hold the secret, in any of its simple codings."""
    import base64

    forms = [secret.encode(), secret.encode("utf-16-le"), base64.b64encode(secret.encode())[:-4]]
    forms.append(secret.encode().hex().encode())
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            found += [f"I9 the key is in {path.relative_to(folder)}"] if any(form in data for form in forms) else []
    return found
