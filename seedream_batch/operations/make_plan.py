"""Compare a job with its manifest: what a run would do. Changes nothing."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Mapping

from seedream_batch.errors import StorageError
from seedream_batch.files.image_inspection import EXTENSIONS
from seedream_batch.files.local_folder import OutputFolder
from seedream_batch.manifest import ManifestReader
from seedream_batch.manifest.db.open import exists
from seedream_batch.manifest.sync_job import known_as
from seedream_batch.model.cell import CellFilter
from seedream_batch.model.cell_names import CellNames
from seedream_batch.model.locations import Place
from seedream_batch.model.task import ImageRecord, ImageState, TaskRecord, TaskSpec, TaskState, image_path
from seedream_batch.planning import PAID, Decision, Occupied, Plan, decide

_BATCH = 500

_CHECKED = 1000
"""Tasks whose paths are checked for unknown files."""


_IN_FLIGHT = (TaskState.SUBMITTING, TaskState.ACCEPTED, TaskState.UNCERTAIN)


def make_plan(
    specs: Iterable[TaskSpec],
    manifest: Place,
    *,
    resend: bool,
    now: float,
    chooses: CellFilter | None = None,
    folder: OutputFolder | None = None,
) -> Plan:
    """Return what a run of these tasks would do at `now` (Unix seconds), given their manifest, if there is one yet.

    `chooses` takes the cells of tasks that may be bought or resent; what is paid for is collected in any case. If the
    manifest has no image yet, `folder` is checked for files at the paths of the first images.
    """
    plan = Plan()
    source = iter(specs)
    first = list(itertools.islice(source, _CHECKED))
    specs = itertools.chain(first, source)
    candidates = [spec for spec in first if chooses is None or chooses(json.loads(spec.cell))] if folder else []
    if not exists(manifest):
        plan.occupied = _find_occupied(candidates, folder)
        for spec in specs:
            _add(plan, spec, decide(spec, None, (), was=None, resend=resend, now=now), chooses)
        return plan
    with ManifestReader(manifest) as reader:
        reader.snapshot()
        known = 0
        if candidates and not reader.has_images():
            records = reader.lookup([spec.fingerprint for spec in candidates])
            submitted = {record.fingerprint for record in records.values() if record.state is not TaskState.PLANNED}
            plan.occupied = _find_occupied([spec for spec in candidates if spec.fingerprint not in submitted], folder)
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


def _find_occupied(specs: Iterable[TaskSpec], folder: OutputFolder | None) -> Occupied | None:
    """Return how many images of these tasks have a path at which a file exists; None if there are none."""
    images = cost = 0
    first = ""
    for spec in specs:
        stems = [image_path(spec.paths, spec.images, index, spec.fingerprint) for index in range(1, spec.images + 1)]
        try:
            found = folder.existing(f"{stem}.{each}" for stem in stems for each in EXTENSIONS) if folder else []
        except StorageError:
            # The run reports it.
            return None
        if found:
            images, cost, first = images + spec.images, cost + spec.images * spec.price, first or found[0]
    return Occupied(images, cost, folder.named(first)) if folder and first else None


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
