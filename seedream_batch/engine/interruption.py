"""Let a caller end a run from outside."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Interruption:
    """Ends one run, from any thread and at any time."""

    def __init__(self) -> None:
        # Reentrant: a signal handler may call `ask` while this thread holds the lock.
        self._lock = threading.RLock()
        self._asked = False
        self._at_once = False
        self._listener: Callable[[bool], object] | None = None

    def ask(self, *, at_once: bool = False) -> None:
        """Ask the run to end; a run that has not started yet ends as soon as it starts.

        The run sends nothing new, finishes the requests and writes in progress, and returns its result. With `at_once`
        it stops as if it were killed; the next run recovers and checks what is uncertain.
        """
        with self._lock:
            self._asked = True
            self._at_once = self._at_once or at_once
            if self._listener is not None:
                self._listener(at_once)

    @contextmanager
    def heard(self, listener: Callable[[bool], object]) -> Iterator[None]:
        """Call the listener on each request to end, also an earlier one, with whether to stop at once."""
        with self._lock:
            self._listener = listener
            if self._asked:
                listener(self._at_once)
        try:
            yield
        finally:
            with self._lock:
                self._listener = None
