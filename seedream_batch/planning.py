"""Decide what a run would do with each task of a job, and why. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import assert_never

from seedream_batch.model.document import Json
from seedream_batch.model.job import MICRO
from seedream_batch.model.locations import Place, name_of
from seedream_batch.model.task import (
    NOT_THERE,
    PRUNED,
    QUEUED_AGAIN,
    SAME_BYTES,
    ImageRecord,
    ImageState,
    TaskRecord,
    TaskSpec,
    TaskState,
    Totals,
    home_of,
    may_be_known,
)


class Action(StrEnum):
    """What a run would do with a task, in the order of the run."""

    FETCH = "fetch"
    POLL = "poll"
    RESEND = "resend"
    SUBMIT = "submit"
    MOVE = "move"
    HOLD = "hold"
    LEAVE = "leave"
    KEEP = "keep"


WORK = (Action.FETCH, Action.POLL, Action.RESEND, Action.SUBMIT, Action.MOVE)
"""The actions that change something."""

PAID = (Action.FETCH, Action.POLL, Action.MOVE)
"""The actions on what is already paid for; no filter leaves them out."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What would happen to one task; `images` and `cost` are what it would buy (millionths of a USD)."""

    action: Action
    why: str
    images: int = 0
    cost: int = 0


def decide(
    spec: TaskSpec,
    known: TaskRecord | None,
    images: Sequence[ImageRecord],
    *,
    was: TaskRecord | None,
    resend: bool,
    now: float,
) -> Decision:
    """Return what a run would do with a task of the job.

    `known` is the task's record in the manifest and `images` its images; `was` is the task that had its output path
    before. `resend` says whether uncertain tasks are resent under their key. `now` is in Unix seconds.
    """
    if known is None:
        if was is None:
            return _new(spec.images, spec.price)
        why = f"the request changed ({_difference(was.body, spec.body)})"
        return Decision(Action.SUBMIT, why, spec.images, spec.images * spec.price)
    match known.state:
        case TaskState.PLANNED:
            return Decision(Action.SUBMIT, _why_planned(known, images), spec.images, spec.images * spec.price)
        case TaskState.SUBMITTING | TaskState.UNCERTAIN:
            if resend and not known.held:
                return Decision(Action.RESEND, "uncertain; resent with the same Idempotency-Key")
            return Decision(Action.HOLD, "uncertain, may have been charged; decide with `seedream-batch resolve`")
        case TaskState.ACCEPTED:
            return Decision(Action.POLL, "submitted, in progress at the service")
        case TaskState.FAILED:
            return Decision(Action.LEAVE, f"failed: {known.reason or known.code}")
        case TaskState.LOST:
            if may_be_known(known, now):
                return Decision(Action.POLL, "lost; polled again for free")
            return Decision(Action.LEAVE, f"lost: {known.reason}")
        case TaskState.SUCCEEDED:
            return _decide_by_images(spec, known, images)
    assert_never(known.state)


@lru_cache(maxsize=64)
def _new(images: int, price: int) -> Decision:
    """Return the decision for an unknown task, cached: the first plan of a large job has a million equal ones."""
    return Decision(Action.SUBMIT, "not generated yet", images, images * price)


def _why_planned(known: TaskRecord, images: Sequence[ImageRecord]) -> str:
    if not known.attempt:
        return "not generated yet"
    lacking = next((image for image in images if image.state in NOT_THERE), None)
    if lacking is not None:
        return f"queued again: image {lacking.state}"
    if known.reason == PRUNED:
        return f"generated before, but {PRUNED}"
    if known.reason.startswith(QUEUED_AGAIN):
        return known.reason
    times = "once" if known.failures == 1 else f"{known.failures} times"
    return f"failed {times}, will be retried" if known.failures else "not executed in the last attempt"


def _decide_by_images(spec: TaskSpec, known: TaskRecord, images: Sequence[ImageRecord]) -> Decision:
    states = Counter(image.state for image in images)
    if states[ImageState.ANNOUNCED]:
        return Decision(Action.FETCH, "generated and paid for, not downloaded yet")
    if any(image.state is ImageState.STORED and home_of(spec, image) != image.path for image in images):
        return Decision(Action.MOVE, "stored under another path")
    for state in NOT_THERE:
        if states[state]:
            first = next(image for image in images if image.state is state)
            return Decision(Action.LEAVE, f"image {state}: {first.reason}" if first.reason else f"image {state}")
    warning = known.warning or next((image.warning for image in images if image.warning), "")
    if warning:
        short = "the same bytes as another image" if warning.startswith(SAME_BYTES) else warning
        how = "accept it with `resolve --accept`, or regenerate it with `retry --flagged`"
        return Decision(Action.LEAVE, f"flagged, differs from the request: {short}; {how}")
    return Decision(Action.KEEP, "stored")


