"""How well a run uses a service that limits submissions: 50 a second, tasks of 20 s, 2,000 of them.

`pacing-known`: the job states the limit. What is measured is the time from the start of the process to its exit, over
the ideal: tasks / limit + the time of one task.

`pacing-unknown`: the job states nothing, and the service answers with 429 and Retry-After. What is measured is how many
submissions a second it accepted from the first one to the last, over its limit, and which share it refused.

TaskStore are counted by the emulator, in its ledger and its statistics. 50 a second for 20 s are 1,000 tasks in
flight, and some more until the end of each is noticed and its image is stored; the job allows 1,500, and the notes tell
if that held it up.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rows import Options, Row
from runs import BenchmarkJob, write_job
from services import emulator

ROWS = ("pacing-known", "pacing-unknown-rate", "pacing-unknown-refused")

MOST_IN_FLIGHT = 1500


@dataclass(frozen=True)
class Load:
    """What a service is asked to do: so many tasks, each of so many seconds, so many of them a second."""

    tasks: int
    seconds: float
    limit: int

    @property
    def ideal(self) -> float:
        """The seconds from the first submission to the end of the last task, at best."""
        return self.tasks / self.limit + self.seconds


@dataclass(frozen=True)
class Paced:
    """What came of one run; seconds."""

    makespan: float
    worked: float
    """From the first submission that was accepted to the last image."""
    submitting: float
    accepted: int
    refused: int
    most: int
    """Tasks in flight at once."""
    held_up: float
    """How long all that may be in flight were."""

    @property
    def rate(self) -> float:
        """Accepted submissions a second while there were any to send."""
        return (self.accepted - 1) / self.submitting

    @property
    def share_refused(self) -> float:
        """The refused part of all submissions."""
        return self.refused / (self.accepted + self.refused)

    def __str__(self) -> str:
        held_up = f", and {self.held_up:.1f} s of the time as many as may be" if self.held_up else ""
        return (
            f"{self.makespan:.1f} s from start to exit, {self.worked:.1f} s from first submission to last image;"
            f" {self.rate:.1f} submissions/s over {self.submitting:.1f} s, {self.refused} refused;"
            f" {self.most} in flight at most{held_up}"
        )

    def as_json(self) -> dict[str, Any]:
        """All figures."""
        return {**vars(self), "rate": self.rate, "share_refused": self.share_refused}


def measure(options: Options) -> list[Row]:
    """A run that knows the limit, and one that does not."""
    load = Load(50, 1.0, 20) if options.small else Load(2000, 20.0, 50)
    what = f"{load.tasks:,} tasks of {load.seconds:g} s at {load.limit}/s"
    known: list[Paced] = []
    unknown: list[Paced] = []
    for _ in range(options.rounds):
        if options.wants("pacing-known"):
            known.append(_run(load, rate=f"{load.limit}/s"))
        if options.wants("pacing-unknown-rate") or options.wants("pacing-unknown-refused"):
            unknown.append(_run(load))
    rows = []
    if known:
        worked = statistics.median(one.worked / load.ideal for one in known)
        rows.append(
            Row(
                name="pacing-known",
                measured=f"{what}, limit known to the job: time of the run / ideal {load.ideal:g} s",
                runs=tuple(one.makespan / load.ideal for one in known),
                at_most=1.05,
                notes=(f"from the first submission to the last image: {worked:.3f} x", *map(str, known)),
                details={"runs": [one.as_json() for one in known]},
            )
        )
    if options.wants("pacing-unknown-rate"):
        rows.append(
            Row(
                name="pacing-unknown-rate",
                measured=f"{what}, limit not known: accepted submissions a second / limit",
                runs=tuple(one.rate / load.limit for one in unknown),
                at_least=0.9,
                notes=tuple(map(str, unknown)),
                details={"runs": [one.as_json() for one in unknown]},
            )
        )
    if options.wants("pacing-unknown-refused"):
        rows.append(
            Row(
                name="pacing-unknown-refused",
                measured=f"{what}, limit not known: refused submissions / submissions",
                runs=tuple(100 * one.share_refused for one in unknown),
                unit="%",
                at_most=2,
                details={"runs": [one.as_json() for one in unknown]},
            )
        )
    return rows


def _run(load: Load, **settings: str) -> Paced:
    options = ("--task-seconds", f"fixed:{load.seconds}", "--rate-limit", f"{load.limit}/s", "--image-size", "tiny")
    with tempfile.TemporaryDirectory() as name, emulator(*options) as service:
        job = write_job(Path(name) / "job", load.tasks, max_in_flight=MOST_IN_FLIGHT, **settings)
        finished = job.run(service)
        charged = [entry["at"] for entry in service.ask("ledger") if entry["event"] == "charge"]
        stats = service.ask("stats")
        last = job.asked("SELECT max(at) FROM events WHERE new = 'stored'")[0][0]
        most, held_up = _in_flight(job)
        return Paced(
            makespan=finished.seconds,
            worked=last - min(charged),
            submitting=max(charged) - min(charged),
            accepted=len(charged),
            refused=stats["rate_limited"],
            most=most,
            held_up=held_up,
        )


def _in_flight(job: BenchmarkJob) -> tuple[int, float]:
    """The most tasks that were in flight at once, from their intent to their image, and the seconds at the bound."""
    changes = job.asked(
        "SELECT at, CASE WHEN new = 'submitting' THEN 1 ELSE -1 END FROM events"
        " WHERE new IN ('submitting', 'stored') OR (old = 'submitting' AND new = 'planned') ORDER BY at, id"
    )
    count, most, held_up, since = 0, 0, 0.0, None
    for at, change in changes:
        count += change
        most = max(most, count)
        if count >= MOST_IN_FLIGHT:
            since = at if since is None else since
        elif since is not None:
            held_up, since = held_up + at - since, None
    return most, held_up
