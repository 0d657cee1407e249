"""The axes of a gallery, as the cells of the tasks show them."""

from __future__ import annotations

import json
from collections.abc import Mapping

from seedream_batch.model.document import Json
from seedream_batch.report.page_text import clean, label

SAMPLE = "sample"


class Axes:
    """Collects the values of each axis while the cells pass by; each value is a number from then on."""

    def __init__(self) -> None:
        self._numbers: dict[str, dict[str, int]] = {}
        self._labels: dict[str, dict[str, int]] = {}

    def add(self, cell: Mapping[str, Json], sample: int) -> dict[int, int]:
        """The numbers of the cell's values, by the number of their axis."""
        return {
            self._axis(name): self._value(name, value)
            for name, value in (*cell.items(), *([] if SAMPLE in cell else [(SAMPLE, sample)]))
        }

    def told(self) -> list[dict[str, Json]]:
        """The axes in the order they turned up, each with the labels of its values."""
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
            text = one = label(value)
            # Two values may look alike in short, and are two rows all the same.
            while one in labels:
                one = f"{text} ({len(labels) + 1})"
            numbers[key] = labels[one] = len(numbers)
        return numbers[key]
