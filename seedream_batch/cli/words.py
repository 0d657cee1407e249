"""Numbers, sizes and text for people, safe for any terminal."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import unicodedata
from pathlib import Path

import click


def clean(text: str) -> str:
    """The text without control characters: what files and services say must not steer a terminal."""
    return "".join(
        char
        if char == "\n" or unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}
        else "\N{REPLACEMENT CHARACTER}"
        for char in text
    )


def say(text: str = "", *, err: bool = False) -> None:
    """Prints a line."""
    click.echo(clean(text), err=err)


def tell(text: str) -> None:
    """Prints a message on standard error: in lines that fit on a terminal, elsewhere as it is, for logs."""
    if sys.stderr.isatty():
        text = "\n".join(wrapped(line, hanging="  ") for line in text.split("\n"))
    say(text, err=True)


def width() -> int:
    """Columns to write in: the terminal's, at most 100; 80 where there is none."""
    return min(shutil.get_terminal_size((80, 24)).columns, 100)


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
    relative = os.path.relpath(path)
    return relative if len(relative) <= len(str(path)) and not relative.startswith("../../..") else str(path)
