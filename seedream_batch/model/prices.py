"""What a request may cost before the service has said so, and which costs are plausible.

Money is in millionths of a USD.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from seedream_batch.model.job import DEFAULT_PRICE, MICRO
from seedream_batch.model.task import TaskRecord

UNSURE = 10
"""Factor by which an image may exceed its expected price while no similar request has been charged."""

PROVEN = 64
"""Charges for one kind of request after which its highest price is taken as certain."""

RECENT = 7
"""Days for which a price counts as recent."""

_FREE_TEXT = ("prompt", "webhook")
"""Fields of a request that do not affect its kind."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What delivered images count against the budget; `note` explains any difference from the service's figure."""

    cost: int
    note: str = ""
    believed: bool = True
    """Whether the cost is evidence for the price of such an image."""


def kind_of(task: TaskRecord) -> str:
    """Return a key shared by requests of the same price: all fields but the texts; of lists, only the length."""
    body = json.loads(task.body)
    rest = {
        name: len(value) if isinstance(value, list) else value
        for name, value in body.items()
        if name not in {*_FREE_TEXT, "model", "size", "resolution"}
    }
    rest |= {"model": task.model, "size": task.size, "resolution": task.resolution, "images": task.images}
    return json.dumps(rest, sort_keys=True, separators=(",", ":"))


def worst_case(held: int, images: int, seen: int) -> int:
    """Return the most that requests of one kind may cost: `held` is reserved for `images`, `seen` charges are known.

    Without any charge, this is `UNSURE` times the reserved price, or times the default price if that is higher. It
    falls with each charge.
    """
    if seen >= PROVEN:
        return held
    if not seen:
        return UNSURE * max(held, images * DEFAULT_PRICE)
    return held + (UNSURE - 1) * held // (1 + seen)


def counted(said: int | None, images: int, *, held: int, estimate: int, known: int) -> Counted:
    """Return what delivered images count, given the cost that the service said, if any.

    `held` is the price of one image at which it was reserved, `estimate` the job's price, `known` the highest recent
    charge (0: none). Zero or next to nothing is not believed; far too much is, because it may be true.
    """
    if not images:
        return Counted(said or 0, believed=False)
    expected = images * held
    if said is None:
        return Counted(expected, "the service reported no cost; the estimate counts", believed=False)
    if not said or said * UNSURE < images * estimate:
        amount = f"{said / MICRO:g} USD" if said else "0"
        return Counted(expected, f"the service reported {amount}; the estimate counts", believed=False)
    usual = images * max(estimate, known)
    if said > UNSURE * usual:
        return Counted(said, f"the service reported {said / MICRO:g} USD, {said // usual:,} times the expected cost")
    return Counted(said)


class Exposure:
    """Tracks how far requests with a pending cost may exceed their reservations."""

    def __init__(self, holding: Iterable[tuple[str, int, int, int]], seen: Mapping[str, int]) -> None:
        """Start from pending requests and known charges.

        `holding` has a tuple for each kind of request: the kind, its images, what is reserved for them, and how many of
        its requests are in flight. `seen` counts the charges of each kind.
        """
        self._seen = seen
        self._beyond = 0
        self._settling = 0
        self._in_doubt = False
        for kind, images, held, settling in holding:
            self.add(kind, images, held, settling)

    def add(self, kind: str, images: int, held: int, settling: int = 1) -> None:
        """Add one request, or several of one kind."""
        seen = self._seen.get(kind, 0)
        self._beyond += worst_case(held, images, seen) - held
        self._settling += settling
        self._in_doubt |= not settling and not seen

    @property
    def settling(self) -> bool:
        """Whether any request is in flight, so that its cost will be known."""
        return self._settling > 0

    def allows(self, kind: str, images: int, held: int, *, counts: int, cap: int) -> bool:
        """Return whether a request may be sent; `counts` is what is spent and reserved, this request included.

        A request may be sent while no other is in flight, even if it may exceed the cap: otherwise its price would
        never be known. Uncertain requests count as in flight while no similar request has been charged.
        """
        seen = self._seen.get(kind, 0)
        if counts + self._beyond + worst_case(held, images, seen) - held <= cap:
            return True
        return not self._settling and (bool(seen) or not self._in_doubt)
