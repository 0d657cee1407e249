"""Shows a status repeatedly until the run has ended."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from seedream_batch.cli.output.console import inert, say
from seedream_batch.cli.streams import abandoned

if TYPE_CHECKING:
    from seedream_batch.report import Status

_HOME, _CLEAR, _REST_OF_LINE, _REST = "\x1b[H", "\x1b[2J", "\x1b[K", "\x1b[J"


def watch(
    read: Callable[[], Status], *, lines: Callable[[Status], list[str]], line: Callable[[Status], str], seconds: float
) -> None:
    """Show the status every `seconds` while a run is active, then once more; Ctrl-C ends it as well.

    A terminal is redrawn with the `lines`; elsewhere a `line` is appended each time.
    """
    terminal = sys.stdout.isatty()
    try:
        if terminal:
            click.echo(_HOME + _CLEAR, nl=False)
        while True:
            status = read()
            if terminal:
                _draw(lines(status), complete=not status.running)
            else:
                say(line(status))
            if not status.running or abandoned():
                return
            time.sleep(seconds)
    except KeyboardInterrupt:
        say()


def _draw(lines: list[str], *, complete: bool) -> None:
    """Redraw the terminal. While a run is active, cut what does not fit: it would scroll the top away."""
    rows = shutil.get_terminal_size((80, 24)).lines - 1
    shown = lines if complete or len(lines) <= rows else [*lines[: rows - 1], "  ..."]
    click.echo(_HOME + "".join(f"{inert(text)}{_REST_OF_LINE}\n" for text in shown) + _REST, nl=False)
