"""How fast a large job is expanded, checked and planned, beside a loop that only renders its prompts.

    python tests/benchmarks/expansion.py [--cells 1000008] [--rounds 3] [--prompt long] [--json FILE]

Each round measures, one after the other and each in a process of its own: the bare loop (a compiled Jinja template,
the rows of the csv, nothing else), loading the job alone, and `seedream-batch plan`. The machine may be busy with other
things, so what counts is the ratio of the medians, on the clock and of processor time, and the peak of the memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

RATIOS = ["1:1", "4:3", "3:4", "16:9", "9:16", "3:2", "2:3", "21:9", "9:21"]
RESOLUTIONS = ["2K", "4K"]
PER_SUBJECT = len(RATIOS) * len(RESOLUTIONS)

PROMPTS = {
    # Reads one axis of three: the same text for every ratio and resolution of a subject.
    "short": "{{ subject.text }} in {{ subject.place }}, {{ look }}",
    # Reads every axis, so that no two cells have the same prompt.
    "long": "{{ subject.text }} in {{ subject.place }}, composed for {{ size }} at {{ resolution }}, {{ look }}",
    # Has a block and filters, and reads every axis.
    "branching": "{{ subject.text | capitalize }}{% if subject.place %} in {{ subject.place }}{% endif %}, composed for"
    " {{ size }}{% if resolution == '4K' %} with fine detail{% endif %}, {{ look | lower }}",
}
LOOK = "Documentary Wildlife Photograph, natural colours, no text"
PATHS = {
    "default": "",
    "template": "{{ subject.folder }}/{{ subject.id }}/{{ size }}-{{ resolution }}",
}

# What the bare loop may do: read the rows, render each prompt, drop it.
BARE = """
import csv, sys, itertools
import jinja2
file, prompt, look = sys.argv[1:4]
template = jinja2.Environment().from_string(prompt)
with open(file, newline="", encoding="utf-8") as source:
    rows = list(csv.DictReader(source))
for subject, size, resolution in itertools.product(rows, sys.argv[4].split(), sys.argv[5].split()):
    template.render(subject=subject, size=size, resolution=resolution, look=look)
"""
LOAD = """
import sys
from seedream_batch.load import load_job
load_job(sys.argv[1], max_tasks=10**12)
"""


@dataclass
class Measured:
    """The runs of one command: seconds on the clock and of the processor, and peak bytes."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def peak(self) -> int:
        return max(self.peaks)


def write_job(folder: Path, cells: int, prompt: str, path: str, *, shuffled: bool) -> Path:
    """A job of at least `cells` cells, and the csv beside it."""
    subjects = -(-cells // PER_SUBJECT)
    with (folder / "subjects.csv").open("w", encoding="utf-8", newline="") as file:
        file.write("id,text,place,folder\r\n")
        for number in range(subjects):
            file.write(f's{number:06},an animal called Nº {number},"a valley, {number % 977} m",g{number % 100:02}\r\n')
    matrix: dict[str, object] = {"subject": {"file": "subjects.csv"}, "size": RATIOS, "resolution": RESOLUTIONS}
    job = {
        "version": 1,
        "name": "large",
        "matrix": dict(reversed(matrix.items())) if shuffled else matrix,
        "vars": {"look": LOOK},
        "request": {"prompt": prompt, "optimize_prompt_options": {"mode": "fast"}},
        "output": {"path": path} if path else {},
        "budget": {"price_per_image_usd": 0.035},
    }
    job_file = folder / "job.yaml"
    job_file.write_text(json.dumps(job, ensure_ascii=False), encoding="utf-8")
    return job_file


def run(command: list[str], into: Measured) -> str:
    """Runs a command to its end; its output. Raises `RuntimeError` where it fails."""
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        into.seconds.append(time.perf_counter() - start)
        into.cpu.append(usage.ru_utime + usage.ru_stime)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        told = output.read().decode()
    if process.returncode:
        raise RuntimeError(f"{command[:4]} ended with {process.returncode}")
    # Linux counts in KiB, macOS in bytes.
    into.peaks.append(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
    return told


def main() -> None:
    """Measures, prints a table, and writes the figures as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1_000_008)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", choices=PROMPTS, default="long")
    parser.add_argument("--path", choices=PATHS, default="default", help="the default output path, or a template")
    parser.add_argument("--reversed", action="store_true", help="the subjects are the last axis, which turns fastest")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    tasks = -(-arguments.cells // PER_SUBJECT) * PER_SUBJECT
    measured = {name: Measured() for name in ("bare loop", "load", "plan")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prompt = PROMPTS[arguments.prompt]
        job = write_job(folder, arguments.cells, prompt, PATHS[arguments.path], shuffled=arguments.reversed)
        bare = [sys.executable, "-c", BARE, str(folder / "subjects.csv"), prompt, LOOK]
        plan = [sys.executable, "-m", "seedream_batch", "plan", str(job), "--max-tasks", str(10**12)]
        for _ in range(arguments.rounds):
            run([*bare, " ".join(RATIOS), " ".join(RESOLUTIONS)], measured["bare loop"])
            run([sys.executable, "-c", LOAD, str(job)], measured["load"])
            told = run(plan, measured["plan"])
            if f"large: {tasks:,} tasks" not in told:
                raise RuntimeError(f"the plan is not of {tasks:,} tasks: {told[:200]}")
    base, base_cpu = measured["bare loop"].median, statistics.median(measured["bare loop"].cpu)
    print(f"{tasks:,} tasks, {arguments.rounds} rounds, prompt {arguments.prompt}, path {arguments.path}")
    print(f"{'':<10} {'median s':>9} {'all':>24} {'ratio':>6} {'cpu s':>7} {'ratio':>6} {'us/task':>8} {'peak MB':>8}")
    for what, one in measured.items():
        cpu = statistics.median(one.cpu)
        each = " ".join(f"{seconds:.2f}" for seconds in one.seconds)
        print(
            f"{what:<10} {one.median:>9.2f} {each:>24} {one.median / base:>6.2f} {cpu:>7.2f}"
            f" {cpu / base_cpu:>6.2f} {one.median / tasks * 1e6:>8.2f}"
            f" {one.peak / 1e6:>8.1f}"
        )
    if arguments.json:
        figures = {
            what: {**vars(one), "median": one.median, "ratio": one.median / base, "peak": one.peak}
            for what, one in measured.items()
        }
        arguments.json.write_text(json.dumps({"tasks": tasks, **vars(arguments), "json": None, "figures": figures}))


if __name__ == "__main__":
    main()
