"""The manifest for the run that holds it: its parts over one connection."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from seedream_batch.manifest.answer_store import AnswerStore
from seedream_batch.manifest.budget_ledger import BudgetLedger
from seedream_batch.manifest.database import Database
from seedream_batch.manifest.db.connection import Transaction
from seedream_batch.manifest.db.open import connect
from seedream_batch.manifest.decision_store import DecisionStore
from seedream_batch.manifest.facts import Facts
from seedream_batch.manifest.image_store import ImageStore
from seedream_batch.manifest.maintenance_store import MaintenanceStore
from seedream_batch.manifest.ownership import Ownership
from seedream_batch.manifest.sync_job import SyncResult, sync_job
from seedream_batch.manifest.task_queue import TaskQueue
from seedream_batch.manifest.task_store import TaskStore
from seedream_batch.manifest.transitions import TaskTransitions
from seedream_batch.manifest.worker_store import WorkerStore
from seedream_batch.model.locations import Place
from seedream_batch.model.task import TaskSpec


class _RolledBack(Exception):
    """Rolls a transaction back on purpose."""


class Manifest:
    """The manifest, open for writing. One process holds it at a time (see `run_lock`), one thread uses it at a time.

    Opened `shared`, which only a server allows, several processes hold it together, each for a run that is a worker.
    Every public method of a part is one transaction, durable when it returns; within `group()` they share one. A write
    that finds a different state than it expects changes nothing and raises `StaleTransition`.
    """

    def __init__(self, place: Place, *, shared: bool = False) -> None:
        """Open it. Raises `ManifestLocked` if a run holds it; waits briefly for workers that just died."""
        self.place = place
        self.connection = connect(place, shared=shared)
        self.name = self.connection.name
        try:
            database = Database(self.connection)
            self.id = database.id
            transitions = TaskTransitions(database)
            ownership = Ownership(self.connection)
            self.facts = Facts(self.connection)
            self.answers = AnswerStore(database)
            self.budget = BudgetLedger(database)
            self.images = ImageStore(database)
            self.tasks = TaskStore(database, transitions, self.budget, self.images, self.answers, ownership)
            self.queue = TaskQueue(database, transitions, self.tasks, self.budget, ownership)
            self.decisions = DecisionStore(database, transitions, self.images)
            self.upkeep = MaintenanceStore(database, transitions, self.tasks, self.images, self.queue)
            self.workers = WorkerStore(database, self.facts, self.tasks)
            while self.connection.has_workers and not shared and self.workers.others():
                # None of them has a session: otherwise opening it would have failed.
                self.workers.expire(time.time(), platform.node())
                if self.workers.others():
                    time.sleep(0.2)
        except BaseException:
            self.close()
            raise

    def group(self) -> Transaction:
        """Begin a transaction that the calls inside share."""
        return self.connection.transaction()

    @contextmanager
    def rolled_back(self) -> Iterator[None]:
        """Roll back whatever is written inside; it is visible only there."""
        with suppress(_RolledBack), self.group():
            yield
            raise _RolledBack

    def is_empty(self) -> bool:
        return not self.connection.rows("SELECT 1 FROM tasks UNION ALL SELECT 1 FROM runs LIMIT 1")

    def sync_job(self, specs: Iterable[TaskSpec], now: float) -> SyncResult:
        """Make the manifest's tasks those of the job; changes nothing if the stream of tasks raises."""
        with self.group() as sql:
            # Expanding the tasks takes time.
            self.connection.allow_pauses()
            result = sync_job(sql, specs, now)
            if self.connection.shared:
                # No heartbeat was sent meanwhile.
                self.workers.renew_lease()
            return result

    def close(self) -> None:
        self.connection.close()
