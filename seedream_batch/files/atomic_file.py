"""Replace a file atomically: other programs read either all of its old bytes or all of its new ones."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from seedream_batch.errors import StorageError, UsageError, translate_os_errors
from seedream_batch.files.local_folder import PART, sync, sync_folder

Ours = Callable[[bytes], bool]
"""Tells from the bytes of a file whether an earlier run wrote it."""

MOST_READ = 4 * 1024 * 1024
"""Most bytes read of a file to tell whose it is; a larger one is not ours."""

_SYSTEM = ("/proc/", "/sys/", "/dev/")
_MEMORY = "/dev/shm/"  # noqa: S108 - a folder like any other


def replaceable(path: Path, ours: Ours) -> Path:
    """Return the file that a path leads to, with links resolved: missing, empty, or written by an earlier run.

    Call it before the work whose result the file is for. Raise `UsageError` for anything else, and `StorageError` if
    the file cannot be written.
    """
    try:
        final = path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"{str(path)!r} is not a valid path: {error}") from None
    with translate_os_errors(path):
        named = f"{os.path.abspath(path)}/"  # noqa: PTH100 - links are not followed: /dev/stdout is one
        system = any(text.startswith(_SYSTEM) and not text.startswith(_MEMORY) for text in (named, f"{final}/"))
        if system or (final.exists() and not final.is_file()):
            raise UsageError(f"{path} is not a regular file; name a file")
        if path.is_symlink() and not final.exists():
            raise UsageError(f"{path} is a link to {final}, which does not exist; name a file")
        if not final.parent.is_dir():
            raise UsageError(f"{path}: the folder {final.parent} does not exist; create it first")
        if not _may_replace(final, ours):
            raise UsageError(
                f"{path} exists and was not written by an earlier run, so it is not overwritten; name another file"
            )
        temp_path = _temp_path(final)
        temp_path.write_bytes(b"")
        temp_path.unlink()
    return final


def replace_file(final: Path, data: bytes, ours: Ours) -> None:
    """Write the file, if it may still be replaced as `replaceable` says. Raise `StorageError`."""
    temp_path = _temp_path(final)
    with translate_os_errors(final):
        if not _may_replace(final, ours):
            raise StorageError(f"{final} was created by another program meanwhile, so it is not overwritten")
        try:
            with temp_path.open("xb") as stream:
                stream.write(data)
                sync(stream)
            temp_path.replace(final)
        except BaseException:
            with suppress(OSError):
                temp_path.unlink(missing_ok=True)
            raise
        sync_folder(final.parent)


def _may_replace(final: Path, ours: Ours) -> bool:
    """Return whether nothing is lost with the file: it is missing, empty, or written by an earlier run."""
    if not os.path.lexists(final):
        return True
    if final.is_symlink() or not final.is_file():
        return False
    with final.open("rb") as stream:
        data = stream.read(MOST_READ + 1)
    return not data or (len(data) <= MOST_READ and ours(data))


def _temp_path(final: Path) -> Path:
    # Hidden, and with a suffix that programs which collect files ignore.
    return final.parent / f"{PART}{secrets.token_hex(8)}.part"
