"""Stop buying while images cannot be downloaded: few tasks before the first stored image, none while downloads fail."""

from __future__ import annotations

from collections.abc import Callable, Collection

FIRST_TASKS = 8
"""Tasks in flight before the first image of a run is stored: only that proves that images can be downloaded here."""

MOST_FAILING = 5
"""Tasks with failing downloads, and no image stored in between, after which nothing more is bought."""


class Breaker:
    """Tracks whether images can be downloaded and stored; calls `changed` when buying may continue.

    Each worker has its own: an image host that one machine cannot reach may be reachable from another.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._proven = False
        self._earlier: set[int] = set()
        self._failing: set[int] = set()
        self._left: set[int] = set()
        self._why = ""

    def carries(self, tasks: Collection[int]) -> None:
        """Add tasks bought by earlier runs whose images could not be downloaded; they have to succeed first."""
        if not self._proven:
            self._earlier.update(set(tasks) - self._left)

    def stored(self) -> None:
        """Record a stored image: earlier failures no longer count."""
        self._proven = True
        self._earlier.clear()
        self._failing.clear()
        self._left.clear()
        self._changed()

    def failed(self, task: int, why: str) -> None:
        """Record a failed download of one of the task's images; it may be retried."""
        self._failing.add(task)
        self._why = why

    def left(self, task: int, why: str, *, dead: bool) -> None:
        """Record that one of the task's images is not downloaded in this run; `dead` if only its link is to blame."""
        self.failed(task, why)
        self._left.add(task)
        if dead:
            self._earlier.discard(task)
        self._changed()

    def ended(self, task: int) -> None:
        """Record that the run is done with a task."""
        if task not in self._left:
            self._earlier.discard(task)
            self._failing.discard(task)

    @property
    def open(self) -> bool:
        """Whether so many downloads fail that no single task is to blame."""
        return len(self._failing) >= MOST_FAILING

    def may_buy(self, at_work: int) -> bool:
        """Return whether another task may be bought while `at_work` tasks are in flight."""
        if self.open:
            return False
        return self._proven or (not self._earlier and at_work + len(self._left) < FIRST_TASKS)

    @property
    def verdict(self) -> str:
        """Why nothing more is bought in this run; empty as long as downloads may still succeed."""
        if len(self._left) >= MOST_FAILING:
            return f"the images of {len(self._left)} tasks in a row could not be downloaded ({self._why})"
        if self._earlier and self._earlier <= self._left:
            return f"no image from earlier runs could be downloaded ({self._why})"
        return ""
