"""Operating system locks on open files, which end with their process."""

from __future__ import annotations

import fcntl


def lock_now(handle: int, *, shared: bool = False) -> bool:
    """Try to lock an open file, exclusively or `shared`; return whether it worked. Raises `OSError` without locks."""
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(handle: int) -> None:
    """Release the lock on an open file."""
    fcntl.flock(handle, fcntl.LOCK_UN)
