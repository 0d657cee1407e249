"""Buys nothing that could not be fetched: few tasks before the first image is stored, and none while images fail."""

from __future__ import annotations

from collections.abc import Callable, Collection

FIRST_TASKS = 8
"""Tasks in flight before the first image of a run is stored: only that shows that images can be fetched from here."""

MOST_FAILING = 5
"""Tasks whose images cannot be fetched, with no image stored meanwhile, after which nothing more is bought."""


class Breaker:
    """What is known in a run of whether images can be fetched and stored; `changed` is called when buying may go on.

    Each of several workers has its own: what one machine cannot reach, another may.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._proven = False
        self._earlier: set[int] = set()
        self._failing: set[int] = set()
        self._left: set[int] = set()
        self._why = ""

    def carries(self, tasks: Collection[int]) -> None:
        """Tasks that earlier runs have bought, and whose images they could not fetch: these come first."""
        if not self._proven:
            self._earlier.update(set(tasks) - self._left)

    def stored(self) -> None:
        """An image was stored: what failed before it says nothing any more."""
        self._proven = True
        self._earlier.clear()
        self._failing.clear()
        self._left.clear()
        self._changed()

    def failed(self, task: int, why: str) -> None:
        """A download of one of its images failed; it may be tried again."""
        self._failing.add(task)
        self._why = why

    def left(self, task: int, why: str, *, dead: bool) -> None:
        """One of its images is not fetched in this run; `dead` if that is the fault of its link alone."""
        self.failed(task, why)
        self._left.add(task)
        if dead:
            self._earlier.discard(task)
        self._changed()

    def ended(self, task: int) -> None:
        """Nothing more is done about a task."""
        if task not in self._left:
            self._earlier.discard(task)
            self._failing.discard(task)

    @property
    def open(self) -> bool:
        """Whether so many fail that it is not the fault of any one of them."""
        return len(self._failing) >= MOST_FAILING

    def may_buy(self, at_work: int) -> bool:
        """Whether another task may be bought, with so many at work."""
        if self.open:
            return False
        return self._proven or (not self._earlier and at_work + len(self._left) < FIRST_TASKS)

    @property
    def verdict(self) -> str:
        """Why nothing more is bought in this run; empty as long as it may turn out well."""
        if len(self._left) >= MOST_FAILING:
            return f"the images of {len(self._left)} tasks in a row could not be fetched ({self._why})"
        if self._earlier and self._earlier <= self._left:
            return f"no image that was bought earlier could be fetched ({self._why})"
        return ""
