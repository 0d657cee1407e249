"""Whether the memory of a run grows with what it has done: 100,000 tasks through a service that answers at once.

What the process holds is read every second. The figure is the most that it held in the second half of its time over
what it held in the middle.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from processes import RUNNER, resident, start, wait
from rows import Options, Row
from runs import DONE, write_job
from services import instant

ROWS = ("memory",)


@dataclass(frozen=True)
class Held:
    """What one run held, in bytes."""

    tasks: int
    samples: list[int]
    """From its start to its exit, at equal distances."""
    peak: int
    seconds: float

    @property
    def middle(self) -> int:
        """In the middle of its time."""
        return self.samples[len(self.samples) // 2]

    @property
    def later(self) -> int:
        """The most from there on."""
        return max(self.samples[len(self.samples) // 2 :])

    def __str__(self) -> str:
        return (
            f"{self.middle / 1e6:.1f} MB in the middle, {self.later / 1e6:.1f} MB at most from there on, peak"
            f" {self.peak / 1e6:.1f} MB; {self.seconds:.0f} s, {self.tasks / self.seconds:,.0f} tasks/s"
        )


def measure(options: Options) -> list[Row]:
    """Memory at the end over memory in the middle."""
    tasks = options.size(100_000, 60)
    held = [_run(tasks, 0.05 if options.small else 1.0) for _ in range(options.rounds)]
    row = Row(
        name="memory",
        measured=f"{tasks:,} tasks: most memory in the second half / memory in the middle",
        runs=tuple(one.later / one.middle for one in held),
        at_most=1.05,
        notes=tuple(map(str, held)),
        details={"runs": [vars(one) for one in held]},
    )
    return [row]


def _run(tasks: int, every: float) -> Held:
    """A run that is looked at again and again after so many seconds."""
    with tempfile.TemporaryDirectory() as name, instant() as service:
        job = write_job(Path(name) / "job", tasks)
        command = [*RUNNER, "run", str(job.file), "--quiet"]
        begin = time.perf_counter()
        process, printed = start(command, env=service.env, cwd=job.file.parent)
        samples = []
        # A process that has ended holds nothing, and stays in the table until `wait` asks for it.
        while held := resident(process.pid):
            samples.append(held)
            time.sleep(every)
        finished = wait(process, printed, begin, DONE)
        job.check()
    return Held(tasks, samples, finished.peak, finished.seconds)
