"""What would be left if the power went at any moment of a run, by the calls that strace saw.

A kill leaves everything that was written; the power takes what was not synced. So the disk is built anew from the
trace, once with everything and once with only what a sync has made durable, and judged by the rules of order:

- an intent is durable before its POST leaves, under the key of that POST, and so is the file that is to take its
  task id if the manifest cannot;
- a task id is durable before the service is asked for it, and the link of an image before it is fetched;
- a file is durable, its name included, before the manifest may say that it is stored.

The rules hold for a command from a disk that has synced everything, and for what is done after one that was killed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Self

from oracle import Allowed, Manifest
from scenarios import SCENARIOS
from syscalls import Call, Traced, descriptor, strings, traced
from world import KEY, World

TRIES = 5
"""How often a kill is tried again after one of which it is not known what it left."""


@dataclass(slots=True)
class _File:
    """Bytes, as written and as synced."""

    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""


class Disk:
    """A model of the disk below one folder: names and bytes, each as they are and as they would survive."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.names: dict[str, _File] = {}
        self.durable_names: dict[str, _File] = {}
        self.folders: set[str] = set()
        self.durable_folders: set[str] = set()
        for path in [root, *root.rglob("*")]:
            if path.is_dir():
                self.folders.add(str(path))
            else:
                self.names[str(path)] = _File(bytearray(path.read_bytes()), path.read_bytes())
        self.durable_names = dict(self.names)
        self.durable_folders = set(self.folders)

    def apply(self, call: Call) -> None:
        """The effect of a finished call."""
        act: Callable[[Call], None] | None = getattr(self, f"_{call.name}", None)
        if act is not None and not call.failed:
            act(call)

    def survivors(self, *, durable: bool) -> dict[str, bytes]:
        """Files by path; with `durable` only what the power leaves."""
        if not durable:
            return {path: bytes(file.data) for path, file in self.names.items()}
        return {
            path: file.durable
            for path, file in self.durable_names.items()
            if str(PurePosixPath(path).parent) in self.reachable()
        }

    def reachable(self) -> set[str]:
        """Folders whose own names, and those of the folders above them, are durable."""
        found = set()
        for folder in self.durable_folders:
            above = [str(one) for one in PurePosixPath(folder).parents if str(one).startswith(self.root)]
            if all(one in self.durable_folders for one in above):
                found.add(folder)
        return found

    def _openat(self, call: Call) -> None:
        if "O_CREAT" not in call.text and "O_TRUNC" not in call.text:
            return
        path = self._named(call, 0)
        if path is None:
            return
        file = self.names.setdefault(path, _File())
        if "O_TRUNC" in call.text:
            del file.data[:]

    def _pwrite64(self, call: Call) -> None:
        file = self._file(call)
        if file is None:
            return
        at = int(call.text.rsplit(",", 1)[1].rstrip(" )"))
        data = strings(call.text)[-1][: int(call.result.split()[0])]
        if len(file.data) < at:
            file.data.extend(bytes(at - len(file.data)))
        file.data[at : at + len(data)] = data

    def _write(self, call: Call) -> None:
        file = self._file(call)
        if file is not None:
            # Files are written from their start to their end by one descriptor here.
            file.data.extend(strings(call.text)[-1][: int(call.result.split()[0])])

    def _ftruncate(self, call: Call) -> None:
        file = self._file(call)
        if file is not None:
            size = int(call.text.rsplit(",", 1)[1].rstrip(" )"))
            del file.data[size:]
            file.data.extend(bytes(size - len(file.data)))

    def _fsync(self, call: Call) -> None:
        path = descriptor(call.text)[1]
        if path in self.folders:
            for one in [*self.durable_names]:
                if str(PurePosixPath(one).parent) == path and one not in self.names:
                    del self.durable_names[one]
            for one, file in self.names.items():
                if str(PurePosixPath(one).parent) == path:
                    self.durable_names[one] = file
            for one in [*self.durable_folders]:
                if str(PurePosixPath(one).parent) == path and one not in self.folders:
                    self.durable_folders.discard(one)
            self.durable_folders |= {one for one in self.folders if str(PurePosixPath(one).parent) == path}
        elif (file := self.names.get(path)) is not None:
            file.durable = bytes(file.data)

    _fdatasync = _fsync

    def _mkdir(self, call: Call) -> None:
        path = self._named(call, 0)
        if path is not None:
            self.folders.add(path)

    def _rmdir(self, call: Call) -> None:
        path = self._named(call, 0)
        if path is not None:
            self.folders.discard(path)

    def _link(self, call: Call) -> None:
        old, new = self._named(call, 0), self._named(call, 1)
        if old is not None and new is not None:
            self.names[new] = self.names[old]

    def _rename(self, call: Call) -> None:
        self._link(call)
        self._unlink(call)

    def _unlink(self, call: Call) -> None:
        path = self._named(call, 0)
        if path is not None:
            self.names.pop(path, None)

    _linkat, _renameat, _renameat2, _unlinkat = _link, _rename, _rename, _unlink

    def _named(self, call: Call, number: int) -> str | None:
        found = strings(re.sub(r"AT_FDCWD<[^>]*>", "AT_FDCWD", call.text))
        path = found[number].decode() if number < len(found) else ""
        if not path.startswith("/"):
            path = os.path.normpath(f"{self.root}/{path}")
        return path if path.startswith(self.root) else None

    def _file(self, call: Call) -> _File | None:
        number, path = descriptor(call.text)
        return self.names.get(path) if number > 2 else None


