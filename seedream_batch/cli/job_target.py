"""What a command works on: the job, with the output folder of the real service or of the emulator."""

from __future__ import annotations

import shlex
from pathlib import Path

from seedream_batch.cli.output.console import short, tell
from seedream_batch.engine.job_identity import readable
from seedream_batch.errors import UsageError
from seedream_batch.jobfile import LoadedJob, load_job
from seedream_batch.jobfile.addresses import unset_variables
from seedream_batch.manifest.db.open import exists
from seedream_batch.model.job import Job
from seedream_batch.model.locations import Place, without_passwords

EMULATED = "-emulated"
"""Suffix of the output folder of emulated runs, which keeps their placeholders apart from real images."""


def load(path: str, *, emulate: bool, manifest: str | None = None, max_tasks: int = 2**63) -> LoadedJob:
    """Load the job; `emulate` selects the output folder of emulated runs, `manifest` the URL of another manifest."""
    loaded = load_job(path, max_tasks=max_tasks)
    if emulate:
        # An emulated run needs no manifest server either, unless it is asked for.
        loaded = loaded.into(_emulated(loaded.job))
    return loaded if manifest is None else loaded.on(manifest, also=EMULATED if emulate else "")


def _emulated(job: Job) -> Path:
    """Return the output folder of emulated runs of a job."""
    return job.output_dir.with_name(job.output_dir.name + EMULATED)


def named(path: str, *, emulate: bool, manifest: str | None = None) -> str:
    """Return the job as arguments to paste after a command's name."""
    server = "" if manifest is None else f" --manifest {shlex.quote(without_passwords(manifest))}"
    return shlex.quote(path) + (" --emulate" if emulate else "") + server


def warn_of_unset_variables(job: Job) -> None:
    """Print a warning if the webhook needs environment variables that are not set, so that a run would refuse."""
    if names := unset_variables(job):
        are, them = ("is", "it") if len(names) == 1 else ("are", "them")
        tell(f"warning: notify.url: {', '.join(names)} {are} not set in the environment; `run` needs {them}")


def shown(place: Place) -> str:
    """Return a manifest for people."""
    return short(place) if isinstance(place, Path) else place.name


def trusts_keys(job: Job, *, emulate: bool) -> bool | None:
    """Return whether uncertain tasks are sent again with their idempotency key; None if the job decides.

    The emulator honours keys, so it is trusted unless the job says otherwise.
    """
    return True if emulate and job.run.on_unknown is None else None


def made(path: str, *, emulate: bool, manifest: str | None = None) -> LoadedJob:
    """Load a job that has been run before. Raises `UsageError`."""
    return existing(path, emulate=emulate, manifest=manifest, or_emulated=False)[0]


def existing(
    path: str, *, emulate: bool, manifest: str | None = None, or_emulated: bool = True
) -> tuple[LoadedJob, bool]:
    """Load a job that has been run before, or only with the emulator, and return whether so. Raises `UsageError`."""
    loaded = load(path, emulate=emulate, manifest=manifest)
    place = loaded.job.manifest
    readable(loaded.job)
    if exists(place):
        return loaded, False
    emulated = loaded.into(_emulated(loaded.job))
    if or_emulated and not emulate and manifest is None and exists(emulated.job.manifest):
        readable(emulated.job)
        return emulated, True
    what = "is empty" if isinstance(place, Path) and place.exists() else "does not exist"
    how = " with --emulate" if emulate else ""
    run = f"seedream-batch run {named(path, emulate=emulate, manifest=manifest)}"
    raise UsageError(f"{path} has not been run{how} yet: {shown(place)} {what}. Start with `{run}`")
