"""A terminal for a command, and what stands in it as a drawing.

The drawing is light or dark, as whoever looks at it prefers; the colours that the command writes are readable in both.
"""

from __future__ import annotations

import fcntl
import html
import itertools
import os
import pty
import struct
import subprocess
import termios
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pyte

COLUMNS = 80

_CELL = 9
_LINE = 20
_EDGE = 16

_STYLE = """\
rect { fill: #ffffff; stroke: #d0d7de }
text { fill: #1f2328; font: 15px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; white-space: pre }
.typed { font-weight: bold }
.red { fill: #b3261e } .green { fill: #1a7f37 } .brown { fill: #8a5a00 } .cyan { fill: #0b6a85 }
@media (prefers-color-scheme: dark) {
  rect { fill: #0d1117; stroke: #3d444d } text { fill: #e6edf3 }
  .red { fill: #ff8a80 } .green { fill: #56d364 } .brown { fill: #e3b341 } .cyan { fill: #56c8e8 }
}"""


class Line(str):
    """A line of a terminal; `colours` has a name for each character, as pyte calls it, or `default`."""

    __slots__ = ("colours",)

    def __new__(cls, text: str, colours: Sequence[str] = ()) -> Self:
        line = super().__new__(cls, text)
        line.colours = [*colours[: len(text)], *["default"] * (len(text) - len(colours))]
        return line


@dataclass(frozen=True)
class Played:
    """A command that has ended: its exit code, what stands in the terminal, and what stood there before."""

    code: int
    lines: list[str]
    frames: list[list[str]]
    plain: bool
    """Whether every character has the terminal's own colours."""


def play(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    rows: int = 24,
    shown: Callable[[list[str]], None] = lambda _: None,
) -> Played:
    """Runs the command in a terminal of its own; `shown` is told each change of what stands there."""
    screen = pyte.Screen(COLUMNS, rows)
    stream = pyte.ByteStream(screen)
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, COLUMNS, 0, 0))
    process = subprocess.Popen(
        command, cwd=cwd, env={**env, "TERM": "xterm"}, stdin=terminal, stdout=terminal, stderr=terminal,
        start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    frames: list[list[str]] = []
    try:
        while data := _read(controller):
            stream.feed(data)
            lines = _lines(screen)
            if not frames or frames[-1] != lines:
                frames.append(lines)
                shown(lines)
    finally:
        os.close(controller)
    code = process.wait()
    cells = [cell for row in screen.buffer.values() for cell in row.values()]
    plain = all((cell.fg, cell.bg, cell.reverse) == ("default", "default", False) for cell in cells)
    return Played(code, _lines(screen), frames, plain)


def _read(controller: int) -> bytes:
    try:
        return os.read(controller, 65536)
    except OSError:  # nobody has the other end any more
        return b""


def _lines(screen: pyte.Screen) -> list[str]:
    lines = [
        Line(text.rstrip(), [screen.buffer[number][column].fg for column in range(COLUMNS)])
        for number, text in enumerate(screen.display)
    ]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def svg(lines: Sequence[str], title: str) -> str:
    """The lines as a picture; those that begin with `$ ` were typed."""
    width, height = COLUMNS * _CELL + 2 * _EDGE, len(lines) * _LINE + 2 * _EDGE
    texts = []
    for number, line in enumerate(lines):
        if line:
            kind = ' class="typed"' if line.startswith("$ ") else ""
            # Whatever font is found, the line is as long as in the terminal.
            long = _columns(line) * _CELL
            y = _EDGE + number * _LINE + 15
            texts.append(
                f'<text x="{_EDGE}" y="{y}" textLength="{long}" lengthAdjust="spacingAndGlyphs"{kind}>'
                f"{_marked(line)}</text>"
            )
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">',
            f"<title>{html.escape(title, quote=False)}</title>",
            f"<style>{_STYLE}</style>",
            f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>',
            *texts,
            "</svg>\n",
        )
    )


def _marked(line: str) -> str:
    colours = line.colours if isinstance(line, Line) else ["default"] * len(line)
    parts = []
    for colour, group in itertools.groupby(zip(line, colours, strict=True), key=lambda pair: pair[1]):
        text = html.escape("".join(char for char, _ in group), quote=False)
        parts.append(text if colour == "default" else f'<tspan class="{colour}">{text}</tspan>')
    return "".join(parts)


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
