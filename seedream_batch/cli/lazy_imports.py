"""Imports of a command, kept away from the garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_alone = False


def alone() -> None:
    """Declare that the process ends with this command; otherwise `importing` does nothing."""
    global _alone  # noqa: PLW0603 - a fact about the process
    _alone = True


@contextmanager
def importing() -> Iterator[None]:
    """Import modules without garbage collection: what they create stays until the process ends.

    Scanning it for cycles takes a fifth of a short run's time, and occasionally stalls a long one.
    """
    if not _alone:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
