"""What must be unique in a job: noticed with eight bytes for each, told with the cells to blame."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator

from seedream_batch.expand.problem_collector import ProblemCollector
from seedream_batch.model.document import Path
from seedream_batch.model.task import TaskSpec, image_path


class Seen:
    """Hashes of texts, 8 bytes each, in buckets small enough to look through one after the other.

    Texts that are alike have one hash; of two that have one hash somebody has to look whether they are alike.
    """

    _BUCKETS = 64

    def __init__(self) -> None:
        self._buckets = [array("q") for _ in range(self._BUCKETS)]
        self._adders = [bucket.append for bucket in self._buckets]

    def add(self, text: str) -> None:
        number = hash(text)
        self._adders[number & 63](number)

    def twice(self) -> set[int]:
        """The hashes that were added more than once."""
        twice: set[int] = set()
        for bucket in self._buckets:
            if len(set(bucket)) < len(bucket):
                twice.update(number for number, times in Counter(bucket).items() if times > 1)
        return twice


class Twins:
    """What must be unique and is not: the first pairs, and how many more there are."""

    _TOLD = 5

    def __init__(self, what: str, hint: str) -> None:
        self._what = what
        self._hint = hint
        self._first: dict[str, str] = {}
        self._pairs: list[tuple[str, str]] = []
        self._more = 0

    def again(self, key: str, here: str) -> bool:
        """Whether the key came before; `here` is where it is now."""
        before = self._first.setdefault(key, here)
        if before is here:
            return False
        if len(self._pairs) < self._TOLD:
            self._pairs.append((before, here))
        else:
            self._more += 1
        return True

    def tell(self, collector: ProblemCollector, path: Path) -> None:
        """Adds a problem for each pair; where there are many, the first one says how many."""
        pairs = self._pairs[:1] if self._more else self._pairs
        for before, here in pairs:
            more = f", and {self._more + len(self._pairs) - 1:,} more times" if self._more else ""
            collector.add(path, f"{self._what} {before}, and {here}{more}", hint=self._hint)


def image_paths(spec: TaskSpec) -> Iterator[str]:
    """The path of each image that the task asks for."""
    return (image_path(spec.paths, spec.images, index, spec.fingerprint) for index in range(1, spec.images + 1))
