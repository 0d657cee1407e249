"""The way to end a run from outside of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Interruption:
    """Ends a run, from any thread and at any time; for one run."""

    def __init__(self) -> None:
        # A signal handler may ask in the middle of this thread's own turn.
        self._lock = threading.RLock()
        self._asked = False
        self._at_once = False
        self._listener: Callable[[bool], object] | None = None

    def ask(self, *, at_once: bool = False) -> None:
        """Asks the run to end; one that has not begun yet ends as soon as it begins, one that is over is over.

        It sends nothing new, finishes what is being sent or written, and ends with what it did. With `at_once` it
        leaves as if it were killed: the next run goes on from there, and looks for what is in doubt.
        """
        with self._lock:
            self._asked = True
            self._at_once = self._at_once or at_once
            if self._listener is not None:
                self._listener(at_once)

    @contextmanager
    def heard(self, listener: Callable[[bool], object]) -> Iterator[None]:
        """Tells the listener whenever the run is asked to end, and whether at once; what was asked before, too."""
        with self._lock:
            self._listener = listener
            if self._asked:
                listener(self._at_once)
        try:
            yield
        finally:
            with self._lock:
                self._listener = None
