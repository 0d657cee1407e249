"""What a benchmark says: rows of a table, each one figure over all rounds with what it was made of."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure: the median of the rounds, beside its target if it has one.

    `unit` is `x` for ratios. A row without rounds could not be measured; its first note says why.
    """

    name: str
    measured: str
    runs: tuple[float, ...]
    unit: str = "x"
    at_least: float | None = None
    at_most: float | None = None
    notes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    """What the figure was made of, round by round, for the JSON file."""

    @property
    def figure(self) -> float | None:
        """The median of the rounds."""
        return statistics.median(self.runs) if self.runs else None

    @property
    def target(self) -> str:
        """The target in words; empty for a row that is only shown."""
        if self.at_least is not None:
            return f">= {self.at_least:g} {self.unit}"
        if self.at_most is not None:
            return f"<= {self.at_most:g} {self.unit}"
        return ""

    @property
    def met(self) -> bool | None:
        """Whether the figure meets the target; None where there is no target or no figure."""
        figure = self.figure
        if figure is None or not self.target:
            return None
        return (self.at_least is None or figure >= self.at_least) and (self.at_most is None or figure <= self.at_most)

    def as_json(self) -> dict[str, Any]:
        """Everything that is known of the row."""
        return {
            "name": self.name,
            "measured": self.measured,
            "target": self.target,
            "figure": self.figure,
            "unit": self.unit,
            "runs": list(self.runs),
            "met": self.met,
            "notes": list(self.notes),
            "details": dict(self.details),
        }


@dataclass(frozen=True)
class Options:
    """How to measure; `only` names the rows that are wanted, None means all of them."""

    rounds: int
    small: bool
    only: Collection[str] | None = None
    pinned: bool = False
    """Whether service and client get cores of their own where a row compares rates of requests."""

    def wants(self, name: str) -> bool:
        """Whether a row is wanted."""
        return self.only is None or name in self.only

    def size(self, full: int, small: int) -> int:
        """A number of tasks: the full one, or the one for a look at whether everything works."""
        return small if self.small else full


def missing(name: str, measured: str, why: str) -> Row:
    """A row that cannot be measured here."""
    return Row(name=name, measured=measured, runs=(), notes=(why,))


def ratios(over: Sequence[float], under: Sequence[float]) -> tuple[float, ...]:
    """The ratio of each round: the contestants of a round were measured one right after the other."""
    return tuple(a / b for a, b in zip(over, under, strict=True))


def middle(values: Sequence[float]) -> str:
    """A median in words."""
    value = statistics.median(values)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
