"""csv and jsonl: a file for each split, with the images in a folder next to it."""

from __future__ import annotations

import codecs
import json
import re
import unicodedata
from typing import BinaryIO

from seedream_batch.export.stored_images import Picture
from seedream_batch.export.writer import IMAGES, Plan, Writer
from seedream_batch.model.document import Json

_FORMULA = "=+-@"
"""First characters of a formula in a spreadsheet; their full-width forms count as well."""

_GUARD = "'"

_QUOTED = re.compile(r'[",\x00-\x1f\x7f\x85\u2028\u2029]|\A\s|\s\Z|\A\Z')
"""Texts that need quotes: an empty text, to distinguish it from no value, and what readers would split or trim."""


class _Table(Writer):
    """Text files named after their splits."""

    ending: str

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._files: dict[str, BinaryIO] = {}
        for split in plan.splits:
            file = self._files[split] = plan.target.open(f"{split or IMAGES}.{self.ending}")
            plan.target.write(file, self.head())

    def head(self) -> bytes:
        """Return the first bytes of the file."""
        return b""

    def line(self, picture: Picture, path: str) -> bytes:
        raise NotImplementedError

    def add(self, picture: Picture, split: str) -> None:
        """Put the image next to the tables, and its line into the table of the split."""
        path = f"{IMAGES}/{picture.path}"
        self.plan.put(picture, path)
        self.plan.target.write(self._files[split], self.line(picture, path))

    def finish(self) -> None:
        for file in self._files.values():
            self.plan.target.close(file)


class Csv(_Table):
    """Comma-separated values with a header, in UTF-8 with the byte order mark that Excel needs."""

    ending = "csv"

    def head(self) -> bytes:
        return codecs.BOM_UTF8 + _csv_line(list(self.plan.columns.types))

    def line(self, picture: Picture, path: str) -> bytes:
        return _csv_line(list(self.plan.columns.row(picture, path).values()))


class JsonLines(_Table):
    """One JSON object per line, with the cell nested in it as in the job."""

    ending = "jsonl"

    def line(self, picture: Picture, path: str) -> bytes:
        return json.dumps({"cell": picture.cell, "path": path, **picture.about}, ensure_ascii=False).encode() + b"\n"


def harmless(value: Json) -> Json:
    """Return the value as a cell that no spreadsheet evaluates; numbers stay as they are.

    A text that already begins with `'` gets another one, so that removing the first `'` restores every text.
    """
    return f"{_GUARD}{value}" if isinstance(value, str) and _guarded(value) else value


def _guarded(text: str) -> bool:
    """Return whether a text needs a guard."""
    if text.startswith((_GUARD, "\t", "\r", "\n")):
        return True
    for char in text:
        # Skip what is trimmed or invisible before the sign: spaces, controls, direction marks.
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
