"""A person's choice among the images of a job, as the gallery exports it: its text to what it says."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from seedream_batch.errors import UsageError
from seedream_batch.model.document import Json

FORMAT = "seedream_batch_choice"
"""The key that marks such a file; its value is the version of the form."""

VERSION = 1

_HEX = re.compile("[0-9a-f]{64}")
_SHOWN = 10
"""Problems that are told; how many there are is always told."""


@dataclass(frozen=True, slots=True, order=True)
class Picked:
    """One image: the fingerprint of its task, its index in it (from 1), and its SHA-256 in hex where that is told.

    The hash tells the picture that was looked at from one that was made instead of it since.
    """

    fingerprint: str
    index: int
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """What was kept and what was rejected of the job's images; no image is in both."""

    job: str
    keep: frozenset[Picked]
    reject: frozenset[Picked]


class Picks:
    """Which stored images a choice takes, and which of its entries came to nothing.

    With anything kept, those that are kept; else all but the rejected ones. An entry whose hash is not that of the
    stored picture is about one that is gone, and says nothing of the one that came instead.
    """

    def __init__(self, choice: Choice) -> None:
        self.keeps = bool(choice.keep)
        """Whether it takes what is kept, and not what is not rejected."""
        self._marked = {(one.fingerprint, one.index): one.sha256 for one in choice.keep or choice.reject}
        self._met: set[tuple[str, int]] = set()
        self._changed: set[tuple[str, int]] = set()

    def takes(self, fingerprint: str, index: int, sha256: str) -> bool:
        """Whether a stored image is chosen; it is met from then on."""
        key = (fingerprint, index)
        wanted = self._marked.get(key)
        if wanted is None:
            return not self.keeps
        self._met.add(key)
        if wanted and wanted != sha256:
            self._changed.add(key)
            return not self.keeps
        return self.keeps

    def left_out(self) -> list[str]:
        """The entries that came to nothing once all stored images were met, and why."""
        told = []
        for fingerprint, index in sorted(self._marked):
            key = (fingerprint, index)
            if key not in self._met:
                told.append(f"image {index} of {fingerprint[:12]}...: the job has no such image that is stored")
            elif key in self._changed:
                told.append(f"image {index} of {fingerprint[:12]}...: another picture is stored there by now")
        return told


def parse_choice(text: str | bytes, name: str) -> Choice:
    """The choice that the text of a file called `name` says. Raises `UsageError` with everything that is wrong."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name} is no JSON ({error}); export the choice from the gallery again") from None
    if not isinstance(value, Mapping) or FORMAT not in value:
        raise UsageError(f"{name} is no choice of images: it has no key {FORMAT!r}; export one from the gallery")
    if value[FORMAT] != VERSION or isinstance(value[FORMAT], bool):
        raise UsageError(f"{name}: {FORMAT} is {_quoted(value[FORMAT])}, and this seedream-batch reads {VERSION}")
    problems: list[str] = []
    job = value.get("job")
    if not isinstance(job, str) or not job:
        problems.append("job: must be the name of a job")
    problems += [
        f"{_quoted(key)}: unknown key; there are {FORMAT}, job, keep and reject"
        for key in value
        if key not in {FORMAT, "job", "keep", "reject"}
    ]
    keep, reject = (_picked(value, key, problems) for key in ("keep", "reject"))
    kept = {(one.fingerprint, one.index) for one in keep}
    problems += [
        f"keep and reject both have image {one.index} of {one.fingerprint[:12]}..."
        for one in sorted(reject)
        if (one.fingerprint, one.index) in kept
    ]
    if problems:
        more = [f"and {len(problems) - _SHOWN:,} more"] if len(problems) > _SHOWN else []
        raise UsageError("\n".join(f"{name}: {problem}" for problem in problems[:_SHOWN] + more))
    return Choice(str(job), keep, reject)


def _picked(value: Mapping[str, Json], key: str, problems: list[str]) -> frozenset[Picked]:
    entries = value.get(key, [])
    if not isinstance(entries, list):
        problems.append(f'{key}: must be a list of {{"fingerprint": ..., "index": ...}}')
        return frozenset()
    found = set()
    for place, entry in enumerate(entries):
        told = _wrong(entry)
        if told:
            problems.append(f"{key}[{place}]{told}")
        else:
            found.add(Picked(entry["fingerprint"], entry["index"], entry.get("sha256", "")))
    return frozenset(found)


def _wrong(entry: Json) -> str:
    """What is wrong with one entry; empty if nothing is."""
    if not isinstance(entry, Mapping):
        return f': must be {{"fingerprint": ..., "index": ...}}, got {_quoted(entry)}'
    for key in ("fingerprint", "sha256") if "sha256" in entry else ("fingerprint",):
        digits = entry.get(key)
        if not isinstance(digits, str) or not _HEX.fullmatch(digits):
            return f".{key}: must be 64 hexadecimal digits, got {_quoted(digits)}"
    index = entry.get("index")
    if not isinstance(index, int) or isinstance(index, bool) or index < 1:
        return f".index: must be a whole number from 1, got {_quoted(index)}"
    return ""


def _quoted(value: Json) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