def run(scenario: str, root: Path, port: int) -> tuple[int, list[str]]:
    """Traces the command of a scenario; the moments that were judged, and what is wrong."""
    with _Case(scenario, root, port) as case:
        case.begin()
        seen = case.give(case.about.command)
        if seen.code not in case.about.codes:
            case.judge.wrong.append(f"left {seen.code}: {seen.err[-500:]}")
        case.judge.wrong += _counts(seen) + case.differences()
        return case.judge.moments, [f"{scenario}: {one}" for one in case.judge.wrong]


def resumed(scenario: str, start: int, step: int, root: Path, port: int) -> tuple[int, list[str]]:
    """Kills the command before every `step`-th sync from `start` on, and traces what is done after that.

    A killed command leaves names and bytes that no sync has made durable, and the next one finds them as if they were.
    """
    moments, wrong = 0, []
    with _Case(scenario, root, port) as case:
        case.begin()
        seen = case.give(case.about.command)
        syncs = [number for number, name in enumerate(_counted(seen), 1) if name in {"fsync", "fdatasync"}]
        for number in syncs[start::step]:
            for _ in range(TRIES):
                case.begin()
                killed = case.give(case.about.command, kill=number)
                # A call that another thread had begun may have been carried out or not: strace cannot tell.
                if not case.differences():
                    break
            else:
                wrong.append(f"{scenario}, killed before call {number}: not known in {TRIES} tries what it left")
                continue
            if killed.code not in {-signal.SIGKILL, 128 + signal.SIGKILL}:
                continue
            again = [("run",)] if case.about.command[0] == "run" else [case.about.command, ("run",)]
            for command in again:
                case.give(command)
            moments += case.judge.moments
            found = case.judge.wrong + case.differences()
            wrong += [f"{scenario}, killed before call {number}: {one}" for one in found]
    return moments, wrong


class _Case:
    """A scenario in a world of its own, as often as it is begun; with a model of its disk and a judge."""

    disk: Disk
    judge: _Judge

    def __init__(self, scenario: str, root: Path, port: int) -> None:
        self.about = SCENARIOS[scenario]
        self._root = root
        self._world = World(root / "world", port, self.about.variant)

    def __enter__(self) -> Self:
        try:
            self._world.make()
            self.about.prepare(self._world)
            self._world.save(self._root / "base")
        except BaseException:
            self._world.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._world.close()

    def begin(self) -> None:
        """The state before the command; all of it is durable."""
        world = self._world
        world.load(self._root / "base")
        if not (world.out / "manifest.db").exists():
            # Nothing was there before: the folder itself has to become durable.
            shutil.rmtree(world.out)
        self.disk = Disk(world.folder)
        self.judge = _Judge(self.disk, world.out, world.allowed)

    def give(self, command: Sequence[str], *, kill: int = 0) -> Traced:
        """Gives a command, and judges its calls."""
        world = self._world
        environment = {**os.environ, "APIMART_API_KEY": KEY, "APIMART_BASE_URL": world.service.url}
        arguments = [command[0], str(world.job), *command[1:]]
        seen = traced(arguments, world.folder, self._root / "trace", environment, kill=kill)
        for call in seen.calls:
            self.judge.see(call)
        return seen

    def differences(self) -> list[str]:
        """Where the model is not what is really there."""
        return _same(self.disk, self._world.folder)


