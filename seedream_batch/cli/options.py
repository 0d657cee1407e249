"""Options that several verbs have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

JOB: _Decorator = click.argument("job", metavar="JOB", type=click.Path())

MAX_TASKS: _Decorator = click.option(
    "--max-tasks",
    type=click.IntRange(min=1),
    default=1_000_000,
    show_default=True,
    metavar="N",
    help="Refuse a job that expands to more tasks.",
)

EMULATE: _Decorator = click.option(
    "--emulate",
    is_flag=True,
    help="Use the emulator that comes with this program: no key, no network, no cost. Its images go to a folder of "
    "their own, beside the real one.",
)


SELECT: _Decorator = click.option(
    "--select",
    multiple=True,
    metavar="AXIS=VALUE",
    help="Only tasks with this axis value; several after commas, further axes with further --select.",
)


class Duration(click.ParamType[float]):
    """`90s`, `50m`, `1h30m`, or a number of seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        from seedream_batch.load.units import seconds

        if isinstance(value, float):
            return value
        try:
            return seconds(float(value) if str(value).replace(".", "", 1).isdecimal() else value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
