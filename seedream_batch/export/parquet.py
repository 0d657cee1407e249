"""Parquet: a file for each split, in row groups, with the images in it or beside it."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from seedream_batch.errors import UsageError, telling
from seedream_batch.export.pictures import Picture
from seedream_batch.export.writer import IMAGES, Plan, Writer
from seedream_batch.model.document import Json

if TYPE_CHECKING:
    from typing import BinaryIO

GROUP_ROWS = 1000
GROUP_BYTES = 64 * 1024 * 1024
"""What a row group holds at most, of which one for each split is in memory."""

_TYPES = {str: "string", int: "int64", float: "float64", bool: "bool"}


class _File:
    """One file, and the rows of it that wait for their row group."""

    def __init__(self, stream: BinaryIO, writer: Any) -> None:
        self.stream = stream
        self.writer = writer
        self.rows: list[dict[str, Json]] = []
        self.bytes = 0


class Parquet(Writer):
    """The columns of a table; an embedded image is the struct of bytes and path that `datasets` reads as an image."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._arrow = arrow()
        from pyarrow import parquet  # noqa: PLC0415 - an extra, and slow to import

        self._schema = self._arrow.schema(self._fields(), metadata={"huggingface": json.dumps(self._features())})
        self._files: dict[str, _File] = {}
        for split in plan.splits:
            stream = plan.target.open(f"{split or IMAGES}.parquet")
            # What is in the row group of an image does not get smaller.
            packed = [name for name in self._schema.names if name != "image"]
            writer = parquet.ParquetWriter(stream, self._schema, compression="zstd", use_dictionary=packed)
            self._files[split] = _File(stream, writer)

    def add(self, picture: Picture, split: str) -> None:
        """Adds a row, with the image in it or its file beside the table."""
        plan, file = self.plan, self._files[split]
        if plan.embed:
            path, data = picture.path, plan.sources.read(picture)
            row = {"image": {"bytes": data, "path": path}, **plan.columns.row(picture, path)}
            file.bytes += len(data)
        else:
            path = f"{IMAGES}/{picture.path}"
            plan.sources.put(plan.target, picture, path)
            row = plan.columns.row(picture, path)
        file.rows.append(row)
        if len(file.rows) >= GROUP_ROWS or file.bytes >= GROUP_BYTES:
            self._write(file)

    def finish(self) -> None:
        """Writes the last row groups, and the foot of each file."""
        for file in self._files.values():
            self._write(file)
            with telling(self.plan.target.final):
                file.writer.close()
            self.plan.target.close(file.stream)

    def drop(self) -> None:
        """Closes what is open: a writer that is only forgotten would complain later."""
        for file in self._files.values():
            with suppress(OSError, ValueError):
                file.writer.close()

    def _write(self, file: _File) -> None:
        if file.rows:
            table = self._arrow.Table.from_pylist(file.rows, schema=self._schema)
            with telling(self.plan.target.final):
                file.writer.write_table(table)
        file.rows, file.bytes = [], 0

    def _fields(self) -> list[Any]:
        fields = [self._arrow.field(name, _TYPES[kind]) for name, kind in self.plan.columns.types.items()]
        if self.plan.embed:
            image = self._arrow.struct([("bytes", self._arrow.binary()), ("path", self._arrow.string())])
            fields.insert(0, self._arrow.field("image", image))
        return fields

    def _features(self) -> Json:
        """The types as `datasets` writes them, so that it knows an image from a struct."""
        features: dict[str, Json] = {"image": {"_type": "Image"}} if self.plan.embed else {}
        for name, kind in self.plan.columns.types.items():
            features[name] = {"dtype": _TYPES[kind], "_type": "Value"}
        return {"info": {"features": features}}


def arrow() -> Any:
    """The module `pyarrow`. Raises `UsageError` where it is not installed."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to import
    except ImportError:
        raise UsageError(
            "--format parquet needs pyarrow, which is not installed: pip install 'seedream-batch[parquet]'"
        ) from None
    return pa
