"""The emulator in a process of its own: its ledger, on the disk, is the oracle's witness."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1


_HELD: deque[socket.socket] = deque(maxlen=50)
"""The sockets of the last ports: as long as they are bound, no other process is given the port."""


def free_port() -> int:
    """A port of this machine that nobody else listens on, or will for a while."""
    probe = socket.socket()
    # With this option on both sides, a server can listen on a port that is only bound.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind(("127.0.0.1", 0))
    _HELD.append(probe)
    return int(probe.getsockname()[1])


class ServiceProcess:
    """One emulator. Its state is in a folder; it can be stopped and started again on it, at the same address."""

    def __init__(self, state: Path, port: int, **settings: Any) -> None:
        self.state = state
        self.port = port
        self.settings: dict[str, Any] = {"image_size": "tiny", "task_seconds": "fixed:0.01", **settings}
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
                _serve(self.state, self.port, self.settings)
            finally:
                os._exit(0)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.002)
        raise TimeoutError("the emulator did not start")

    def stop(self) -> None:
        """Ends it in good order; what it was working on is finished or dropped."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)
                os.waitpid(self._pid, 0)
            self._pid = 0

    def ask(self, method: str, what: str, body: Any = None) -> Any:
        """The answer of a control endpoint, `/emulator/...`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            sent = None if body is None else json.dumps(body)
            connection.request(method, f"/emulator/{what}", sent, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            document = json.loads(answer.read())
            if answer.status != http.HTTPStatus.OK:
                raise ValueError(document)
            return document
        finally:
            connection.close()

    def set_faults(self, rules: Sequence[Mapping[str, Any]]) -> None:
        """Replaces the fault rules."""
        self.ask("PUT", "faults", list(rules))

    def requests(self) -> int:
        """Requests so far, images included and the questions of this class not."""
        stats = self.ask("GET", "stats")
        return sum(stats.get(name, 0) for name in ("submit", "poll", "upload", "balance", "models", "image"))

    def ledger(self) -> list[dict[str, Any]]:
        """Every bill and refund so far."""
        # The question makes it write the refunds that are due.
        entries: list[dict[str, Any]] = self.ask("GET", "ledger")
        return entries


def _serve(state: Path, port: int, settings: Mapping[str, Any]) -> None:
    from seedream_batch.emulator import EmulatorConfig
    from seedream_batch.emulator.server import serve

    os.setsid()
    # It must not outlive the campaign, nor hold its output.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    serve(EmulatorConfig(port=port, state_dir=state, **settings), announce=lambda _: None)
