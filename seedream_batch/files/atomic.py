"""One file that other programs read at any time: it has all of its old bytes, or all of its new ones."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path

from seedream_batch.errors import UsageError, telling
from seedream_batch.files.folder import PART, sync, sync_folder


def replaceable(path: Path) -> Path:
    """The file that a path means, links followed. Raises `UsageError`, or `StorageError`, if it cannot be replaced.

    To be asked before the work whose outcome is to be in the file, so that it does not fail at the end of it.
    """
    with telling(path):
        final = path.resolve()
        if final.exists() and not final.is_file():
            raise UsageError(f"{path} is no ordinary file; give the name of a file")
        if not final.parent.is_dir():
            raise UsageError(f"{path}: there is no folder {final.parent}; make it first")
        part = _part(final)
        part.write_bytes(b"")
        part.unlink()
    return final


def replace_file(final: Path, data: bytes) -> None:
    """Gives the file these bytes. Raises `StorageError`."""
    part = _part(final)
    with telling(final):
        try:
            with part.open("xb") as stream:
                stream.write(data)
                sync(stream)
            part.replace(final)
        except BaseException:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        sync_folder(final.parent)


def _part(final: Path) -> Path:
    # Hidden, and with an ending that collectors of files do not take.
    return final.parent / f"{PART}{secrets.token_hex(8)}.part"
