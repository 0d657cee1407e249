"""Parquet: a file for each split, written in row groups, with images embedded or next to it."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from seedream_batch.errors import UsageError, translate_os_errors
from seedream_batch.export.stored_images import Picture
from seedream_batch.export.writer import IMAGES, Plan, Writer
from seedream_batch.files.atomic import WholeFolder
from seedream_batch.model.document import Json

GROUP_ROWS = 1000
GROUP_BYTES = 64 * 1024 * 1024
"""Limits of a row group in rows and bytes; one group for each split is held in memory."""

TYPES = {str: "string", int: "int64", float: "float64", bool: "bool"}


class TableFile:
    """One Parquet file, and its rows that wait for their row group."""

    def __init__(self, target: WholeFolder, name: str, schema: Any) -> None:
        from pyarrow import parquet  # noqa: PLC0415 - an extra, and slow to import

        self._target = target
        self._schema = schema
        self._stream = target.open(name)
        # Images do not get smaller by dictionary encoding.
        packed = [column for column in schema.names if column != "image"]
        self._writer = parquet.ParquetWriter(self._stream, schema, compression="zstd", use_dictionary=packed)
        self._rows: list[dict[str, Json]] = []
        self._bytes = 0

    def add(self, row: dict[str, Json], size: int = 0) -> None:
        """Add a row that embeds an image of `size` bytes."""
        self._rows.append(row)
        self._bytes += size
        if len(self._rows) >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._write()

    def finish(self) -> None:
        """Write the last row group and the file's footer."""
        self._write()
        with translate_os_errors(self._target.final):
            self._writer.close()
        self._target.close(self._stream)

    def drop(self) -> None:
        """Close what is open: an abandoned writer would report an error later."""
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
        pa = arrow()
        fields = [pa.field(name, TYPES[kind]) for name, kind in plan.columns.types.items()]
        # The types in the notation of `datasets`, so that it recognises an image in a struct.
        features: dict[str, Json] = {}
        if plan.embed:
            fields.insert(0, pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])))
            features["image"] = {"_type": "Image"}
        for name, kind in plan.columns.types.items():
            features[name] = {"dtype": TYPES[kind], "_type": "Value"}
        schema = pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})
        self._files = {split: TableFile(plan.target, f"{split or IMAGES}.parquet", schema) for split in plan.splits}

    def add(self, picture: Picture, split: str) -> None:
        """Add a row, with the image embedded or its file next to the table."""
        plan, file = self.plan, self._files[split]
        if plan.embed:
            path, data = picture.path, plan.read(picture)
            file.add({"image": {"bytes": data, "path": path}, **plan.columns.row(picture, path)}, len(data))
        else:
            path = f"{IMAGES}/{picture.path}"
            plan.put(picture, path)
            file.add(plan.columns.row(picture, path))

    def finish(self) -> None:
        """Write the last row groups and the footer of each file."""
        for file in self._files.values():
            file.finish()

    def drop(self) -> None:
        for file in self._files.values():
            file.drop()


def arrow(why: str = "this export needs pyarrow") -> Any:
    """Import `pyarrow`. Raises `UsageError` with the reason if it is not installed."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to import
    except ImportError:
        raise UsageError(f"{why}, which is not installed: pip install 'seedream-batch[parquet]'") from None
    return pa
