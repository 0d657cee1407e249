"""Numbers, sizes and text for people, safe for any terminal."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap
import unicodedata
from pathlib import Path

from seedream_batch.model.document import Json

_SHOWN = "\n\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
"""Characters without a shape that are printed: Persian and emoji need the joiners."""
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Categories of characters that steer a terminal, end a line, turn its direction or cannot be seen."""

_MARKER = re.compile(r"##(?=\w*\[)")
"""`##[`, `##vso[`, `##teamcity[`: commands of GitHub Actions, Azure Pipelines and TeamCity, anywhere in a line."""
_BEGINNING = re.compile(
    r"^([^\S\n]*)(?=::|##|([-+~^@])\2\2|<[0-9]+>|section_(?:start|end):|travis_)", re.MULTILINE | re.IGNORECASE
)
"""Where a line begins like a command: `::` of GitHub Actions, three of one mark in Buildkite and buildbot, a level of
the systemd journal, sections of GitLab and Travis."""


def clean(text: str) -> str:
    """The text without characters that steer a terminal: what files and services say must not."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if char in _SHOWN or unicodedata.category(char) not in _UNSEEN else "\N{REPLACEMENT CHARACTER}"
        for char in text
    )


def inert(text: str) -> str:
    """The text for people and for the logs of CI systems: clean, and no part of it is a command to one of them.

    A backslash stands in what would be one.
    """
    return _BEGINNING.sub(r"\1\\", _MARKER.sub(r"#\\#", clean(text)))


def say(text: str = "", *, err: bool = False) -> None:
    """Prints a line for people."""
    _write(inert(text), err=err)


def tell(text: str) -> None:
    """Prints a message on standard error: in lines that fit on a terminal, elsewhere as it is, for logs."""
    if sys.stderr.isatty():
        text = "\n".join(wrapped(line, hanging="  ") for line in text.split("\n"))
    say(text, err=True)


def annotate(command: str) -> None:
    """Prints a line that is meant as a command to a CI system."""
    _write(clean(command), err=False)


def give(value: Json, *, err: bool = False, indent: int | None = 2) -> None:
    """Prints a value for programs, as JSON that any encoding of the stream can hold."""
    encoding = (sys.stderr if err else sys.stdout).encoding or "utf-8"
    text = as_json(value, indent=indent)
    _write(text if encoding.lower().replace("-", "") == "utf8" else _NOT_ASCII.sub(_escape, text), err=err)


_NOT_ASCII = re.compile(r"[^\x00-\x7e]")


def as_json(value: Json, *, indent: int | None = 2) -> str:
    """JSON that means exactly the value, and has neither characters that steer a terminal nor commands of CI systems.

    What would be one is written as an escape; so are the lone surrogates that stand for bytes in names of files.
    """
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    text = _MARKER.sub(r"\\u0023#", text)
    return _NOT_ASCII.sub(lambda found: _escape(found) if unicodedata.category(found[0]) in _UNSEEN else found[0], text)


def _escape(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


def _write(text: str, *, err: bool) -> None:
    stream = sys.stderr if err else sys.stdout
    stream.write(f"{text}\n")
    stream.flush()


def width() -> int:
    """Columns to write in: the terminal's, from 40 to 100; 80 where there is none."""
    return min(max(shutil.get_terminal_size((80, 24)).columns, 40), 100)


def wrapped(text: str, *, indent: str = "", hanging: str | None = None) -> str:
    """The text in lines that fit."""
    return textwrap.fill(
        clean(text), width(), initial_indent=indent, subsequent_indent=indent if hanging is None else hanging,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def usd(micro: int) -> str:
    """Money: at least cents, more digits only where there are any."""
    text = f"{micro / 1_000_000:.6f}".rstrip("0")
    whole, _, digits = text.partition(".")
    return f"{int(whole):,}.{digits.ljust(2, '0')} USD"


def number(count: int, one: str, many: str = "") -> str:
    """`1 task`, `1,200 tasks`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def size(count: int) -> str:
    """Bytes in the unit that fits."""
    value = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 20 s`, `2 h 5 min`, `3 d 2 h`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def short(path: Path | str) -> str:
    """A path as short as it can be typed from here; a URL as it is."""
    if isinstance(path, str):
        return path
    try:
        relative = os.path.relpath(path)
    except OSError:
        # The current folder was deleted.
        return str(path)
    return relative if len(relative) <= len(str(path)) and not relative.startswith("../../..") else str(path)


def flagged_advice(path: str) -> str:
    """What to do about results that are not what was requested; `path` is the job as it is given to commands."""
    accept, retry = f"seedream-batch resolve {path} --accept", f"seedream-batch retry {path} --flagged"
    return f"`{accept}` accepts flagged results as they are, `{retry}` pays for new ones."
