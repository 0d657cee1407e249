"""Apply the user's decisions on failed, lost and uncertain tasks.

Functions that change the manifest hold its lock, and raise `ManifestLocked`, `UsageError` or `StorageError`. `chooses`
takes the cell of a task, and returns whether the task is selected.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from seedream_batch.client.wire import possible_ids
from seedream_batch.engine.manifest_checks import opened
from seedream_batch.errors import UsageError
from seedream_batch.manifest import Manifest, ManifestReader
from seedream_batch.manifest.db.connection import UNLIMITED
from seedream_batch.model.cell import CellFilter
from seedream_batch.model.job import Job
from seedream_batch.model.outcome import Polled
from seedream_batch.model.task import TaskRecord, TaskState, may_be_known


@dataclass(frozen=True, slots=True)
class Retried:
    """Tasks planned again, their estimated cost (millionths of a USD), and tasks left alone."""

    tasks: list[TaskRecord]
    cost: int
    left: list[TaskRecord]
    """Lost tasks that a poll may still find: they are not bought again before a poll was answered."""


def lost_tasks(job: Job, chooses: CellFilter) -> int:
    """Return how many of the chosen tasks are lost, and may be found again by a poll."""
    now = time.time()
    with ManifestReader(job.manifest) as reader:
        lost = _filtered(reader.tasks(TaskState.LOST, UNLIMITED), chooses)
    return sum(may_be_known(task, now) for task in lost)


def retry_tasks(job: Job, chooses: CellFilter, polled: Mapping[int, Polled] | None) -> Retried:
    """Plan the chosen failed and lost tasks of the job again.

    A lost task that the service may still know is planned only if its last poll, in `polled` by task number, said that
    there is nothing to collect; with None, all are planned. Raise `ManifestLocked` or `UsageError`.
    """
    now = time.time()
    with opened(job) as manifest:
        chosen = _of_job(_select(manifest, (TaskState.FAILED, TaskState.LOST), chooses))
        left = [
            task
            for task in chosen
            if polled is not None
            and task.state is TaskState.LOST
            and may_be_known(task, now)
            and polled.get(task.id) not in NO_MORE
        ]
        left_ids = {task.id for task in left}
        chosen = [task for task in chosen if task.id not in left_ids]
        manifest.decisions.retry(chosen, now)
    return Retried(chosen, estimate(job, chosen), left)


def estimate(job: Job, tasks: Sequence[TaskRecord]) -> int:
    """Return what these tasks will cost by the prices charged last, in millionths of a USD."""
    with ManifestReader(job.manifest) as reader:
        prices = reader.prices()
    return sum(task.images * prices.get((task.model, task.resolution), task.price) for task in tasks)


NO_MORE = {Polled.NOT_FOUND, Polled.COMPLETED, Polled.FAILED}
"""Results of a poll after which a task that is still lost, or flagged, gets no more images."""


def lose_tasks(job: Job, chooses: CellFilter) -> list[TaskRecord]:
    """Mark the chosen accepted tasks as lost, which a run would not do yet; return them."""
    with opened(job) as manifest:
        chosen = _select(manifest, (TaskState.ACCEPTED,), chooses)
        for task in chosen:
            manifest.tasks.lost(task, why="given up by a person", now=time.time())
    return chosen


def remake(job: Job, chooses: CellFilter) -> tuple[list[TaskRecord], int]:
    """Plan the chosen tasks again whose images are missing and can no longer be downloaded.

    Return these tasks, and how many others lack an image that a link may still yield for free.
    """
    with opened(job) as manifest:
        chosen = _filtered(manifest.upkeep.to_remake(), chooses)
        manifest.decisions.remake(chosen, time.time())
        return chosen, len(_filtered(manifest.upkeep.maybe_restorable(), chooses))


def accept_results(job: Job, chooses: CellFilter) -> list[TaskRecord]:
    """Accept the results of the chosen flagged tasks as they are; return these tasks."""
    with opened(job) as manifest:
        with ManifestReader(job.manifest) as reader:
            chosen = _filtered([entry.task for entry in reader.flagged(UNLIMITED)], chooses)
        manifest.decisions.accept(chosen, time.time())
    return chosen


def forget_tasks(job: Job, chooses: CellFilter) -> list[TaskRecord]:
    """Plan the chosen uncertain tasks again under new keys, which may pay for them twice; return them."""
    with opened(job) as manifest:
        chosen = _of_job(_select(manifest, (TaskState.UNCERTAIN,), chooses))
        manifest.decisions.forget(chosen, time.time())
    return chosen


def give_up_tasks(job: Job, chooses: CellFilter) -> list[TaskRecord]:
    """Mark the chosen uncertain tasks as failed; return them."""
    with opened(job) as manifest:
        chosen = _select(manifest, (TaskState.UNCERTAIN,), chooses)
        manifest.decisions.give_up(chosen, time.time())
    return chosen


def let_resend_tasks(job: Job, chooses: CellFilter) -> list[TaskRecord]:
    """Allow the chosen uncertain tasks to be resent under their keys; return them."""
    with opened(job) as manifest:
        chosen = _select(manifest, (TaskState.UNCERTAIN,), chooses)
        manifest.decisions.let_resend(chosen, time.time())
    return chosen


def identify_task(job: Job, chooses: CellFilter, task_id: str) -> TaskRecord:
    """Give the one chosen uncertain task the task id that the service has for it; return the accepted task.

    Of several chosen tasks, it is the one whose stored response contains this id. Raise `UsageError`.
    """
    with opened(job) as manifest:
        chosen = _select(manifest, (TaskState.UNCERTAIN,), chooses)
        if len(chosen) > 1:
            # The one whose stored response contains this id.
            named = [task for task in chosen if _is_named(manifest, task, task_id.strip())]
            chosen = named if len(named) == 1 else chosen
        if len(chosen) != 1:
            names = ", ".join(task.paths[0] for task in chosen[:5])
            problem = (
                f"{len(chosen):,} uncertain tasks are selected ({names})" if chosen else "no uncertain task is selected"
            )
            raise UsageError(f"{problem}, but a task id belongs to one; select it with --select")
        if not task_id.strip() or manifest.tasks.knows_task_id(task_id.strip()):
            raise UsageError(f"the task id {task_id!r} is empty or belongs to another task of this job")
        now = time.time()
        deadline = now + job.run.task_timeout
        return manifest.tasks.accepted(chosen[0], [task_id.strip()], deadline=deadline, why="identified", now=now)


def _is_named(manifest: Manifest, task: TaskRecord, task_id: str) -> bool:
    """Return whether a stored response to the task contains this id."""
    return any(task_id in possible_ids(answer.kept) for answer in manifest.answers.of_task(task.id))


def _of_job(tasks: list[TaskRecord]) -> list[TaskRecord]:
    """Return the tasks that the job still asks for: nothing else is ever bought."""
    return [task for task in tasks if task.ordinal is not None]


def _select(manifest: Manifest, states: Sequence[TaskState], chooses: CellFilter) -> list[TaskRecord]:
    return _filtered([task for state in states for task in manifest.tasks.in_state(state)], chooses)


def _filtered(tasks: list[TaskRecord], chooses: CellFilter) -> list[TaskRecord]:
    return [task for task in tasks if chooses(json.loads(task.cell))]


def correct_costs(job: Job, chooses: CellFilter, cost: int, *, noted: bool) -> list[TaskRecord]:
    """Set each charge of the chosen tasks to `cost` (millionths of a USD); return these tasks.

    With `noted`, only charges that were marked as odd. Raise `ManifestLocked` or `UsageError`.
    """
    with opened(job) as manifest:
        charges = [charge for charge in manifest.budget.charges(noted=noted) if chooses(json.loads(charge[0].cell))]
        manifest.budget.correct_cost(charges, cost, time.time())
    return list({task.id: task for task, _, _ in charges}.values())
