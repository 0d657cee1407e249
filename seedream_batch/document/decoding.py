"""Decoding of files to text, and limits shared by all formats."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from seedream_batch.errors import InvalidJob
from seedream_batch.model.document import Position, Problem
from seedream_batch.model.text import CONTROL, with_line_feeds

MAX_BYTES = 64 * 1024 * 1024
"""Largest file in bytes that is read at all."""

MAX_DEPTH = 100
"""Deepest nesting of lists and mappings, with aliases followed: later code may recurse."""

MAX_VALUES = 5_000_000
"""Most values of a file, with aliases expanded: a few lines can be a bomb, and a value takes 100 bytes."""

MOST_PROBLEMS = 100
"""Problems in one file after which reading it ends: nobody reads more at once."""

MAX_DIGITS = 4_000
"""Most digits of an integer; Python itself refuses to print more than 4,300."""

_BREAK = re.compile(r"\r\n|\r|\n")
_SURROGATE = re.compile("[\ud800-\udfff]")


def located(text: str, index: int) -> tuple[int, int]:
    """Return the (line, column) of `text[index]`, both from 1."""
    line, start = 1, 0
    for match in _BREAK.finditer(text, 0, index):
        line, start = line + 1, match.end()
    return line, index - start + 1


def refusal(file: str, message: str, hint: str = "", *, at: tuple[int, int] = (1, 1), path: str = "") -> InvalidJob:
    """Return the error for a file with a single problem."""
    return InvalidJob([Problem(path, message, Position(file, *at), hint)])


def decoded(data: str | bytes, file: str) -> str:
    """Return the text of a file, decoded from UTF-8 without byte order marks, with line feeds as line ends.

    Raises `InvalidJob` for a file that is too large, is not text, or is a placeholder for another file.
    """
    if len(data) > MAX_BYTES:
        raise refusal(file, f"the file is larger than {MAX_BYTES // 1024**2} MB")
    text = data if isinstance(data, str) else _from_bytes(data, file)
    if isinstance(data, str) and (surrogate := _SURROGATE.search(data)):
        raise refusal(file, "half of a character (a lone surrogate)", at=located(data, surrogate.start()))
    text = with_line_feeds(text.lstrip("\ufeff"))
    for start, what, hint in _OTHER_FILES:
        if match := start.search(text):
            raise refusal(file, what, hint, at=located(text, match.start()))
    problems = list(islice(_control_problems(text, file), MOST_PROBLEMS))
    if problems:
        raise InvalidJob(problems)
    return text


def _from_bytes(data: bytes, file: str) -> str:
    for start, what in _OTHER_BYTES:
        if start.match(data):
            raise refusal(file, f"the file is {what}", "save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # `start` does not count the byte order mark, if there is one
        data = data.removeprefix(b"\xef\xbb\xbf")
        before = data[: error.start].decode("utf-8", "replace")
        at = located(before + " ", len(before))
        message = f"not UTF-8: the byte 0x{data[error.start]:02x} is invalid here"
        raise refusal(file, message, "save the file as UTF-8", at=at) from None


_OTHER_BYTES = (
    (re.compile(rb"\xff\xfe\0\0|\0\0\xfe\xff"), "UTF-32, not UTF-8"),
    (re.compile(rb"\xff\xfe|\xfe\xff|\0[^\0]..|[^\0]\0..", re.DOTALL), "UTF-16, not UTF-8"),
    (re.compile(rb"PK\x03\x04"), "a workbook or a zip file"),
    (re.compile(rb"\xd0\xcf\x11\xe0"), "an old Office document"),
    (re.compile(rb"%PDF-"), "a PDF"),
)
"""What a file is instead of text, by its first bytes."""

_OTHER_FILES = (
    (
        re.compile(r"\Aversion https?://\S+/spec/v\d"),
        "the file is a Git LFS pointer, not the content",
        'run "git lfs pull"',
    ),
    (
        re.compile(r"\A/annex/objects/"),
        "the file is a git-annex pointer, not the content",
        'run "git annex get"',
    ),
    (re.compile(r"\A\s*<(?:!doctype html|html)", re.IGNORECASE), "the file is a web page", "download the file itself"),
    (re.compile(r"^<{7} ", re.MULTILINE), "unresolved merge conflict", "keep one of the two sides"),
)
"""Texts that are not the intended file itself."""


def _control_problems(text: str, file: str) -> Iterator[Problem]:
    """Yield a problem for the first control character of each line."""
    line, start, counted, reported_line = 1, 0, 0, 0
    for match in CONTROL.finditer(text):
        line += text.count("\n", counted, match.start())
        start = max(start, text.rfind("\n", counted, match.start()) + 1)
        counted = match.start()
        if line != reported_line:
            reported_line = line
            yield Problem("", no_control(match.group()), Position(file, line, counted - start + 1), "remove it")


def no_control(character: str) -> str:
    name = "NUL character" if character == "\0" else "control character"
    return f"the {name} U+{ord(character):04X} is not allowed"
