"""Parquet: a file for each split, in row groups, with the images in it or beside it."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from seedream_batch.errors import UsageError, translate_os_errors
from seedream_batch.export.stored_images import Picture
from seedream_batch.export.writer import IMAGES, Plan, Writer
from seedream_batch.files.atomic_folder import WholeFolder
from seedream_batch.model.document import Json

GROUP_ROWS = 1000
GROUP_BYTES = 64 * 1024 * 1024
"""What a row group holds at most, of which one for each split is in memory."""

TYPES = {str: "string", int: "int64", float: "float64", bool: "bool"}


class TableFile:
    """One file of Parquet, and the rows of it that wait for their row group."""

    def __init__(self, target: WholeFolder, name: str, schema: Any) -> None:
        from pyarrow import parquet  # noqa: PLC0415 - an extra, and slow to import

        self._target = target
        self._schema = schema
        self._stream = target.open(name)
        # What is in the row group of an image does not get smaller.
        packed = [column for column in schema.names if column != "image"]
        self._writer = parquet.ParquetWriter(self._stream, schema, compression="zstd", use_dictionary=packed)
        self._rows: list[dict[str, Json]] = []
        self._bytes = 0

    def add(self, row: dict[str, Json], size: int = 0) -> None:
        """Adds a row with an image of so many bytes in it."""
        self._rows.append(row)
        self._bytes += size
        if len(self._rows) >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._write()

    def finish(self) -> None:
        """Writes the last row group, and the foot of the file."""
        self._write()
        with translate_os_errors(self._target.final):
            self._writer.close()
        self._target.close(self._stream)

    def drop(self) -> None:
        """Closes what is open: a writer that is only forgotten would complain later."""
        with suppress(OSError, ValueError):
            self._writer.close()

    def _write(self) -> None:
        if self._rows:
            table = arrow().Table.from_pylist(self._rows, schema=self._schema)
            with translate_os_errors(self._target.final):
                self._writer.write_table(table)
        self._rows, self._bytes = [], 0


class Parquet(Writer):
    """The columns of a table; an embedded image is the struct of bytes and path that `datasets` reads as an image."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        schema = arrow().schema(self._fields(), metadata={"huggingface": json.dumps(self._features())})
        self._files = {split: TableFile(plan.target, f"{split or IMAGES}.parquet", schema) for split in plan.splits}

    def add(self, picture: Picture, split: str) -> None:
        """Adds a row, with the image in it or its file beside the table."""
        plan, file = self.plan, self._files[split]
        if plan.embed:
            path, data = picture.path, plan.sources.read(picture)
            file.add({"image": {"bytes": data, "path": path}, **plan.columns.row(picture, path)}, len(data))
        else:
            path = f"{IMAGES}/{picture.path}"
            plan.sources.put(plan.target, picture, path)
            file.add(plan.columns.row(picture, path))

    def finish(self) -> None:
        """Writes the last row groups, and the foot of each file."""
        for file in self._files.values():
            file.finish()

    def drop(self) -> None:
        """Closes what is open."""
        for file in self._files.values():
            file.drop()

    def _fields(self) -> list[Any]:
        pa = arrow()
        fields = [pa.field(name, TYPES[kind]) for name, kind in self.plan.columns.types.items()]
        if self.plan.embed:
            image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            fields.insert(0, pa.field("image", image))
        return fields

    def _features(self) -> Json:
        """The types as `datasets` writes them, so that it knows an image from a struct."""
        features: dict[str, Json] = {"image": {"_type": "Image"}} if self.plan.embed else {}
        for name, kind in self.plan.columns.types.items():
            features[name] = {"dtype": TYPES[kind], "_type": "Value"}
        return {"info": {"features": features}}


def arrow(why: str = "this export needs pyarrow") -> Any:
    """The module `pyarrow`. Raises `UsageError` with the reason where it is not installed."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to import
    except ImportError:
        raise UsageError(f"{why}, which is not installed: pip install 'seedream-batch[parquet]'") from None
    return pa
