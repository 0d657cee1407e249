"""The axis values of cells, for people, from the JSON texts of the cells."""

from __future__ import annotations

import json
from collections.abc import Mapping

from seedream_batch.model.cell import name_of

_decode = json.JSONDecoder().raw_decode

_REMEMBERED = 4096
"""How many texts are kept of either kind."""


class CellNames:
    """Reads the texts of cells one after the other. What was read before is not read again.

    Of two cells that follow each other the first axis is mostly the same, and the others take few values together.
    """

    def __init__(self) -> None:
        self._first = "\0"
        self._first_axis = self._first_name = ""
        self._rests: dict[str, Mapping[str, str]] = {}
        self._names: dict[str, str] = {}

    def of(self, cell: str) -> Mapping[str, str]:
        """From each axis of a cell, which is given as the JSON text of an object, to the name of its value."""
        # A text that starts with a whole member and the comma behind it has that very member first.
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
            return names  # spaces, which we do not write
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
