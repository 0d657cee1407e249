"""Answers as real gateways and proxies change them: each ends as an image, as a held task, or as a refusal.

A gateway between the program and the emulator changes the answers to submissions, polls, questions for the balance,
uploads and downloads (`answers.py`). While it does, nothing may be bought twice, no traceback may come, and an id that
can be read anywhere in an answer must be kept. Once it is gone, everything that was paid for has to come back without
being paid for again.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from answers import Recipe, recipes
from between import Gateway
from forge import Ended
from oracle import Manifest
from service import free_port
from settle import CODES, crashed, settle, wrong_pictures
from world import VARIANTS, World

SEEDS = 4_000
"""Cells of the full form, after every change alone."""

_LIMITED = ("--max-duration", "1.5s")


@dataclass(frozen=True, slots=True)
class Cell:
    """One recipe, or one proxy, under one rule for what is in doubt."""

    name: str
    what: Recipe | str
    variant: str


def cells() -> list[Cell]:
    """Every change alone, mixtures of them, and proxies."""
    found = list(itertools.islice(recipes(), SEEDS))
    dealt = zip(found, itertools.cycle(("held", "trusted", "no keys")), strict=False)
    changed = [Cell(f"{recipe.name}, {variant}", recipe, variant) for recipe, variant in dealt]
    return [*(Cell(f"proxy: {name}", name, "trusted") for name in PROXIES), *changed]


def run(cell: Cell, root: Path, port: int) -> list[str]:
    """Tries one cell; what is wrong."""
    world = World(root / "world", port, VARIANTS[cell.variant])
    world.make()
    try:
        return _proxied(world, cell.what) if isinstance(cell.what, str) else _changed(world, cell.what)
    except TimeoutError as error:
        return [str(error)]
    finally:
        world.close()


def _changed(world: World, recipe: Recipe) -> list[str]:
    gateway = Gateway(free_port(), {"": world.service.port})
    gateway.start()
    try:
        world.environment = {"APIMART_BASE_URL": gateway.url}
        gateway.play(recipe)
        ended = world.call("run", *_LIMITED)
        wrong = crashed(ended) + world.violations() + _understood(recipe, ended) + _kept(world, gateway)
        if ended.code in {0, 9}:
            wrong += wrong_pictures(world)
        wrong += crashed(world.call("status"), {0, 3, 4})
        gateway.play(None)
        return wrong + settle(world)
    finally:
        gateway.stop()


def _understood(recipe: Recipe, ended: Ended) -> list[str]:
    """What the run had to make of it."""
    alone = recipe.changes[0] if len(recipe.changes) == 1 else ""
    wrong = []
    if ended.code == 6 and recipe.endpoint != "balance":
        wrong.append(f"the key counts as refused, and the balance was given: {ended.err[-300:]}")
    # Words alone, in an answer of success, may as well be about something that was bought.
    plain = alone.startswith("quota:") and not alone.endswith(("Chinese, 200", "text, 200"))
    if plain and recipe.endpoint == "submit" and recipe.often == "always" and ended.code != 5:
        wrong.append(f"the quota is used up, and that was not understood: exit {ended.code}: {ended.err[-300:]}")
    return wrong


def _kept(world: World, gateway: Gateway) -> list[str]:
    """Ids that were billed, could be read in an answer, and are kept nowhere."""
    manifest = world.manifest()
    charged = {entry["task_id"] for entry in world.service.ledger() if entry["event"] == "charge"}
    known = _known(manifest)
    lost = {
        one.task_id: one.changes
        for one in gateway.struck()
        if one.endpoint == "submit" and one.readable and one.task_id in charged and one.task_id not in known
    }
    return [
        f"the id {one} was billed and could be read, and is kept nowhere: {changes}" for one, changes in lost.items()
    ]


class _Known(set[str]):
    """Ids that are known, and texts in which one may stand."""

    texts: str = ""

    def __contains__(self, one: object) -> bool:
        return super().__contains__(one) or str(one) in self.texts


def _known(manifest: Manifest) -> _Known:
    known = _Known(manifest.rescued)
    for attempt in manifest.attempts:
        known |= set(json.loads(attempt["task_ids"] or "[]"))
    known.texts = "\n".join(answer["headers"] + answer["body"] for answer in manifest.answers)
    return known


# Proxies that never open a tunnel: whatever they do, nothing was sent.


def _closes(_: socket.socket) -> None:
    pass


def _stalls(_: socket.socket) -> None:
    time.sleep(60)


def _says(text: bytes) -> Callable[[socket.socket], None]:
    def say(connection: socket.socket) -> None:
        connection.sendall(text)

    return say


PROXIES: dict[str, Callable[[socket.socket], None]] = {
    "closes": _closes,
    "stalls": _stalls,
    "garbage": _says(b"\x05\x00\x00\x01garbage\r\n\r\n"),
    "a page of HTML": _says(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nlogin"),
    "half a head": _says(b"HTTP/1.1 200 Connection"),
    "no status": _says(b"HTTP/1.1\r\n\r\n"),
    "403": _says(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"),
    "407": _says(
        b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n"
    ),
    "502": _says(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nbad"),
    "503 for long": _says(b"HTTP/1.1 503 Unavailable\r\nRetry-After: 99999\r\nContent-Length: 0\r\n\r\n"),
    "a redirect": _says(b"HTTP/1.1 302 Found\r\nLocation: http://login.invalid/\r\nContent-Length: 0\r\n\r\n"),
    "a head of 70 KB": _says(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n"),
    "a tunnel to garbage": _says(b"HTTP/1.1 200 Connection established\r\n\r\n\x00\x01garbage"),
    "a tunnel that closes": _says(b"HTTP/1.1 200 Connection established\r\n\r\n"),
    "a tunnel without a reason": _says(b"HTTP/1.1 200\r\n\r\n"),
    "a refusal in SOCKS": _says(b"\x05\xff"),
}


def _proxied(world: World, name: str) -> list[str]:
    """Three runs, as cron would start them, through a proxy that gives no tunnel."""
    scheme = "socks5" if "SOCKS" in name else "http"
    with socket.create_server(("127.0.0.1", 0)) as server:
        pid = os.fork()
        if not pid:
            _answer_for_ever(server, PROXIES[name])
        try:
            proxy = f"{scheme}://127.0.0.1:{server.getsockname()[1]}"
            world.environment = {"APIMART_BASE_URL": "https://api.campaign.example", "HTTPS_PROXY": proxy}
            world.before = _impatient
            wrong: list[str] = []
            for _ in range(3):
                wrong += crashed(world.call("run", "--max-duration", "3s"), CODES | {2})
                wrong += _nothing_sent(world.manifest())
            return wrong + world.violations()
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _impatient() -> None:
    from seedream_batch.client import service

    service.CONNECT_TIMEOUT = 0.3  # type: ignore[misc]


def _answer_for_ever(server: socket.socket, answer: Callable[[socket.socket], None]) -> None:
    import threading

    def serve(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.recv(4096)
            answer(connection)

    try:
        while True:
            threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
    finally:
        os._exit(0)


def _nothing_sent(manifest: Manifest) -> list[str]:
    doubts = manifest.states()["uncertain"] + manifest.states()["submitting"]
    held = manifest.totals.get("reserved", 0)
    wrong = [f"nothing was sent, and {doubts} tasks are in doubt"] if doubts else []
    return wrong + ([f"nothing was sent, and {held} is reserved"] if held else [])
