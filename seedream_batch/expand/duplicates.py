"""Finds duplicates with eight bytes per entry, and reports the cells that cause them."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator

from seedream_batch.expand.problem_collector import ProblemCollector
from seedream_batch.model.document import Path
from seedream_batch.model.task import TaskSpec, image_path


class HashSet:
    """Hashes of texts, 8 bytes each, in buckets small enough to search one at a time.

    Equal texts have equal hashes; the caller has to check whether texts with equal hashes really are equal.
    """

    _BUCKETS = 64

    def __init__(self) -> None:
        self._buckets = [array("q") for _ in range(self._BUCKETS)]
        self._adders = [bucket.append for bucket in self._buckets]

    def add(self, text: str) -> None:
        number = hash(text)
        self._adders[number & 63](number)

    def twice(self) -> set[int]:
        """Return the hashes that were added more than once."""
        twice: set[int] = set()
        for bucket in self._buckets:
            if len(set(bucket)) < len(bucket):
                twice.update(number for number, times in Counter(bucket).items() if times > 1)
        return twice


class Duplicates:
    """Duplicates of one kind: the first pairs, and the number of further ones."""

    _TOLD = 5

    def __init__(self, what: str, hint: str) -> None:
        self._what = what
        self._hint = hint
        self._first: dict[str, str] = {}
        self._pairs: list[tuple[str, str]] = []
        self._more = 0

    def again(self, key: str, here: str) -> bool:
        """Return whether the key occurred before; `here` describes the present occurrence."""
        before = self._first.setdefault(key, here)
        if before is here:
            return False
        if len(self._pairs) < self._TOLD:
            self._pairs.append((before, here))
        else:
            self._more += 1
        return True

    def tell(self, collector: ProblemCollector, path: Path) -> None:
        """Add a problem for each pair; if there are many, only for the first, with the number of the others."""
        pairs = self._pairs[:1] if self._more else self._pairs
        for before, here in pairs:
            more = f", and {self._more + len(self._pairs) - 1:,} more times" if self._more else ""
            collector.add(path, f"{self._what} {before}, and {here}{more}", hint=self._hint)


def image_paths(spec: TaskSpec) -> Iterator[str]:
    """Yield the path of each image that the task asks for."""
    return (image_path(spec.paths, spec.images, index, spec.fingerprint) for index in range(1, spec.images + 1))
