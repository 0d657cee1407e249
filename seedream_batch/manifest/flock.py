"""Locks of the operating system on open files: they end with the process, however it does."""

from __future__ import annotations

import fcntl


def lock_now(handle: int, *, shared: bool = False) -> bool:
    """Whether an open file could be locked at once, alone or `shared`. Raises `OSError` where files have no locks."""
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(handle: int) -> None:
    """Lets go of the lock on an open file."""
    fcntl.flock(handle, fcntl.LOCK_UN)
