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
    return _hashed(dumps(canonical(body, defaults)), sample)


def _hashed(request: str, sample: int) -> str:
    return hashlib.sha256(f'{{"request":{request},"sample":{sample}}}'.encode()).hexdigest()


class RequestTexts:
    """The text and the fingerprint of each request of a job.

    The tasks of a matrix differ in their prompt and repeat the rest, so the texts around the prompt are remembered.
    """

    _PROMPT = "prompt"
    _HOLE = "\ue000the prompt\ue000"
    _REMEMBERED = 1024

    def __init__(self, defaults: Mapping[tuple[str, ...], Json]) -> None:
        self._defaults = defaults
        self._around: dict[str, tuple[list[str], list[str]]] = {}

    def of(self, body: Mapping[str, Json], sample: int) -> tuple[str, str]:
        """The canonical text of the body, and its `fingerprint`."""
        # The repr tells 1, 1.0, True and "1" apart.
        key = repr({**body, self._PROMPT: None})
        around = self._around.get(key)
        if around is None:
            if len(self._around) >= self._REMEMBERED:
                self._around.clear()
            with_hole = {**body, self._PROMPT: self._HOLE}
            hole = dumps(self._HOLE)
            around = dumps(with_hole).split(hole), dumps(canonical(with_hole, self._defaults)).split(hole)
            self._around[key] = around
        prompt = body[self._PROMPT]
        whole, request = around
        if not isinstance(prompt, str) or len(whole) != 2 or len(request) != 2:
            return dumps(body), fingerprint(body, sample, self._defaults)
        text = dumps(prompt)
        return f"{whole[0]}{text}{whole[1]}", _hashed(f"{request[0]}{text}{request[1]}", sample)
