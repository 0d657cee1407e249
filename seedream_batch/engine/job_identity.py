"""Decide which job a manifest belongs to, and which manifest an output folder belongs to."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path
from typing import NoReturn

from seedream_batch.errors import StorageError, UsageError
from seedream_batch.manifest import Manifest, ManifestReader
from seedream_batch.manifest.db.open import exists
from seedream_batch.manifest.facts import MOVED_TO
from seedream_batch.manifest.run_lock import WORKERS, folder_id, manifest_of
from seedream_batch.manifest.sync_job import SyncResult
from seedream_batch.model.job import Job
from seedream_batch.model.locations import MANIFEST, Server, as_text

STORE = "store"
"""The fact with the URL of the object store that holds the images; missing for local files."""

JOB_FILE = "job_file"
JOB_DIGEST = "job_digest"
"""The fact with the SHA-256 of the job file as last run."""
JOB_HOST = "job_host"
"""The fact with the host name of the machine that last ran the job."""


FOLDERS = "folders"
"""The fact that lists the output folders of a manifest on a server, one for each machine that has its own."""

_MOST_FOLDERS = 10_000


AnyManifest = Manifest | ManifestReader
"""A manifest, open for writing or for reading."""


def facts_of(job: Job) -> dict[str, str]:
    """Return the facts that identify a job."""
    return {"job": job.name, JOB_FILE: as_text(job.file), JOB_DIGEST: _digest(job.file), JOB_HOST: platform.node()}


def folders_of(manifest: AnyManifest, job: Job) -> dict[str, str]:
    """Return the updated `FOLDERS` fact if the job's output folder is not listed in it yet, else nothing."""
    if not isinstance(job.manifest, Server) or job.store is not None:
        return {}
    known = manifest.facts.get(FOLDERS).split()
    own = folder_id(job.output_dir)
    return {} if own in known else {FOLDERS: " ".join([*known, own][-_MOST_FOLDERS:])}


def has_other_folders(manifest: AnyManifest, job: Job) -> bool:
    """Return whether images may be in the output folder of another machine, so that a missing file need not be lost."""
    if not isinstance(job.manifest, Server) or job.store is not None:
        return False
    return bool({*manifest.facts.get(FOLDERS).split()} - {folder_id(job.output_dir)})


def on_another_machine(path: str | None) -> NoReturn:
    """Raise `StorageError` for an image that is not in this folder, and may be on another machine."""
    raise StorageError(f"{path} is not in this folder, but may be in the job's folder on another machine")


def check_known_here(job: Job) -> None:
    """Refuse to start a local manifest in a folder whose manifest is on a server; raise `UsageError`.

    Otherwise everything would be bought again.
    """
    known = manifest_of(job.output_dir)
    if known is None or isinstance(job.manifest, Server):
        return
    if not exists(job.output_dir / MANIFEST):
        raise _other_manifest(job, known[1])


def check_same_folder(manifest: Manifest, job: Job) -> None:
    """Refuse a new manifest on a server for a folder that belongs to another manifest; raise `UsageError`."""
    if not isinstance(job.manifest, Server) or not manifest.is_empty():
        return
    known = manifest_of(job.output_dir)
    if known is not None and known[0] != manifest.id:
        raise _other_manifest(job, known[1])
    file = job.output_dir / MANIFEST
    if exists(file):
        with ManifestReader(file) as reader:
            if reader.wanted()[0] and not reader.facts.get(MOVED_TO):
                raise UsageError(
                    f"{file} records what this job has paid for, but {manifest.name} is new. Copy it there first:"
                    f" `seedream-batch manifest copy {file} URL`"
                )


def _other_manifest(job: Job, name: str) -> UsageError:
    return UsageError(
        f"{job.output_dir} belongs to the manifest {name}, which records what was paid for; set it with --manifest or"
        f" `manifest` in the job file. To start over and pay for everything again, delete {job.output_dir / WORKERS}"
    )


def check_not_moved(manifest: AnyManifest) -> None:
    """Refuse a manifest that was moved, since both copies would buy the planned tasks; raise `UsageError`."""
    moved_to = manifest.facts.get(MOVED_TO)
    if moved_to:
        raise UsageError(
            f"{manifest.name} was moved to {moved_to}; set that as `manifest` in the job file or with --manifest"
        )


def check_same_job(manifest: AnyManifest, job: Job) -> bool:
    """Return whether the manifest certainly belongs to this job; raise `UsageError` if it belongs to another one.

    The same path, file or content is the same job. A missing path may be that of a job file that was moved, and the
    same path on another machine that of another job: then only the tasks can tell, see `same_tasks`.
    """
    last_file = manifest.facts.get(JOB_FILE)
    if not last_file or manifest.facts.get(JOB_DIGEST) == _digest(job.file):
        return True
    host = manifest.facts.get(JOB_HOST)
    here = not host or host == platform.node()
    if last_file != as_text(job.file) and _is_same_file(Path(last_file), job.file):
        return True
    if last_file == as_text(job.file):
        return here or not isinstance(job.manifest, Server) or _shares_pictures(manifest, job)
    if here and Path(last_file).exists():
        raise _other_job(manifest, job)
    return False


def same_tasks(manifest: AnyManifest, job: Job, entered: SyncResult) -> None:
    """Refuse a manifest most of whose tasks are not those of the job; raise `UsageError`."""
    smaller = min(entered.new + entered.known, entered.known + entered.dropped)
    if 2 * entered.known < smaller:
        raise _other_job(manifest, job)


def check_surely_same_job(manifest: AnyManifest, job: Job) -> None:
    """Check as `check_same_job` does, for commands that do not expand the job's tasks; raise `UsageError` if unsure."""
    if not check_same_job(manifest, job):
        raise UsageError(
            f"{manifest.name} was last used by {_owner(manifest)}. Run {as_text(job.file)} first, which checks whether"
            " it is the same job"
        )


def readable(job: Job, *, moved: bool = True) -> None:
    """Check what read-only commands need; without `moved`, also refuse a moved manifest. Raise `UsageError`."""
    check_known_here(job)
    if exists(job.manifest):
        with ManifestReader(job.manifest) as reader:
            if not moved:
                check_not_moved(reader)
            check_same_job(reader, job)


def _other_job(manifest: AnyManifest, job: Job) -> UsageError:
    what = "another name" if isinstance(job.manifest, Server) else "another output.dir"
    return UsageError(f"{manifest.name} belongs to the job {_owner(manifest)}; set {what} in {as_text(job.file)}")


def _owner(manifest: AnyManifest) -> str:
    host = manifest.facts.get(JOB_HOST)
    away = f" on {host}" if host and host != platform.node() else ""
    return f"{manifest.facts.get(JOB_FILE)}{away}"


def _shares_pictures(manifest: AnyManifest, job: Job) -> bool:
    """Return whether the job's images are where those of the manifest are."""
    if job.store is not None:
        return manifest.facts.get(STORE) == job.store.url
    # The manifest named in the folder proves nothing: a run records it before this check.
    return folder_id(job.output_dir) in manifest.facts.get(FOLDERS).split()


def _is_same_file(left: Path, right: Path) -> bool:
    try:
        return left.samefile(right)
    except OSError:
        return False


def _digest(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""
