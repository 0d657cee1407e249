"""How often a run looks at its tasks, and how late it notices their end.

500 tasks whose times are spread lognormally around 20 s (sigma 0.3), 64 in flight as is the default, and nothing known
of the service beforehand: a first run into an empty folder. `polling-again` is a second run, of 500 tasks more of the
same job, which knows from the manifest how long the first ones took. Looks are counted by the emulator. The lag of a
task is the time from its end, by the emulator's ledger, to the moment at which the manifest has it as succeeded.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rows import Options, Row
from runs import BenchmarkJob, write_job
from services import ServiceProcess, emulator

ROWS = ("polling-looks", "polling-lag", "polling-again-looks", "polling-again-lag")


@dataclass(frozen=True)
class Looked:
    """What came of one run; seconds."""

    looks: float
    """Looks a task."""
    lag: float
    """Of a task on average."""
    worst: float
    taken: float
    """What a task took on average."""

    def __str__(self) -> str:
        return (
            f"{self.looks:.2f} looks a task; tasks of {self.taken:.1f} s, noticed {self.lag:.2f} s late on average and"
            f" {self.worst:.1f} s at worst"
        )


def measure(options: Options) -> list[Row]:
    """Looks a task, and the lag over the time of a task, of a first run and of a second one."""
    tasks = options.size(500, 40)
    middle = 1 if options.small else 20
    again = any(options.wants(name) for name in ROWS[2:])
    looked = [_runs(tasks, f"lognormal:{middle},0.3", seed, again=again) for seed in range(1, options.rounds + 1)]
    rows: list[Row] = []
    for number, (name, which) in enumerate((("polling", "first"), ("polling-again", "second"))[: 2 if again else 1]):
        rows += _rows(name, f"{tasks} tasks around {middle} s, {which} run", [runs[number] for runs in looked])
    return [row for row in rows if options.wants(row.name)]


def _rows(name: str, what: str, looked: Sequence[Looked]) -> tuple[Row, Row]:
    details = {"runs": [vars(one) for one in looked]}
    return (
        Row(
            name=f"{name}-looks",
            measured=f"{what}: looks a task",
            runs=tuple(one.looks for one in looked),
            unit="looks",
            at_most=3,
            notes=tuple(map(str, looked)),
            details=details,
        ),
        Row(
            name=f"{name}-lag",
            measured=f"{what}: mean lag / mean time of a task",
            runs=tuple(100 * one.lag / one.taken for one in looked),
            unit="%",
            at_most=10,
            details=details,
        ),
    )


def _runs(tasks: int, times: str, seed: int, *, again: bool) -> list[Looked]:
    """What came of a first run, and of a second one if there is to be one."""
    options = ("--task-seconds", times, "--seed", str(seed), "--image-size", "tiny")
    with tempfile.TemporaryDirectory() as name, emulator(*options) as service:
        job = write_job(Path(name) / "job", tasks)
        job.run(service)
        looked = [_looked(service, job, tasks, before=0)]
        if again:
            before = service.ask("stats")["poll"]
            more = job.extended(tasks)
            more.run(service)
            looked.append(_looked(service, more, tasks, before=before))
    return looked


def _looked(service: ServiceProcess, job: BenchmarkJob, tasks: int, *, before: int) -> Looked:
    """What came of the last so many tasks; `before` them the service had been asked so often."""
    plans = [plan for entry in service.ask("ledger") if entry["event"] == "charge" for plan in entry["tasks"]][-tasks:]
    looks = service.ask("stats")["poll"] - before
    noticed = {
        json.loads(ids)[0]: at
        for ids, at in job.asked(
            "SELECT tasks.task_ids, events.at FROM events JOIN tasks ON tasks.id = events.task"
            " WHERE events.old = 'accepted' AND events.new = 'succeeded'"
        )
    }
    lags = [noticed[plan["id"]] - plan["created"] - plan["seconds"] for plan in plans]
    return Looked(looks / tasks, statistics.mean(lags), max(lags), statistics.mean(plan["seconds"] for plan in plans))
