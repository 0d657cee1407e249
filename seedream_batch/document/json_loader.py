"""A strict JSON parser, without what Python's own allows: NaN, repeated keys, unlimited nesting."""

from __future__ import annotations

import json
import re
from typing import Final, NoReturn, TypeAlias

from seedream_batch.document.decoding import MAX_DEPTH, MOST_PROBLEMS, located, refusal
from seedream_batch.document.yaml_scalars import BadScalar, finite, integer
from seedream_batch.errors import InvalidJob
from seedream_batch.model.document import Json, Position, Problem, written_as
from seedream_batch.model.text import encodable

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_SURROGATE_ESCAPE: Final = re.compile(r"\\u[dD][89a-fA-F]")


def _no_constant(name: str) -> NoReturn:
    raise BadScalar(f"{name} is not a valid JSON number")


def _unique_keys(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise BadScalar(f"the key {key!r} is given twice", "remove one of the two")
            seen.add(key)
    return mapping


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique_keys, parse_constant=_no_constant, parse_int=integer, parse_float=finite
)


def _as_written(text: str) -> float:
    value = finite(text)
    return written_as(value, text) or value


_AS_WRITTEN: Final = json.JSONDecoder(parse_float=_as_written)
_PRINTS_OTHERWISE: Final = re.compile(r"[0-9][eE][-+]?[0-9]|\.[0-9]*0(?![0-9])|\.[0-9]{15}")
"""Matches text that may have a number which prints differently from how it is written; strings may match, too."""


def skip_space(text: str, index: int) -> int:
    """Return the index of the next character that is not JSON white space."""
    match = _SPACE.match(text, index)
    return match.end() if match else index


class JsonProblem(Exception):
    """Raised for text that is not JSON; `index` is the offset of the mistake."""

    def __init__(self, message: str, index: int, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.index = index
        self.hint = hint


def value_at(text: str, index: int) -> tuple[Json, int]:
    """Return the JSON value that starts at `index`, and the index after it. Raises `JsonProblem`."""
    try:
        value, end = _DECODER.raw_decode(text, index)
    except json.JSONDecodeError as error:
        hint = "JSON has no comments, no single quotes and no comma before ] or }"
        raise JsonProblem(f"not JSON: {error.msg[:1].lower()}{error.msg[1:]}", error.pos, hint) from None
    except BadScalar as error:
        raise JsonProblem(str(error), index, error.hint) from None
    except RecursionError:
        raise JsonProblem(f"nested deeper than {MAX_DEPTH} levels", index) from None
    # Both checks walk the whole value, so search the text for their cause first, which is cheap.
    deep = text.count("[", index, end) + text.count("{", index, end) > MAX_DEPTH
    if deep or _SURROGATE_ESCAPE.search(text, index, end):
        _check(value, index)
    return value, end


def _check(value: Json, index: int) -> None:
    """Raise `JsonProblem` if the value is nested too deeply or has lone surrogates."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        below: list[Json] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item)
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
            elif isinstance(item, str) and not encodable(item):
                raise JsonProblem("the \\u escape is half of a character (a lone surrogate)", index)
        if not below:
            return
        level = below
    raise JsonProblem(f"nested deeper than {MAX_DEPTH} levels", index)


def _check_end(text: str, index: int, what: str) -> None:
    """Raise `JsonProblem` if anything but white space follows."""
    index = skip_space(text, index)
    if index != len(text):
        raise JsonProblem(f"unexpected text after {what}", index)


Values: TypeAlias = tuple[list[Json], list[tuple[int, int]], list[Problem], dict[int, Json]]
"""Values, the (line, column) of each, no problems, and by index the values whose numbers print differently."""


def _note_written(text: str, index: int, end: int, written: dict[int, Json], number: int) -> None:
    if _PRINTS_OTHERWISE.search(text, index, end):
        written[number] = _AS_WRITTEN.raw_decode(text, index)[0]


def parse_array(text: str, file: str) -> Values:
    """Return the elements of a JSON array. Raises `InvalidJob`."""
    try:
        return _elements(text)
    except JsonProblem as error:
        raise refusal(file, error.message, error.hint, at=located(text, error.index)) from None


def _elements(text: str) -> Values:
    values: list[Json] = []
    written: dict[int, Json] = {}
    positions: list[tuple[int, int]] = []
    line, start, counted = 1, 0, 0  # counted on from the last element: a file may be one long line
    index = skip_space(text, 0)
    if text[index : index + 1] != "[":
        raise JsonProblem("the file must contain a list: [..., ...]", index)
    index = skip_space(text, index + 1)
    while text[index : index + 1] != "]" or values:
        line += text.count("\n", counted, index)
        start = max(start, text.rfind("\n", counted, index) + 1)
        counted = index
        value, end = value_at(text, index)
        _note_written(text, index, end, written, len(values))
        values.append(value)
        positions.append((line, index - start + 1))
        index = skip_space(text, end)
        if text[index : index + 1] != ",":
            break
        index = skip_space(text, index + 1)
    if text[index : index + 1] != "]":
        raise JsonProblem("not JSON: expected a comma or ]", index)
    _check_end(text, index + 1, "the list")
    return values, positions, [], written


def parse_lines(text: str, file: str) -> Values:
    """Return the values of a file with one JSON value per line. Raises `InvalidJob` with every invalid line."""
    values: list[Json] = []
    written: dict[int, Json] = {}
    positions: list[tuple[int, int]] = []
    problems: list[Problem] = []
    for number, line in enumerate(text.split("\n"), start=1):
        start = skip_space(line, 0)
        if start == len(line):
            continue
        try:
            value, end = value_at(line, start)
            _check_end(line, end, "the value of this line")
        except JsonProblem as error:
            problems.append(Problem("", error.message, Position(file, number, error.index + 1), error.hint))
            if len(problems) >= MOST_PROBLEMS:
                break
            continue
        _note_written(line, start, len(line), written, len(values))
        values.append(value)
        positions.append((number, start + 1))
    if problems:
        raise InvalidJob(problems)
    return values, positions, [], written
