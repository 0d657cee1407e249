"""Values and names for messages: short, on one line, safe for a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from seedream_batch.model.document import Json, dotted
from seedream_batch.model.text import LONGEST, escaped

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.:/+-]*(?<! )")
_NOT_TEXT = re.compile(r"(?i)true|false|null|yes|no|on|off|[-+.]?[0-9][0-9_.,eE+-]*")


def shown(value: Json) -> str:
    """Return a value as it was written; for a mapping or list only its kind."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, str):
        return f'"{escaped(value)}"'
    if isinstance(value, Sequence):
        return "a list"
    return _scalar(value)


def bare(value: Json) -> str:
    """Return `shown`, but without quotes for a text that needs none in YAML."""
    return value if isinstance(value, str) and len(value) <= LONGEST and _PLAIN.fullmatch(value) else shown(value)


def flow(value: Json) -> str:
    """Return a value in YAML's flow style, ready to be copied."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    if isinstance(value, str):
        plain = _PLAIN.fullmatch(value) and ": " not in value and not _NOT_TEXT.fullmatch(value)
        return value if plain else shown(value)
    return "null" if value is None else _scalar(value)


def path_text(path: Iterable[str | int]) -> str:
    """Return `dotted` with the keys made safe to print."""
    return dotted([step if isinstance(step, int) else escaped(step) for step in path])


def _scalar(value: Json) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return escaped(str(value))
