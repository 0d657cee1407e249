"""csv and jsonl: a file for each split, and the images beside it."""

from __future__ import annotations

import codecs
import json
import re
import unicodedata
from typing import BinaryIO

from seedream_batch.export.rows import nested
from seedream_batch.export.stored_images import Picture
from seedream_batch.export.writer import IMAGES, Plan, Writer
from seedream_batch.model.document import Json

_FORMULA = "=+-@"
"""What a formula begins with for a spreadsheet, full-width forms and what cannot be seen before them included."""

_GUARD = "'"

_QUOTED = re.compile(r'[",\x00-\x1f\x7f\x85\u2028\u2029]|\A\s|\s\Z|\A\Z')
"""Texts that are put in quotes: the empty one, so that it is told from no value, and what readers would cut or trim."""


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
    """Comma-separated values in UTF-8 behind a byte order mark, which Excel needs, with a head."""

    ending = "csv"

    def head(self) -> bytes:
        return codecs.BOM_UTF8 + _csv_line(list(self.plan.columns.types))

    def line(self, picture: Picture, path: str) -> bytes:
        return _csv_line(list(self.plan.columns.row(picture, path).values()))


class JsonLines(_Table):
    """An object a line, the cell nested in it as the job has it."""

    ending = "jsonl"

    def line(self, picture: Picture, path: str) -> bytes:
        return json.dumps(nested(picture, path), ensure_ascii=False).encode() + b"\n"


def harmless(value: Json) -> Json:
    """The value as a cell that no spreadsheet computes; numbers stay as they are.

    A text that begins with a `'` gets one more: to take the first one away from each text that has one is the way back.
    """
    return f"{_GUARD}{value}" if isinstance(value, str) and _guarded(value) else value


def _guarded(text: str) -> bool:
    """Whether a text gets a guard."""
    if text.startswith((_GUARD, "\t", "\r", "\n")):
        return True
    for char in text:
        # What is trimmed or not seen may stand before the sign: spaces, controls, marks of direction.
        if not char.isspace() and unicodedata.category(char) not in {"Cc", "Cf"}:
            return unicodedata.normalize("NFKC", char)[0] in _FORMULA
    return False


def _csv_line(values: list[Json]) -> bytes:
    return (",".join(map(_cell, values)) + "\n").encode()


def _cell(value: Json) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return json.dumps(value)
    text = str(harmless(value))
    return '"{}"'.format(text.replace('"', '""')) if _QUOTED.search(text) else text
