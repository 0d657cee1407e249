"""Requests in canonical form, and the fingerprint that identifies a task."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring as _quoted

from seedream_batch.model.document import Json

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def dumps(value: Json) -> str:
    """Return canonical JSON text: sorted keys, no spaces, characters unescaped where possible."""
    return _ENCODER.encode(value)


def normalise_numbers(value: Json) -> Json:
    """Return the value with integral floats as integers: JSON does not distinguish 1.0 from 1."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: normalise_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [normalise_numbers(item) for item in value]
    return value


def canonical(
    body: Mapping[str, Json], defaults: Mapping[tuple[str, ...], Json], path: tuple[str, ...] = ()
) -> dict[str, Json]:
    """Return the request, or its part at `path`, without fields that equal the API's default and what is then empty."""
    fields: dict[str, Json] = {}
    for name, value in body.items():
        here = (*path, name)
        if here in defaults and value == defaults[here] and isinstance(value, bool) == isinstance(defaults[here], bool):
            continue
        item = canonical(value, defaults, here) if isinstance(value, dict) else value
        if item not in ({}, []):
            fields[name] = item
    return fields


def fingerprint(body: Mapping[str, Json], sample: int, defaults: Mapping[tuple[str, ...], Json]) -> str:
    """Return the SHA-256, in hex, of the canonical request and the sample number.

    `body` has its reference images as `sha256:HEX`. Names, labels, order and output paths are not included, so changing
    them does not buy images again.
    """
    return _hashed(dumps(canonical(body, defaults)), sample)


def _hashed(request: str, sample: int) -> str:
    return hashlib.sha256(f'{{"request":{request},"sample":{sample}}}'.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class PromptFrame:
    """The texts before and after the prompt, in the request and in its canonical form."""

    before: str
    after: str
    canonical_before: str
    canonical_after: str

    def of(self, prompt: str, sample: int) -> tuple[str, str]:
        """Return the canonical text of the request with this prompt, and its `fingerprint`."""
        text = _quoted(prompt)
        return self.before + text + self.after, _hashed(self.canonical_before + text + self.canonical_after, sample)


class RequestTexts:
    """The text and the fingerprint of each request of a job.

    The tasks of a matrix differ in their prompt and repeat the rest, so the texts around the prompt are cached.
    """

    _PROMPT = "prompt"
    _HOLE = "\ue000the prompt\ue000"
    _REMEMBERED = 1024

    def __init__(self, defaults: Mapping[tuple[str, ...], Json]) -> None:
        self._defaults = defaults
        self._around: dict[str, PromptFrame | None] = {}

    def of(self, body: Mapping[str, Json], sample: int) -> tuple[str, str]:
        """Return the canonical text of the body, and its `fingerprint`."""
        prompt = body[self._PROMPT]
        around = self.around(body)
        if around is None or not isinstance(prompt, str):
            return dumps(body), fingerprint(body, sample, self._defaults)
        return around.of(prompt, sample)

    def around(self, body: Mapping[str, Json]) -> PromptFrame | None:
        """Return the texts around any prompt in this body; None in the rare case that they are ambiguous."""
        # The repr distinguishes 1, 1.0, True and "1".
        key = repr({**body, self._PROMPT: None})
        try:
            return self._around[key]
        except KeyError:
            if len(self._around) >= self._REMEMBERED:
                self._around.clear()
            around = self._around[key] = self._split_at_prompt({**body, self._PROMPT: self._HOLE})
            return around

    def _split_at_prompt(self, with_hole: Mapping[str, Json]) -> PromptFrame | None:
        hole = dumps(self._HOLE)
        texts = [tuple(dumps(body).split(hole)) for body in (with_hole, canonical(with_hole, self._defaults))]
        match texts:
            case [(before, after), (first, last)]:
                return PromptFrame(before, after, first, last)
        return None
