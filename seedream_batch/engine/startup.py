"""Start a run on a manifest, alone or beside other workers: the first one brings the manifest in line with the job."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from seedream_batch._version import __version__
from seedream_batch.client.secret import ApiKey
from seedream_batch.engine.job_identity import (
    STORE,
    check_not_moved,
    check_same_job,
    facts_of,
    folders_of,
    has_other_folders,
    same_tasks,
)
from seedream_batch.engine.manifest_checks import (
    check_same_service,
    check_same_store,
    finish_interrupted_moves,
    import_rescued,
    same_account,
)
from seedream_batch.engine.workers.heartbeat import BEAT
from seedream_batch.errors import ManifestLocked
from seedream_batch.files.local_folder import sync_folder
from seedream_batch.files.open_destination import destination
from seedream_batch.manifest import Manifest
from seedream_batch.manifest.async_writer import repeated
from seedream_batch.manifest.facts import ENTERED
from seedream_batch.manifest.rescue_log import NAME, RescueFile, name_of_worker
from seedream_batch.manifest.sync_job import SyncResult
from seedream_batch.model.job import Job
from seedream_batch.model.task import TaskSpec

JOINING = 120.0
"""Seconds to wait for a session that is starting a run and has no lease yet."""

_STEP = 0.2
"""Seconds between two checks whether this worker may join."""

_WARN_AFTER = 2.0
"""Seconds of waiting after which a warning says why."""


@dataclass(frozen=True, slots=True)
class Source:
    """The tasks of a job, and the files read for them so far, with their hashes.

    File names are relative to the folder of the job file; the job file's own name is empty.
    """

    tasks: Iterable[TaskSpec]
    files: Callable[[], Mapping[str, str]]
    references: Callable[[], int]
    """How many local reference images the tasks use."""


@dataclass(frozen=True, slots=True)
class RunStart:
    """A started run."""

    alone: bool
    """Whether no other worker is active."""
    cut_off: bool
    """Whether the previous run was killed."""
    entered: SyncResult
    rescue: RescueFile
    other_folders: bool
    """Whether images may be in the output folder of another machine."""
    dropped: bool
    """Whether the manifest has tasks that are not in the job; none is dropped while a run is active."""


def begin(
    manifest: Manifest,
    job: Job,
    source: Source,
    origin: str,
    report: Callable[[str], None],
    *,
    key: ApiKey | None = None,
    confirmed: bool = False,
    verifies: bool = False,
) -> RunStart:
    """Check that the manifest is that of the job, service and account; begin a run; sync the job's tasks.

    A worker that finds others active leaves the sync to the first one, and checks by its files that the job is the
    same. `key` is None for a run that asks the service nothing; `confirmed` and `verifies` are for `same_account`.
    Raise `UsageError`, `ManifestLocked`, `InvalidJob` or `StorageError`.
    """
    alone = not manifest.connection.shared or _is_first(manifest, report)
    sure = _check_job(manifest, job, source, alone=alone)
    now = time.time()

    def check() -> int | None:
        check_same_service(manifest, origin, verifies=verifies)
        return None if key is None else same_account(manifest, key, confirmed=confirmed, verifies=verifies)

    facts = partial(_facts, manifest, job, origin, now, sure=sure, joins=not alone)
    run = repeated(lambda: _join(manifest, origin, now, check, facts))
    cut_off = manifest.workers.was_cut_off()
    import_rescued(manifest, job, now)
    rescue = RescueFile(
        job.output_dir, sync_folder, name_of_worker(manifest.id, run) if manifest.connection.shared else NAME
    )
    if alone:
        result = _sync(manifest, job, source, now, sure=sure)
    else:
        _find_references(manifest, source)
        manifest.connection.workers.unlock_startup()
        result = SyncResult(known=manifest.queue.wanted())
    other_folders, dropped = has_other_folders(manifest, job), manifest.queue.has_dropped()
    return RunStart(alone, alone and cut_off, result, rescue, other_folders, dropped)


def _join(
    manifest: Manifest, origin: str, now: float, check: Callable[[], int | None], facts: Callable[[], dict[str, str]]
) -> int:
    """Join in one transaction: what `check` finds, the account, still holds when other workers see this run."""
    with manifest.group():
        manifest.workers.lock_joining()
        account = check()
        manifest.facts.set(facts())
        return manifest.workers.begin_run(
            now=now, pid=os.getpid(), host=platform.node(), version=__version__, service=origin, account=account
        )


def _check_job(manifest: Manifest, job: Job, source: Source, *, alone: bool) -> bool:
    """Check that the manifest belongs to the job; return whether that is certain before its tasks are compared.

    Raise `UsageError` or `ManifestLocked`.
    """
    check_not_moved(manifest)
    check_same_store(manifest, job)
    if alone:
        finish_interrupted_moves(manifest, destination(job))
    sure = check_same_job(manifest, job)
    if not alone:
        _same_tasks(manifest, job, source.files())
    return sure


def _sync(manifest: Manifest, job: Job, source: Source, now: float, *, sure: bool) -> SyncResult:
    """Sync the job's tasks, and record for other workers what they were made of; raise `UsageError`, `InvalidJob`."""
    with manifest.group():
        entered = manifest.sync_job(source.tasks, now)
        if not sure:
            same_tasks(manifest, job, entered)
            manifest.facts.set(facts_of(job) | folders_of(manifest, job))
    if manifest.connection.shared:
        made_of = {"version": __version__, "files": dict(source.files()), "references": source.references()}
        manifest.facts.set({ENTERED: json.dumps(made_of)})
    return entered


