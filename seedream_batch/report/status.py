"""The status of a job, read while a run may be active."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from seedream_batch.client.wire import possible_ids
from seedream_batch.manifest import ManifestReader
from seedream_batch.manifest.answer_store import KeptAnswer
from seedream_batch.manifest.db.connection import UNLIMITED
from seedream_batch.manifest.reader import Flagged, RunRow, UncertainTask, WorkerRow
from seedream_batch.manifest.statistics import AxisCount, CostNote, Pace, Phase, StatisticsReader
from seedream_batch.model.cell import name_of
from seedream_batch.model.document import Json
from seedream_batch.model.job import MICRO
from seedream_batch.model.locations import Place
from seedream_batch.model.task import ImageRecord, ImageState, TaskRecord, TaskState, Totals
from seedream_batch.report.failure_causes import ADVICE, Cause, causes

SHOWN = 20
"""Most entries of each list; counts always cover everything."""

VALUES = 1000
"""Values of an axis that are counted individually."""

WINDOW = 300.0
"""Seconds over which the pace of a run is measured."""


@dataclass(frozen=True, slots=True)
class Value:
    """The tasks of one value of an axis, by phase."""

    name: str
    parts: Mapping[Phase, int]


@dataclass(frozen=True, slots=True)
class AxisStatus:
    """The values of an axis in the job's order; `more` counts those left out, and `cut` marks even more."""

    values: list[Value]
    more: int
    cut: bool


