"""The account: tasks, idempotency keys and money, all of which can be rebuilt from the ledger."""

import heapq
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seedream_batch.emulator.config import DurationDistribution, EmulatorConfig
from seedream_batch.emulator.world.ledger import Ledger
from seedream_batch.emulator.world.request_rules import PIXELS
from seedream_batch.emulator.world.tasks import Clock, Task, TaskPlan, task_id

MICRO = 1_000_000
"""Money is added up in millionths of a USD: floats would drift."""
MAX_LOGGED_REFERENCE = 2048
"""Characters above which the ledger shortens a reference image (a data URI)."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A submission that passed the checks and has not been executed."""

    body: Mapping[str, Any]
    digest: str
    """SHA-256 of the body, in hex."""
    key: str | None
    images: int
    """Images to charge in advance."""
    ratio: str
    """The ratio to draw, such as 16:9; never `auto`."""


class Account:
    """Everything that a state folder remembers. Not thread-safe: used from the event loop only."""

    def __init__(self, config: EmulatorConfig, ledger: Ledger, clock: Clock) -> None:
        """Rebuild the account from the ledger.

        Raises `KeyError` or `TypeError` or `ValueError` for an entry that no emulator wrote.
        """
        self.ledger = ledger
        self._clock = clock
        self._seed = config.seed
        self._clear(config)
        for entry in ledger.entries():
            self._replay(entry)

    def _clear(self, config: EmulatorConfig) -> None:
        self.starting_balance_usd = config.balance_usd
        """None or a negative number for an unlimited balance."""
        self.tasks: dict[str, Task] = {}
        self.stored_responses: dict[str, tuple[str, Mapping[str, Any]]] = {}
        """By key, the hash of the body that it was used for, and the response to replay."""
        self.in_flight: dict[str, str] = {}
        """The keys whose request is being executed, with the hash of its body."""
        self._count = 0
        self._spent = 0
        self._ends: list[tuple[float, int, str]] = []
        """A heap of the tasks to pay back for when they end: time, number, id."""

    def reset(self, config: EmulatorConfig) -> None:
        """Start again with an empty ledger and the balance of the config."""
        self.ledger.clear()
        self._clear(config)

    @property
    def next_number(self) -> int:
        """The number of the next task, from 1."""
        return self._count + 1

    @property
    def used_usd(self) -> float:
        """The sum of the ledger."""
        return self._spent / MICRO

    @property
    def remaining_usd(self) -> float | None:
        """The balance; None if it is unlimited."""
        if self.starting_balance_usd is None or self.starting_balance_usd < 0:
            return None
        return (round(self.starting_balance_usd * MICRO) - self._spent) / MICRO

    def can_pay(self, images: int, price: float) -> bool:
        """Return whether the balance covers this many images at this price in USD."""
        remaining = self.remaining_usd
        return remaining is None or round(remaining * MICRO) >= images * round(price * MICRO)

    def create_tasks(
        self,
        submission: Submission,
        config: EmulatorConfig,
        *,
        parts: int,
        outcome: Mapping[str, Any] | None,
        oddities: Mapping[str, Any] | None,
    ) -> list[Task]:
        """Create up to `parts` tasks of a submission, with at least an image each; `charge` then takes the money.

        `outcome` is the fault that decides how they end, `oddities` (already in `config`) is for responses about them.
        """
        count, created = min(parts, submission.images), self._clock.now()
        resolution = str(submission.body.get("resolution", "2K"))
        durations = DurationDistribution.parse(config.task_seconds)
        factor = 2 if resolution == "4K" else 1
        width, height = PIXELS[resolution][submission.ratio]
        tasks = []
        for part in range(count):
            self._count += 1
            images = submission.images // count + (part < submission.images % count)
            plan = TaskPlan(
                id=task_id(self._seed, self._count, created),
                number=self._count,
                created=created,
                seconds=durations.draw(random.Random(f"{self._seed}/{self._count}")) * factor,
                images=images,
                delivered=max(0 if config.deliver <= -15 else 1, images + config.deliver),
                price=config.price_usd,
                prompt=str(submission.body["prompt"]),
                ratio=submission.ratio,
                resolution=resolution,
                width=width,
                height=height,
                image_format=config.image_format,
                quality=config.jpeg_quality,
                pad=config.image_bytes,
                estimate=max(1, round(durations.typical * factor)),
                outcome=outcome,
                oddities=oddities,
                blank=config.image_size == "tiny",
            )
            tasks.append(Task(plan))
        return tasks

    def charge(self, submission: Submission, tasks: Sequence[Task], response: Mapping[str, Any] | None) -> None:
        """Execute a submission: write the charge to the ledger and add the tasks.

        `response` is what to replay when the key is used again; None to forget the key.
        """
        entry = {
            "at": self._clock.now(),
            "event": "charge",
            "task_id": tasks[0].plan.id,
            "key": submission.key,
            "body_sha256": submission.digest,
            "request": _shortened(submission.body),
            "images": submission.images,
            "usd": submission.images * round(tasks[0].plan.price * MICRO) / MICRO,
            "tasks": [task.plan.as_json() for task in tasks],
            "answer": response,
        }
        self.ledger.append(entry)
        self._add(entry, tasks)

    def advance(self) -> None:
        """Write the refunds and settlements of the tasks that have ended by now."""
        now = self._clock.now()
        while self._ends and self._ends[0][0] <= now:
            task = self.tasks[heapq.heappop(self._ends)[2]]
            if task.closed:
                continue
            if task.plan.fails:
                self._pay_back(task, "refund", 0, paid=task.plan.images)
            else:
                self._pay_back(task, "settle", task.plan.delivered, paid=task.plan.images)

    def fail_late(self, task: Task) -> None:
        """Fail a task that was reported as completed, and refund it."""
        task.failed_late = True
        self._pay_back(task, "refund", 0, paid=task.plan.delivered if task.closed else task.plan.images)

    def _pay_back(self, task: Task, event: str, due: int, *, paid: int) -> None:
        """Write an entry that pays back the images of a task that were paid for and are not due."""
        task.closed = True
        back = (paid - due) * round(task.plan.price * MICRO)
        entry = {
            "at": self._clock.now(),
            "event": event,
            "task_id": task.plan.id,
            "images": due,
            "usd": -back / MICRO,
        }
        if task.failed_late:
            entry["late"] = True
        self.ledger.append(entry)
        self._spent -= back

    def _add(self, entry: Mapping[str, Any], tasks: Sequence[Task]) -> None:
        self._spent += round(entry["usd"] * MICRO)
        for task in tasks:
            plan = task.plan
            self.tasks[plan.id] = task
            if not plan.never_ends and (plan.fails or plan.delivered < plan.images):
                heapq.heappush(self._ends, (plan.ends, plan.number, plan.id))
        if entry["key"] is not None and entry["answer"] is not None:
            self.stored_responses[entry["key"]] = (entry["body_sha256"], entry["answer"])

    def _replay(self, entry: Mapping[str, Any]) -> None:
        if entry["event"] == "charge":
            tasks = [Task(TaskPlan.from_json(document)) for document in entry["tasks"]]
            self._count = max(self._count, *(task.plan.number for task in tasks))
            self._add(entry, tasks)
            return
        task = self.tasks[entry["task_id"]]
        task.closed = True
        task.failed_late = bool(entry.get("late"))
        self._spent += round(entry["usd"] * MICRO)


def _shortened(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request as the ledger keeps it, without megabytes of data URIs."""
    kept = dict(body)
    if isinstance(kept.get("image_urls"), list):
        kept["image_urls"] = [
            each if len(each) <= MAX_LOGGED_REFERENCE else f"{each[:64]}... ({len(each)} characters)"
            for each in kept["image_urls"]
        ]
    return kept