def _find_references(manifest: Manifest, source: Source) -> None:
    """Read the tasks, which finds their reference images; keep the lease meanwhile."""
    if json.loads(manifest.facts.get(ENTERED))["references"]:
        last_heartbeat = time.monotonic()
        for _ in source.tasks:
            if time.monotonic() - last_heartbeat > BEAT:
                last_heartbeat = time.monotonic()
                repeated(manifest.workers.renew_lease)


def _facts(manifest: Manifest, job: Job, origin: str, now: float, *, sure: bool, joins: bool) -> dict[str, str]:
    """Return the facts that a starting run records.

    What identifies the job and the folder is included only once the job is known to be the same: by its file (`sure`),
    or by the files that other workers have read (`joins`).
    """
    facts = {"service": origin}
    if sure or joins:
        facts |= folders_of(manifest, job)
    if sure:
        facts |= facts_of(job)
    if job.store is not None:
        facts[STORE] = job.store.url
    if not manifest.facts.get("created_at"):
        facts["created_at"] = f"{now:.3f}"
    return facts


def _is_first(manifest: Manifest, report: Callable[[str], None]) -> bool:
    """Block other workers from joining; return whether none is active."""
    waiting = _Waiting(manifest, report)
    manifest.connection.workers.lock_startup(waiting.for_one_that_begins)
    while True:
        waiting.expire_workers()
        if not manifest.workers.others():
            return True
        if manifest.workers.other_sessions():
            return False
        # Their sessions ended; whether one reconnects is known after a grace period.
        waiting.a_moment("the other workers have died; waiting a few seconds before taking over their tasks")


class _Waiting:
    """Waits for other workers; a warning says why, once."""

    def __init__(self, manifest: Manifest, report: Callable[[str], None]) -> None:
        self._manifest = manifest
        self._report = report
        self._begun = time.monotonic()
        self._warned = False
        self._waited_for = 0
        self._since = self._begun

    def expire_workers(self) -> None:
        repeated(lambda: self._manifest.workers.expire(time.time(), platform.node()))

    def a_moment(self, why: str) -> None:
        if not self._warned and time.monotonic() - self._begun > _WARN_AFTER:
            self._warned = True
            self._report(why)
        time.sleep(_STEP)

    def for_one_that_begins(self) -> None:
        """Wait for another starting session; raise `ManifestLocked` after `JOINING` seconds.

        A worker has a lease, which expires; before it has one, only its session is known.
        """
        self.expire_workers()
        now = time.monotonic()
        session, is_worker = self._manifest.connection.workers.startup_lock_holder() or (0, True)
        if is_worker or session != self._waited_for:
            self._waited_for, self._since = session, now
        elif now - self._since > JOINING:
            raise ManifestLocked(
                f"another worker has been starting on {self._manifest.name} for too long; if it is suspended, end it"
            )
        self.a_moment("waiting for another worker that is updating the manifest")


def _same_tasks(manifest: Manifest, job: Job, read: Mapping[str, str]) -> None:
    """Refuse to join workers that use another state of the job or another version; raise `ManifestLocked`.

    Files in `read` count as they were when they were read, since they may have changed since.
    """
    known = json.loads(manifest.facts.get(ENTERED) or "{}")
    others = manifest.workers.others()
    _, pid, host = others[0] if others else (0, 0, "")
    who = f"{len(others):,} running on {manifest.name}, first: pid {pid} on {host}"
    if known.get("version") != __version__:
        raise ManifestLocked(
            f"other workers use seedream-batch {known.get('version')}, not {__version__} ({who}); wait until they end"
        )
    for name, digest in known["files"].items():
        file = job.file.parent / name if name else job.file
        if (read.get(name) or _digest(file)) != digest:
            raise ManifestLocked(
                f"{file} differs from the one that other workers use ({who}); wait until they end, then run again"
            )


def _digest(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""
