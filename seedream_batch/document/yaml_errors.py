"""Helpful messages for what the YAML parser says about invalid text."""

from __future__ import annotations

import re
from typing import Final

import yaml

from seedream_batch.document.decoding import MAX_DEPTH, located
from seedream_batch.model.document import Position, Problem

_TEMPLATE: Final = re.compile(r"(?:^|:\s+|-\s+|[\[,]\s*)(\{\{|\{%)")
_NO_SPACE: Final = re.compile(r"\s*(?:- +)*([\w.-]+):[^\s/:]")
_BREAKS: Final = re.compile("\r\n|[\r\n\x85\u2028\u2029]")  # the line breaks that the parser counts

_WIDE_COLON: Final = re.compile(r"\s*(?:- +)*[\w.-]+(\uff1a)")
_ASCII_OF: Final = {
    **dict(zip("\uff1a\uff0c\uff02\uff07\uff5b\uff5d\uff3b\uff3d\uff03\uff0d\u3000", ":,\"'{}[]#- ", strict=True)),
    **dict.fromkeys("\u201c\u201d\u201e\u201f", '"'),
    **dict.fromkeys("\u2018\u2019\u201b", "'"),
}
"""The YAML sign that was meant by a full-width or typographic one."""
_WIDE_QUOTES: Final = "\u201c\u201d\u201e\u201f\uff02\u2018\u2019\u201b\uff07"

QUOTE_TEMPLATE: Final = 'quote the template: "{{ ... }}"'

_WORDS: Final = {
    "found unexpected end of stream": "the file ends too early",
    "did not find expected key": "expected a key here (`name: value`)",
    "did not find expected '-' indicator": "expected a list item here (`- value`)",
    "did not find expected ',' or ']'": "the list that [ opens is not closed properly",
    "did not find expected ',' or '}'": "the mapping that { opens is not closed properly",
    "could not find expected ':'": "expected a colon after the key",
    "found unknown escape character": "unknown escape in double quotes",
    "found character that cannot start any token": "a value cannot start with this character",
}
_HINTS: Final = {
    "did not find expected key": "check the indentation, and quote text that starts with a quote, [, { or *",
    "did not find expected '-' indicator": "check the indentation",
    "could not find expected ':'": "write `key: value`, with a space after the colon",
    "found unknown escape character": "write \\\\ for a backslash, or use single quotes: '...'",
    "did not find expected <document start>": "check the indentation: there is text after the end of the value",
}


def template_at(text: str, line: int, column: int) -> bool:
    """Return whether an unquoted template starts at this line and column, both from 1."""
    return _line(text, line)[column - 1 : column + 1] in {"{{", "{%"}


def _line(text: str, line: int) -> str:
    """Return the line with this number, from 1; empty if there is none."""
    start = 0
    for number, match in enumerate(_BREAKS.finditer(text), start=1):
        if number == line:
            return text[start : match.start()]
        start = match.end()
        if number > line:
            break
    return text[start:] if text else ""


def not_ascii(character: str) -> tuple[str, str]:
    """Return the message and hint for a sign that looks like one of YAML's own."""
    meant = _ASCII_OF.get(character, "")
    message = f"{character} (U+{ord(character):04X}) is not a {meant} in YAML" if meant.strip() else ""
    return (
        message or f"U+{ord(character):04X} is not a space in YAML",
        f"write {meant}" if meant.strip() else "write a space",
    )


def wide_sign(text: str, *, in_list: bool) -> tuple[int, str, str] | None:
    """Find a sign in an unquoted text that was probably meant for YAML; return its index, a message and a hint.

    Applies to a text all in typographic quotes, and to a full-width comma in an item of a [list].
    """
    if text[0] in _WIDE_QUOTES and text[-1] in _WIDE_QUOTES and len(text) > 1:
        message, hint = not_ascii(text[0])
        return 0, f"{message}, so it would be part of the text", f"{hint}, or put the whole text in ASCII quotes"
    comma = text.find("\uff0c")
    if in_list and comma >= 0:
        message, hint = not_ascii("\uff0c")
        return comma, f"{message}, so it separates nothing", f"{hint}, or put the text in quotes"
    return None


def _wide_sign_near(text: str, line: int, column: int) -> tuple[tuple[int, int], str] | None:
    """Return the place and the sign, if a full-width sign is here or a full-width colon shortly before."""
    for number in range(line, max(0, line - 3), -1):
        match = _WIDE_COLON.match(_line(text, number))
        if match:
            return (number, match.start(1) + 1), match[1]
    sign = _line(text, line)[column - 1 : column]
    return ((line, column), sign) if sign and sign in _ASCII_OF else None


def syntax_problem(error: yaml.YAMLError, text: str, file: str) -> Problem:
    """Return the problem that corresponds to a parser error."""
    if isinstance(error, yaml.reader.ReaderError):
        position = error.position if isinstance(error.position, int) else 0
        line, column = located(text, min(position, len(text)))
        return Problem("", f"not YAML: {error.reason}", Position(file, line, column), "remove the character")
    if not isinstance(error, yaml.MarkedYAMLError):
        return Problem("", f"not YAML: {error}", Position(file, 1, 1))
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    what = str(error.problem or error.context or "syntax error")
    if "nesting depth" in what:
        # Newer parsers have a limit of their own, and reach it before ours is checked.
        return Problem("", f"nested deeper than {MAX_DEPTH} levels", Position(file, line, column))
    message, hint = _WORDS.get(what, what), _HINTS.get(what, "")
    where = _line(text, line)
    before = _line(text, line - 1) if line > 1 else ""
    if what == "found character that cannot start any token":
        message, hint = _bad_start(where[column - 1 : column], where, message)
    elif what == "found unexpected end of stream" and error.context_mark and "quoted" in str(error.context):
        line, column = error.context_mark.line + 1, error.context_mark.column + 1
        message, hint = "this quote is never closed", "close it, or double a quote inside single quotes: ''"
    elif what == "mapping values are not allowed in this context":
        message, hint = "a colon is not allowed here", 'quote a value that contains ": ", and check the indentation'
        unspaced = _NO_SPACE.match(before)
        if unspaced:
            line, column = line - 1, unspaced.end(1) + 1
            message, hint = "missing space after the colon", f"write `{unspaced.group(1)}: value`"
    elif what == "could not find expected ':'":
        unspaced = _NO_SPACE.match(where) or _NO_SPACE.match(before)
        if unspaced:
            message, hint = "missing space after the colon", f"write `{unspaced.group(1)}: value`"
    wide = _wide_sign_near(text, line, column)
    if wide:
        (line, column), sign = wide
        return Problem("", "not YAML: " + not_ascii(sign)[0], Position(file, line, column), not_ascii(sign)[1])
    template = _TEMPLATE.search(where)
    if template and template.start(1) < column + 1:
        column, hint = template.start(1) + 1, QUOTE_TEMPLATE
        message = "a template must be quoted in YAML"
    return Problem("", f"not YAML: {message}", Position(file, line, column), hint)


def _bad_start(character: str, where: str, message: str) -> tuple[str, str]:
    if character == "\t" or where[: len(where) - len(where.lstrip())].count("\t"):
        return "a tab cannot indent", "indent with spaces"
    if character:
        return f"a value cannot start with {character}", "quote the value"
    return message, "quote the value"
