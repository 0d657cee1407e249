"""The columns of a table: what the cells of a job have, and of which type each is in all rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from seedream_batch.export.pictures import Picture
from seedream_batch.export.rows import FIXED, fixed, flat
from seedream_batch.model.document import Json

_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True)
class Columns:
    """The type of each column in order, str, int, float or bool, and the columns that some row has no value for."""

    types: Mapping[str, type]
    gappy: frozenset[str]

    def row(self, picture: Picture, path: str) -> dict[str, Json]:
        """A row with every column; None where there is no value."""
        found = {**flat(picture.cell), **fixed(picture, path)}
        return {name: converted(found.get(name), kind) for name, kind in self.types.items()}


class Learner:
    """Learns the columns from all images."""

    def __init__(self) -> None:
        self._types: dict[str, type] = {}
        self._filled: dict[str, int] = {}
        self._rows = 0

    def learn(self, picture: Picture) -> None:
        """Takes in one more image."""
        self._rows += 1
        for name, value in {**flat(picture.cell), **fixed(picture, picture.path)}.items():
            self._filled[name] = self._filled.get(name, 0) + (value is not None)
            if value is not None:
                known = self._types.get(name)
                self._types[name] = _kind(value) if known is None else _both(known, _kind(value))

    def columns(self) -> Columns:
        """What was learned: the columns of the axes first."""
        axes = {name: self._types.get(name, str) for name in self._filled if name not in FIXED}
        gappy = frozenset(name for name, count in self._filled.items() if count < self._rows)
        return Columns({**axes, **FIXED}, gappy)


def converted(value: Json, kind: type) -> Json:
    """A value in the type of its column; what is no text becomes it as in JSON."""
    if value is None or type(value) is kind:
        return value
    return json.dumps(value) if kind is str else kind(value)


def _kind(value: Json) -> type:
    if type(value) is int and value not in _INT64:
        return str
    return type(value)


def _both(one: type, other: type) -> type:
    """The type that holds the values of both."""
    if one is other:
        return one
    return float if {one, other} == {int, float} else str
