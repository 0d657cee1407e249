"""Where a command works: the job, and the output folder of the real service or of the emulator."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from seedream_batch.cli.words import short
from seedream_batch.errors import UsageError

if TYPE_CHECKING:
    from seedream_batch.load import LoadedJob
    from seedream_batch.model.job import Job

EMULATED = "-emulated"
"""What the output folder of emulated runs has behind its name: their pictures are not what the job is for."""


def load(path: str, *, emulate: bool, max_tasks: int) -> LoadedJob:
    """The job; with `emulate`, its output folder is that of emulated runs."""
    from seedream_batch.load import load_job

    loaded = load_job(path, max_tasks=max_tasks)
    return loaded.into(_emulated(loaded.job)) if emulate else loaded


def _emulated(job: Job) -> Path:
    """The output folder of emulated runs of a job."""
    return job.output_dir.with_name(job.output_dir.name + EMULATED)


def manifest_of(job: Job) -> Path:
    """The manifest of a job."""
    from seedream_batch.manifest.lock import MANIFEST

    return job.output_dir / MANIFEST


def named(path: str, *, emulate: bool) -> str:
    """The job as commands want it, to be pasted behind their names."""
    return shlex.quote(path) + (" --emulate" if emulate else "")


def trusts_keys(job: Job, *, emulate: bool) -> bool | None:
    """Whether uncertain tasks are sent again under their key: our own emulator is trusted, unless the job says no.

    None where that is for the job to say.
    """
    return True if emulate and job.run.on_unknown is None else None


def made(path: str, *, emulate: bool) -> LoadedJob:
    """The job, which has to have been run before. Raises `UsageError`."""
    loaded = load(path, emulate=emulate, max_tasks=2**63)
    manifest = manifest_of(loaded.job)
    if not manifest.exists():
        how = " with --emulate" if emulate else ""
        raise UsageError(f"{path} was never run{how}: there is no {short(manifest)}")
    return loaded


def existing(job: Job, path: str) -> tuple[Job, Path, bool]:
    """The job and its manifest, the emulated one if there is no other. Raises `UsageError` if there is none."""
    manifest = manifest_of(job)
    if manifest.exists():
        return job, manifest, False
    twin = dataclasses.replace(job, output_dir=_emulated(job))
    if manifest_of(twin).exists():
        return twin, manifest_of(twin), True
    run = f"seedream-batch run {named(path, emulate=False)}"
    raise UsageError(f"{path} was never run: there is no {short(manifest)}. `{run}` makes it")
