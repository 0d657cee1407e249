"""A folder of images with a table of metadata, as read by `datasets.load_dataset("imagefolder")`."""

from __future__ import annotations

import json
from collections.abc import Iterable

from seedream_batch.export.parquet import TYPES, TableFile, arrow
from seedream_batch.export.split_layout import Layout, unmistakable
from seedream_batch.export.stored_images import Picture
from seedream_batch.export.writer import Plan, Writer
from seedream_batch.files.atomic import WholeFolder
from seedream_batch.model.document import Json

METADATA = "metadata.jsonl"
TYPED = "metadata.parquet"

_READ_AS_FILES = ("_file_name", "_file_names")
"""Suffixes of column names whose values `datasets` opens as images."""


class ImageFolder(Writer):
    """The images, and next to them the rows of each split."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._tables: dict[str, _Lines | TableFile] = {}
        self._names = _safe_column_names(plan.columns.types)

    def add(self, picture: Picture, split: str) -> None:
        """Put the image into the folder of its split, and its row into the table there."""
        plan = self.plan
        match plan.layout:
            case Layout.PLAIN:
                top, inner = "", picture.path
            case Layout.OWN:
                top, _, inner = picture.path.partition("/")
            case Layout.SPLIT:
                top, inner = split or "train", unmistakable(picture.path)
        path = f"{top}/{inner}" if top else inner
        plan.put(picture, path)
        values = plan.columns.without_gaps(plan.columns.row(picture, path))
        row = {"file_name": inner, **{self._names[name]: value for name, value in values.items()}}
        table = self._tables.get(top)
        if table is None:
            table = self._tables[top] = self._table(f"{top}/" if top else "")
        table.add(row)

    def finish(self) -> None:
        for table in self._tables.values():
            table.finish()

    def drop(self) -> None:
        for table in self._tables.values():
            table.drop()

    def _table(self, folder: str) -> _Lines | TableFile:
        """Create a table: JSON lines, or Parquet if a text looks like a date.

        Readers infer the types of JSON lines, and would turn such a text into a date; Parquet states the types.
        """
        columns, target = self.plan.columns, self.plan.target
        if not columns.dated:
            return _Lines(target, folder + METADATA)
        pa = arrow()
        fields = [pa.field(self._names[name], TYPES[columns.of_type(name)]) for name in columns.types]
        return TableFile(target, folder + TYPED, pa.schema([pa.field("file_name", pa.string()), *fields]))


class _Lines:
    """Rows as JSON lines."""

    def __init__(self, target: WholeFolder, name: str) -> None:
        self._target = target
        self._stream = target.open(name)

    def add(self, row: dict[str, Json]) -> None:
        self._target.write(self._stream, json.dumps(row, ensure_ascii=False).encode() + b"\n")

    def finish(self) -> None:
        self._target.close(self._stream)

    def drop(self) -> None:
        """Do nothing: the folder closes its files."""


def _safe_column_names(columns: Iterable[str]) -> dict[str, str]:
    """Return the columns with names that `datasets` does not take for file names."""
    names = {name: name for name in columns}
    for name in names:
        if name.endswith(_READ_AS_FILES):
            new = f"{name}_"
            while new in names.values():
                new += "_"
            names[name] = new
    return names
