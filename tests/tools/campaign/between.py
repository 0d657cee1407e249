"""A gateway in a process of its own: between the program and one emulator, or one emulator for each API key.

It passes requests on, changes answers by recipe, and notes what it changed. Links to the emulator are rewritten, so
that pictures come through the gateway, too.
"""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import random
import re
import signal
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler
from typing import Any

import answers
from answers import About, Recipe, Reply, Struck

_PR_SET_PDEATHSIG = 1
_HOPS = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}


class Gateway:
    """One gateway, at one address; `upstream` is the port of the emulator for each API key, "" for all others."""

    def __init__(self, port: int, upstream: Mapping[str, int]) -> None:
        self.port = port
        self._upstream = dict(upstream)
        self._pid = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Begins to serve; ready on return."""
        self._pid = os.fork()
        if not self._pid:
            try:
                _serve(self.port, self._upstream)
            finally:
                os._exit(0)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.002)
        raise TimeoutError("the gateway did not start")

    def stop(self) -> None:
        """Ends it at once."""
        if self._pid:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
            self._pid = 0

    def play(self, recipe: Recipe | None) -> None:
        """From here on answers are changed like this; None: passed on as they are."""
        self._ask("PUT", None if recipe is None else asdict(recipe))

    def struck(self) -> list[Struck]:
        """What was changed so far."""
        return [Struck(**one) for one in self._ask("GET", None)]

    def _ask(self, method: str, body: Any) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, "/gateway", json.dumps(body), {"Content-Type": "application/json"})
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


class _State:
    """What the gateway knows: the recipe, the tasks by id, and what it changed."""

    def __init__(self, port: int, upstream: Mapping[str, int]) -> None:
        self.origin = f"http://127.0.0.1:{port}"
        self.upstream = upstream
        self.lock = threading.Lock()
        self.recipe: Recipe | None = None
        self.dice = random.Random(0)
        self.prompts: dict[str, str] = {}
        self.struck: list[Struck] = []
        self.fired = 0

    def play(self, document: Any) -> None:
        """Takes a recipe."""
        with self.lock:
            if document is None:
                self.recipe = None
                return
            self.recipe = Recipe(**{**document, "changes": tuple(document["changes"])})
            self.dice = random.Random(self.recipe.name)
            self.fired = 0

    def strikes(self, endpoint: str, prompt: str) -> Recipe | None:
        """The recipe, where it is for this request."""
        with self.lock:
            recipe = self.recipe
            if recipe is None or recipe.endpoint != endpoint:
                return None
            # Uploads and questions for the balance belong to no task.
            if endpoint in {"submit", "poll", "image"} and not re.search(recipe.whom, prompt):
                return None
            if recipe.often == "once" and self.fired:
                return None
            self.fired += 1
            return recipe


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: Any) -> None:
        pass

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        state = self.server.state
        if self.path == "/gateway":
            self._control(state, body)
            return
        endpoint, task_id = _endpoint(self.command, self.path)
        prompt = _prompt(body) if endpoint == "submit" else state.prompts.get(task_id, "")
        recipe = state.strikes(endpoint, prompt)
        reply = None
        if recipe is None or recipe.late or not any(answers.CHANGES[name].instead for name in recipe.changes):
            reply = _ask_upstream(state, self, body)
        if endpoint == "submit" and reply is not None:
            task_id = _id_of(reply)
            if task_id:
                state.prompts[task_id] = prompt
        if reply is None:
            reply = Reply(200, [("Content-Type", "application/json")], b"{}")
        if recipe is not None:
            self._change(state, recipe, reply, task_id)
        else:
            sent, close = reply.wire()
            self._send(sent, close=close, reset=False)

    def _change(self, state: _State, recipe: Recipe, reply: Reply, task_id: str) -> None:
        with state.lock:
            other = next((one for one in state.prompts if one != task_id), "")
            about = About(recipe.endpoint, task_id, other, state.origin, state.dice)
            answers.altered(reply, list(recipe.changes), about)
        sent, close = reply.wire()
        # These have no body, whatever is sent.
        bodiless = reply.status in {204, 304}
        readable = bool(task_id) and task_id.encode() in sent and not (reply.reset or bodiless)
        with state.lock:
            state.struck.append(Struck(recipe.endpoint, task_id, readable, list(recipe.changes)))
        self._send(sent, close=close, reset=reply.reset)

    def _control(self, state: _State, body: bytes) -> None:
        told: Any = None
        if self.command == "PUT":
            state.play(json.loads(body))
        else:
            told = [asdict(one) for one in state.struck]
        text = json.dumps(told).encode()
        self._send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text), close=True, reset=False)

    def _send(self, data: bytes, *, close: bool, reset: bool) -> None:
        with suppress(OSError):
            self.wfile.write(data)
            if reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = self.close_connection or close or reset

    do_GET = do_POST = do_PUT = do_HEAD = _any  # noqa: N815 - the names are those of the library


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, state: _State) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.state = state

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


def _serve(port: int, upstream: Mapping[str, int]) -> None:
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    _Server(port, _State(port, upstream)).serve_forever()


def _endpoint(method: str, path: str) -> tuple[str, str]:
    """Which endpoint is asked, and for which task."""
    parts = path.partition("?")[0].strip("/").split("/")
    if method == "POST" and parts[-1] == "generations":
        return "submit", ""
    if "tasks" in parts[:-1]:
        return "poll", parts[parts.index("tasks") + 1]
    if parts[0] == "results" and len(parts) > 1:
        return "image", parts[1]
    return ("upload" if "uploads" in parts and method == "POST" else "balance" if "balance" in parts else "other"), ""


def _prompt(body: bytes) -> str:
    try:
        return str(json.loads(body)["prompt"])
    except (ValueError, KeyError, TypeError):
        return ""


def _id_of(reply: Reply) -> str:
    found = re.search(rb"task_[0-9A-Za-z]{8,}", reply.body)
    return found.group().decode() if found else ""


def _ask_upstream(state: _State, handler: _Handler, body: bytes) -> Reply:
    key = handler.headers.get("Authorization", "").removeprefix("Bearer ")
    port = state.upstream.get(key, state.upstream[""])
    here, there = state.origin.encode(), b"http://127.0.0.1:%d" % port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        headers = {name: value for name, value in handler.headers.items() if name.lower() not in _HOPS}
        connection.request(handler.command, handler.path, body.replace(here, there), headers)
        answer = connection.getresponse()
        data = answer.read().replace(there, here)
        passed = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOPS]
        return Reply(answer.status, passed, data)
    except (OSError, http.client.HTTPException):
        return Reply(502, [("Content-Type", "text/html")], b"<html>bad gateway</html>")
    finally:
        connection.close()
