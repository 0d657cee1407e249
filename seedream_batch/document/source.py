"""Bytes to text that can be parsed, and the bounds that every format shares."""

from __future__ import annotations

import re

from seedream_batch.errors import InvalidJob
from seedream_batch.model.document import Position, Problem

MAX_BYTES = 64 * 1024 * 1024
"""The largest file that is read at all."""

MAX_DEPTH = 100
"""The deepest nesting of lists and mappings, aliases followed: the code after us may recurse."""

MAX_DIGITS = 4_000
"""The longest integer; Python itself refuses to print more than 4,300 digits."""

_BREAK = re.compile(r"\r\n|\r|\n")
_SURROGATE = re.compile("[\ud800-\udfff]")


def encodable(text: str) -> bool:
    """Whether UTF-8 can hold the text: it has no halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def located(text: str, index: int) -> tuple[int, int]:
    """The (line, column) of `text[index]`, both from 1."""
    line, start = 1, 0
    for match in _BREAK.finditer(text, 0, index):
        line, start = line + 1, match.end()
    return line, index - start + 1


def refusal(file: str, message: str, hint: str = "", *, at: tuple[int, int] = (1, 1), path: str = "") -> InvalidJob:
    """The error of a file that has this one problem."""
    return InvalidJob([Problem(path, message, Position(file, *at), hint)])


def decoded(data: str | bytes, file: str) -> str:
    """The text of a file: UTF-8, without a byte order mark, and of a size worth parsing."""
    if len(data) > MAX_BYTES:
        raise refusal(file, f"the file is larger than {MAX_BYTES // 1024**2} MB")
    if isinstance(data, str):
        surrogate = _SURROGATE.search(data)
        if surrogate:
            raise refusal(file, "half of a character (a lone surrogate)", at=located(data, surrogate.start()))
        return data.removeprefix("\ufeff")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or (len(data) >= 4 and 0 in data[:2] and data[:2] != b"\0\0"):
        raise refusal(file, "the file is UTF-16, not UTF-8", "save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # `start` counts from behind the byte order mark where there is one
        data = data.removeprefix(b"\xef\xbb\xbf")
        before = data[: error.start].decode("utf-8", "replace")
        at = located(before + " ", len(before))
        message = f"not UTF-8: the byte 0x{data[error.start]:02x} does not belong here"
        raise refusal(file, message, "save the file as UTF-8", at=at) from None