@dataclass(frozen=True, slots=True)
class Status:
    """The status of a job at one moment; money in millionths of a USD, times in unix seconds."""

    job: str
    service: str
    folder: Path | str
    tasks: dict[TaskState, int]
    images: dict[ImageState, int]
    wanted_images: int
    dropped: int
    stored_bytes: int
    totals: Totals
    cost_notes: list[CostNote]
    run: RunRow | None
    running: bool
    workers: list[WorkerRow]
    next_expiry: tuple[float, int] | None
    axes: dict[str, AxisStatus]
    pace: Pace | None
    images_left: int
    causes: list[Cause]
    failed: list[TaskRecord]
    lost: list[TaskRecord]
    uncertain: list[UncertainTask]
    troubled: list[tuple[ImageRecord, TaskRecord]]
    kept_answers: int
    kept: list[tuple[KeptAnswer, TaskRecord]]
    flagged_tasks: int
    flagged: list[Flagged]

    @property
    def going(self) -> bool:
        """Whether a run is active, rather than a command that holds the manifest briefly."""
        return self.running and (bool(self.workers) or (self.run is not None and self.run.ended_at is None))

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds until the active run ends, at its present pace; None if unknown."""
        if not self.going or self.pace is None:
            return None
        return self.images_left * self.pace.seconds / self.pace.images


def read_status(manifest: Place, folder: Path | str, *, axes: Sequence[str], running: bool, now: float) -> Status:
    """Read the status of the job with this manifest, broken down by these axes.

    `running` says whether a run holds the manifest right now; `now` is in unix seconds.
    """
    with StatisticsReader(manifest) as reader:
        reader.snapshot()
        _, images = reader.wanted()
        run = reader.last_run()
        workers = reader.workers() if running else []
        going = bool(workers) or (running and run is not None and run.ended_at is None)
        return Status(
            job=reader.facts.get("job"),
            service=reader.facts.get("service"),
            folder=folder,
            tasks=reader.counts(),
            images=reader.image_counts(),
            wanted_images=images,
            dropped=reader.dropped(),
            stored_bytes=reader.stored_bytes(),
            totals=reader.totals(),
            cost_notes=reader.cost_notes(SHOWN),
            run=run,
            running=running,
            workers=workers,
            next_expiry=reader.next_expiry(),
            axes={axis: _axis(count) for axis, count in reader.by_axis(axes).items()},
            pace=None if run is None else reader.pace(run, now if going else None, WINDOW),
            images_left=reader.images_left(),
            causes=causes(reader.failures()),
            failed=reader.tasks(TaskState.FAILED, SHOWN),
            lost=reader.tasks(TaskState.LOST, SHOWN),
            uncertain=reader.uncertain(SHOWN),
            troubled=reader.troubled_images(SHOWN),
            kept_answers=reader.answer_count(),
            kept=reader.answers(SHOWN),
            flagged_tasks=reader.flagged_tasks(),
            flagged=reader.flagged(SHOWN),
        )


def _axis(count: AxisCount) -> AxisStatus:
    """Return the first values of an axis; values with the same name are counted as one."""
    parts_by_name: dict[str, dict[Phase, int]] = {}
    ordered = sorted(count.values.items(), key=lambda item: item[1].first)
    for text, value_count in ordered:
        parts = parts_by_name.setdefault(name_of(json.loads(text)), {})
        for part, number in value_count.parts.items():
            parts[part] = parts.get(part, 0) + number
    values = [Value(name, parts) for name, parts in parts_by_name.items()]
    return AxisStatus(values[:VALUES], max(0, len(values) - VALUES), count.cut)


def cells_in_doubt(manifest: Place) -> list[Mapping[str, Json]]:
    """Return the cells of tasks that are uncertain or may become so, including those no longer in the job."""
    with ManifestReader(manifest) as reader:
        states = (TaskState.UNCERTAIN, TaskState.SUBMITTING)
        return [json.loads(task.cell) for state in states for task in reader.tasks(state, UNLIMITED)]


def status_json(status: Status) -> Json:
    """Return the status as JSON; money in USD, times in unix seconds."""
    expiry, expiring = status.next_expiry or (None, 0)
    return {
        "job": status.job,
        "service": status.service,
        "folder": str(status.folder),
        "tasks": {str(state): status.tasks.get(state, 0) for state in TaskState},
        "images": {
            "asked_for": status.wanted_images,
            **{str(state): status.images.get(state, 0) for state in ImageState},
            "stored_bytes": status.stored_bytes,
        },
        "no_longer_in_the_job": status.dropped,
        "spent_usd": status.totals.cost / MICRO,
        "images_paid": status.totals.images,
        "reserved_usd": status.totals.reserved / MICRO,
        "cost_notes": [
            {"note": note.note, "count": note.count, "counted_usd": note.cost / MICRO, "first": note.path}
            for note in status.cost_notes
        ],
        **_runs_json(status),
        "next_expiry": expiry,
        "next_expiry_images": expiring,
        "images_left": status.images_left,
        "seconds_left": None if status.seconds_left is None else round(status.seconds_left, 3),
        "axes": {axis: _axis_json(found) for axis, found in status.axes.items()},
        **_trouble_json(status),
    }


def _runs_json(status: Status) -> dict[str, Json]:
    run, pace = status.run, status.pace
    return {
        "running": status.running,
        "workers": [
            {
                "run": worker.run,
                "pid": worker.pid,
                "host": worker.host,
                "started_at": worker.started_at,
                "silent_for": round(worker.silent_for, 1),
                "gone": worker.gone,
                "in_flight": worker.in_flight,
                "images_paid": worker.images,
                "spent_usd": worker.cost / MICRO,
            }
            for worker in status.workers
        ],
        "last_run": run and {name: getattr(run, name) for name in ("pid", "host", "started_at", "ended_at", "outcome")},
        "pace": pace and {
            "images": pace.images,
            "seconds": round(pace.seconds, 3),
            "images_per_minute": round(per_minute(pace), 3),
        },
    }  # fmt: skip


def _axis_json(axis: AxisStatus) -> Json:
    values = [{"value": one.name, **{str(part): one.parts.get(part, 0) for part in Phase}} for one in axis.values]
    return {"values": values, "more": axis.more, "cut": axis.cut}


def _trouble_json(status: Status) -> dict[str, Json]:
    return {
        "causes": [
            {
                "state": str(cause.state),
                "code": cause.code,
                "reason": cause.reason,
                "count": cause.count,
                "first": cause.path,
                "kind": str(cause.kind),
                "advice": ADVICE[cause.kind],
            }
            for cause in status.causes
        ],
        "failed": [_task_json(task) for task in status.failed],
        "lost": [_task_json(task) for task in status.lost],
        "uncertain": [
            {
                **_task_json(doubt.task),
                "key": doubt.key,
                "sent_at": doubt.sent_at,
                "may_have_cost_usd": doubt.reserved / MICRO,
                "ids_in_answers": ids_in(doubt.kept),
            }
            for doubt in status.uncertain
        ],
        "images_in_trouble": [
            {**_task_json(task), "image": image.index, "state": str(image.state), "reason": image.reason}
            for image, task in status.troubled
        ],
        "kept_answers": status.kept_answers,
        "answers": [{**_task_json(task), **_answer_json(answer)} for answer, task in status.kept],
        "flagged_tasks": status.flagged_tasks,
        "flagged": [
            {
                **_task_json(flagged.task),
                "warning": flagged.task.warning,
                "images": [
                    {"image": image.index, "path": image.path, "warning": image.warning} for image in flagged.images
                ],
            }
            for flagged in status.flagged
        ],
    }


def ids_in(answers: Sequence[KeptAnswer]) -> list[str]:
    """Return possible task ids in kept answers, the likeliest first."""
    return list(dict.fromkeys(task_id for answer in answers for task_id in possible_ids(answer.kept)))


def _answer_json(answer: KeptAnswer) -> dict[str, Json]:
    kept = answer.kept
    return {
        "came_at": answer.at,
        "attempt": answer.attempt,
        "to": answer.kind,
        "why": kept.why,
        "http_status": kept.status,
        "headers": json.loads(kept.headers),
        "body": kept.body,
        "bytes": kept.length,
        "possible_ids": list(possible_ids(kept)),
    }


def per_minute(pace: Pace) -> float:
    return pace.images * 60 / pace.seconds


def _task_json(task: TaskRecord) -> dict[str, Json]:
    return {
        "fingerprint": task.fingerprint,
        "path": task.paths[0],
        "cell": json.loads(task.cell),
        "sample": task.sample,
        "prompt": json.loads(task.body).get("prompt"),
        "task_ids": list(task.task_ids),
        "code": task.code,
        "reason": task.reason,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(task.updated_at)),
    }
