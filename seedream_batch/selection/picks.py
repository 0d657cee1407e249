"""The picks (keep and reject) that a gallery exports, and how to parse them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from seedream_batch.errors import UsageError
from seedream_batch.model.document import Json

FORMAT = "seedream_batch_choice"
"""The key that marks such a file; its value is the format version."""

VERSION = 1

_HEX = re.compile("[0-9a-f]{64}")
_SHOWN = 10
"""Problems that are listed in full; the others are counted."""


@dataclass(frozen=True, slots=True, order=True)
class Picked:
    """One image: task fingerprint, index in the task (from 1) and, if known, SHA-256 in hex.

    The hash tells the image that was reviewed from a later one in the same place.
    """

    fingerprint: str
    index: int
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """The images of a job that were kept and those that were rejected; no image is in both."""

    job: str
    keep: frozenset[Picked]
    reject: frozenset[Picked]


class Picks:
    """Selects stored images by a choice, and records the entries that matched nothing.

    If anything is kept, selects the kept images; otherwise all but the rejected ones. An entry whose hash differs from
    the stored image is about an earlier image, and does not apply to the current one.
    """

    def __init__(self, choice: Choice) -> None:
        self.keeps = bool(choice.keep)
        """Whether only kept images are selected, rather than all but the rejected ones."""
        self._marked = {(pick.fingerprint, pick.index): pick.sha256 for pick in choice.keep or choice.reject}
        self._met: set[tuple[str, int]] = set()
        self._changed: set[tuple[str, int]] = set()

    def takes(self, fingerprint: str, index: int, sha256: str) -> bool:
        """Return whether a stored image is selected, and mark its entry as matched."""
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
        """Return why entries matched nothing, one line each. Call it after all stored images."""
        messages = []
        for fingerprint, index in sorted(self._marked):
            key = (fingerprint, index)
            if key not in self._met:
                messages.append(f"image {index} of {fingerprint[:12]}...: no such stored image in the job")
            elif key in self._changed:
                messages.append(f"image {index} of {fingerprint[:12]}...: regenerated since then")
        return messages


def parse_choice(text: str | bytes, name: str) -> Choice:
    """Parse the picks in `text`, read from a file called `name`. Raises `UsageError` listing all problems."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name} is not JSON ({error}); export the choice from the gallery again") from None
    if not isinstance(value, Mapping) or FORMAT not in value:
        raise UsageError(
            f"{name} is not a choice of images: the key {FORMAT!r} is missing; export one from the gallery"
        )
    if value[FORMAT] != VERSION or isinstance(value[FORMAT], bool):
        raise UsageError(f"{name}: {FORMAT} is {_quoted(value[FORMAT])}, but this seedream-batch reads only {VERSION}")
    problems: list[str] = []
    job = value.get("job")
    if not isinstance(job, str) or not job:
        problems.append("job: must be the name of a job")
    problems += [
        f"{_quoted(key)}: unknown key; known: {FORMAT}, job, keep and reject"
        for key in value
        if key not in {FORMAT, "job", "keep", "reject"}
    ]
    keep, reject = (_parse_entries(value, key, problems) for key in ("keep", "reject"))
    kept = {(pick.fingerprint, pick.index) for pick in keep}
    problems += [
        f"keep and reject both contain image {pick.index} of {pick.fingerprint[:12]}..."
        for pick in sorted(reject)
        if (pick.fingerprint, pick.index) in kept
    ]
    if problems:
        more = [f"and {len(problems) - _SHOWN:,} more"] if len(problems) > _SHOWN else []
        raise UsageError("\n".join(f"{name}: {problem}" for problem in problems[:_SHOWN] + more))
    return Choice(str(job), keep, reject)


def _parse_entries(value: Mapping[str, Json], key: str, problems: list[str]) -> frozenset[Picked]:
    entries = value.get(key, [])
    if not isinstance(entries, list):
        problems.append(f'{key}: must be a list of {{"fingerprint": ..., "index": ...}}')
        return frozenset()
    picks = set()
    for position, entry in enumerate(entries):
        problem = _entry_fault(entry)
        if problem:
            problems.append(f"{key}[{position}]{problem}")
        else:
            picks.add(Picked(entry["fingerprint"], entry["index"], entry.get("sha256", "")))
    return frozenset(picks)


def _entry_fault(entry: Json) -> str:
    """Return what is wrong with one entry; empty if nothing is."""
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
