"""Fit the number of connections to the limit on open files: each connection is a file, and default limits are low."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

from seedream_batch.errors import UsageError

RESERVE = 64
"""Files a run opens besides its connections to the service: manifest, locks, downloads and their temp files."""

FEWEST = 4
"""Fewest connections to the service with which a run starts."""


def affordable(wanted: int) -> int:
    """Return how many connections to the service the limit on open files allows, at most `wanted`.

    Raises the soft limit of this process if it is too low and the system permits it. Raise `UsageError` if not even
    `FEWEST` connections fit.
    """
    used = _in_use()
    needed = used + RESERVE + wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        higher = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        # Some systems refuse the limit that they report as the hard one.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (higher, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    room = soft - used - RESERVE
    if room < FEWEST:
        least = used + RESERVE + FEWEST
        raise UsageError(f"the limit of {soft:,} open files is too low: a run needs {least:,}. Try `ulimit -n 1024`")
    return min(wanted, room)


def _in_use() -> int:
    try:
        return sum(1 for _ in Path("/dev/fd").iterdir())
    except OSError:
        return 16
