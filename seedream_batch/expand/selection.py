"""`--select subject=fox,panda` -> whether a cell is meant."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from seedream_batch.errors import UsageError
from seedream_batch.expand.matrix import matches
from seedream_batch.model.document import Json

Selection = Callable[[Mapping[str, Json]], bool]


def selection(texts: Sequence[str]) -> Selection:
    """A test for cells: every text has to fit, and of the values in one, separated by commas, any may.

    `AXIS=VALUE` fits as in an exclude (the value itself, or the `id` of a mapping), `AXIS.KEY=VALUE` by a key of a
    mapping. Values are text, so numbers and booleans fit as they are written. Raises `UsageError`.
    """
    wanted = []
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not name or not values:
            raise UsageError(f"--select {text}: write AXIS=VALUE, for example subject=fox or size=16:9,9:16")
        axis, _, key = name.strip().partition(".")
        wanted.append((axis, key, [value.strip() for value in values.split(",")]))
    return lambda cell: all(_fits(cell, axis, key, values) for axis, key, values in wanted)


def _fits(cell: Mapping[str, Json], axis: str, key: str, values: Sequence[str]) -> bool:
    if axis not in cell:
        return False
    value = cell[axis]
    if key:
        if not isinstance(value, dict) or key not in value:
            return False
        value = value[key]
    return any(matches(value, one) or (not isinstance(value, dict | list) and _text(value) == one) for one in values)


def _text(value: Json) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
