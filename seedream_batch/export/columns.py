"""The columns of an export, and the type of each across all rows."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from seedream_batch.errors import UsageError
from seedream_batch.export.stored_images import Picture
from seedream_batch.model.document import Json

_INT64 = range(-(2**63), 2**63)
_EXACT = range(-(2**53), 2**53 + 1)
"""Integers that a float represents exactly."""

_DATED = re.compile(r"\d{4}-\d\d-\d\d(?:[T ].*)?", re.DOTALL)
"""Texts that readers of JSON lines take for a date; at least as broad as their own rule."""


Way = tuple[str, ...]
"""The keys that lead to a value in a cell, the axis first."""

FIXED: Mapping[str, type] = {
    "path": str,
    "prompt": str,
    "size": str,
    "resolution": str,
    "width": int,
    "height": int,
    "format": str,
    "task_id": str,
    "sample": int,
    "index": int,
    "cost_usd": float,
    "sha256": str,
    "bytes": int,
    "submitted_at": str,
    "ended_at": str,
    "stored_at": str,
}
"""The columns of every table, in this order, after those of the axes."""

TAKEN = frozenset({*FIXED, "file_name", "image"})
"""Names that a column of an axis cannot have."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The type of each column in order (str, int, float or bool), and the columns without a value in some row.

    `names` has the column of each leaf of a cell. `lists` are the leaves that are lists of one type in all rows,
    `shapeless` the axes that are a mapping in one cell and not in another. `dated` says whether a text of the job looks
    like a date.
    """

    types: Mapping[str, type]
    gappy: frozenset[str]
    names: Mapping[Way, str]
    lists: frozenset[Way]
    shapeless: frozenset[str]
    dated: bool

    def row(self, picture: Picture, path: str) -> dict[str, Json]:
        """Return a row with every column; None where there is no value."""
        values = {self.names[way]: leaf(value) for way, value in leaves(picture.cell)}
        values |= {**picture.about, "path": path}
        return {name: converted(values.get(name), kind) for name, kind in self.types.items()}

    def without_gaps(self, row: Mapping[str, Json]) -> dict[str, Json]:
        """Return a row without null: a column with gaps becomes text, as readers infer types from some rows."""
        return {name: _filled(value) if name in self.gappy else value for name, value in row.items()}

    def of_type(self, name: str) -> type:
        """Return the type of a column without gaps."""
        return str if name in self.gappy else self.types[name]

    def nested(self, picture: Picture, path: str) -> dict[str, Json]:
        """Return a row with the cell nested in it: the same keys and types in all rows, and no null."""
        values = dict(leaves(picture.cell))
        cell: dict[str, Json] = {}
        for way, name in self.names.items():
            if way[0] in self.shapeless:
                cell[way[0]] = _text(picture.cell.get(way[0]))
                continue
            at = cell
            for key in way[:-1]:
                at = at.setdefault(key, {})
            value = values.get(way)
            if way not in self.lists:
                value = converted(leaf(value), self.types[name])
                value = _filled(value) if name in self.gappy else value
            at[way[-1]] = value
        return {"cell": cell, **self.without_gaps({"path": path, **picture.about})}


class Learner:
    """Learns the columns from all images."""

    def __init__(self) -> None:
        self._types: dict[Way, type] = {}
        self._filled: dict[Way, int] = {}
        self._wide: set[Way] = set()
        self._elements: dict[Way, type | None] = {}
        self._rows = 0
        self._dated = False

    def learn(self, picture: Picture) -> None:
        self._rows += 1
        for way, value in leaves(picture.cell):
            self._elements[way] = _element_type(value, self._elements.get(way, _ANY))
            self._learn(way, leaf(value))
        for name, value in ("path", picture.path), *picture.about.items():
            self._learn((name, _FIXED), value)
        self._dated = self._dated or _DATED.fullmatch(picture.prompt) is not None

    def _learn(self, way: Way, value: Json) -> None:
        self._filled[way] = self._filled.get(way, 0) + (value is not None)
        if value is None:
            return
        known = self._types.get(way)
        self._types[way] = _type_of(value) if known is None else _common_type(known, _type_of(value))
        if type(value) is int and value not in _EXACT:
            self._wide.add(way)
        if way[-1] is not _FIXED and isinstance(value, str) and _DATED.fullmatch(value):
            self._dated = True

    def columns(self, *, flat: bool) -> Columns:
        """Return the columns learnt, those of the axes first. With `flat`, each value has its own column.

        Raises `UsageError` if two values would have the same column name.
        """
        ways = [way for way in self._filled if way[-1] is not _FIXED]
        names = _column_names(ways, flat=flat)
        types = {names[way]: self._types.get(way, str) for way in ways}
        types |= {names[way]: str for way in ways if way in self._wide and types[names[way]] is float}
        gappy = {names.get(way, way[0]) for way, count in self._filled.items() if count < self._rows}
        lists = {way for way, kind in self._elements.items() if kind is not None and self._filled[way] == self._rows}
        shapeless = {way[0] for way in ways if any(way[:depth] in self._filled for depth in range(1, len(way)))}
        return Columns({**types, **FIXED}, frozenset(gappy), names, frozenset(lists), frozenset(shapeless), self._dated)


_FIXED = "\0"
"""Follows the name of a column that every table has: no key of a job equals it."""

_ANY = object
"""Element type of a list while nothing is known of it."""


def _column_names(ways: Iterable[Way], *, flat: bool) -> dict[Way, str]:
    """Return a unique column name for each leaf, ignoring case and Unicode form."""
    names: dict[Way, str] = {}
    joined: set[str] = set()
    taken = {_folded(name) for name in TAKEN}
    for way in ways:
        plain = ".".join(way)
        if flat and plain in joined:
            raise UsageError(
                f"two values of a cell would share the column `{plain}`; rename a key of the axis `{way[0]}`, or"
                " export as jsonl, which keeps mappings"
            )
        joined.add(plain)
        name = f"cell.{plain}" if _folded(plain) in taken else plain
        while _folded(name) in taken:
            name += "_"
        taken.add(_folded(name))
        names[way] = name
    return names


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _element_type(value: Json, known: type | None) -> type | None:
    """Return the one type of all list elements; None if there is none, or if a value is not a list."""
    if known is None or not isinstance(value, list) or not value:
        return None
    kinds = {type(item) if _type_of(item) is type(item) else None for item in value} | ({known} - {_ANY})
    kind = kinds.pop()
    return kind if not kinds and kind in {str, int, float, bool} else None


def _filled(value: Json) -> str:
    """Return a value of a column with gaps, as text."""
    return "" if value is None else str(converted(value, str))


def _text(value: Json) -> str:
    """Return any value as text; a text stays as it is."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def converted(value: Json, kind: type) -> Json:
    """Convert a value to the type of its column; non-texts become text as in JSON."""
    if value is None or type(value) is kind:
        return value
    return json.dumps(value) if kind is str else kind(value)


def _type_of(value: Json) -> type:
    if type(value) is int and value not in _INT64:
        return str
    return type(value)


def _common_type(first: type, second: type) -> type:
    """Return the type that can hold the values of both."""
    if first is second:
        return first
    return float if {first, second} == {int, float} else str


def leaves(value: Mapping[str, Json], way: Way = ()) -> Iterator[tuple[Way, Json]]:
    """Yield the values of a cell with the keys that lead to each; lists and empty mappings are values."""
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from leaves(inner, (*way, key))
        else:
            yield (*way, key), inner


def leaf(value: Json) -> Json:
    """Return a value for a table: lists and mappings become JSON text."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
