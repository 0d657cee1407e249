"""Correct what tasks count against the budget, where the service reported something odd."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping

from seedream_batch.engine.manifest_checks import opened
from seedream_batch.model.document import Json
from seedream_batch.model.job import Job
from seedream_batch.model.task import TaskRecord


def correct_costs(
    job: Job, chooses: Callable[[Mapping[str, Json]], bool], cost: int, *, noted: bool
) -> list[TaskRecord]:
    """Set each charge of the chosen tasks to `cost` (millionths of a USD); return these tasks.

    With `noted`, only charges that were marked as odd. Raise `ManifestLocked` or `UsageError`.
    """
    with opened(job) as manifest:
        charges = [charge for charge in manifest.budget.charges(noted=noted) if chooses(json.loads(charge[0].cell))]
        manifest.budget.correct_cost(charges, cost, time.time())
    return list({task.id: task for task, _, _ in charges}.values())
