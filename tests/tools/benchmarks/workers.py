"""Workers on one manifest in a PostgreSQL database that is started for this: how fast they claim, what more of them do.

Needs PostgreSQL's server programs and psycopg; without them the rows are left out.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from processes import RUNNER, start, wait
from rows import Options, Row, missing
from runs import write_job
from services import emulator

if TYPE_CHECKING:
    from postgres import Postgres

ROWS = ("workers-claims", "workers-two", "workers-four")

WORKERS = 4
TOGETHER = 64
"""Tasks that are taken, and then claimed, together: as many as a run does."""

IN_FLIGHT = 16
"""Tasks that one worker has under way."""

TASK_SECONDS = 2.0


def measure(options: Options) -> list[Row]:
    """Claims a second of four workers, and the throughput of one, two and four."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from postgres import why_not

    wanted = [name for name in ROWS if options.wants(name)]
    if reason := why_not():
        return [missing(name, f"{WORKERS} workers on PostgreSQL", reason) for name in wanted]
    rows = []
    with _database() as database:
        if "workers-claims" in wanted:
            rows.append(_claims(options, database))
        if {"workers-two", "workers-four"} & set(wanted):
            rows += [row for row in _throughput(options, database) if row.name in wanted]
    return rows


@contextmanager
def _database() -> Iterator[Postgres]:
    from postgres import Postgres

    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        data = Path(folder, "database")
        data.mkdir()
        # With all its syncs: an intent is durable, or it is none.
        database = Postgres(data).start()
        try:
            yield database
        finally:
            database.stop()


def _claims(options: Options, database: Postgres) -> Row:
    tasks = options.size(20_000, 400)
    rates = [_claim_all(database, tasks) for _ in range(options.rounds)]
    return Row(
        name="workers-claims",
        measured=f"{tasks:,} tasks taken and claimed by {WORKERS} workers, {TOGETHER} at a time, with turns and budget",
        runs=tuple(rates),
        unit="tasks/s",
        at_least=2000,
    )


def _claim_all(database: Postgres, tasks: int) -> float:
    from seedream_batch.manifest import Manifest

    place = database.place()
    with closing(Manifest(place)) as manifest:
        manifest.sync_job((_spec(number) for number in range(tasks)), time.time())
    context = multiprocessing.get_context("spawn")
    barrier, found = context.Barrier(WORKERS), context.Queue()
    workers = [context.Process(target=_claim, args=(place, barrier, found)) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    times = [found.get(timeout=600) for _ in workers]
    for worker in workers:
        worker.join()
    if sum(count for _, _, count in times) != tasks:
        raise RuntimeError(f"{times}: not every task was claimed once")
    return tasks / (max(end for _, end, _ in times) - min(begin for begin, _, _ in times))


def _claim(place: Any, barrier: Any, found: Any) -> None:
    """One worker: takes and claims until nothing is left."""
    from seedream_batch.manifest import Manifest
    from seedream_batch.manifest.task_queue import Intent, SharedRate
    from seedream_batch.model.job import Budget
    from seedream_batch.pacing import RateFeedback, reserve_slots

    def take(state: str, clock: float, most: int) -> SharedRate:
        return SharedRate(*reserve_slots(state, 100_000.0, clock, most, lead=0.02, news=RateFeedback()))

    with closing(Manifest(place, shared=True)) as manifest:
        manifest.workers.begin_run(now=time.time(), pid=os.getpid(), host=platform.node(), version="1", service="none")
        barrier.wait()
        begin, count = time.time(), 0
        claimed: set[int] = set()
        while tasks := manifest.queue.due(TOGETHER, time.time()):
            intents = [Intent(task.id) for task in tasks]
            claims = manifest.queue.claim(intents, Budget(max_images=10**9), time.time(), take=take).claims
            claimed.update(claim.task.id for claim in claims)
            count += len(claims)
        found.put((begin, time.time(), count))
        barrier.wait()
        manifest.workers.end_run(now=time.time(), outcome="finished")


def _spec(number: int) -> Any:
    from seedream_batch.model.task import TaskSpec

    fingerprint = hashlib.sha256(str(number).encode()).hexdigest()
    return TaskSpec(
        fingerprint=fingerprint, ordinal=number, sample=1, body='{"prompt": "a fox in the snow"}', images=1,
        paths=(f"fox/{number}",), cell=f'{{"number": {number}}}', model="doubao-seedance-4-5", size="1:1",
        resolution="2K", price=35_000,
    )  # fmt: skip


def _throughput(options: Options, database: Postgres) -> list[Row]:
    tasks = options.size(1200, 32)
    rates: dict[int, list[float]] = {1: [], 2: [], 4: []}
    for _ in range(options.rounds):
        for workers, found in rates.items():
            found.append(_run(database, tasks, workers))
    alone = statistics.median(rates[1])
    return [
        Row(
            name=name,
            measured=f"{tasks:,} tasks of {TASK_SECONDS:g} s, {IN_FLIGHT} at a time for each worker: {workers} / one",
            runs=tuple(rate / one for rate, one in zip(rates[workers], rates[1], strict=True)),
            at_least=1.0,
            notes=(f"{statistics.median(rates[workers]):.1f} tasks/s; one worker {alone:.1f} tasks/s",),
            details={"rates": rates},
        )
        for name, workers in (("workers-two", 2), ("workers-four", 4))
    ]


def _run(database: Postgres, tasks: int, workers: int) -> float:
    """Tasks a second from the first submission to the last stored image."""
    import psycopg

    place = database.place()
    url = f"{place.url}?schema={place.schema}"
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-") as folder,
        emulator("--task-seconds", f"fixed:{TASK_SECONDS:g}", "--image-size", "tiny") as service,
    ):
        job = write_job(Path(folder, "job"), tasks, max_in_flight=IN_FLIGHT, rate=10_000)
        command = [*RUNNER, "run", str(job.file), "--quiet", "--manifest", url]
        begin = time.perf_counter()
        started = [start(command, env=service.env, cwd=job.file.parent) for _ in range(workers)]
        for process, printed in started:
            wait(process, printed, begin)
        with psycopg.connect(place.url) as connection:
            connection.execute(f'SET search_path TO "{place.schema}"')
            count, seconds = connection.execute(
                "SELECT count(*) FILTER (WHERE new = 'stored'), max(at) - min(at) FROM events"
            ).fetchone() or (0, 1.0)
        if count != tasks:
            raise RuntimeError(f"{count} of {tasks} images are stored")
        return float(count / seconds)
