"""A folder of images with `metadata.jsonl`, as `datasets.load_dataset("imagefolder")` reads it."""

from __future__ import annotations

import json
from typing import BinaryIO

from seedream_batch.export.columns import converted
from seedream_batch.export.names import Layout, unmistakable
from seedream_batch.export.pictures import Picture
from seedream_batch.export.writer import Plan, Writer
from seedream_batch.model.document import Json

METADATA = "metadata.jsonl"

_READ_AS_FILES = ("_file_name", "_file_names")
"""How the names of columns end whose values `datasets` opens as images."""


class ImageFolder(Writer):
    """The images, and the rows of each split beside them."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._tables: dict[str, BinaryIO] = {}

    def add(self, picture: Picture, split: str) -> None:
        """Puts the image into the folder of its split, and its row into the table there."""
        plan = self.plan
        match plan.layout:
            case Layout.PLAIN:
                top, inner = "", picture.path
            case Layout.OWN:
                top, _, inner = picture.path.partition("/")
            case Layout.SPLIT:
                top, inner = split or "train", unmistakable(picture.path)
        path = f"{top}/{inner}" if top else inner
        plan.sources.put(plan.target, picture, path)
        row = {"file_name": inner, **self._filled(plan.columns.row(picture, path))}
        table = self._tables.get(top)
        if table is None:
            table = self._tables[top] = plan.target.open(f"{top}/{METADATA}" if top else METADATA)
        plan.target.write(table, json.dumps(row, ensure_ascii=False).encode() + b"\n")

    def finish(self) -> None:
        """Closes the tables."""
        for table in self._tables.values():
            self.plan.target.close(table)

    def _filled(self, row: dict[str, Json]) -> dict[str, Json]:
        """The row without gaps: types are inferred file by file, and a column that is empty in one would have another.

        A column of numbers that some image lacks is text for the same reason.
        """
        gappy = self.plan.columns.gappy
        return {
            name + "_" * name.endswith(_READ_AS_FILES): ("" if value is None else converted(value, str))
            if name in gappy
            else value
            for name, value in row.items()
        }
