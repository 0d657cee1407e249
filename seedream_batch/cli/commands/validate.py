"""`seedream-batch validate`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from seedream_batch.cli.options import MAX_TASKS, JobFile
from seedream_batch.cli.output.console import annotate, give, number, say, tell
from seedream_batch.errors import InvalidJob, StorageError, UsageError
from seedream_batch.model.document import Problem

if TYPE_CHECKING:
    from seedream_batch.model.job import Job

_EPILOG = """\b
Examples:
  seedream-batch validate jobs/*.yaml
  seedream-batch validate --format github jobs/*.yaml     (annotations in a pull request)
  seedream-batch validate --format json jobs/a.yaml | jq '.[].message'

Exit code 0: all jobs are valid; 2: at least one is not."""


@click.command("validate", epilog=_EPILOG)
@click.argument("jobs", metavar="JOB...", nargs=-1, required=True, type=JobFile())
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "github"]), default="text", show_default=True,
    help="Format of the errors.",
)  # fmt: skip
@MAX_TASKS
def command(jobs: Sequence[str], form: str, max_tasks: int) -> int:
    """Check every cell of job files and report all errors.

    Works offline and without a key.
    """
    from seedream_batch.cli.job_target import warn_of_unset_variables

    results: list[tuple[str, Problem]] = []
    for path in jobs:
        problems, tasks, job = _check(path, max_tasks)
        results += [(path, problem) for problem in problems]
        if not problems and form == "text":
            say(f"{path}: valid, {number(tasks, 'task')}")
            if job is not None:
                warn_of_unset_variables(job)
        if form == "text":
            for problem in problems:
                tell(str(problem))
            if problems:
                say(f"{path}: {number(len(problems), 'problem')}", err=True)
    if form == "json":
        give([_as_json(path, problem) for path, problem in results])
    elif form == "github":
        for path, problem in results:
            annotate(_as_annotation(path, problem))
    return 2 if results else 0


def _check(path: str, max_tasks: int) -> tuple[Sequence[Problem], int, Job | None]:
    from seedream_batch.jobfile import load_job

    try:
        loaded = load_job(path, max_tasks=max_tasks)
        return (), loaded.check(), loaded.job
    except InvalidJob as error:
        return error.problems, 0, None
    except (StorageError, UsageError) as error:
        return (Problem("", str(error)),), 0, None


def _as_json(path: str, problem: Problem) -> dict[str, object]:
    where = problem.position
    return {
        "job": path,
        "file": where.file if where else path,
        "line": where.line if where else None,
        "column": where.column if where else None,
        "path": problem.path,
        "message": problem.message,
        "hint": problem.hint,
        "cell": problem.cell,
        "cells": problem.count,
    }


def _as_annotation(path: str, problem: Problem) -> str:
    """Return a workflow command of GitHub Actions, with the escapes that its runner decodes."""
    where = problem.position
    place = f"file={_property(where.file)},line={where.line},col={where.column}" if where else f"file={_property(path)}"
    return f"::error {place}::{_data(str(dataclasses.replace(problem, position=None)))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
