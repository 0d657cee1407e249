"""Tasks a second through a service that answers at once: a real run beside loops that make the same HTTP calls.

The runner is a process from its start to its exit, with its manifest, its checks and its files. The others are loops of
a POST, a look at the task and a GET of the image, with 64 tasks at a time, and only their loops are timed. All of them
meet `instant.py`, because the emulator, which draws every image, keeps up with fewer tasks a second than the bare loop
does; a row of its own shows the runner on the emulator. For each contestant the notes tell how busy the service was: it
must not be what is measured. With `--pinned` the service has the first core and the client the others, which all of its
threads share. The job gives its rate: how the limit of a service is found when it is not known is measured in
`pacing.py`.
"""

from __future__ import annotations

import importlib.util
import itertools
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from processes import HERE, cores, run
from rows import Options, Row, middle, missing, ratios
from runs import write_job
from services import ServiceProcess, emulator, instant

ROWS = ("throughput-bare", "throughput-httpx", "throughput-requests", "throughput-emulator")

CONCURRENCY = 64
SETTINGS = {"max_in_flight": CONCURRENCY, "rate": 10_000}


@dataclass
class Rates:
    """What one contestant did in each round: tasks a second, and the processor time of both sides."""

    tasks: int
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    ceilings: list[float] = field(default_factory=list)

    def add(self, seconds: float, cpu: float, service_cpu: float) -> None:
        """A round in which all tasks took so long; of the processor, with the start of the process."""
        self.cpu.append(cpu)
        self.rates.append(self.tasks / seconds)
        self.busy.append(service_cpu / seconds)
        self.ceilings.append(self.tasks / max(service_cpu, 1e-3))

    def __str__(self) -> str:
        busy = statistics.median(self.busy)
        return (
            f"{middle(self.rates)} tasks/s over {self.tasks:,} tasks, {middle(self.cpu)} s of the processor; service"
            f" {busy:.0%} busy"
            f" (a core of it would do {middle(self.ceilings)} tasks/s)"
        )

    def as_json(self) -> dict[str, object]:
        """All rounds."""
        return {
            "tasks": self.tasks,
            "rates": self.rates,
            "cpu_seconds": self.cpu,
            "service_busy": self.busy,
            "service_ceiling": self.ceilings,
        }


Serving = Callable[[], AbstractContextManager[ServiceProcess]]


def measure(options: Options) -> list[Row]:
    """The runner against the bare loop, plain httpx, and a script on requests; and on the emulator."""
    rows: list[Row] = []
    if any(options.wants(name) for name in ROWS[:3]):
        rows += _against_others(options)
    if options.wants("throughput-emulator"):
        rows.append(_on_emulator(options))
    return rows


def _against_others(options: Options) -> list[Row]:
    scripts = {"bare": "bare.py", "httpx": "plain_httpx.py", "requests": "requests_pool.py"}
    has_requests = importlib.util.find_spec("requests") is not None
    wanted = [name for name in scripts if options.wants(f"throughput-{name}") and (name != "requests" or has_requests)]
    clients = cores()[1] if options.pinned else None
    runner = Rates(options.size(5000, 40))
    net: list[float] = []
    starts: list[float] = []
    others = {name: Rates(options.size(5000 if name == "bare" else 500, 40)) for name in wanted}

    def serving() -> AbstractContextManager[ServiceProcess]:
        return instant(pinned=options.pinned)

    with _folders() as fresh:
        for _ in range(options.rounds):
            folder = fresh()
            seconds, start = _run(serving, folder, runner, clients)
            starts.append(start)
            net.append(runner.tasks / max(seconds - start, 1e-3))
            for contestant in wanted:
                _loop(serving, scripts[contestant], others[contestant], folder / contestant, clients)
    rows = []
    for name, what, least in (
        ("bare", "runner / bare loop of the same calls on the same clients, tasks/s", 0.6),
        ("httpx", "runner / httpx with its own transport and default limits, tasks/s", 5.0),
        ("requests", "runner / pool of threads on requests, tasks/s", None),
    ):
        row = f"throughput-{name}"
        if name == "requests" and not has_requests and options.wants(row):
            rows.append(missing(row, what, "requests is not installed; see requirements.txt"))
        if name not in others:
            continue
        without = ratios(net, others[name].rates)
        rows.append(
            Row(
                name=row,
                measured=what,
                runs=ratios(runner.rates, others[name].rates),
                at_least=least,
                notes=(
                    f"runner: {runner}",
                    f"{name}: {others[name]}",
                    f"without a run of 1 task, {middle(starts)} s: {middle(without)} x, {middle(net)} tasks/s",
                ),
                details={
                    "runner": runner.as_json(),
                    name: others[name].as_json(),
                    "start_up_seconds": starts,
                    "rates_without_start_up": net,
                    "ratios_without_start_up": without,
                },
            )
        )
    return rows


def _on_emulator(options: Options) -> Row:
    clients = cores()[1] if options.pinned else None
    runner, bare = Rates(options.size(2000, 40)), Rates(options.size(2000, 40))

    def serving() -> AbstractContextManager[ServiceProcess]:
        return emulator("--task-seconds", "fixed:0", "--image-size", "tiny", pinned=options.pinned)

    with _folders() as fresh:
        for _ in range(options.rounds):
            folder = fresh()
            _run(serving, folder, runner, clients)
            _loop(serving, "bare.py", bare, folder, clients)
    return Row(
        name="throughput-emulator",
        measured="runner on the emulator / bare loop on the emulator, which may be what holds up either",
        runs=ratios(runner.rates, bare.rates),
        notes=(f"runner: {runner}", f"bare: {bare}"),
        details={"runner": runner.as_json(), "bare": bare.as_json()},
    )


@contextmanager
def _folders() -> Iterator[Callable[[], Path]]:
    """Gives fresh folders, and removes them all at the end.

    Right after thousands of files were deleted, ext4 takes ten times as long to make one: it passes over their inodes
    for minutes. So a round must not clean up before the next one.
    """
    with tempfile.TemporaryDirectory() as root:
        numbers = itertools.count()

        def fresh() -> Path:
            folder = Path(root, str(next(numbers)))
            folder.mkdir()
            return folder

        yield fresh


def _run(serving: Serving, folder: Path, rates: Rates, clients: set[int] | None) -> tuple[float, float]:
    """A run of all tasks, and one of a single task: the seconds of both."""
    with serving() as service:
        job = write_job(folder / "all", rates.tasks, **SETTINGS)
        before = service.cpu
        finished = job.run(service, on=clients)
        rates.add(finished.seconds, finished.cpu, service.cpu - before)
        start = write_job(folder / "one", 1, **SETTINGS).run(service, on=clients)
    return finished.seconds, start.seconds


def _loop(serving: Serving, script: str, rates: Rates, folder: Path, clients: set[int] | None) -> None:
    arguments = [str(rates.tasks), str(CONCURRENCY), str(folder)]
    with serving() as service:
        before = service.cpu
        command: Sequence[str] = [sys.executable, str(HERE / "contestants" / script), service.url, *arguments]
        finished = run(command, on=clients)
        rates.add(float(finished.output), finished.cpu, service.cpu - before)
