"""How fast a large job is planned, entered and found finished, beside a loop that only renders its prompts.

    python tests/benchmarks/expansion.py [--cells 1000008] [--rounds 3] [--prompt long] [--json FILE]

Each round measures, one after the other and each in a process of its own: the bare loop (a compiled Jinja template,
the rows of the csv, nothing else), `seedream-batch plan` without a manifest, `run --limit 0`, which enters every task
into a new one, and a `run` that finds everything stored, with every file in its place. The machine may be busy with
other things, so what counts is the ratio of the medians, on the clock and of processor time, and the peak of memory.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

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
FINISHED = """
INSERT INTO attempts (key, task, number, opened_at, task_ids, outcome, reserved_images, reserved, images, cost)
    SELECT 'sb-bench-' || fingerprint || '-1', id, 1, :now - 60, '["task_' || id || '"]', 'succeeded', 0, 0, 1, 35000
        FROM tasks;
INSERT INTO images (task, "index", state, url, expires_at, path, bytes, sha256, width, height, format, updated_at)
    SELECT id, 1, 'stored', 'https://example.com/' || id || '.jpg', :now + 86400, json_extract(paths, '$[0]') || '.jpg',
        :bytes, :sha256, 8, 8, 'JPEG', :now FROM tasks;
INSERT INTO events (at, run, task, image, old, new, why)
    SELECT :now, 1, id, NULL, column1, column2, '' FROM tasks, (VALUES ('planned', 'submitting'),
        ('submitting', 'accepted'), ('accepted', 'succeeded'));
INSERT INTO events (at, run, task, image, old, new, why) SELECT :now, 1, id, 1, 'announced', 'stored', '' FROM tasks;
UPDATE totals SET images = (SELECT count(*) FROM tasks), cost = 35000 * (SELECT count(*) FROM tasks);
UPDATE tasks SET state = 'succeeded', attempt = 1, task_ids = '["task_' || id || '"]', submitted_at = :now - 60,
    deadline = :now + 1800, ended_at = :now, cost = 35000, updated_at = :now;
"""
"""What a run of all tasks leaves in the manifest; a real one would take an hour."""


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


def finish(output: Path) -> None:
    """Brings the manifest, and the files, to where a run of all tasks brings them."""
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(picture, "JPEG")
    data = picture.getvalue()
    values = {"now": time.time(), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    with closing(sqlite3.connect(output / "manifest.db", isolation_level=None)) as manifest:
        manifest.execute("BEGIN")
        for statement in FINISHED.split(";\n"):
            manifest.execute(statement, values)
        manifest.execute("COMMIT")
        paths = [path for (path,) in manifest.execute("SELECT path FROM images")]
    for folder in {os.path.dirname(path) for path in paths}:  # noqa: PTH120 - a million of them
        (output / folder).mkdir(parents=True, exist_ok=True)
    for path in paths:
        (output / path).write_bytes(data)


@contextmanager
def silent_service() -> Iterator[socket.socket]:
    """A service that nobody is to speak to: an address that takes connections and answers none of them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


def undisturbed(listener: socket.socket) -> None:
    """Raises `RuntimeError` if anybody spoke to the service."""
    with suppress(BlockingIOError):
        listener.accept()
        raise RuntimeError("the service was spoken to")


def run(command: list[str], into: Measured, environment: Mapping[str, str] | None = None) -> str:
    """Runs a command to its end; its output. Raises `RuntimeError` where it fails."""
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, env={**os.environ, **(environment or {})})
        _, status, usage = os.wait4(process.pid, 0)
        into.seconds.append(time.perf_counter() - start)
        into.cpu.append(usage.ru_utime + usage.ru_stime)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        told = output.read().decode()
    if process.returncode not in {0, 7}:
        raise RuntimeError(f"{command[:4]} ended with {process.returncode}")
    # Linux counts in KiB, macOS in bytes.
    into.peaks.append(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
    return told


def expect(text: str, told: str) -> None:
    """Raises `RuntimeError` where a command did not say what it has to."""
    if text not in told:
        raise RuntimeError(f"{text!r} was not told: {told[:300]}")


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
    measured = {name: Measured() for name in ("bare loop", "plan", "enter", "no-op run")}
    with tempfile.TemporaryDirectory() as name, silent_service() as listener:
        folder = Path(name)
        prompt = PROMPTS[arguments.prompt]
        job = write_job(folder, arguments.cells, prompt, PATHS[arguments.path], shuffled=arguments.reversed)
        bare = [sys.executable, "-c", BARE, str(folder / "subjects.csv"), prompt, LOOK]
        command = [sys.executable, "-m", "seedream_batch"]
        most = ["--max-tasks", str(10**12)]
        environment = {
            "APIMART_API_KEY": "none",
            "APIMART_BASE_URL": f"http://127.0.0.1:{listener.getsockname()[1]}",
        }
        for _ in range(arguments.rounds):
            shutil.rmtree(folder / "out", ignore_errors=True)
            run([*bare, " ".join(RATIOS), " ".join(RESOLUTIONS)], measured["bare loop"])
            told = run([*command, "plan", str(job), *most], measured["plan"])
            expect(f"large: {tasks:,} tasks", told)
            told = run([*command, "run", str(job), "--limit", "0", *most], measured["enter"], environment)
            expect(f"{tasks:,} tasks for the next run", told)
            finish(folder / "out" / "large")
            told = run([*command, "run", str(job), *most], measured["no-op run"], environment)
            expect(f"stored     {tasks:,} images", told)
            undisturbed(listener)
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
