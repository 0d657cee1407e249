"""`seedream-batch status`."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from seedream_batch.cli.options import EMULATE, JOB, MANIFEST
from seedream_batch.cli.output.console import coloured, give, inert, say
from seedream_batch.cli.streams import abandoned
from seedream_batch.errors import UsageError

if TYPE_CHECKING:
    from seedream_batch.report.status import Status

_EPILOG = """\b
Examples:
  seedream-batch status jobs/quickstart.yaml
  seedream-batch status jobs/quickstart.yaml --watch
  seedream-batch status jobs/quickstart.yaml --json | jq .tasks

Works during a run, offline and without a key.

--watch updates the status until the run ends or you press Ctrl-C: in place on a terminal, elsewhere in one line each.
`seedream-batch schema status` describes the JSON."""


class _Seconds(click.ParamType[float]):
    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Convert to seconds, from 0.1 to a day."""
        try:
            seconds = float(value)
        except ValueError:
            # Whatever follows the option is taken as its value, and usually that is the job.
            self.fail(f"{value!r} is not a number of seconds; put JOB first, or write --watch=2", param, ctx)
        if not 0.1 <= seconds <= 86_400:
            self.fail(f"{value} is out of range: 0.1 to 86,400 seconds", param, ctx)
        return seconds


@click.command("status", epilog=_EPILOG)
@JOB
@EMULATE
@MANIFEST
@click.option(
    "--watch", "every", type=_Seconds(), is_flag=False, flag_value=2.0, metavar="[SECONDS]",
    help="Update the status every SECONDS (default 2) until the run ends.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the status as JSON.")
def command(job: str, emulate: bool, manifest: str | None, every: float | None, as_json: bool) -> int:
    """Show the progress, failures, uncertain tasks and costs of JOB."""
    from seedream_batch.cli.job_target import existing, named
    from seedream_batch.cli.output.status_view import progress_line, status_lines
    from seedream_batch.manifest.run_lock import is_locked
    from seedream_batch.report.status import read_status, status_json

    if as_json and every is not None:
        raise UsageError("use --json or --watch, not both; to poll, run `status --json` repeatedly")
    loaded, fallen_back = existing(job, emulate=emulate, manifest=manifest)
    target = loaded.job
    path = named(job, emulate=emulate or fallen_back, manifest=manifest)
    axes = [axis.name for axis in target.axes]

    def read() -> Status:
        running = is_locked(target.manifest)
        return read_status(target.manifest, target.pictures, axes=axes, running=running, now=time.time())

    def lines(status: Status) -> list[str]:
        return status_lines(status, path, emulated=fallen_back, now=time.time())

    if every is not None:
        _watch(read, lines=lines, line=lambda status: progress_line(status, time.time()), seconds=every)
    elif as_json:
        give(status_json(read()))
    else:
        say("\n".join(lines(read())))
    return 0


_HOME, _CLEAR, _REST_OF_LINE, _REST = "\x1b[H", "\x1b[2J", "\x1b[K", "\x1b[J"


def _watch(
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
    text = coloured(inert("\n".join(shown)), err=False).replace("\n", f"{_REST_OF_LINE}\n")
    click.echo(f"{_HOME}{text}{_REST_OF_LINE}\n{_REST}", nl=False)
