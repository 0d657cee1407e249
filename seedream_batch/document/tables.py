"""Parsers of the tables for axes: csv, tsv, txt, jsonl, json and yaml."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Final

from seedream_batch.document.decoding import MAX_VALUES, MOST_PROBLEMS, decoded, no_control, refusal
from seedream_batch.document.json_loader import parse_array, parse_lines
from seedream_batch.document.yaml_loader import as_written, parse_yaml
from seedream_batch.errors import InvalidJob
from seedream_batch.model.document import Json, Position, Problem, Table
from seedream_batch.model.text import control_in, is_empty, normal, plain_value

_MOST_COLUMNS: Final = 1_000
_QUOTED: Final = re.compile(r'"(?:[^"]++|"")*+"')
_COMMENT: Final = re.compile(r"\s*#(?:[\s#!=*-]|\Z)")
_SEPARATOR_LINE: Final = re.compile(r"\s*sep=(.)\s*\Z", re.IGNORECASE)
_WRONG_SEPARATORS: Final = "|，；、､\uff5c"  # noqa: RUF001 - these are meant


@dataclass(slots=True)
class Rows:
    """The values of a table, the (line, column) of each, and the problems found.

    `written` holds, by index, values whose numbers print differently from how they were written, with numbers that
    print as written.
    """

    values: list[Json] = field(default_factory=list)
    positions: list[tuple[int, int]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    written: dict[int, Json] = field(default_factory=dict)
    earlier: dict[int, tuple[Json, ...]] = field(default_factory=dict)
    """By index, what earlier versions may have read instead of a value."""

    def add(self, value: Json, line: int, column: int = 1) -> None:
        self.values.append(value)
        self.positions.append((line, column))

    def refuse(self, file: str, message: str, at: tuple[int, int], hint: str = "") -> None:
        """Add a problem. Raises `InvalidJob` if there are `MOST_PROBLEMS` of them."""
        self.problems.append(Problem("", message, Position(file, *at), hint))
        if len(self.problems) >= MOST_PROBLEMS:
            raise InvalidJob(self.problems)


def parse_table(data: bytes, file: str) -> Table:
    """Parse a table file; its suffix gives the format. Raises `InvalidJob` with every problem found.

    csv and tsv have a header row, and each value maps the columns to text. In txt each line is a value, except blank
    lines and comments. jsonl has one JSON value per line; json and yaml hold a list. Texts are normalised as in
    `model.text` in each format, and values without any text are skipped.
    """
    suffix = PurePath(file).suffix.lower()
    parse = _FORMATS.get(suffix)
    if parse is None:
        known = ", ".join(_FORMATS)
        shown = f"the suffix {suffix}" if suffix else "a file without a suffix"
        raise refusal(file, f"{shown} is not a supported table format", f"known: {known}")
    typed = suffix not in _UNTYPED
    rows = parse(decoded(data, file), file)
    if typed:
        rows = _normal(rows, file)
    if rows.problems:
        raise InvalidJob(rows.problems)
    if not rows.values:
        raise refusal(file, "the file contains no values")
    return Table(file, rows.values, rows.positions, typed, rows.earlier, rows.written)


def _normal(rows: Rows, file: str) -> Rows:
    """Normalise the texts of a format that may have escapes, and drop values without any text."""
    plain = Rows(problems=rows.problems)
    for index, (read, at) in enumerate(zip(rows.values, rows.positions, strict=True)):
        if control := control_in(read):
            plain.refuse(file, no_control(control), at, "remove it")
        value = normal(read)
        if is_empty(value):
            continue
        if value is not read:
            plain.earlier[len(plain.values)] = (read,)
        if index in rows.written:
            plain.written[len(plain.values)] = normal(rows.written[index])
        plain.add(value, *at)
    return plain


def _check_size(text: str, file: str, separators: str) -> None:
    """Raise `InvalidJob` for a file that may have more values than fit in memory, before creating them."""
    if sum(map(text.count, separators)) > MAX_VALUES:
        raise refusal(
            file, f"the file may contain more than {MAX_VALUES:,} values", "split the file or use fewer values"
        )


def _csv(text: str, file: str) -> Rows:
    lines = text.split("\n")
    first, delimiter = _find_header(lines, file, ",")
    rows = Rows()
    return _read_rows(text, file, delimiter, rows, _csv_rows(rows, lines, first, file, delimiter))


def _tsv(text: str, file: str) -> Rows:
    lines = text.split("\n")
    first, _ = _find_header(lines, file, "\t")
    rows = Rows()
    return _read_rows(text, file, "\t", rows, _tsv_rows(rows, lines, first, file))


def _find_header(lines: list[str], file: str, usual: str) -> tuple[int, str]:
    """Return the index of the header line, and the separator. Raises `InvalidJob` for an unusable one."""
    first = next((index for index, line in enumerate(lines) if line.strip()), 0)
    declared = _SEPARATOR_LINE.match(lines[first])
    if declared:
        first, delimiter = first + 1, declared[1]
    else:
        header = _QUOTED.sub("", lines[first])
        others = ";\t" if usual == "," else ",;"
        delimiter = usual if usual in header else next((other for other in others if other in header), usual)
        wrong = next((char for char in header if char in _WRONG_SEPARATORS), "") if delimiter == usual else ""
        if wrong and usual not in header:
            at = (first + 1, lines[first].index(wrong) + 1)
            message = f"the columns are separated by {wrong} (U+{ord(wrong):04X})"
            raise refusal(
                file, message, "separate them with commas" if usual == "," else "separate them with tabs", at=at
            )
    if usual == "\t" and delimiter != "\t":
        message = f"the columns are separated by {delimiter}, but a .tsv file needs tabs"
        raise refusal(file, message, "name the file .csv", at=(first + 1, 1))
    if delimiter not in ",;\t|" or delimiter == '"':
        raise refusal(file, f"{delimiter!r} is not a supported separator", "use a comma", at=(first, 1))
    return first, delimiter


def _read_rows(text: str, file: str, delimiter: str, rows: Rows, parsed: Iterator[tuple[int, list[str]]]) -> Rows:
    """Add the parsed rows, each with its line number; `parsed` adds problems of its own."""
    _check_size(text, file, "\n" + delimiter)
    line, header = next(parsed, (0, []))
    names = [plain_value(name) for name in header]
    if not rows.problems:
        if not names:
            raise refusal(file, "the file is empty; it needs a header row")
        if len(names) > _MOST_COLUMNS:
            raise refusal(
                file, f"the table has {len(names):,} columns; at most {_MOST_COLUMNS:,} are allowed", at=(line, 1)
            )
        for problem in _header_problems(names, Position(file, line, 1)):
            rows.problems.append(problem)
    for line, row in parsed:
        plain = [plain_value(text) for text in row]
        if not any(plain):
            continue
        if len(row) == len(names):
            several = any("\n" in text for text in row)
            if several or plain != row:
                # Earlier versions kept the line ends of the checked-out file.
                ends = ("\n", "\r\n") if several else ("\n",)
                rows.earlier[len(rows.values)] = tuple(
                    dict(zip(names, [text.replace("\n", end) for text in row], strict=True)) for end in ends
                )
            rows.add(dict(zip(names, plain, strict=True)), line)
        elif names:
            message = f"the row has {len(row):,} fields, but the header has {len(names):,}"
            rows.refuse(file, message, (line, 1), _count_hint(row, names, delimiter))
    return rows


def _count_hint(row: list[str], names: list[str], delimiter: str) -> str:
    if delimiter == "\t" and any('"' in text for text in row):
        return "a .tsv field cannot contain a tab or a line break, even in quotes: save the table as .csv"
    wide = next((char for char in row[-1] if char in _WRONG_SEPARATORS), "") if len(row) < len(names) else ""
    if wide:
        return f"is {wide} (U+{ord(wide):04X}) meant as a separator?"
    return "quote fields that contain the separator" if len(row) > len(names) else ""


def _csv_rows(rows: Rows, lines: list[str], first: int, file: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    source = (f"{lines[index]}\n" for index in range(first, len(lines)))
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    header = True
    while True:
        line = first + reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            message, hint, fatal = _csv_fault(str(error))
            rows.refuse(file, message, _open_quote(lines, line, delimiter), hint)
            if header or fatal:
                return  # without the columns the rows have no meaning
            continue
        if not row:
            continue
        if _COMMENT.match(lines[line - 1]):
            rows.refuse(file, _COMMENT_FAULT[0], (line, 1), _COMMENT_FAULT[1])
            if header:
                return
            continue
        header = False
        yield line, row


_COMMENT_FAULT: Final = (
    "this row starts with #, but tables cannot have comments",
    'remove it; quote a value that starts with "# "',
)


def _tsv_rows(rows: Rows, lines: list[str], first: int, file: str) -> Iterator[tuple[int, list[str]]]:
    """Yield rows as the registered tsv format defines them: a quote is an ordinary character.

    However, a field entirely in quotes loses them, because spreadsheets write such fields. No field contains a tab or a
    line break.
    """
    for index in range(first, len(lines)):
        line = lines[index]
        if line.strip():
            if _COMMENT.match(line):
                rows.refuse(file, _COMMENT_FAULT[0], (index + 1, 1), _COMMENT_FAULT[1])
                continue
            fields = line.split("\t")
            yield index + 1, [one[1:-1].replace('""', '"') if _QUOTED.fullmatch(one) else one for one in fields]


def _header_problems(names: list[str], position: Position) -> list[Problem]:
    problems = [
        Problem("", f"column {number} has no name", position, "name every column in the first row")
        for number, name in enumerate(names, start=1)
        if not name
    ]
    problems += [
        Problem("", f"the column {name!r} occurs {count} times", position)
        for name, count in Counter(names).items()
        if count > 1 and name
    ]
    return problems


def _csv_fault(error: str) -> tuple[str, str, bool]:
    """Return what is wrong, what to do, and whether reading further is pointless."""
    doubled = 'double a quote inside of quotes: ""'
    if "field larger than" in error:
        message = f"a field that starts here is longer than {csv.field_size_limit():,} characters"
        return message, "does it start with a quote that is never closed?", True
    if "unexpected end of data" in error:
        return "a quote is never closed", doubled, True
    if "expected after" in error:
        return "there is text after a closing quote", doubled, False
    return error, "", False


def _open_quote(lines: list[str], line: int, delimiter: str) -> tuple[int, int]:
    """Return the line and column of the first field in a broken row that opens a quote and does not close it."""
    text = "\n".join(lines[line - 1 :])
    at = 0
    while at < len(text):
        if text[at] == '"':
            closed = _QUOTED.match(text, at)
            if closed is None or text[closed.end() : closed.end() + 1] not in {"", "\n", delimiter}:
                break
            at = closed.end()
        else:
            ends = [end for end in (text.find(delimiter, at), text.find("\n", at)) if end >= 0]
            at = min(ends, default=len(text))
        if text[at : at + 1] == "\n":
            return line, 1  # every quote is closed
        at += 1
    before = text[:at]
    return line + before.count("\n"), at - (before.rfind("\n") + 1) + 1


def _txt(text: str, file: str) -> Rows:
    _check_size(text, file, "\n")
    rows = Rows()
    for number, line in enumerate(text.split("\n"), start=1):
        value = plain_value(line)
        if not value or _COMMENT.match(value):
            continue
        if value.startswith("#"):
            hint = "write `# ` for a comment, and `\\#` for a value that starts with #"
            rows.refuse(file, "a comment or a value? the line starts with #", (number, line.index("#") + 1), hint)
            continue
        if value.lstrip("\\").startswith("#"):
            value = value[1:]
        before = line.strip()
        if value != before:
            rows.earlier[len(rows.values)] = (before,)
        rows.add(value, number, 1 + len(line) - len(line.lstrip()))
    return rows


def _jsonl(text: str, file: str) -> Rows:
    _check_size(text, file, ",[{\n")
    return Rows(*parse_lines(text, file))


def _json(text: str, file: str) -> Rows:
    _check_size(text, file, ",[{")
    return Rows(*parse_array(text, file))


def _yaml(text: str, file: str) -> Rows:
    document = parse_yaml(text, file)
    items = document.mark.items
    if not isinstance(document.value, list) or not isinstance(items, list):
        raise refusal(file, "the file must contain a list", at=(document.mark.line, document.mark.column))
    rows = Rows(document.value, [(mark.line, mark.column) for mark in items])
    rows.written = {int(index): value for index, value in as_written(document).items()}
    return rows


_FORMATS: Final[Mapping[str, Callable[[str, str], Rows]]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".txt": _txt,
    ".jsonl": _jsonl,
    ".json": _json,
    ".yaml": _yaml,
    ".yml": _yaml,
}
_UNTYPED: Final = frozenset({".csv", ".tsv", ".txt"})
