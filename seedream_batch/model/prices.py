"""What a request may cost before the service has said so, and which costs are believable.

Money is in millionths of a USD.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from seedream_batch.model.job import DEFAULT_PRICE, MICRO
from seedream_batch.model.task import TaskRecord

UNSURE = 10
"""How many times its expected price an image may turn out to cost, as long as nothing like it was charged."""

PROVEN = 64
"""Charges for one kind of request after which its highest price is taken to hold."""

RECENT = 7
"""Days for which a price counts as recently seen."""

_FREE_TEXT = ("prompt", "webhook")
"""Fields of a request that do not make it another kind."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What delivered images count against the budget; `note` says where that is not simply what the service said."""

    cost: int
    note: str = ""
    believed: bool = True
    """Whether the cost tells what such an image costs."""


def kind_of(task: TaskRecord) -> str:
    """What a request has in common with others of the same price: all of it but its text; of lists, the length."""
    body = json.loads(task.body)
    rest = {
        name: len(value) if isinstance(value, list) else value
        for name, value in body.items()
        if name not in {*_FREE_TEXT, "model", "size", "resolution"}
    }
    rest |= {"model": task.model, "size": task.size, "resolution": task.resolution, "images": task.images}
    return json.dumps(rest, sort_keys=True, separators=(",", ":"))


def worst_case(held: int, images: int, seen: int) -> int:
    """What requests of one kind may cost in the worst case: `held` for so many images, `seen` charges of that kind.

    Nothing seen: `UNSURE` times the price, and at least that of the default price, however small the stated one is.
    From there on it falls with each charge.
    """
    if seen >= PROVEN:
        return held
    if not seen:
        return UNSURE * max(held, images * DEFAULT_PRICE)
    return held + (UNSURE - 1) * held // (1 + seen)


def counted(said: int | None, images: int, *, held: int, estimate: int, known: int) -> Counted:
    """What so many delivered images count, given the cost that the service said, if any.

    `held` is the price of one image at which it was reserved, `estimate` that of the job, `known` the highest that was
    charged lately (0: none). Nothing, or next to nothing, is not believed; far too much is, since it may be true.
    """
    if not images:
        return Counted(said or 0, believed=False)
    expected = images * held
    if said is None:
        return Counted(expected, "the service named no cost; counted at the estimate", believed=False)
    if not said or said * UNSURE < images * estimate:
        amount = f"{said / MICRO:g} USD" if said else "0"
        return Counted(expected, f"the service said {amount}; counted at the estimate", believed=False)
    usual = images * max(estimate, known)
    if said > UNSURE * usual:
        return Counted(said, f"the service said {said / MICRO:g} USD, {said // usual:,} times what was expected")
    return Counted(said)


class Exposure:
    """How far requests whose cost is still to come may exceed what is held for them."""

    def __init__(self, holding: Iterable[tuple[str, int, int, int]], seen: Mapping[str, int]) -> None:
        """`holding` has, by kind of request: images, what is held for them, and how many of them settle by themselves.

        `seen` counts the charges of each kind.
        """
        self._seen = seen
        self._beyond = 0
        self._settling = 0
        self._in_doubt = False
        for kind, images, held, settling in holding:
            self.add(kind, images, held, settling)

    def add(self, kind: str, images: int, held: int, settling: int = 1) -> None:
        """One more request, or several of one kind."""
        seen = self._seen.get(kind, 0)
        self._beyond += worst_case(held, images, seen) - held
        self._settling += settling
        self._in_doubt |= not settling and not seen

    def allows(self, kind: str, images: int, held: int, *, counts: int, cap: int) -> bool:
        """Whether a request may go out; `counts` is what is spent and held, this request included.

        One may when nothing else is in flight, though it may cost more than the cap leaves: else its price would never
        be known. Requests in doubt count as in flight as long as nothing like this one was charged.
        """
        seen = self._seen.get(kind, 0)
        if counts + self._beyond + worst_case(held, images, seen) - held <= cap:
            return True
        return not self._settling and (bool(seen) or not self._in_doubt)
