"""Records in files of bounded size, each named by its hash: unchanged files are not written again."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from seedream_batch.model.document import Json
from seedream_batch.report.gallery_folder import ReportFolder
from seedream_batch.report.page_text import script

FOLDER = "data"
_PATH = re.compile(rf"{FOLDER}/(?:cells|details)-\d+-[0-9a-f]{{16}}\.js")


class Chunks:
    """Writes chunks of one kind, and keeps their names in order."""

    def __init__(self, report: ReportFolder, kind: str) -> None:
        self._report = report
        self._kind = kind
        self.names: list[str] = []

    def add(self, value: Json) -> None:
        """Write a chunk: a call of `seedream.KIND` with the number of the chunk and the value."""
        data = script(self._kind, len(self.names), value)
        name = f"{self._kind}-{len(self.names)}-{hashlib.sha256(data).hexdigest()[:16]}.js"
        self._report.write(f"{FOLDER}/{name}", data)
        self.names.append(name)


class Batch:
    """Tasks collected for one chunk."""

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.prompts: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.records)

    def value(self) -> Json:
        """Return the value for the page, which lists each prompt once: many tasks share theirs."""
        return {"prompts": list(self.prompts), "tasks": self.records}


def drop_others(report: ReportFolder, kept: list[Chunks]) -> None:
    """Delete the chunks of earlier galleries."""
    report.keep_only(FOLDER, _PATH, {f"{FOLDER}/{name}" for chunks in kept for name in chunks.names})
