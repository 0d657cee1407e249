"""Assigns groups of images to splits by a hash of their content, so that new groups move no others."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from seedream_batch.errors import UsageError
from seedream_batch.model.document import Json

TOLERANCE = Fraction(1, 1000)
"""How far the sum of the fractions may differ from 1: thirds are written 0.333 and 0.334."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_FRACTION = re.compile(r"[0-9]{0,3}\.?[0-9]{0,18}")
_RANGE = 2**64


@dataclass(frozen=True, slots=True)
class Splits:
    """The names of the splits, and where each ends in [0, 1]; `group_by` is a path into a cell, or empty."""

    names: tuple[str, ...]
    ends: tuple[Fraction, ...]
    group_by: tuple[str, ...] = ()

    @property
    def fractions(self) -> dict[str, Fraction]:
        """The share of each split, as requested."""
        starts = (Fraction(), *self.ends)
        return {name: end - start for name, start, end in zip(self.names, starts, self.ends, strict=False)}

    def of(self, cell: Mapping[str, Json]) -> str:
        """Return the split of a cell's group. A cell without the value is a group of its own."""
        return self.at(group_of(cell, self.group_by))

    def at(self, group: str) -> str:
        place = Fraction(int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big"), _RANGE)
        for name, end in zip(self.names, self.ends, strict=True):
            if place < end:
                return name
        return self.names[-1]


def parsed(text: str, group_by: tuple[str, ...] = ()) -> Splits:
    """Parse `train=0.9,test=0.1`. Raises `UsageError`."""
    names: list[str] = []
    fractions: list[Fraction] = []
    for part in text.split(","):
        name, equals, value = (field.strip() for field in part.partition("="))
        if not equals or not _NAME.fullmatch(name):
            raise UsageError(
                f"--split {text}: write NAME=FRACTION, for example train=0.9,test=0.1; a name has letters, digits,"
                " `-` and `_`, and starts with a letter"
            )
        if name.casefold() in (known.casefold() for known in names):
            raise UsageError(f"--split {text}: `{name}` is given twice")
        names.append(name)
        fractions.append(_fraction(text, value))
    total = sum(fractions, start=Fraction())
    if abs(total - 1) > TOLERANCE:
        raise UsageError(f"--split {text}: the fractions must add up to 1, not {float(total):g}")
    ends = tuple(end / total for end in itertools.accumulate(fractions))
    return Splits(tuple(names), ends, group_by)


def group_of(cell: Mapping[str, Json], path: Sequence[str]) -> str:
    """Return the text that identifies a cell's group: the value at the path, or the whole cell."""
    value: Json = dict(cell)
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return _canonical(dict(cell))
        value = value[key]
    return _canonical(value)


def _canonical(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _fraction(text: str, value: str) -> Fraction:
    if _FRACTION.fullmatch(value) and any(char.isdigit() for char in value):
        fraction = Fraction(value)
        if 0 < fraction <= 1:
            return fraction
    raise UsageError(f"--split {text}: `{value}` is not a fraction above 0 and at most 1")
