"""csv and jsonl: a file for each split, and the images beside it."""

from __future__ import annotations

import csv
import io
import json
from typing import BinaryIO

from seedream_batch.export.pictures import Picture
from seedream_batch.export.rows import nested
from seedream_batch.export.writer import IMAGES, Plan, Writer
from seedream_batch.model.document import Json

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that a spreadsheet takes for a formula."""


class _Table(Writer):
    """Text files named by their splits."""

    ending: str

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._files: dict[str, BinaryIO] = {}
        for split in plan.splits:
            file = self._files[split] = plan.target.open(f"{split or IMAGES}.{self.ending}")
            plan.target.write(file, self.head())

    def head(self) -> bytes:
        """What the file begins with."""
        return b""

    def line(self, picture: Picture, path: str) -> bytes:
        """The line of an image."""
        raise NotImplementedError

    def add(self, picture: Picture, split: str) -> None:
        """Puts the image beside the tables, and its line into that of the split."""
        path = f"{IMAGES}/{picture.path}"
        self.plan.sources.put(self.plan.target, picture, path)
        self.plan.target.write(self._files[split], self.line(picture, path))

    def finish(self) -> None:
        """Closes the files."""
        for file in self._files.values():
            self.plan.target.close(file)


class Csv(_Table):
    """Comma-separated values in UTF-8, with a head; texts that would be formulas have a `'` before them."""

    ending = "csv"

    def head(self) -> bytes:
        return _csv_line(list(self.plan.columns.types))

    def line(self, picture: Picture, path: str) -> bytes:
        return _csv_line(list(self.plan.columns.row(picture, path).values()))


class JsonLines(_Table):
    """An object a line, the cell nested in it as the job has it."""

    ending = "jsonl"

    def line(self, picture: Picture, path: str) -> bytes:
        return json.dumps(nested(picture, path), ensure_ascii=False).encode() + b"\n"


def harmless(value: Json) -> Json:
    """The value as a cell that no spreadsheet computes; numbers stay as they are."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _csv_line(values: list[Json]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([_cell(value) for value in values])
    return text.getvalue().encode()


def _cell(value: Json) -> Json:
    return json.dumps(value) if isinstance(value, bool) else harmless(value)
