"""The axes of a gallery, derived from the cells of its tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping

from seedream_batch.model.document import Json
from seedream_batch.report.page_text import clean, label

SAMPLE = "sample"


class Axes:
    """Collects the values of each axis from the cells, and numbers them."""

    def __init__(self) -> None:
        self._numbers: dict[str, dict[str, int]] = {}
        self._labels: dict[str, dict[str, int]] = {}

    def add(self, cell: Mapping[str, Json], sample: int) -> dict[int, int]:
        """Return the numbers of the cell's values, by the number of their axis."""
        return {
            self._axis(name): self._value(name, value)
            for name, value in (*cell.items(), *([] if SAMPLE in cell else [(SAMPLE, sample)]))
        }

    def as_json(self) -> list[dict[str, Json]]:
        """Return the axes in order of appearance, each with the labels of its values."""
        return [{"name": clean(name), "values": list(labels)} for name, labels in self._labels.items()]

    def _axis(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = {}
            self._labels[name] = {}
        return list(self._numbers).index(name)

    def _value(self, name: str, value: Json) -> int:
        numbers, labels = self._numbers[name], self._labels[name]
        key = json.dumps(value, sort_keys=True)
        if key not in numbers:
            text = unique = label(value)
            # Different values may have the same label, but need a row each.
            while unique in labels:
                unique = f"{text} ({len(labels) + 1})"
            numbers[key] = labels[unique] = len(numbers)
        return numbers[key]
