"""The end of a run for other programs: as a value, a line and metrics. Pure: clock and result are arguments."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from seedream_batch._version import __version__
from seedream_batch.cli.exit_codes import Exit, meaning
from seedream_batch.cli.output.console import duration, number, usd
from seedream_batch.engine.events import StopReason
from seedream_batch.engine.session import RunResult
from seedream_batch.manifest.statistics import Counts
from seedream_batch.model.document import Json
from seedream_batch.model.job import MICRO, NotifyOn
from seedream_batch.model.task import ImageState, TaskState

FORMAT = "seedream_batch_summary"
"""The key that marks a summary; its value is the format version."""
VERSION = 1

_UNFINISHED = {StopReason.TIME, StopReason.INTERRUPTED}
"""Reasons to stop that may leave work without anything being wrong."""


def is_summary(data: bytes) -> bool:
    """Return whether these bytes are the summary of an earlier run."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and FORMAT in value


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """A finished run; times in unix seconds. `counts` are the manifest's, None if there is none.

    `result` is None for a run that failed with an exception; `error` then says why.
    """

    job: str
    file: Path
    emulated: bool
    folder: Path | str | None
    started_at: float
    ended_at: float
    code: int
    result: RunResult | None
    error: str
    counts: Counts | None


def kind_of(ended: RunOutcome) -> NotifyOn:
    """Return which of the outcomes that a job can name this was."""
    result = ended.result
    if result is None:
        if ended.code == Exit.LOCKED:
            return NotifyOn.NOTHING
        return NotifyOn.UNFINISHED if ended.code >= 128 else NotifyOn.FAILURE
    if result.stop_reason is None and not result.calls and not result.stats.moved:
        return NotifyOn.NOTHING
    if ended.code == Exit.DONE:
        return NotifyOn.SUCCESS
    return NotifyOn.UNFINISHED if result.stop_reason in _UNFINISHED else NotifyOn.FAILURE


def summary(ended: RunOutcome) -> dict[str, Json]:
    """Return the summary, as described by `schemas/summary.schema.json`."""
    result = ended.result
    stopped = result.stop_reason if result else None
    return {
        FORMAT: VERSION,
        "version": __version__,
        "job": ended.job,
        "job_file": str(ended.file),
        "emulated": ended.emulated,
        "folder": None if ended.folder is None else str(ended.folder),
        "started_at": round(ended.started_at, 3),
        "ended_at": round(ended.ended_at, 3),
        "seconds": round(max(0.0, ended.ended_at - ended.started_at), 3),
        "exit_code": int(ended.code),
        "meaning": meaning(ended.code),
        "end": str(kind_of(ended)),
        "stopped": None if stopped is None or result is None else {"reason": str(stopped), "text": result.stop_text},
        "error": ended.error or None,
        "warnings": [] if result is None else list(result.warnings),
        "run": None if result is None else _run(result),
        "state": None if ended.counts is None else _state(ended.counts),
    }


def message(ended: RunOutcome) -> str:
    """Return one line for a chat.

    It contains nothing that the service said, because chats interpret some texts as commands, such as mentions.
    """
    parts = [f"{ended.job}: {meaning(ended.code)} (exit code {int(ended.code)})"]
    if ended.counts is not None:
        stored = ended.counts.images.get(ImageState.STORED, 0)
        new = f" ({ended.result.stats.stored:,} new)" if ended.result else ""
        parts.append(f"{stored:,} of {number(ended.counts.wanted, 'image')} stored{new}")
        parts += [
            f"{number(ended.counts.tasks[state], 'task')} {state}"
            for state in (TaskState.FAILED, TaskState.LOST, TaskState.UNCERTAIN)
            if ended.counts.tasks.get(state)
        ]
        parts += [f"{number(ended.counts.flagged, 'task')} flagged"] if ended.counts.flagged else []
        now = f"{usd(ended.result.stats.cost)} in this run, " if ended.result else ""
        parts.append(f"{now}{usd(ended.counts.totals.cost)} in total")
    parts.append(duration(max(0.0, ended.ended_at - ended.started_at)))
    return "; ".join(parts)


_COUNTED = ("submitted", "stored", "stored_bytes", "failed", "lost", "uncertain", "moved", "flagged", "found")


def _run(result: RunResult) -> Mapping[str, Json]:
    stats = result.stats
    return {
        **{name: getattr(stats, name) for name in _COUNTED},
        "requests": result.calls,
        "cost_usd": stats.cost / MICRO,
        "left": result.left,
    }


def _state(counts: Counts) -> Mapping[str, Json]:
    return {
        "tasks": {str(state): counts.tasks.get(state, 0) for state in TaskState},
        "images": {
            "asked_for": counts.wanted,
            **{str(state): counts.images.get(state, 0) for state in ImageState},
        },
        "cost_usd": counts.totals.cost / MICRO,
        "images_paid": counts.totals.images,
        "reserved_usd": counts.totals.reserved / MICRO,
        "flagged": counts.flagged,
    }


_PREFIX = "seedream_batch"

_Sample = tuple[Mapping[str, str], float]


def are_metrics(data: bytes) -> bool:
    """Return whether these bytes are the metrics of an earlier run."""
    return data.startswith(f"# HELP {_PREFIX}_".encode())


def metrics(summary: Mapping[str, Json]) -> str:
    """Return the lines for a textfile collector; values that a run could not find out have no sample."""
    return "".join(line + "\n" for line in _lines(summary))


def _lines(summary: Mapping[str, Json]) -> Iterator[str]:
    job = {"job": str(summary["job"])}
    state, run = summary["state"], summary["run"]
    if state is not None:
        tasks = [({**job, "state": name}, count) for name, count in state["tasks"].items()]
        yield from _family("tasks", "Tasks of the job by state.", tasks)
        images = state["images"]
        yield from _family("images_asked_for", "Images in the job.", [(job, images["asked_for"])])
        yield from _family("images_stored", "Images of the job that are stored.", [(job, images["stored"])])
        yield from _family("cost_usd", "Cost of all runs, in US dollars.", [(job, state["cost_usd"])])
        flagged = [(job, state["flagged"])]
        yield from _family("tasks_flagged", "Tasks whose result differs from the request.", flagged)
        yield from _family("reserved_usd", "Held for tasks in flight, in US dollars.", [(job, state["reserved_usd"])])
    if run is not None:
        yield from _family("last_run_images_stored", "Images that the last run stored.", [(job, run["stored"])])
        yield from _family("last_run_cost_usd", "Cost of the last run, in US dollars.", [(job, run["cost_usd"])])
    ended = [(job, summary["ended_at"])]
    yield from _family("last_run_end_timestamp_seconds", "When the last run ended, in unix seconds.", ended)
    yield from _family("last_run_duration_seconds", "How long the last run took.", [(job, summary["seconds"])])
    yield from _family("last_run_exit_code", "Exit code of the last run; 0 is success.", [(job, summary["exit_code"])])


def _family(name: str, about: str, samples: Iterable[_Sample]) -> Iterator[str]:
    yield f"# HELP {_PREFIX}_{name} {about}"
    yield f"# TYPE {_PREFIX}_{name} gauge"
    for labels, value in samples:
        escaped = {
            key: text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for key, text in labels.items()
        }
        inside = ",".join(f'{key}="{text}"' for key, text in escaped.items())
        yield f"{_PREFIX}_{name}{{{inside}}} {value!r}"
