"""How fast a job of a million tasks is planned, entered and found finished, beside a loop that renders its prompts.

Each round measures, one after the other and each in a process of its own: the bare loop (a compiled Jinja template,
the rows of the csv, nothing else), `seedream-batch plan` without a manifest, `run --limit 0`, which enters every task
into a new one, and a `run` that finds everything stored, with every file in its place. Beside the ratios on the clock,
the notes have those of processor time, which say more where the machine does other things, too.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from PIL import Image
from processes import RUNNER, Finished, run
from rows import Options, Row, middle, ratios

ROWS = ("plan", "plan-memory", "enter", "enter-memory", "no-op")

RATIOS = ["1:1", "4:3", "3:4", "16:9", "9:16", "3:2", "2:3", "21:9", "9:21"]
RESOLUTIONS = ["2K", "4K"]
PER_SUBJECT = len(RATIOS) * len(RESOLUTIONS)

# Reads every axis, so that no two cells have the same prompt.
PROMPT = "{{ subject.text }} in {{ subject.place }}, composed for {{ size }} at {{ resolution }}, {{ look }}"
LOOK = "Documentary Wildlife Photograph, natural colours, no text"

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


def measure(options: Options) -> list[Row]:
    """The ratios to the bare loop, and the peaks of memory."""
    tasks = -(-options.size(1_000_000, 2_000) // PER_SUBJECT) * PER_SUBJECT
    ended: dict[str, list[Finished]] = {name: [] for name in ("bare", "plan", "enter", "no-op")}
    for _ in range(options.rounds):
        _round(tasks, ended, later=any(options.wants(name) for name in ROWS[2:]))
    rows = []
    for name, what, most in (
        ("plan", "plan without a manifest", 4.0),
        ("enter", "run --limit 0, which enters all tasks", 7.0),
        ("no-op", "run when all is stored", 3.0),
    ):
        if options.wants(name):
            seconds, bare = ([one.seconds for one in ended[which]] for which in (name, "bare"))
            cpu, bare_cpu = ([one.cpu for one in ended[which]] for which in (name, "bare"))
            rows.append(
                Row(
                    name=name,
                    measured=f"{tasks:,} tasks: {what} / bare loop that renders their prompts",
                    runs=ratios(seconds, bare),
                    at_most=most,
                    notes=(
                        f"{middle(seconds)} s, bare loop {middle(bare)} s",
                        f"of processor time: {middle(ratios(cpu, bare_cpu))} x",
                    ),
                    details={"seconds": seconds, "bare_seconds": bare, "cpu": cpu, "bare_cpu": bare_cpu},
                )
            )
        if options.wants(f"{name}-memory"):
            rows.append(
                Row(
                    name=f"{name}-memory",
                    measured=f"{tasks:,} tasks: peak memory of {what}",
                    runs=tuple(one.peak / 1e6 for one in ended[name]),
                    unit="MB",
                    at_most=300,
                )
            )
    return rows


def _round(tasks: int, ended: dict[str, list[Finished]], *, later: bool) -> None:
    """Each command once; those that need a manifest only if they are asked for."""
    with tempfile.TemporaryDirectory() as name, silent_service() as listener:
        folder = Path(name)
        job = write_job(folder, tasks)
        bare = [sys.executable, "-c", BARE, str(folder / "subjects.csv"), PROMPT, LOOK]
        ended["bare"].append(run([*bare, " ".join(RATIOS), " ".join(RESOLUTIONS)]))
        most = ["--max-tasks", str(10**12)]
        ended["plan"].append(run([*RUNNER, "plan", str(job), *most]))
        expect(f"large: {tasks:,} tasks", ended["plan"][-1])
        if not later:
            return
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        environment = {"APIMART_API_KEY": "none", "APIMART_BASE_URL": url}
        ended["enter"].append(run([*RUNNER, "run", str(job), "--limit", "0", *most], env=environment, codes=(7, 0)))
        expect(f"{tasks:,} tasks for the next run", ended["enter"][-1])
        finish(folder / "out" / "large")
        ended["no-op"].append(run([*RUNNER, "run", str(job), *most], env=environment))
        expect(f"stored     {tasks:,} images", ended["no-op"][-1])
        undisturbed(listener)


def expect(text: str, finished: Finished) -> None:
    """Raises `RuntimeError` where a command did not say what it has to."""
    if text not in finished.output:
        raise RuntimeError(f"{text!r} was not told: {finished.output[:300]}")


def write_job(folder: Path, tasks: int) -> Path:
    """A job of so many tasks, and the csv beside it."""
    with (folder / "subjects.csv").open("w", encoding="utf-8", newline="") as file:
        file.write("id,text,place\r\n")
        for number in range(tasks // PER_SUBJECT):
            file.write(f's{number:06},an animal called Nº {number},"a valley, {number % 977} m"\r\n')
    job = {
        "version": 1,
        "name": "large",
        "matrix": {"subject": {"file": "subjects.csv"}, "size": RATIOS, "resolution": RESOLUTIONS},
        "vars": {"look": LOOK},
        "request": {"prompt": PROMPT, "optimize_prompt_options": {"mode": "fast"}},
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
