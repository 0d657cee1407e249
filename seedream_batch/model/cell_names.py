"""Display names of axis values, from the JSON texts of cells."""

from __future__ import annotations

import json
from collections.abc import Mapping

from seedream_batch.model.cell import name_of

_decode = json.JSONDecoder().raw_decode

_REMEMBERED = 4096
"""Number of cached texts of each kind."""


class CellNames:
    """Reads the JSON texts of cells in sequence and caches what it has read.

    Consecutive cells mostly share the value of the first axis, and few combinations of the other values occur.
    """

    def __init__(self) -> None:
        self._first = "\0"
        self._first_axis = self._first_name = ""
        self._rests: dict[str, Mapping[str, str]] = {}
        self._names: dict[str, str] = {}

    def of(self, cell: str) -> Mapping[str, str]:
        """Return the display name for each axis of a cell, given as the JSON text of an object."""
        # A text that starts with the same member and the comma after it has that member first.
        if cell.startswith(self._first):
            rest = self._rests.get(cell[len(self._first) :])
            if rest is not None:
                return {self._first_axis: self._first_name, **rest}
        return self._read(cell)

    def _read(self, cell: str) -> Mapping[str, str]:
        names = {axis: self._name(value) for axis, value in json.loads(cell).items()}
        if len(names) < 2:
            return names
        try:
            axis, colon = _decode(cell, 1)
            _, end = _decode(cell, colon + 1)
        except ValueError:
            return names  # spaces: not written by this program
        if cell[end] == ",":
            if len(self._rests) >= _REMEMBERED:
                self._rests.clear()
            self._first, self._first_axis, self._first_name = cell[: end + 1], axis, names[axis]
            self._rests[cell[end + 1 :]] = {other: name for other, name in names.items() if other != axis}
        return names

    def _name(self, value: object) -> str:
        if not isinstance(value, str):
            return name_of(value)
        name = self._names.get(value)
        if name is None:
            if len(self._names) >= _REMEMBERED:
                self._names.clear()
            name = self._names[value] = name_of(value)
        return name
