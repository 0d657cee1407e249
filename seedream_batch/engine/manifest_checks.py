"""What has to hold before a manifest is worked on: the same job, the same service, and every rescued id known."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from urllib.parse import urlsplit

from seedream_batch.client.secret import ApiKey
from seedream_batch.client.service import is_loopback
from seedream_batch.engine.job_identity import STORE, known_here, same_folder, still_here, surely_same_job
from seedream_batch.errors import UsageError
from seedream_batch.files.destination import Destination
from seedream_batch.files.open import destination
from seedream_batch.manifest import Manifest
from seedream_batch.manifest.async_writer import repeated
from seedream_batch.manifest.base_store import ACCOUNT, ENTERED
from seedream_batch.manifest.rescue_log import left_behind
from seedream_batch.manifest.run_lock import folder_of, run_lock
from seedream_batch.model.job import Job
from seedream_batch.model.locations import Server


@contextmanager
def opened(job: Job) -> Iterator[Manifest]:
    """The manifest of a job for a person's decision, under the lock. Raises `ManifestLocked`."""
    known_here(job)
    with run_lock(job.output_dir, shared=isinstance(job.manifest, Server)), ExitStack() as stack:
        manifest = Manifest(job.manifest)
        try:
            hold_folder(stack, manifest, job)
            still_here(manifest)
            same_store(manifest, job)
            surely_same_job(manifest, job)
            keep_moves(manifest, destination(job))
            # What a killed run left in the middle of a submission is in doubt, too, unless its id was rescued.
            take_in_rescued(manifest, job, time.time())
            manifest.recover(time.time())
            yield manifest
        finally:
            manifest.close()


def keep_moves(manifest: Manifest, folder: Destination) -> None:
    """Makes the new names of files durable that were being moved when a run was cut off; first of all.

    The old ones are gone for good as soon as anything else in their folder is brought to the disk, and the first change
    of the manifest does that to its own folder.
    """
    folder.sync(image.via for image in manifest.under_way() if image.via)


def take_in_rescued(manifest: Manifest, job: Job, now: float) -> None:
    """Brings task ids that runs which are over could not store into the manifest, durably."""
    at_work = None
    if isinstance(manifest.place, Server):
        at_work = [run for run, _, _ in manifest.others()]
    elif manifest.fact(ENTERED):
        # It has come from a server.
        at_work = []
    with left_behind(job.output_dir, manifest.id, at_work=at_work) as left:
        for file in left.files:
            file.taken_in(repeated(partial(manifest.take_in, file.rescued, now, timeout=job.run.task_timeout)))


def hold_folder(stack: ExitStack, manifest: Manifest, job: Job) -> None:
    """Keeps those out of the folder who work on another manifest on a server. Raises `ManifestLocked`."""
    same_folder(manifest, job)
    if isinstance(job.manifest, Server):
        stack.enter_context(folder_of(job.output_dir, manifest.id, manifest.name))


def same_store(manifest: Manifest, job: Job) -> None:
    """Refuses pictures in two places: what is stored in the one would count as stored in the other."""
    before = manifest.fact(STORE)
    now = "" if job.store is None else job.store.url
    if before != now and manifest.fact("created_at"):
        here = "files on a machine"
        raise UsageError(
            f"{manifest.name} knows of pictures in {before or here}, and output.dir says {now or here}: give"
            " output.dir its old value, or the job another name and with that a manifest of its own"
        )


def same_service(manifest: Manifest, origin: str, *, verifies: bool) -> None:
    """Refuses to mix two services: task ids and keys of the one mean nothing to the other."""
    before = manifest.fact("service")
    if not before or before == origin:
        return
    if _is_local(before) != _is_local(origin):
        raise UsageError(
            f"{manifest.name} belongs to {before}, and this run would go to {origin}: what one made the other does not"
            " know. Give the job another output.dir, or move that folder away"
        )
    if _is_local(origin):
        # An emulator on this machine may come back on another port.
        return
    if manifest.accounts_at_work():
        raise UsageError(f"other workers on {manifest.name} use {before}, not {origin}: wait until they have ended")
    open_tasks = sum(manifest.open(verifies=verifies).values())
    if open_tasks:
        raise UsageError(
            f"{open_tasks:,} tasks in {manifest.name} were sent to {before}, and {origin} knows nothing of them. Finish"
            f" them there first: APIMART_BASE_URL={before} seedream-batch run --collect"
        )


def same_account(manifest: Manifest, key: ApiKey, *, confirmed: bool, verifies: bool) -> int:
    """The number of the account of a key. Refuses a key of another account than open tasks and other workers have.

    To another account the task ids and Idempotency-Keys mean nothing: it would lose the tasks, or buy them again. With
    `confirmed` a person says that all of them are the same account.
    """
    known = manifest.fact(ACCOUNT)
    salt, *listed = known.split() or [secrets.token_hex(8)]
    keys = {hashed: int(number or 1) for hashed, _, number in (one.partition("=") for one in listed)}
    own = key.hashed(salt)
    account = keys.get(own) or max(keys.values(), default=0) + 1
    # Images that are gone may be asked for at any time, and a wrong account would say that there are none. With one
    # that is known, `verify` leaves out what is another's.
    opened_by = manifest.open(verifies=verifies and (confirmed or own not in keys))
    tasks = {number: count for number, count in opened_by.items() if number != account}
    at_work = manifest.accounts_at_work() - {account}
    if (tasks or at_work) and not confirmed:
        raise UsageError(_other_key(manifest, sum(tasks.values())))
    if tasks or at_work:
        same = {account, *tasks, *at_work}
        account = min(at_work or tasks)
        manifest.unite_accounts(same, account)
        keys = {hashed: account if number in same else number for hashed, number in keys.items()}
    keys[own] = account
    now = " ".join([salt, *(f"{hashed}={number}" for hashed, number in keys.items())])
    if now != known:
        manifest.tell({ACCOUNT: now})
    return account


def _other_key(manifest: Manifest, tasks: int) -> str:
    what = (
        f"{tasks:,} of the tasks in {manifest.name} were sent with another API key"
        if tasks
        else f"other workers on {manifest.name} use another API key"
    )
    return (
        f"{what}, and each account knows only its own tasks. Use that key; or, if this one belongs to the same account,"
        " add --same-account"
    )


def _is_local(origin: str) -> bool:
    return is_loopback(urlsplit(origin).hostname or "")
