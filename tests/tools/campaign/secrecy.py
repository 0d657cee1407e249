"""Where the API key could get out: files, output, tracebacks of bugs, the list of processes, other hosts."""

from __future__ import annotations

import base64
import importlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import oracle
from bench import wait_for
from forge import Child
from world import HELD, KEY, World

_BREAK = {
    "in the submission": ("seedream_batch.client.service", "Service", "submit"),
    "in the poll": ("seedream_batch.client.service", "Service", "poll"),
    "in the balance": ("seedream_batch.client.service", "Service", "balance"),
    "in the upload": ("seedream_batch.client.service", "Service", "upload"),
    "in the download": ("seedream_batch.client.images", "ImageClient", "fetch"),
    "in the manifest": ("seedream_batch.manifest.task_queue", "TaskQueue", "claim_each"),
    "in the start of the run": ("seedream_batch.manifest.worker_store", "WorkerStore", "begin_run"),
    "in the engine": ("seedream_batch.engine.scheduler", "Scheduler", "_may_begin"),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One way."""

    name: str


def cells() -> list[Cell]:
    """All ways."""
    bugs = [f"a bug {where}" for where in _BREAK]
    others = [
        "all commands",
        "a key in a file",
        "a wrong key",
        "a key in other words",
        "the list of processes",
        "a redirect of the API",
    ]
    return [Cell(name) for name in [*others, "images of another host", "a killed run", "hostile words", *bugs]]


def run(cell: Cell, root: Path, port: int) -> list[str]:
    """What is wrong."""
    world = World(root / "world", port, HELD, **({"image_host": "localhost"} if "another host" in cell.name else {}))
    world.make()
    try:
        told = _WAYS[cell.name](world) if cell.name in _WAYS else _bug(world, cell.name.removeprefix("a bug "))
        return told + oracle.secrets(world.root, KEY)
    finally:
        world.close()


def _bug(world: World, where: str) -> list[str]:
    module, name, method = _BREAK[where]

    def break_it() -> None:
        def broken(self: object, *arguments: object, **named: object) -> None:
            # What a careless message of a bug would have in it.
            raise RuntimeError(
                f"a bug with {self!r} {vars(self) if hasattr(self, '__dict__') else ''} {arguments} {named}"
            )

        setattr(getattr(importlib.import_module(module), name), method, broken)

    world.before = break_it
    ended = world.call("run")
    wrong = [] if ended.code == 1 and "This is a bug" in ended.err else [f"a bug left {ended.code}: {ended.err[-300:]}"]
    world.before = None
    return wrong


def _all_commands(world: World) -> list[str]:
    world.service.set_faults(
        [
            {"on": "submit", "action": "fail", "prompt": "fox"},
            {"on": "submit", "action": "reset_after_bill", "prompt": "owl"},
        ]
    )
    for command in (
        ("validate",), ("plan",), ("plan", "--json"), ("run", "--log-format", "json"), ("run",), ("status",),
        ("status", "--json"), ("verify",), ("verify", "--json"), ("retry",), ("resolve", "--resend"), ("prune",),
    ):  # fmt: skip
        world.call(*command)
    return []


def _key_in_a_file(world: World) -> list[str]:
    outside = world.root.parent / "key"
    outside.write_text(KEY + "\n")
    world.environment = {"APIMART_API_KEY": "", "APIMART_API_KEY_FILE": str(outside)}
    ended = world.call("run")
    outside.unlink()
    return [] if ended.code == 0 else [f"left {ended.code}: {ended.err}"]


def _wrong_key(world: World) -> list[str]:
    world.service.set_faults([{"on": "any", "action": "status", "status": 401, "message": f"bad key {KEY}"}])
    ended = world.call("run")
    world.service.set_faults([])
    return [] if ended.code == 6 else [f"left {ended.code}: {ended.err}"]


_WRITTEN = {
    "in capitals": KEY.upper(),
    "as a URL": "".join(f"%{ord(char):02x}" for char in KEY),
    "as HTML": "".join(f"&#{ord(char)};" for char in KEY),
    "as JSON in JSON": "".join(f"\\u{ord(char):04x}" for char in KEY),
    "in base64": base64.b64encode(KEY.encode()).decode().rstrip("=")[:-1],
    "in hexadecimal": KEY.encode().hex(),
    "without its end": KEY[:-4],
}


def _written_otherwise(world: World) -> list[str]:
    """The service repeats the key in ways that no search for the key itself finds."""
    wrong = []
    for name, text in _WRITTEN.items():
        world.service.set_faults([{"on": "any", "action": "status", "status": 401, "message": f"bad key {text}"}])
        ended = world.call("run", "--log-format", "json")
        # JSON writes a backslash as two.
        forms = {text, text.replace("\\", "\\\\")}
        files = [
            path for path in world.root.rglob("*") if path.is_file() and not path.is_relative_to(world.service.state)
        ]
        told = [ended.out + ended.err, *(path.read_bytes().decode(errors="replace") for path in files)]
        wrong += [f"I9 the key is shown {name}" for one in told if any(form in one for form in forms)]
    world.service.set_faults([])
    return wrong


def _processes(world: World) -> list[str]:
    world.service.set_faults([{"on": "submit", "action": "hang", "at": "after_bill"}])
    child = world.start("run")
    wait_for(lambda: bool(world.service.ask("GET", "waiting")))
    wrong = _visible(child)
    child.kill()
    world.service.set_faults([])
    world.service.ask("DELETE", "waiting")
    return wrong


def _visible(child: Child) -> list[str]:
    """What anybody on the machine can read of a process: its arguments, its name, its open files."""
    wrong = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            for name in ("cmdline", "comm", "maps"):
                try:
                    data = (process / name).read_bytes()
                except OSError:
                    continue
                if KEY.encode() in data:
                    wrong.append(f"I9 the key is in {process / name}")
    names = [str(link.readlink()) for link in Path(f"/proc/{child.pid}/fd").iterdir() if link.is_symlink()]
    return wrong + [f"I9 the key is in the name of an open file: {name}" for name in names if KEY in name]


def _redirect(world: World) -> list[str]:
    with _Listener() as other:
        rule = {"on": "any", "action": "redirect", "url": f"http://127.0.0.1:{other.port}/elsewhere", "status": 307}
        world.service.set_faults([rule])
        world.call("run")
        world.service.set_faults([])
        return [f"I9 the key went to another host: {data[:200]!r}" for data in other.heard if KEY.encode() in data]


def _other_host(world: World) -> list[str]:
    ended = world.call("run")
    wrong = [] if ended.code == 0 else [f"left {ended.code}: {ended.err}"]
    asked = world.service.ask("GET", "requests?endpoint=image")
    return wrong + ["I9 an image was asked for with credentials" for one in asked if one["authorization"] or one["key"]]


_HOSTILE = "\x1b[2J\x1b]0;title\x07\u202eevil\u2028 line\r\x9b31m"


def _hostile(world: World) -> list[str]:
    """What a service says must not steer a terminal or a log."""
    world.service.set_faults(
        [
            {"on": "submit", "action": "fail", "message": _HOSTILE, "code": _HOSTILE, "prompt": "fox"},
            {"on": "submit", "action": "status", "status": 500, "message": _HOSTILE, "prompt": "owl"},
            {"on": "submit", "action": "status", "status": 400, "message": _HOSTILE, "prompt": "hare"},
            {"on": "poll", "action": "unknown_status", "word": _HOSTILE, "count": 2},
        ]
    )
    wrong = []
    for command in (("run",), ("run", "--log-format", "json"), ("status",), ("status", "--json"), ("plan",)):
        ended = world.call(*command)
        odd = {char for char in ended.out + ended.err if char != "\n" and not char.isprintable()}
        if odd:
            wrong.append(f"{' '.join(command)} printed {sorted(map(ascii, odd))}")
    return wrong


def _killed(world: World) -> list[str]:
    world.service.set_faults([{"on": "image", "action": "hang", "at": "mid_body"}])
    child = world.start("run", "--log-format", "json")
    wait_for(lambda: bool(world.service.ask("GET", "waiting")))
    child.kill()
    return []


class _Listener:
    """A host that is not the service: it notes what it is told."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(2)
                try:
                    self.heard.append(connection.recv(65536))
                except OSError:
                    continue


_WAYS: dict[str, Callable[[World], list[str]]] = {
    "all commands": _all_commands,
    "a key in a file": _key_in_a_file,
    "a wrong key": _wrong_key,
    "a key in other words": _written_otherwise,
    "the list of processes": _processes,
    "a redirect of the API": _redirect,
    "images of another host": _other_host,
    "a killed run": _killed,
    "hostile words": _hostile,
}
