"""Requests in canonical form, and the fingerprint that is a task's identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from seedream_batch.model.document import Json


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def dumps(value: Json) -> str:
    """Canonical JSON text: sorted keys, no spaces, real characters instead of escapes."""
    return _ENCODER.encode(value)


def tidy(value: Json) -> Json:
    """The value with floats that are whole numbers as integers: JSON does not tell 1.0 from 1."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: tidy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [tidy(item) for item in value]
    return value


def canonical(body: Mapping[str, Json], defaults: Mapping[tuple[str, ...], Json]) -> dict[str, Json]:
    """The request without the fields that equal the API's default, and without what is then empty."""
    return _without_defaults(body, defaults, ())


def _without_defaults(
    body: Mapping[str, Json], defaults: Mapping[tuple[str, ...], Json], path: tuple[str, ...]
) -> dict[str, Json]:
    kept: dict[str, Json] = {}
    for name, value in body.items():
        here = (*path, name)
        if here in defaults and value == defaults[here] and isinstance(value, bool) == isinstance(defaults[here], bool):
            continue
        item = _without_defaults(value, defaults, here) if isinstance(value, dict) else value
        if item not in ({}, []):
            kept[name] = item
    return kept


def fingerprint(body: Mapping[str, Json], sample: int, defaults: Mapping[tuple[str, ...], Json]) -> str:
    """SHA-256, in hex, of the canonical request and the sample number.

    `body` has its reference images as `sha256:HEX`. Names, labels, order and output paths are not part of it, so
    changing those buys nothing.
    """
    text = dumps({"request": canonical(body, defaults), "sample": sample})
    return hashlib.sha256(text.encode()).hexdigest()
