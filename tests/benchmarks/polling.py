"""How often a run looks at its tasks, and how late it notices their end.

500 tasks whose times are spread lognormally around 20 s (sigma 0.3), 64 in flight as is the default, and nothing known
of the service beforehand: a first run into an empty folder. Looks are counted by the emulator. The lag of a task is the
time from its end, by the emulator's ledger, to the moment at which the manifest has it as succeeded.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rows import Options, Row
from runs import write_job
from services import emulator

ROWS = ("polling-looks", "polling-lag")


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
    """Looks a task, and the lag over the time of a task; both of the same runs."""
    tasks = options.size(500, 40)
    middle = 1 if options.small else 20
    what = f"{tasks} tasks around {middle} s, first run"
    looked = [_run(tasks, f"lognormal:{middle},0.3", seed) for seed in range(1, options.rounds + 1)]
    details = {"runs": [vars(one) for one in looked]}
    rows = (
        Row(
            name="polling-looks",
            measured=f"{what}: looks a task",
            runs=tuple(one.looks for one in looked),
            unit="looks",
            at_most=3,
            notes=tuple(map(str, looked)),
            details=details,
        ),
        Row(
            name="polling-lag",
            measured=f"{what}: mean lag / mean time of a task",
            runs=tuple(100 * one.lag / one.taken for one in looked),
            unit="%",
            at_most=10,
            details=details,
        ),
    )
    return [row for row in rows if options.wants(row.name)]


def _run(tasks: int, times: str, seed: int) -> Looked:
    options = ("--task-seconds", times, "--seed", str(seed), "--image-size", "tiny")
    with tempfile.TemporaryDirectory() as name, emulator(*options) as service:
        job = write_job(Path(name) / "job", tasks)
        job.run(service)
        plans = [plan for entry in service.ask("ledger") if entry["event"] == "charge" for plan in entry["tasks"]]
        looks = service.ask("stats")["poll"]
        noticed = {
            json.loads(ids)[0]: at
            for ids, at in job.asked(
                "SELECT tasks.task_ids, events.at FROM events JOIN tasks ON tasks.id = events.task"
                " WHERE events.old = 'accepted' AND events.new = 'succeeded'"
            )
        }
    lags = [noticed[plan["id"]] - plan["created"] - plan["seconds"] for plan in plans]
    return Looked(looks / tasks, statistics.mean(lags), max(lags), statistics.mean(plan["seconds"] for plan in plans))
