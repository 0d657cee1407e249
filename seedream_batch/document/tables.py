"""The tables that axes come from: csv, tsv, txt, jsonl, json and yaml."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Final, TypeAlias

from seedream_batch.document.jsontext import parse_array, parse_lines
from seedream_batch.document.source import decoded, refusal
from seedream_batch.document.yamltext import parse_yaml
from seedream_batch.errors import InvalidJob
from seedream_batch.model.document import Json, Position, Problem, Table

Rows: TypeAlias = tuple[list[Json], list[tuple[int, int]]]

_BREAK: Final = re.compile(r"\r\n|\r|\n")


def parse_table(data: bytes, file: str) -> Table:
    """The values of a table file; its suffix says the format. Raises `InvalidJob` with every problem found.

    csv and tsv have a header row, and each value maps the columns to text; in txt every line that is not blank is
    a value; jsonl has one JSON value a line; json and yaml hold a list.
    """
    suffix = PurePath(file).suffix.lower()
    parse = _FORMATS.get(suffix)
    if parse is None:
        known = ", ".join(_FORMATS)
        shown = f"the suffix {suffix}" if suffix else "a file without a suffix"
        raise refusal(file, f"{shown} is no table format", f"known: {known}")
    values, positions = parse(decoded(data, file), file)
    if not values:
        raise refusal(file, "there are no values in the file")
    return Table(file, values, positions, typed=suffix not in _UNTYPED)


def _csv(text: str, file: str) -> Rows:
    return _separated(text, file, ",")


def _tsv(text: str, file: str) -> Rows:
    return _separated(text, file, "\t")


def _separated(text: str, file: str, delimiter: str) -> Rows:
    problems = _nul_problems(text, file)
    if problems:
        raise InvalidJob(problems)
    rows = _rows(text, file, delimiter, problems)
    line, header = next(rows, (0, []))
    names = [name.strip() for name in header]
    if not problems:
        if not names:
            raise refusal(file, "the file is empty: a header row was expected")
        problems += _header_problems(names, Position(file, line, 1))
    values: list[Json] = []
    positions: list[tuple[int, int]] = []
    for line, row in rows:
        if len(row) == len(names):
            values.append(dict(zip(names, row, strict=True)))
            positions.append((line, 1))
        elif names:
            message = f"the row has {len(row)} fields, the header {len(names)}"
            hint = "quote a field that has the separator in it" if len(row) > len(names) else ""
            problems.append(Problem("", message, Position(file, line, 1), hint))
    if problems:
        raise InvalidJob(problems)
    return values, positions


def _rows(text: str, file: str, delimiter: str, problems: list[Problem]) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the line it starts at; what is broken goes to `problems`."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    first = True
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problems.append(Problem("", _csv_message(str(error)), Position(file, line, 1), _csv_hint(str(error))))
            if first:
                return  # without the columns the rows say nothing
            continue
        if row:
            first = False
            yield line, row


def _header_problems(names: list[str], position: Position) -> list[Problem]:
    problems = [
        Problem("", f"column {number} has no name", position, "name every column in the first row")
        for number, name in enumerate(names, start=1)
        if not name
    ]
    problems += [
        Problem("", f"the column {name!r} is given {count} times", position)
        for name, count in Counter(names).items()
        if count > 1 and name
    ]
    return problems


def _csv_message(error: str) -> str:
    if "field larger than" in error:
        return f"a field is longer than {csv.field_size_limit():,} characters"
    if "unexpected end of data" in error:
        return "a quote is never closed"
    if "expected after" in error:
        return "there is text after a closing quote"
    return error


def _csv_hint(error: str) -> str:
    return 'double a quote inside of quotes: ""' if "expected after" in error or "end of data" in error else ""


def _nul_problems(text: str, file: str) -> list[Problem]:
    if "\0" not in text:
        return []
    return [
        Problem("", "there is a NUL character", Position(file, number, line.index("\0") + 1), "is this a text file?")
        for number, line in enumerate(_BREAK.split(text), start=1)
        if "\0" in line
    ]


def _txt(text: str, file: str) -> Rows:
    problems = _nul_problems(text, file)
    if problems:
        raise InvalidJob(problems)
    values: list[Json] = []
    positions: list[tuple[int, int]] = []
    for number, line in enumerate(_BREAK.split(text), start=1):
        value = line.strip()
        if value:
            values.append(value)
            positions.append((number, 1 + len(line) - len(line.lstrip())))
    return values, positions


def _yaml(text: str, file: str) -> Rows:
    document = parse_yaml(text, file)
    items = document.mark.items
    if not isinstance(document.value, list) or not isinstance(items, list):
        raise refusal(file, "the file must hold a list", at=(document.mark.line, document.mark.column))
    return document.value, [(mark.line, mark.column) for mark in items]


_FORMATS: Final[Mapping[str, Callable[[str, str], Rows]]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".txt": _txt,
    ".jsonl": parse_lines,
    ".json": parse_array,
    ".yaml": _yaml,
    ".yml": _yaml,
}
_UNTYPED: Final = frozenset({".csv", ".tsv", ".txt"})
