"""The account: tasks, idempotency keys, money, and the ledger that all of them can be rebuilt from."""

import heapq
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seedream_batch.emulator.config import DurationDistribution, EmulatorConfig, Oddities
from seedream_batch.emulator.world.ledger import Ledger
from seedream_batch.emulator.world.sizes import PIXELS
from seedream_batch.emulator.world.tasks import Clock, Plan, Task, task_id

MICRO = 1_000_000  # money is summed up in millionths of a USD: floats would drift
MAX_LOGGED_REFERENCE = 2048  # longer references (data URIs) are shortened in the ledger


@dataclass(frozen=True, slots=True)
class Submission:
    """A submission that was judged good, before it is executed."""

    body: Mapping[str, Any]
    digest: str
    key: str | None
    images: int
    ratio: str
    """The ratio to draw; `auto` is settled by then."""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """What a key was used for, and the answer to replay."""

    digest: str
    response: Mapping[str, Any]


class Account:
    """Everything that one state folder remembers. Used from the event loop alone, without a lock."""

    def __init__(self, config: EmulatorConfig, ledger: Ledger, clock: Clock) -> None:
        """Take over what the ledger holds."""
        self.ledger = ledger
        self._clock = clock
        self._seed = config.seed
        self._start = config.balance_usd
        self._clear()
        for entry in ledger.entries():
            self._replay(entry)

    def _clear(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.stored_responses: dict[str, StoredResponse] = {}
        self.in_flight: dict[str, str] = {}
        """Keys whose request is being executed, with the hash of its body."""
        self._count = 0
        self._spent = 0
        self._ends: list[tuple[float, int, str]] = []

    def reset(self, config: EmulatorConfig) -> None:
        """Begin anew, with an empty ledger and the balance of the config."""
        self.ledger.clear()
        self._start = config.balance_usd
        self._clear()

    def set_starting_balance(self, balance_usd: float | None) -> None:
        """Set the balance to begin with; what was spent stays spent."""
        self._start = balance_usd

    @property
    def next_number(self) -> int:
        """The number of the task that is taken next, from 1."""
        return self._count + 1

    @property
    def used_usd(self) -> float:
        """The sum of the ledger."""
        return self._spent / MICRO

    @property
    def remaining_usd(self) -> float | None:
        """What is left; None for unlimited."""
        if self._start is None or self._start < 0:
            return None
        return (round(self._start * MICRO) - self._spent) / MICRO

    def can_pay(self, images: int, price: float) -> bool:
        """Whether the balance covers so many images."""
        remaining = self.remaining_usd
        return remaining is None or round(remaining * MICRO) >= images * round(price * MICRO)

    def make_tasks(
        self,
        submission: Submission,
        config: EmulatorConfig,
        *,
        odd: Oddities,
        parts: int = 1,
        outcome: Mapping[str, Any] | None = None,
        oddities: Mapping[str, Any] | None = None,
    ) -> list[Task]:
        """The tasks of an order: one, or as many as `parts` says and its images allow.

        Nothing is billed yet: `bill` does that, once the answer is known.
        """
        count = min(parts, submission.images)
        shares = [submission.images // count + (1 if part < submission.images % count else 0) for part in range(count)]
        tasks = []
        for share in shares:
            self._count += 1
            plan = self._plan(submission, config, odd=odd, images=share, outcome=outcome, oddities=oddities)
            tasks.append(Task(plan))
        return tasks

    def bill(self, submission: Submission, tasks: Sequence[Task], response: Mapping[str, Any], *, honour: bool) -> None:
        """Write the charge to the ledger and take the tasks in; from here on the order is executed."""
        price = tasks[0].plan.price
        entry = {
            "at": self._clock.now(),
            "event": "charge",
            "task_id": tasks[0].plan.id,
            "key": submission.key,
            "body_sha256": submission.digest,
            "request": _shortened(submission.body),
            "images": submission.images,
            "usd": submission.images * round(price * MICRO) / MICRO,
            "tasks": [task.plan.as_json() for task in tasks],
            "answer": response if honour and submission.key is not None else None,
        }
        self.ledger.append(entry)
        self._charge(entry, tasks)

    def advance(self) -> None:
        """Write the refunds and settlements of the tasks that have ended by now."""
        now = self._clock.now()
        while self._ends and self._ends[0][0] <= now:
            _, _, ended = heapq.heappop(self._ends)
            task = self.tasks[ended]
            if task.plan.fails:
                self.close_task(task, "refund", 0)
            elif task.plan.delivered < task.plan.images:
                self.close_task(task, "settle", task.plan.delivered)

    @property
    def next_end(self) -> float | None:
        """When the next task ends."""
        return self._ends[0][0] if self._ends else None

    def fail_late(self, task: Task) -> None:
        """Fail a task that had been told as completed, and pay back what it cost."""
        task.failed_late = True
        paid = task.plan.images if not task.closed else task.plan.delivered
        task.closed = False
        self.close_task(task, "refund", 0, paid=paid)

    def close_task(self, task: Task, event: str, delivered: int, *, paid: int | None = None) -> None:
        """Write the end of a task for which less is to be paid than was charged; once for each task."""
        if task.closed:
            return
        task.closed = True
        back = ((task.plan.images if paid is None else paid) - delivered) * round(task.plan.price * MICRO)
        entry = {
            "at": self._clock.now(),
            "event": event,
            "task_id": task.plan.id,
            "images": delivered,
            "usd": -back / MICRO,
        }
        if task.failed_late:
            entry["late"] = True
        self.ledger.append(entry)
        self._spent -= back

    def _plan(
        self,
        submission: Submission,
        config: EmulatorConfig,
        *,
        odd: Oddities,
        images: int,
        outcome: Mapping[str, Any] | None,
        oddities: Mapping[str, Any] | None,
    ) -> Plan:
        created = self._clock.now()
        resolution = str(submission.body.get("resolution", "2K"))
        times = DurationDistribution.parse(str((oddities or {}).get("task_seconds", config.task_seconds)))
        factor = 2 if resolution == "4K" else 1
        dice = random.Random(f"{self._seed}/{self._count}")
        width, height = PIXELS[resolution][submission.ratio]
        least = 0 if odd.deliver <= -15 else 1
        return Plan(
            id=task_id(self._seed, self._count, created),
            number=self._count,
            created=created,
            seconds=times.draw(dice) * factor,
            images=images,
            delivered=max(least, images + odd.deliver),
            price=config.price_usd,
            prompt=str(submission.body["prompt"]),
            ratio=submission.ratio,
            resolution=resolution,
            width=width,
            height=height,
            image_format=odd.image_format,
            quality=config.jpeg_quality,
            pad=config.image_bytes,
            estimate=max(1, round(times.typical * factor)),
            outcome=outcome,
            oddities=oddities,
            blank=config.image_size == "tiny",
        )

    def _charge(self, entry: Mapping[str, Any], tasks: Sequence[Task]) -> None:
        self._spent += round(entry["usd"] * MICRO)
        for task in tasks:
            plan = task.plan
            self.tasks[plan.id] = task
            if not plan.never_ends and (plan.fails or plan.delivered < plan.images):
                heapq.heappush(self._ends, (plan.ends, plan.number, plan.id))
        if entry["key"] is not None and entry["answer"] is not None:
            self.stored_responses[entry["key"]] = StoredResponse(entry["body_sha256"], entry["answer"])

    def _replay(self, entry: Mapping[str, Any]) -> None:
        """Take over an entry of an earlier run."""
        if entry["event"] == "charge":
            tasks = [Task(Plan.from_json(document)) for document in entry["tasks"]]
            self._count = max(self._count, *(task.plan.number for task in tasks))
            self._charge(entry, tasks)
            return
        task = self.tasks[entry["task_id"]]
        task.closed = True
        task.failed_late = bool(entry.get("late"))
        self._spent += round(entry["usd"] * MICRO)


def _shortened(body: Mapping[str, Any]) -> dict[str, Any]:
    """The request as the ledger keeps it: megabytes of data URIs are no use there."""
    kept = dict(body)
    if isinstance(kept.get("image_urls"), list):
        kept["image_urls"] = [
            each if len(each) <= MAX_LOGGED_REFERENCE else f"{each[:64]}... ({len(each)} characters)"
            for each in kept["image_urls"]
        ]
    return kept
