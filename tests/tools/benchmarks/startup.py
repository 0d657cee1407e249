"""How long `seedream-batch --help` takes beside a Python that does nothing: processes from start to exit."""

from __future__ import annotations

import sys
from pathlib import Path

from processes import run
from rows import Options, Row, middle

ROWS = ("help",)

TIMES = 15
"""Starts of each in a round: one takes milliseconds."""


def measure(options: Options) -> list[Row]:
    """The ratio of the medians of each round."""
    script = Path(sys.executable).with_name("seedream-batch")
    runs, helps, nothings = [], [], []
    for _ in range(options.rounds):
        help_, nothing = [], []
        for _ in range(options.size(TIMES, 2)):
            nothing.append(run([sys.executable, "-c", "pass"]).seconds)
            help_.append(run([str(script), "--help"]).seconds)
        helps.append(sorted(help_)[len(help_) // 2])
        nothings.append(sorted(nothing)[len(nothing) // 2])
        runs.append(helps[-1] / nothings[-1])
    row = Row(
        name="help",
        measured="seedream-batch --help / python -c pass",
        runs=tuple(runs),
        at_most=4,
        notes=(f"{1000 * float(middle(helps)):.0f} ms and {1000 * float(middle(nothings)):.0f} ms",),
        details={"help": helps, "python": nothings},
    )
    return [row]
