"""The ledger: every charge, refund and settlement in the order they happened, one JSON object a line.

The file is opened once, and each entry is appended and flushed, so the ledger survives a kill of the process at any
point. A kill may leave an incomplete last line, which is cut off at the next start.
"""

import fcntl
import itertools
import json
import sys
from collections.abc import Iterator
from io import BufferedRandom
from pathlib import Path
from typing import Any

FILE_NAME = "ledger.jsonl"


class LedgerError(Exception):
    """A ledger file that another emulator is using, or that is not a ledger."""


class Ledger:
    """An append-only list of entries, in a file or in memory. Not thread-safe: used from the event loop only."""

    def __init__(self, state_dir: Path | None) -> None:
        """Open the ledger of a state folder, created if missing, or an empty one in memory.

        Raises `LedgerError` for a file that another emulator is using, or whose lines are not entries.
        """
        self.path = None if state_dir is None else state_dir / FILE_NAME
        self._lines: list[bytes] = []
        self._file: BufferedRandom | None = None
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b")
            try:
                self._load(self._file)
            except LedgerError:
                self._file.close()
                raise

    def append(self, entry: dict[str, Any]) -> None:
        """Write an entry and flush it to the operating system."""
        line = json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace") + b"\n"
        if self._file is None:
            self._lines.append(line)
        else:
            self._file.write(line)
            self._file.flush()

    def entries(self, first: int = 0) -> Iterator[dict[str, Any]]:
        """Yield the entries from a position on."""
        if self.path is None:
            yield from map(json.loads, self._lines[first:])
        else:
            with self.path.open("rb") as lines:
                yield from map(json.loads, itertools.islice(lines, min(first, sys.maxsize), None))

    def clear(self) -> None:
        self._lines.clear()
        if self._file is not None:
            self._file.truncate(0)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _load(self, file: BufferedRandom) -> None:
        """Lock the file, check its lines, and cut off an incomplete last one."""
        try:
            # The kernel releases the lock when the process ends, however it ends.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LedgerError(f"{self.path}: another emulator is using this state folder") from error
        file.seek(0)
        good = 0
        for number, line in enumerate(file, 1):
            if _is_entry(line):
                good += len(line)
            elif file.read(1):
                raise LedgerError(f"{self.path}:{number}: not a ledger entry, and not the last line")
        file.truncate(good)
        file.seek(0, 2)


def _is_entry(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False
