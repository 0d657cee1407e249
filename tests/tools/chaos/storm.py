"""The storm itself: a database, a service and workers, and signals that end, stop and wake them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from postgres import Postgres

from seedream_batch.emulator import Emulator, EmulatorConfig

LONGEST = 3600.0
"""Seconds after which a storm is given up."""

STOPPED = (0.2, 6.0)
"""For how many seconds a worker is stopped, from and to: longer than a stopped one may hold up the database."""


@dataclass
class Aftermath:
    """What is left of a storm, while its database and its service still answer; money in millionths of a USD."""

    tasks: int
    rate: float
    honour_keys: bool
    output: Path
    charges: list[dict[str, Any]]
    asked: Callable[[str], list[tuple[Any, ...]]]
    seconds: float
    kills: int
    stops: int
    restarts: int
    most_images: int
    """The most images that were paid or held at any look."""
    ends: dict[int, int] = field(default_factory=dict)
    """How often a worker ended with each exit code, kills left out."""
    errors: list[str] = field(default_factory=list)
    """What workers said that is no message for people."""


class Storm:
    """Starts everything, and lets no worker be for long until every task has ended."""

    def __init__(
        self,
        folder: Path,
        *,
        tasks: int,
        workers: int,
        rate: float,
        every: float,
        restarts: int,
        honour_keys: bool,
        seed: int,
        tell: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._tasks = tasks
        self._workers = workers
        self._rate = rate
        self._every = every
        self._restarts = restarts
        self._honour_keys = honour_keys
        self._dice = random.Random(seed)
        self._tell = tell
        self._numbers = itertools.count(1)
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._stopped: dict[int, float] = {}
        """When the workers that are stopped are to go on."""
        self._kills = self._stops = self._most = 0
        self._ends: dict[int, int] = {}

    @contextlib.contextmanager
    def running(self) -> Iterator[Aftermath]:
        """Goes through the storm; what is left of it, while all of it still answers."""
        data = self._folder / "database"
        data.mkdir()
        database = Postgres(data).start()
        config = EmulatorConfig(
            task_seconds="uniform:0.5,3", image_size="tiny", balance_usd=None, honour_keys=self._honour_keys
        )
        try:
            with Emulator(config) as emulator:
                yield self._weather(database, emulator)
        finally:
            self._end_all()
            database.stop()

    def _weather(self, database: Postgres, emulator: Emulator) -> Aftermath:
        place = database.place()
        self._url = f"{place.url}?schema={place.schema}"
        self._env = {**os.environ, "APIMART_BASE_URL": emulator.url, "APIMART_API_KEY": "chaos"}
        self._job = self._write_job()
        self._database, self._schema = database, place.schema
        began = time.monotonic()
        self._call("run", "--limit", "0", "--quiet")
        for _ in range(self._workers):
            self._start()
        restarts = 0
        next_signal = time.monotonic() + self._every
        next_look = time.monotonic()
        while time.monotonic() - began < LONGEST:
            self._tend()
            if time.monotonic() > next_look:
                next_look += 1.0
                done = self._look()
                if done >= self._tasks * (restarts + 1) / (self._restarts + 1) and restarts < self._restarts:
                    restarts += 1
                    how = self._dice.choice((signal.SIGINT, signal.SIGQUIT))
                    self._tell(f"{done} ended; the database goes ({how.name}), for the {restarts}. time")
                    database.stop(how)
                    time.sleep(self._dice.uniform(0.0, 2.0))
                    database.start()
                if done >= self._tasks:
                    break
            if time.monotonic() > next_signal:
                next_signal += self._every
                self._signal()
            time.sleep(0.02)
        seconds = time.monotonic() - began
        for process in self._running.values():
            process.send_signal(signal.SIGCONT)
        for process in self._running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=60)
        # Workers that were killed last may have left something that no other one was there to see.
        code = self._call("run", "--quiet")
        self._ends[code] = self._ends.get(code, 0) + 1
        self._look()
        charges = [one for one in emulator.ledger() if one["event"] == "charge"]
        return Aftermath(
            tasks=self._tasks, rate=self._rate, honour_keys=self._honour_keys, output=self._job.parent / "out",
            charges=charges, asked=self._asked, seconds=seconds, kills=self._kills,
            stops=self._stops, restarts=restarts, most_images=self._most, ends=self._ends, errors=self._errors(),
        )  # fmt: skip

    def _write_job(self) -> Path:
        folder = self._folder / "job"
        folder.mkdir()
        (folder / "numbers.txt").write_text("".join(f"{number}\n" for number in range(self._tasks)), encoding="utf-8")
        job = {
            "version": 1,
            "matrix": {"number": {"file": "numbers.txt"}},
            "request": {"prompt": "a fox in the snow, number {{ number }}"},
            "output": {"dir": "out", "path": "{{ number | int // 1000 }}/{{ number }}"},
            "budget": {"max_images": self._tasks},
            "run": {
                "rate": f"{self._rate:g}/s",
                "max_in_flight": 64,
                "on_unknown": "resend" if self._honour_keys else "hold",
            },
        }
        file = folder / "job.yaml"
        file.write_text(json.dumps(job), encoding="utf-8")
        return file

    def _command(self, verb: str, *options: str) -> list[str]:
        return [sys.executable, "-m", "seedream_batch", verb, str(self._job), "--manifest", self._url, *options]

    def _call(self, verb: str, *options: str) -> int:
        with (self._folder / "called").open("ab") as told:
            return subprocess.run(self._command(verb, *options), env=self._env, stderr=told, check=False).returncode

    def _start(self) -> None:
        number = next(self._numbers)
        with (self._folder / f"worker-{number}").open("wb") as told:
            self._running[number] = subprocess.Popen(
                self._command("run", "--quiet"), env=self._env, stdout=told, stderr=told
            )

    def _tend(self) -> None:
        """Wakes those that were stopped for long enough, and starts a new worker for each that has ended."""
        for number, until in list(self._stopped.items()):
            if time.monotonic() > until:
                del self._stopped[number]
                self._running[number].send_signal(signal.SIGCONT)
        for number, process in list(self._running.items()):
            code = process.poll()
            if code is not None:
                del self._running[number]
                self._stopped.pop(number, None)
                if code != -signal.SIGKILL:
                    self._ends[code] = self._ends.get(code, 0) + 1
                self._start()

    def _signal(self) -> None:
        numbers = [number for number in self._running if number not in self._stopped]
        if not numbers:
            return
        number = self._dice.choice(numbers)
        if self._dice.random() < 0.5:
            self._kills += 1
            self._running[number].kill()
        else:
            self._stops += 1
            self._running[number].send_signal(signal.SIGSTOP)
            self._stopped[number] = time.monotonic() + self._dice.uniform(*STOPPED)

    def _look(self) -> int:
        """How many tasks have ended, with their files."""
        [(images, done)] = self._asked(
            "SELECT (SELECT sum(images + reserved_images) FROM (SELECT images, reserved_images FROM totals"
            " UNION ALL SELECT images, reserved_images FROM workers) AS parts),"
            " (SELECT count(*) FROM images WHERE state = 'stored')"
            f" + (SELECT count(*) FROM tasks WHERE state = 'uncertain' AND {'false' if self._honour_keys else 'true'})"
        )
        self._most = max(self._most, int(images))
        return int(done)

    def _asked(self, query: str) -> list[tuple[Any, ...]]:
        import psycopg

        with psycopg.connect(self._database.url) as connection:
            connection.execute(f'SET search_path TO "{self._schema}"')
            return connection.execute(query).fetchall()

    def _errors(self) -> list[str]:
        told = []
        for file in self._folder.glob("worker-*"):
            text = file.read_text(encoding="utf-8", errors="replace")
            if "Traceback" in text or "this is a bug" in text:
                told.append(text[-3000:])
        return told

    def _end_all(self) -> None:
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
