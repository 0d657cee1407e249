"""How a run begins on a manifest, alone or beside others: one of them brings it in line with the job, once for all."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from seedream_batch import __version__
from seedream_batch.engine.opening import (
    STORE,
    keep_moves,
    same_job,
    same_service,
    same_store,
    still_here,
    take_in_rescued,
)
from seedream_batch.errors import ManifestLocked
from seedream_batch.files.folder import sync_folder
from seedream_batch.files.kept import destination
from seedream_batch.manifest import Manifest
from seedream_batch.manifest.enter import Entered
from seedream_batch.manifest.rescue import NAME, RescueFile, name_of_worker
from seedream_batch.model.job import Job
from seedream_batch.model.task import TaskSpec

ENTERED = "entered"
"""The fact that says what the tasks of the job were made from."""

_STEP = 0.2
"""Seconds between two looks at whether one may join."""

_TOLD_AFTER = 2.0
"""Seconds of waiting after which that is told."""


@dataclass(frozen=True, slots=True)
class Source:
    """What the tasks of a job are made of: the tasks, and the files that were read for them by now, with their hashes.

    The names of the files are relative to the folder of the job file, whose own name is empty.
    """

    tasks: Iterable[TaskSpec]
    files: Callable[[], Mapping[str, str]]
    references: Callable[[], int]
    """How many reference images on this machine they use."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A run that has begun: whether nobody else is at work, whether one before it was killed, and what was entered."""

    alone: bool
    cut_off: bool
    entered: Entered
    rescue: RescueFile


def begin(manifest: Manifest, job: Job, source: Source, origin: str, tell: Callable[[str], None]) -> Begun:
    """Checks that the manifest is that of the job and the service, begins a run, and enters the tasks of the job.

    A worker that finds others at work leaves that to the one that came first; whether the job is still the same is seen
    by its files. Raises `UsageError`, `ManifestLocked`, `InvalidJob`, `StorageError`.
    """
    alone = not manifest.shared or _is_first(manifest, tell)
    still_here(manifest)
    same_store(manifest, job)
    if alone:
        keep_moves(manifest, destination(job))
    same_service(manifest, origin)
    same_job(manifest, job)
    if not alone:
        _same_tasks(manifest, job)
    now = time.time()
    facts = {"job": job.name, "job_file": str(job.file), "service": origin}
    if job.store is not None:
        facts[STORE] = job.store.url
    if not manifest.fact("created_at"):
        facts["created_at"] = f"{now:.3f}"
    manifest.tell(facts)
    run = manifest.begin_run(now=now, pid=os.getpid(), host=platform.node(), version=__version__, service=origin)
    cut_off = manifest.was_cut_off()
    take_in_rescued(manifest, job, now)
    rescue = RescueFile(job.output_dir, sync_folder, name_of_worker(run) if manifest.shared else NAME)
    if alone:
        entered = manifest.enter(source.tasks, now)
        if manifest.shared:
            made_of = {"version": __version__, "files": dict(source.files()), "references": source.references()}
            manifest.tell({ENTERED: json.dumps(made_of)})
        return Begun(alone, cut_off, entered, rescue)
    if json.loads(manifest.fact(ENTERED))["references"]:
        # They are found while the tasks are made.
        for _ in source.tasks:
            pass
    manifest.let_others_in()
    return Begun(alone, False, Entered(known=manifest.wanted()), rescue)


def _is_first(manifest: Manifest, tell: Callable[[str], None]) -> bool:
    """Keeps others from joining; whether none is at work."""
    begun = time.monotonic()
    told = False

    def wait(why: str) -> None:
        nonlocal told
        if not told and time.monotonic() - begun > _TOLD_AFTER:
            told = True
            tell(why)
        time.sleep(_STEP)

    manifest.keep_others_out(lambda: wait("another worker brings the manifest in line with the job; waiting for it"))
    while True:
        manifest.bury(time.time(), platform.node())
        if not manifest.others():
            return True
        if manifest.others_here():
            return False
        # All of them are gone; whether they come back is known in a moment.
        wait("the workers at work are gone; in a few seconds their tasks may be taken over")


def _same_tasks(manifest: Manifest, job: Job) -> None:
    """Refuses to join workers that go by another state of the job."""
    known = json.loads(manifest.fact(ENTERED) or "{}")
    others = manifest.others()
    _, pid, host = others[0] if others else (0, 0, "")
    who = f"{len(others)} at work on {manifest.name}, the first of them pid {pid} on {host}"
    if known.get("version") != __version__:
        raise ManifestLocked(
            f"workers of seedream-batch {known.get('version')}, and not {__version__}: {who}; let them end"
        )
    for name, digest in known["files"].items():
        file = job.file.parent / name if name else job.file
        if _digest(file) != digest:
            raise ManifestLocked(f"{file} is not the one that others go by ({who}); let them end, then run again")


def _digest(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""
