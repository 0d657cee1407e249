"""Imports of a command, which the cycle collector does not look at again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_alone = False


def alone() -> None:
    """The process is that of one command, and ends with it; without this word `importing` does nothing."""
    global _alone  # noqa: PLW0603 - a fact about the process
    _alone = True


@contextmanager
def importing() -> Iterator[None]:
    """Around the imports of a command: what they make stays to the end of the process.

    Looking for cycles among it takes a fifth of a short run, and holds up a long one now and then.
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