class _Judge:
    """Follows the calls and judges the disk wherever something leaves the machine, or is called durable."""

    def __init__(self, disk: Disk, out: Path, allowed: Allowed) -> None:
        self.disk = disk
        self.out = out
        self.allowed = allowed
        self.moments = 0
        self.wrong: list[str] = []

    def see(self, call: Call) -> None:
        """One call: what leaves counts from its beginning, what becomes durable from its end."""
        if call.begun:
            if call.name in {"sendto", "sendmsg"}:
                self._leaves(call)
            elif call.name in {"fsync", "fdatasync"} and "manifest.db" in descriptor(call.text)[1]:
                # What is written may reach the disk before the sync is over, or without one.
                self._says_stored()
        else:
            self.disk.apply(call)
            if call.name in {"fsync", "fdatasync"} and descriptor(call.text)[1] in self.disk.folders:
                # Names that are gone may be so for good now.
                self._says_stored()

    def _leaves(self, call: Call) -> None:
        found = strings(call.text.partition(",")[2])
        if not found:
            return
        head = found[0].split(b"\r\n\r\n", 1)[0].decode(errors="replace")
        what = head.split(" HTTP/", 1)[0]
        if what.startswith("POST") and what.endswith("/images/generations"):
            key = re.search(r"(?im)^idempotency-key: (\S+)", head)
            self._judge(lambda manifest: self._intent(manifest, key[1] if key else ""))
        elif what.startswith("GET") and (match := re.search(r"/tasks/([^?/ ]+)", what)):
            self._judge(lambda manifest: self._id(manifest, match[1]))
        elif what.startswith("GET /results/"):
            self._judge(lambda manifest: self._url(manifest, what.removeprefix("GET ")))

    def _judge(self, rule: Callable[[Manifest], str]) -> None:
        self.moments += 1
        told = rule(self._manifest(durable=True))
        if told:
            self.wrong.append(told)

    def _intent(self, manifest: Manifest, key: str) -> str:
        if str(self.out / "manifest.rescue") not in self.disk.survivors(durable=True):
            return "I2 a POST left, and the file for ids that the manifest cannot take was not durable"
        sent = {attempt["key"]: attempt["task"] for attempt in manifest.attempts}
        states = {task["id"]: task["state"] for task in manifest.tasks}
        if key not in sent:
            return f"I2 a POST left under the key {key}, and its intent was not durable"
        state = states[sent[key]]
        return "" if state in {"submitting", "uncertain"} else f"I2 a POST left for a task that was {state}"

    def _id(self, manifest: Manifest, task_id: str) -> str:
        known = {one for attempt in manifest.attempts for one in json.loads(attempt["task_ids"] or "[]")}
        return "" if task_id in known else f"I2 the task {task_id} was looked at before its id was durable"

    def _url(self, manifest: Manifest, path: str) -> str:
        known = any(image["url"].endswith(path) for image in manifest.images)
        return "" if known else f"I2 an image was fetched before its link was durable: {path}"

    def _says_stored(self) -> None:
        self.moments += 1
        manifest = self._manifest(durable=False)
        there = self.disk.survivors(durable=True)
        for image in manifest.images:
            if image["state"] == "stored" and image["path"] not in self.allowed.gone:
                places = [image["path"], image["via"]]
                found = [there.get(str(self.out / place)) for place in places if place]
                if not any(data is not None and len(data) == image["bytes"] for data in found):
                    self.wrong.append(f"I4 {image['path']} may be told as stored and is not durable")

    def _manifest(self, *, durable: bool) -> Manifest:
        """The manifest as it would be read from what is left."""
        left = self.disk.survivors(durable=durable)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "job", "out")
            out.mkdir(parents=True)
            for name in ("manifest.db", "manifest.db-wal", "manifest.rescue"):
                data = left.get(str(self.out / name))
                if data is not None:
                    (out / name).write_bytes(data)
            try:
                return Manifest.read(out)
            except sqlite3.DatabaseError as error:
                self.wrong.append(f"I4 the manifest would be damaged: {error}")
                return Manifest()


def _counted(seen: Traced) -> list[str]:
    """The names of the calls that the shim counts, in their order."""
    return [call.name for call in seen.calls if call.begun and _counts_as(call)]


def _counts(seen: Traced) -> list[str]:
    """The shim has to have counted every call that strace saw: else crash points would be left out."""
    names = Counter(_counted(seen))
    number = sum(names.values())
    return [] if number == seen.counted else [f"the shim counted {seen.counted} calls, strace {number}: {dict(names)}"]


def _counts_as(call: Call) -> bool:
    if call.name == "openat":
        return False
    if call.name in {"sendto", "sendmsg", "connect"}:
        return "UNIX" not in call.text.split(",")[0]
    if call.name in {"write", "writev"}:
        number, path = descriptor(call.text)
        return number > 2 and path.startswith("/") and path not in {"/dev/null", "/dev/tty"}
    return True


def _same(disk: Disk, folder: Path) -> list[str]:
    """The model has to end with the files that are really there, or it judged something else."""
    really = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    really = {path: data for path, data in really.items() if not path.endswith("-shm")}
    model = {path: data for path, data in disk.survivors(durable=False).items() if not path.endswith(("-shm", ".lock"))}
    really = {path: data for path, data in really.items() if not path.endswith(".lock")}
    return [f"the model of the disk is wrong about {path}" for path in really.keys() ^ model.keys()] + [
        f"the model of the disk has other bytes in {path}"
        for path in really.keys() & model.keys()
        if really[path] != model[path]
    ]
