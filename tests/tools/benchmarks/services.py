"""The services that clients are measured against, each in a process of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from processes import HERE, RUNNER, cores, cpu_of, start


@dataclass(frozen=True)
class ServiceProcess:
    """A service that answers at `url`."""

    url: str
    pid: int

    @property
    def env(self) -> dict[str, str]:
        """What sends a run there."""
        return {"APIMART_BASE_URL": self.url, "APIMART_API_KEY": "benchmark"}

    @property
    def cpu(self) -> float:
        """Seconds of the processor that it has taken."""
        return cpu_of(self.pid)

    def ask(self, what: str) -> Any:
        """The answer of a control endpoint of the emulator, `/emulator/...`."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        try:
            connection.request("GET", f"/emulator/{what}")
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


@contextlib.contextmanager
def emulator(*options: str, pinned: bool = False) -> Iterator[ServiceProcess]:
    """The emulator, with these options of its command."""
    with _serving([*RUNNER, "emulator", "--port", "0", "--balance-usd", "-1", *options], pinned=pinned) as service:
        yield service


@contextlib.contextmanager
def instant(*options: str, pinned: bool = False) -> Iterator[ServiceProcess]:
    """The service that answers at once; see `instant.py`."""
    with _serving([sys.executable, str(HERE / "instant.py"), *options], pinned=pinned) as service:
        yield service


@contextlib.contextmanager
def _serving(command: Sequence[str], *, pinned: bool) -> Iterator[ServiceProcess]:
    process, printed = start(command, on=cores()[0] if pinned else None)
    try:
        deadline = time.monotonic() + 60
        while (found := re.search(r"http://[\d.]+:\d+", printed.read_text(encoding="utf-8"))) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[:4]} did not start: {printed.read_text(encoding='utf-8')}")
            time.sleep(0.02)
        yield ServiceProcess(found[0], process.pid)
    finally:
        process.terminate()
        process.wait()
        printed.unlink()
