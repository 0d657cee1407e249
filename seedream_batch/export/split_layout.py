"""The folders of an imagefolder: `datasets` takes a folder named like a split for that split."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePosixPath

KINDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
"""Words that `datasets` takes for a split, and which one."""

# `datasets` recognises a word only in lower case and between these characters.
_WORD = re.compile(rf"(?<![^-._ 0-9])({'|'.join(sorted(KINDS, key=len, reverse=True))})(?![^-._ 0-9])")


class Layout(Enum):
    """How the folders of an imagefolder are arranged."""

    PLAIN = "plain"
    """As in the job, with one table of rows."""
    OWN = "own"
    """As in the job, whose top folders are splits; each has its rows."""
    SPLIT = "split"
    """In a folder for each split. Folders below it that would be taken for one are capitalised."""


@dataclass(slots=True)
class Names:
    """Collects the paths of an export, to find a layout that keeps every image in its split."""

    own: dict[str, int] = field(default_factory=dict)
    """The number of images in each top folder, as long as all top folders are splits."""
    renamed: str = ""
    """The first path of which `unmistakable` changes a folder."""
    _only_own: bool = True
    _none: bool = True

    def learn(self, path: str) -> None:
        top, *folders, _ = ("", *PurePosixPath(path).parts) if "/" not in path else PurePosixPath(path).parts
        if not self.renamed and unmistakable(path) != path:
            self.renamed = path
        self._none = self._none and not any(map(_WORD.search, PurePosixPath(path).parts))
        self._only_own = self._only_own and top in KINDS and not any(map(_WORD.search, folders))
        if self._only_own:
            self.own[top] = self.own.get(top, 0) + 1

    @property
    def layout(self) -> Layout:
        """The layout for an export without splits of its own."""
        if self._none:
            return Layout.PLAIN
        return Layout.OWN if self._only_own else Layout.SPLIT


def unmistakable(path: str) -> str:
    """Return the path with folders that `datasets` does not take for a split."""
    *folders, name = path.split("/")
    return "/".join([*(_WORD.sub(lambda match: match[0].capitalize(), folder) for folder in folders), name])
