"""Compare a job with its manifest: what a run would do. Changes nothing."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Mapping

from seedream_batch.manifest import ManifestReader
from seedream_batch.manifest.db.open import exists
from seedream_batch.manifest.sync_job import known_as
from seedream_batch.model.cell import CellFilter
from seedream_batch.model.cell_names import CellNames
from seedream_batch.model.locations import Place
from seedream_batch.model.task import ImageRecord, ImageState, TaskRecord, TaskSpec, TaskState
from seedream_batch.planning import PAID, Decision, Plan, decide

_BATCH = 500


_IN_FLIGHT = (TaskState.SUBMITTING, TaskState.ACCEPTED, TaskState.UNCERTAIN)


def make_plan(
    specs: Iterable[TaskSpec], manifest: Place, *, resend: bool, now: float, chooses: CellFilter | None = None
) -> Plan:
    """Return what a run of these tasks would do at `now` (Unix seconds), given their manifest, if there is one yet.

    `chooses` takes the cells of tasks that may be bought or resent; what is paid for is collected in any case.
    """
    plan = Plan()
    if not exists(manifest):
        for spec in specs:
            _add(plan, spec, decide(spec, None, (), was=None, resend=resend, now=now), chooses)
        return plan
    with ManifestReader(manifest) as reader:
        reader.snapshot()
        known = 0
        prices = reader.prices()
        plan.totals = reader.totals()
        plan.charged = bool(prices)
        source = iter(specs)
        while page := list(itertools.islice(source, _BATCH)):
            batch = [_priced(spec, prices) for spec in known_as(page, reader.lookup)]
            known += _survey_batch(plan, batch, reader, resend=resend, now=now, chooses=chooses)
        plan.dropped = reader.with_results() - known
        plan.collect = reader.dropped_in_flight()
    return plan


def _priced(spec: TaskSpec, prices: Mapping[tuple[str, str], int]) -> TaskSpec:
    """Return the task with the price that the service last charged, if known."""
    price = prices.get((spec.model, spec.resolution), spec.price)
    return spec if price == spec.price else dataclasses.replace(spec, price=price)


def _add(plan: Plan, spec: TaskSpec, decision: Decision, chooses: CellFilter | None) -> None:
    if chooses is None or decision.action in PAID or chooses(json.loads(spec.cell)):
        plan.add(spec, decision, _names(spec.cell))
    else:
        plan.leave_out(spec)


def _survey_batch(
    plan: Plan, batch: list[TaskSpec], reader: ManifestReader, *, resend: bool, now: float, chooses: CellFilter | None
) -> int:
    """Add these tasks to the plan; return how many of them have files or are in flight."""
    records = reader.lookup([spec.fingerprint for spec in batch])
    images = reader.images_of([record.id for record in records.values()])
    unknown = [json.dumps(spec.paths, ensure_ascii=False) for spec in batch if spec.fingerprint not in records]
    by_path: Mapping[str, TaskRecord] = reader.by_path(unknown)
    for spec in batch:
        record = records.get(spec.fingerprint)
        was = by_path.get(json.dumps(spec.paths, ensure_ascii=False)) if record is None else None
        own_images = images.get(record.id, []) if record else []
        _add(plan, spec, decide(spec, record, own_images, was=was, resend=resend, now=now), chooses)
    return sum(_has_something(record, images.get(record.id, [])) for record in records.values())


def _has_something(record: TaskRecord, images: list[ImageRecord]) -> bool:
    existing = (ImageState.ANNOUNCED, ImageState.STORED)
    return record.state in _IN_FLIGHT or any(image.state in existing for image in images)


_names = CellNames().of
