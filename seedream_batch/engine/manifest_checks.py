"""Check a manifest before use: same job, same service and account, and all rescued task ids imported."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from urllib.parse import urlsplit

from seedream_batch.client.secret import ApiKey
from seedream_batch.client.service import is_loopback
from seedream_batch.engine.job_identity import (
    STORE,
    check_known_here,
    check_not_moved,
    check_same_folder,
    check_surely_same_job,
)
from seedream_batch.errors import UsageError
from seedream_batch.files.destination import Destination
from seedream_batch.files.open_destination import destination
from seedream_batch.manifest import Manifest
from seedream_batch.manifest.async_writer import repeated
from seedream_batch.manifest.facts import ACCOUNT, ENTERED
from seedream_batch.manifest.rescue_log import orphaned_logs
from seedream_batch.manifest.run_lock import lock_for_workers, run_lock
from seedream_batch.model.job import Job
from seedream_batch.model.locations import Server


@contextmanager
def opened(job: Job) -> Iterator[Manifest]:
    """Open the manifest of a job under its lock for a decision command. Raise `ManifestLocked` or `UsageError`."""
    check_known_here(job)
    with run_lock(job.output_dir, shared=isinstance(job.manifest, Server)), ExitStack() as stack:
        manifest = Manifest(job.manifest)
        try:
            lock_output_folder(stack, manifest, job)
            check_not_moved(manifest)
            check_same_store(manifest, job)
            check_surely_same_job(manifest, job)
            finish_interrupted_moves(manifest, destination(job))
            # A submission that a killed run left unfinished becomes uncertain, unless its task id was rescued.
            import_rescued(manifest, job, time.time())
            manifest.tasks.recover(time.time())
            yield manifest
        finally:
            manifest.close()


def finish_interrupted_moves(manifest: Manifest, folder: Destination) -> None:
    """Make the new names of interrupted file moves durable, before anything else is written.

    Syncing anything else in their folder would make the loss of the old names durable, and the first change of the
    manifest does that to its own folder.
    """
    folder.sync(image.via for image in manifest.images.interrupted_moves() if image.via)


def import_rescued(manifest: Manifest, job: Job, now: float) -> None:
    """Import task ids that ended runs could not store in the manifest, durably. `now` in Unix seconds."""
    at_work = None
    if isinstance(manifest.place, Server):
        at_work = [run for run, _, _ in manifest.workers.others()]
    elif manifest.facts.get(ENTERED):
        # The manifest was copied from a server.
        at_work = []
    with orphaned_logs(job.output_dir, manifest.id, at_work=at_work) as left:
        for file in left.files:
            file.imported(repeated(partial(manifest.tasks.import_ids, file.rescued, now, timeout=job.run.task_timeout)))


def lock_output_folder(stack: ExitStack, manifest: Manifest, job: Job) -> None:
    """Lock the output folder against users of another manifest on a server. Raise `ManifestLocked` or `UsageError`."""
    check_same_folder(manifest, job)
    if isinstance(job.manifest, Server):
        stack.enter_context(lock_for_workers(job.output_dir, manifest.id, manifest.name))


def check_same_store(manifest: Manifest, job: Job) -> None:
    """Refuse to keep images in two places; raise `UsageError`.

    Images in one place would count as stored in the other.
    """
    stored_url = manifest.facts.get(STORE)
    wanted_url = "" if job.store is None else job.store.url
    if stored_url != wanted_url and manifest.facts.get("created_at"):
        here = "a local folder"
        raise UsageError(
            f"the images in {manifest.name} are in {stored_url or here}, but output.dir is {wanted_url or here}."
            " Restore output.dir, or change the name of the job to start with a new manifest"
        )


def check_same_service(manifest: Manifest, origin: str, *, verifies: bool) -> None:
    """Refuse to mix two services, since neither knows the task ids and keys of the other; raise `UsageError`."""
    last = manifest.facts.get("service")
    if not last or last == origin:
        return
    if _is_local(last) != _is_local(origin):
        raise UsageError(
            f"{manifest.name} belongs to {last}, but this run would use {origin}, which does not know its tasks. Set"
            " another output.dir in the job, or move that folder away"
        )
    if _is_local(origin):
        # An emulator on this machine may be restarted on another port.
        return
    if manifest.workers.accounts():
        raise UsageError(f"other workers on {manifest.name} use {last}, not {origin}; wait until they end")
    open_tasks = sum(manifest.tasks.open_by_account(verifies=verifies).values())
    if open_tasks:
        raise UsageError(
            f"{open_tasks:,} of the tasks in {manifest.name} were submitted to {last}, and {origin} does not know them."
            f" Finish them first: APIMART_BASE_URL={last} seedream-batch run --collect"
        )


def same_account(manifest: Manifest, key: ApiKey, *, confirmed: bool, verifies: bool) -> int:
    """Return the number of the key's account; raise `UsageError` if open tasks or other workers use another account.

    Task ids and Idempotency-Keys mean nothing to another account: it would lose the tasks, or buy them again. With
    `confirmed`, the user says that all keys belong to the same account.
    """
    known = manifest.facts.get(ACCOUNT)
    salt, *listed = known.split() or [secrets.token_hex(8)]
    keys = {hashed: int(number or 1) for hashed, _, number in (entry.partition("=") for entry in listed)}
    own = key.hashed(salt)
    account = keys.get(own) or max(keys.values(), default=0) + 1
    # Verification asks for links of missing images, and a wrong account would answer that there are none. With a known
    # account, it skips the tasks of other accounts.
    opened_by = manifest.tasks.open_by_account(verifies=verifies and (confirmed or own not in keys))
    tasks = {number: count for number, count in opened_by.items() if number != account}
    at_work = manifest.workers.accounts() - {account}
    if (tasks or at_work) and not confirmed:
        raise UsageError(_other_key(manifest, sum(tasks.values())))
    if tasks or at_work:
        same = {account, *tasks, *at_work}
        account = min(at_work or tasks)
        manifest.tasks.merge_accounts(same, account)
        keys = {hashed: account if number in same else number for hashed, number in keys.items()}
    keys[own] = account
    now = " ".join([salt, *(f"{hashed}={number}" for hashed, number in keys.items())])
    if now != known:
        manifest.facts.set({ACCOUNT: now})
    return account


def _other_key(manifest: Manifest, tasks: int) -> str:
    what = (
        f"{tasks:,} of the tasks in {manifest.name} were submitted with another API key"
        if tasks
        else f"other workers on {manifest.name} use another API key"
    )
    return (
        f"{what}, and an account knows only its own tasks. Use that key or, if both belong to the same account, add"
        " --same-account"
    )


def _is_local(origin: str) -> bool:
    return is_loopback(urlsplit(origin).hostname or "")