def _difference(old: str, new: str) -> str:
    """Return the names of the request's fields that differ."""
    old_body, new_body = json.loads(old), json.loads(new)
    names = sorted(name for name in old_body.keys() | new_body.keys() if old_body.get(name) != new_body.get(name))
    return ", ".join(names) or "another sample"


@dataclass(slots=True)
class Group:
    """The tasks that share an action and its reason."""

    action: Action
    why: str
    tasks: int = 0
    images: int = 0
    cost: int = 0
    axes: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, decision: Decision, names: Mapping[str, str]) -> None:
        """Count one task; `names` are its axis values for display."""
        self.tasks += 1
        self.images += decision.images
        self.cost += decision.cost
        for axis, name in names.items():
            counter = self.axes.get(axis)
            if counter is None:
                counter = self.axes[axis] = Counter()
            counter[name] = counter.get(name, 0) + 1


@dataclass(frozen=True, slots=True)
class Occupied:
    """Images that cannot be generated because unknown files have their paths: their cost, and the first such path."""

    images: int
    cost: int
    path: str


def manifest_lost(manifest: Place, images: int, cost: str) -> str:
    """Return what to do if files exist at the paths of images, but the manifest has no image yet."""
    again = "1 image" if images == 1 else f"{images:,} images"
    return (
        f"the manifest had no images yet. If it was deleted or not copied along, restore {name_of(manifest)}."
        f" If you move the files away instead, a run generates {again} for about {cost}"
    )


@dataclass(slots=True)
class Plan:
    """What a run would do, in groups."""

    groups: dict[tuple[Action, str], Group] = field(default_factory=dict)
    tasks: int = 0
    images: int = 0
    dropped: int = 0
    """Tasks that the job no longer has, with files, which stay, or in flight."""
    left_out: int = 0
    """Tasks of the job that were not selected, and that a run skips."""
    totals: Totals = field(default_factory=Totals)
    """What is already spent and reserved."""
    charged: bool = False
    """Whether prices are those last charged, and not only those in the job."""
    collect: int = 0
    """Dropped tasks that are in flight: what is paid for is collected in any case."""

    occupied: Occupied | None = None
    """Unknown files at the paths of new images, if any; a run does not generate these images."""

    _last: tuple[Decision, Group] | None = field(default=None, init=False, repr=False, compare=False)
    """The last decision and its group, since the next task mostly has the same."""

    def add(self, spec: TaskSpec, decision: Decision, names: Mapping[str, str]) -> None:
        """Count one task of the job."""
        if self._last is None or decision is not self._last[0]:
            key = (decision.action, decision.why)
            group = self.groups.get(key)
            if group is None:
                group = self.groups[key] = Group(*key)
            self._last = (decision, group)
        self._last[1].add(decision, names)
        self.tasks += 1
        self.images += spec.images

    def leave_out(self, spec: TaskSpec) -> None:
        """Count a task of the job that was not selected."""
        self.left_out += 1
        self.tasks += 1
        self.images += spec.images

    def ordered(self) -> list[Group]:
        """Return the groups in the order of a run."""
        order = list(Action)
        return sorted(self.groups.values(), key=lambda group: (order.index(group.action), -group.tasks, group.why))

    def count(self, actions: Iterable[Action]) -> int:
        """Return how many tasks have one of these actions."""
        wanted = set(actions)
        return sum(group.tasks for group in self.groups.values() if group.action in wanted)

    @property
    def work(self) -> bool:
        """Whether a run would do anything."""
        return self.collect > 0 or self.count(WORK) > 0

    @property
    def to_buy(self) -> tuple[int, int]:
        """Images that would be bought, and their estimated cost in millionths of a USD."""
        groups = self.groups.values()
        return sum(group.images for group in groups), sum(group.cost for group in groups)

    @property
    def cost_usd(self) -> float:
        """The estimated cost of the images that would be bought."""
        return self.to_buy[1] / MICRO


def as_json(plan: Plan) -> Json:
    """Return the plan for machines; money in USD."""
    images, _ = plan.to_buy
    return {
        "tasks": plan.tasks,
        "images": plan.images,
        "work": plan.work,
        "to_buy": {"images": images, "cost_usd": plan.cost_usd},
        "dropped": plan.dropped,
        "left_out": plan.left_out,
        "groups": [
            {
                "action": str(group.action),
                "why": group.why,
                "tasks": group.tasks,
                "images": group.images,
                "cost_usd": group.cost / MICRO,
                "axes": {axis: dict(counter) for axis, counter in group.axes.items()},
            }
            for group in plan.ordered()
        ],
    }
