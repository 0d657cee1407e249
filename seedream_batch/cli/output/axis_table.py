"""A table of a job's progress by the values of its axes."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING

from seedream_batch.cli.output.console import clean
from seedream_batch.manifest.statistics import Phase

if TYPE_CHECKING:
    from seedream_batch.report.status import AxisStatus, Value

SHOWN = 12
"""Values of an axis that are shown."""

_NAMES = 28
"""Columns for the names; with five columns of numbers that makes 80."""
_NUMBERS = 10


def axis_lines(axes: Mapping[str, AxisStatus]) -> list[str]:
    """Return a table of the axes with more than one value; empty if all tasks are in the same phase."""
    several = {axis: status for axis, status in axes.items() if len(status.values) > 1}
    parts = [part for part in Phase if any(_has(status, part) for status in several.values())]
    if len(parts) < 2:
        return []
    lines: list[str] = []
    for axis, status in several.items():
        if lines:
            lines.append("")
        lines.append(_row(f"  {axis}", [str(part).replace("_", " ") for part in parts]))
        lines += [
            _row(f"    {value.name}", [_number(value, part) for part in parts]) for value in status.values[:SHOWN]
        ]
        more = len(status.values) - SHOWN + status.more
        if more > 0:
            lines.append(f"    and {more:,}{' or more' if status.cut else ''} more")
    return lines


def _has(status: AxisStatus, part: Phase) -> bool:
    return any(value.parts.get(part) for value in status.values)


def _number(value: Value, part: Phase) -> str:
    return f"{value.parts.get(part, 0):,}"


def _row(name: str, cells: list[str]) -> str:
    return _fit(clean(name), _NAMES) + "".join(f"{cell:>{_NUMBERS}}" for cell in cells)


def _fit(text: str, columns: int) -> str:
    """Fit the text into a number of terminal columns, where some characters take two and some none."""
    if _columns(text) > columns:
        while _columns(text) >= columns:
            text = text[:-1]
        text += "…"
    return text + " " * (columns - _columns(text))


def _columns(text: str) -> int:
    wide = sum(unicodedata.east_asian_width(char) in {"W", "F"} for char in text)
    return len(text) + wide - sum(bool(unicodedata.combining(char)) for char in text)
