"""The ledger: every bill, refund and settlement, in the order in which they happened, one JSON object a line.

The file is opened once, appended to and flushed with each entry, so that it survives a kill of the process at any
point; what a kill may leave is a torn last line, which is cut off at the next start.
"""

import fcntl
import json
from collections.abc import Iterator
from io import BufferedRandom
from pathlib import Path
from typing import Any

FILE_NAME = "ledger.jsonl"


class LedgerError(Exception):
    """A ledger file that is in use by another emulator or is no ledger."""


class Ledger:
    """An append-only list of entries, in a file or in memory.

    Not thread-safe: used from the event loop alone.
    """

    def __init__(self, state_dir: Path | None) -> None:
        """Open the ledger of a state folder (made if need be), or an empty one in memory.

        Raises:
            LedgerError: for a file that another emulator holds, or whose lines are no entries.
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
        """Write an entry; it is with the operating system when this returns."""
        line = json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace") + b"\n"
        if self._file is None:
            self._lines.append(line)
        else:
            self._file.write(line)
            self._file.flush()

    def entries(self, first: int = 0) -> Iterator[dict[str, Any]]:
        """The entries, from the given position on."""
        for position, line in enumerate(self.lines()):
            if position >= first:
                yield json.loads(line)

    def lines(self) -> Iterator[bytes]:
        """The entries as they are written, each with its line feed."""
        if self.path is None:
            yield from self._lines
            return
        with self.path.open("rb") as reader:
            yield from reader

    def clear(self) -> None:
        """Forget every entry, for a reset of the whole emulator."""
        self._lines.clear()
        if self._file is not None:
            self._file.truncate(0)

    def close(self) -> None:
        """Close the file, and let go of it."""
        if self._file is not None:
            self._file.close()

    def _load(self, file: BufferedRandom) -> None:
        try:
            # The lock goes with the process, however it dies.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LedgerError(f"{self.path}: another emulator is using this state folder") from error
        file.seek(0)
        good = 0
        for number, line in enumerate(file, 1):
            if _is_entry(line):
                good += len(line)
            elif file.read(1):
                raise LedgerError(f"{self.path}:{number}: no ledger entry, and not the last line")
        file.truncate(good)
        file.seek(0, 2)


def _is_entry(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False
