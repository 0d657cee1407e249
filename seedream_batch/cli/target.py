"""Where a command works: the job, and the output folder of the real service or of the emulator."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from seedream_batch.errors import UsageError

if TYPE_CHECKING:
    from seedream_batch.load import LoadedJob
    from seedream_batch.model.job import Job

EMULATED = "-emulated"
"""What the output folder of emulated runs has behind its name: their pictures are not what the job is for."""


def load(path: str, *, emulate: bool, max_tasks: int) -> LoadedJob:
    """The job; with `emulate`, its output folder is that of emulated runs."""
    from seedream_batch.load import LoadedJob, load_job

    loaded = load_job(path, max_tasks=max_tasks)
    return LoadedJob(emulated(loaded.job), loaded.expansion) if emulate else loaded


def emulated(job: Job) -> Job:
    """The job with the output folder of emulated runs."""
    return dataclasses.replace(job, output_dir=job.output_dir.with_name(job.output_dir.name + EMULATED))


def manifest_of(job: Job) -> Path:
    """The manifest of a job."""
    from seedream_batch.manifest.lock import MANIFEST

    return job.output_dir / MANIFEST


def trusts_keys(job: Job, *, emulate: bool) -> bool:
    """Whether uncertain tasks are sent again under their key: the job says so, else only for our own emulator."""
    from seedream_batch.model.job import OnUnknown

    if job.run.on_unknown is None:
        return emulate
    return job.run.on_unknown is OnUnknown.RESEND


def made(path: str, *, emulate: bool) -> LoadedJob:
    """The job, which has to have been run before. Raises `UsageError`."""
    loaded = load(path, emulate=emulate, max_tasks=2**63)
    manifest = manifest_of(loaded.job)
    if not manifest.exists():
        how = " --emulate" if emulate else ""
        raise UsageError(f"{path} was never run{' with' + how if how else ''}: there is no {manifest}")
    return loaded


def existing(job: Job, path: str) -> tuple[Job, Path, bool]:
    """The job and its manifest, the emulated one if there is no other. Raises `UsageError` if there is none."""
    manifest = manifest_of(job)
    if manifest.exists():
        return job, manifest, False
    twin = emulated(job)
    if manifest_of(twin).exists():
        return twin, manifest_of(twin), True
    raise UsageError(f"{path} was never run: there is no {manifest}. `seedream-batch run {path}` makes it")
