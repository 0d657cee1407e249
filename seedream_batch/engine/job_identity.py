"""Which job a manifest belongs to, and which manifest an output folder belongs to."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path
from typing import NoReturn, Protocol

from seedream_batch.errors import StorageError, UsageError
from seedream_batch.manifest.base_store import MOVED_TO
from seedream_batch.manifest.db.open import exists
from seedream_batch.manifest.reader import ManifestReader
from seedream_batch.manifest.run_lock import WORKERS, folder_id, manifest_of
from seedream_batch.manifest.sync_job import Entered
from seedream_batch.model.job import Job
from seedream_batch.model.locations import MANIFEST, Server, as_text

STORE = "store"
"""The fact that says on which object store the pictures are; without it they are files."""

JOB_FILE = "job_file"
JOB_DIGEST = "job_digest"
"""The fact that has the SHA-256 of the job file as it was last run."""
JOB_HOST = "job_host"
"""The fact that says on which machine that was."""


FOLDERS = "folders"
"""The fact that names the output folders of a manifest on a server, one for each machine that has its own."""

_MOST_FOLDERS = 10_000


class Facts(Protocol):
    """A manifest, open for reading or writing."""

    name: str

    def fact(self, name: str) -> str:
        """A fact by its name, empty if it was never told."""


class OpenManifest(Facts, Protocol):
    """A manifest, open for writing."""

    id: str

    def is_empty(self) -> bool:
        """Whether it has neither tasks nor runs."""


def facts_of(job: Job) -> dict[str, str]:
    """What a manifest remembers of its job."""
    return {"job": job.name, JOB_FILE: as_text(job.file), JOB_DIGEST: _digest(job.file), JOB_HOST: platform.node()}


def folders_of(manifest: Facts, job: Job) -> dict[str, str]:
    """The fact by which a manifest knows the output folder of a job, besides those that it knew."""
    if not isinstance(job.manifest, Server) or job.store is not None:
        return {}
    known = manifest.fact(FOLDERS).split()
    own = folder_id(job.output_dir)
    return {} if own in known else {FOLDERS: " ".join([*known, own][-_MOST_FOLDERS:])}


def has_other_folders(manifest: Facts, job: Job) -> bool:
    """Whether images may be in the output folder of another machine: one that is not here need not be gone."""
    if not isinstance(job.manifest, Server) or job.store is not None:
        return False
    return bool({*manifest.fact(FOLDERS).split()} - {folder_id(job.output_dir)})


def on_another_machine(path: str | None) -> NoReturn:
    """Raises `StorageError` for an image that is not in this folder, and need not be gone."""
    raise StorageError(f"{path} is not in this folder; other machines have folders of the job")


def known_here(job: Job) -> None:
    """Refuses to begin a manifest in a folder whose manifest is on a server: everything would be bought again."""
    known = manifest_of(job.output_dir)
    if known is None or isinstance(job.manifest, Server):
        return
    if not exists(job.output_dir / MANIFEST):
        raise _elsewhere(job, known[1])


def same_folder(manifest: OpenManifest, job: Job) -> None:
    """Refuses a new manifest on a server for a folder that has another one, which knows what was bought."""
    if not isinstance(job.manifest, Server) or not manifest.is_empty():
        return
    known = manifest_of(job.output_dir)
    if known is not None and known[0] != manifest.id:
        raise _elsewhere(job, known[1])
    file = job.output_dir / MANIFEST
    if exists(file):
        with ManifestReader(file) as reader:
            if reader.wanted()[0] and not reader.fact(MOVED_TO):
                raise UsageError(
                    f"{file} knows what this job has bought, and {manifest.name} is new: move it there first, with"
                    f" `seedream-batch manifest copy {file} URL`"
                )


def _elsewhere(job: Job, name: str) -> UsageError:
    return UsageError(
        f"{job.output_dir} belongs to the manifest {name}, which knows what was bought; name it with --manifest, or as"
        f" `manifest` in the job file. To start over, and buy everything again, delete {job.output_dir / WORKERS}"
    )


def still_here(manifest: Facts) -> None:
    """Refuses a manifest that was moved to another place: each of the two would buy what is planned."""
    moved_to = manifest.fact(MOVED_TO)
    if moved_to:
        raise UsageError(
            f"{manifest.name} was moved to {moved_to}; name that in the job's `manifest`, or with --manifest"
        )


def same_job(manifest: Facts, job: Job) -> bool:
    """Refuses the manifest of another job; whether it is sure that it is this one's.

    The same path, file or content is the same job. A path that is gone may be that of a job file that was moved, and a
    path on another machine that of another job: then only the tasks can tell, see `same_tasks`.
    """
    before = manifest.fact(JOB_FILE)
    if not before or manifest.fact(JOB_DIGEST) == _digest(job.file):
        return True
    host = manifest.fact(JOB_HOST)
    here = not host or host == platform.node()
    if before != as_text(job.file) and _is_same_file(Path(before), job.file):
        return True
    if before == as_text(job.file):
        return here or not isinstance(job.manifest, Server) or _shares_pictures(manifest, job)
    if here and Path(before).exists():
        raise _another(manifest, job)
    return False


def same_tasks(manifest: Facts, job: Job, entered: Entered) -> None:
    """Refuses a manifest whose tasks are mostly others than those of the job."""
    smaller = min(entered.new + entered.known, entered.known + entered.dropped)
    if 2 * entered.known < smaller:
        raise _another(manifest, job)


def surely_same_job(manifest: Facts, job: Job) -> None:
    """As `same_job`, for commands that do not make the tasks of the job."""
    if not same_job(manifest, job):
        raise UsageError(
            f"{manifest.name} was last used by {_who(manifest)}; run {as_text(job.file)} first: that finds out"
            " whether it is the same job"
        )


def readable(job: Job, *, moved: bool = True) -> None:
    """The checks of commands that only read; a manifest that has `moved` may still be looked at, if so."""
    known_here(job)
    if exists(job.manifest):
        with ManifestReader(job.manifest) as reader:
            if not moved:
                still_here(reader)
            same_job(reader, job)


def _another(manifest: Facts, job: Job) -> UsageError:
    what = "another name" if isinstance(job.manifest, Server) else "another output.dir"
    return UsageError(f"{manifest.name} belongs to the job {_who(manifest)}; give {as_text(job.file)} {what}")


def _who(manifest: Facts) -> str:
    host = manifest.fact(JOB_HOST)
    away = f" on {host}" if host and host != platform.node() else ""
    return f"{manifest.fact(JOB_FILE)}{away}"


def _shares_pictures(manifest: Facts, job: Job) -> bool:
    """Whether the images of the job are where those of the manifest are."""
    if job.store is not None:
        return manifest.fact(STORE) == job.store.url
    # Not by the manifest that the folder names: a run writes that down before it comes here.
    return folder_id(job.output_dir) in manifest.fact(FOLDERS).split()


def _is_same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _digest(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""
