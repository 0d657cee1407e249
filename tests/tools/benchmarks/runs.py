"""Job files of a given number of tasks, real runs of them, and what their manifests tell."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import RUNNER, Finished, run
from services import ServiceProcess

DONE = (0, 9)
"""Exit codes of a run that stored all: some services here give small pictures, so that decoding them costs little."""


@dataclass(frozen=True)
class BenchmarkJob:
    """A job file of so many tasks; its output lies beside it."""

    file: Path
    tasks: int

    @property
    def output(self) -> Path:
        """The output folder."""
        return self.file.parent / "out"

    def run(
        self,
        service: ServiceProcess,
        *options: str,
        on: set[int] | None = None,
        command: Sequence[str] = RUNNER,
        stored: bool = True,
    ) -> Finished:
        """A run from start to exit. Raises `RuntimeError` unless it stored every image, where it is to do so."""
        finished = run(
            [*command, "run", str(self.file), "--quiet", *options],
            env=service.env,
            cwd=self.file.parent,
            on=on,
            codes=DONE,
        )
        if stored:
            self.check()
        return finished

    def extended(self, tasks: int) -> BenchmarkJob:
        """The same job with so many tasks more."""
        whole = self.tasks + tasks
        _write_numbers(self.file.parent, whole)
        return BenchmarkJob(self.file, whole)

    def check(self) -> None:
        """Raises `RuntimeError` unless the image of every task is stored."""
        count = self.asked("SELECT count(*) FROM images WHERE state = 'stored'")[0][0]
        if count != self.tasks:
            raise RuntimeError(f"{count} of {self.tasks} images are stored")

    def asked(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of the manifest."""
        with contextlib.closing(sqlite3.connect(f"file:{self.output / 'manifest.db'}?mode=ro", uri=True)) as manifest:
            return manifest.execute(query).fetchall()


def write_job(folder: Path, tasks: int, **settings: Mapping[str, Any] | str | float) -> BenchmarkJob:
    """A job of so many tasks with these settings for its run, in a new folder."""
    folder.mkdir(parents=True)
    _write_numbers(folder, tasks)
    job = {
        "version": 1,
        "name": "benchmark",
        "matrix": {"number": {"file": "numbers.txt"}},
        "request": {"prompt": "a fox in the snow, number {{ number }}"},
        "output": {"dir": "out"},
        "run": settings,
    }
    file = folder / "job.yaml"
    file.write_text(json.dumps(job), encoding="utf-8")
    return BenchmarkJob(file, tasks)


def _write_numbers(folder: Path, tasks: int) -> None:
    (folder / "numbers.txt").write_text("".join(f"{number}\n" for number in range(1, tasks + 1)), encoding="utf-8")
