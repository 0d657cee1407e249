"""A status that is shown again and again, until the run has ended."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from seedream_batch.cli.output.text import inert, say
from seedream_batch.cli.streams import abandoned

if TYPE_CHECKING:
    from seedream_batch.report import Status

_HOME, _CLEAR, _REST_OF_LINE, _REST = "\x1b[H", "\x1b[2J", "\x1b[K", "\x1b[J"


def watch(
    read: Callable[[], Status], *, lines: Callable[[Status], list[str]], line: Callable[[Status], str], seconds: float
) -> None:
    """Shows the status every so many seconds while a run is going, then once more; Ctrl-C ends it, too.

    A terminal is drawn anew with the `lines`; elsewhere one `line` follows the other.
    """
    terminal = sys.stdout.isatty()
    try:
        if terminal:
            click.echo(_HOME + _CLEAR, nl=False)
        while True:
            status = read()
            if terminal:
                _draw(lines(status), whole=not status.running)
            else:
                say(line(status))
            if not status.running or abandoned():
                return
            time.sleep(seconds)
    except KeyboardInterrupt:
        say()


def _draw(lines: list[str], *, whole: bool) -> None:
    """Draws over what is there. While a run goes only what fits: more would scroll the top of it away."""
    rows = shutil.get_terminal_size((80, 24)).lines - 1
    shown = lines if whole or len(lines) <= rows else [*lines[: rows - 1], "  ..."]
    click.echo(_HOME + "".join(f"{inert(one)}{_REST_OF_LINE}\n" for one in shown) + _REST, nl=False)
