"""Numbers, sizes and text for people, safe for any terminal."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from seedream_batch.model.document import Json

_SHOWN = "\n\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
"""Invisible characters that are printed: Persian and emoji need the joiners."""
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Categories of characters that control a terminal, end a line, change direction or are invisible."""

_MARKER = re.compile(r"##(?=\w*\[)")
"""`##[`, `##vso[`, `##teamcity[`: commands of GitHub Actions, Azure Pipelines and TeamCity, anywhere in a line."""
_BEGINNING = re.compile(
    r"^([^\S\n]*)(?=::|##|([-+~^@])\2\2|<[0-9]+>|section_(?:start|end):|travis_)", re.MULTILINE | re.IGNORECASE
)
"""The start of a line that looks like a command: `::` of GitHub Actions, three equal marks in Buildkite and buildbot, a
level of the systemd journal, sections of GitLab and Travis."""


def clean(text: str) -> str:
    """Replace characters that control a terminal: text from files and services must not."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if char in _SHOWN or unicodedata.category(char) not in _UNSEEN else "\N{REPLACEMENT CHARACTER}"
        for char in text
    )


def inert(text: str) -> str:
    """Return the text safe for people and for logs of CI systems: clean, and without commands to such systems.

    A backslash breaks up anything that looks like a command.
    """
    return _BEGINNING.sub(r"\1\\", _MARKER.sub(r"#\\#", clean(text)))


_HIGHLIGHTS = re.compile(
    r"""
    (?P<red>^(?:seedream-batch|Error|failed|lost|rejected|expired|missing|[^\s:]+:\d+:\d+):|^(?:Failed|Missing)\b
      |(?:^\ \ |\b[1-9][\d,]*\ )(?:failed|lost|rejected|expired|missing)\b(?!\ +0\b))
    |(?P<yellow>^(?:warning|uncertain|flagged|retry|stopping):|^(?:Uncertain|Flagged|Unclear)\b
      |(?:^\ \ |\b[1-9][\d,]*\ )(?:uncertain|flagged)\b(?!\ +0\b))
    |(?P<green>\bfinished\ in\ [^:\n]+$|:\ valid(?=,))
    |(?P<cyan>`seedream-batch\ [^`]*`)
    """,
    re.MULTILINE | re.VERBOSE,
)
"""Problems, states with a count other than 0, success, and commands to run."""
_COLOURS = {"red": 31, "green": 32, "yellow": 33, "cyan": 36}


def coloured(text: str, *, err: bool) -> str:
    """Highlight text for people if the stream is a terminal with colours [https://no-color.org]."""
    stream = sys.stderr if err else sys.stdout
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return _HIGHLIGHTS.sub(lambda match: f"\x1b[{_COLOURS[str(match.lastgroup)]}m{match[0]}\x1b[0m", text)


def say(text: str = "", *, err: bool = False) -> None:
    """Print a line for people."""
    _write(coloured(inert(text), err=err), err=err)


def tell(text: str) -> None:
    """Print a message on standard error: wrapped on a terminal, elsewhere on one line, for logs."""
    if sys.stderr.isatty():
        text = "\n".join(wrapped(line, hanging="  ") for line in text.split("\n"))
    say(text, err=True)


def annotate(command: str) -> None:
    """Print a line that is a command to a CI system."""
    _write(clean(command), err=False)


def give(value: Json, *, err: bool = False, indent: int | None = 2) -> None:
    """Print a value for programs, as JSON that the stream's encoding can represent."""
    encoding = (sys.stderr if err else sys.stdout).encoding or "utf-8"
    text = as_json(value, indent=indent)
    _write(text if encoding.lower().replace("-", "") == "utf8" else _NOT_ASCII.sub(_escape, text), err=err)


_NOT_ASCII = re.compile(r"[^\x00-\x7e]")


def as_json(value: Json, *, indent: int | None = 2) -> str:
    """Return JSON of the value without terminal control characters and commands of CI systems.

    These are written as escapes, and so are the lone surrogates that stand for bytes in file names.
    """
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    text = _MARKER.sub(r"\\u0023#", text)
    return _NOT_ASCII.sub(lambda match: _escape(match) if unicodedata.category(match[0]) in _UNSEEN else match[0], text)


def _escape(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1]


def _write(text: str, *, err: bool) -> None:
    stream = sys.stderr if err else sys.stdout
    stream.write(f"{text}\n")
    stream.flush()


def width() -> int:
    """Return the columns to write in: the terminal's, from 40 to 100; 80 without a terminal."""
    return min(max(shutil.get_terminal_size((80, 24)).columns, 40), 100)


def wrapped(text: str, *, indent: str = "", hanging: str | None = None) -> str:
    """Wrap the text to `width()`."""
    return textwrap.fill(
        clean(text), width(), initial_indent=indent, subsequent_indent=indent if hanging is None else hanging,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def usd(micro: int) -> str:
    """Format millionths of a USD: cents, and more digits only if needed."""
    text = f"{micro / 1_000_000:.6f}".rstrip("0")
    dollars, _, digits = text.partition(".")
    return f"{int(dollars):,}.{digits.ljust(2, '0')} USD"


def number(count: int, one: str, many: str = "") -> str:
    """Format a count with its noun: `1 task`, `1,200 tasks`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def row(label: str, count: int, noun: str, more: str = "", lines: Sequence[str] = ()) -> None:
    """Print how many there are of something, with the first of them; nothing if there are none."""
    if count:
        say(f"  {label:<11}{number(count, noun)}{more}")
        if lines:
            listed(lines, count)


def listed(lines: Sequence[str], count: int) -> None:
    """Print the first lines of a list of `count`."""
    for line in lines:
        say(wrapped(line, indent="    ", hanging="      "))
    if count > len(lines):
        say(f"    and {count - len(lines):,} more")


def size(count: int) -> str:
    value = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def duration(seconds: float) -> str:
    """Format seconds as `4.2 s`, `3 min 20 s`, `2 h 5 min` or `3 d 2 h`."""
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
    """Return a path as short as it can be typed from here; a URL unchanged."""
    if isinstance(path, str):
        return path
    try:
        relative = os.path.relpath(path)
    except OSError:
        # The current folder was deleted.
        return str(path)
    return relative if len(relative) <= len(str(path)) and not relative.startswith("../../..") else str(path)


def flag_advice(path: str) -> list[str]:
    """Return lines of advice about results that differ from the request; `path` is the job as given to commands."""
    return [
        f"Accept flagged results as they are: `seedream-batch resolve {path} --accept`",
        f"Regenerate them (charged again): `seedream-batch retry {path} --flagged`",
    ]
