"""Options shared by several commands."""

from __future__ import annotations

import glob
import os
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class OutputPath(click.Path):
    """A path to write to.

    Refuses what only a shell expands, such as `~`, because quotes and crontabs pass it on unexpanded.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from seedream_batch.files.references import shell_part

        path = os.fspath(value)
        what = shell_part(path)
        if what:
            self.fail(f"{path} contains {what}, which the shell did not expand; write the full path", param, ctx)
        if not path or any(unicodedata.category(char) in {"Cc", "Zl", "Zp"} for char in path):
            self.fail(f"{path!r} is not a valid file name", param, ctx)
        return super().convert(value, param, ctx)


class JobFile(click.Path):
    """The path of a job file; shells complete it to existing ones."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the YAML files in the folder typed so far, and in its subfolders.

        If there are none, the shell completes any file by itself.
        """
        from click.shell_completion import CompletionItem

        start = incomplete.rpartition("/")[2]
        before = incomplete.removesuffix(start)
        folder = Path(before or ".")
        try:
            paths = sorted(path for more in ("*", "*/*") for path in folder.glob(glob.escape(start) + more))
        except OSError:
            paths = []
        names = [
            before + path.relative_to(folder).as_posix()
            for path in paths
            if path.suffix in {".yaml", ".yml"} and (start or not path.relative_to(folder).as_posix().startswith("."))
        ]
        # Leave names that need quotes to the shell.
        if not names or not all(map(_PLAIN.fullmatch, names)):
            return super().shell_complete(ctx, param, incomplete)
        return [CompletionItem(name) for name in names]


_PLAIN = re.compile(r"[\w./+@-]+", re.ASCII)

JOB: _Decorator = click.argument("job", metavar="JOB", type=JobFile())

MAX_TASKS: _Decorator = click.option(
    "--max-tasks",
    type=click.IntRange(min=1),
    default=1_000_000,
    metavar="N",
    help="Refuse a job with more tasks than this.  [default: 1,000,000]",
)

EMULATE: _Decorator = click.option(
    "--emulate",
    is_flag=True,
    help="Use the built-in emulator: no key, no network, no cost. Its images go to a separate folder, the output"
    " folder with -emulated added to its name.",
)

MANIFEST: _Decorator = click.option(
    "--manifest",
    metavar="URL",
    help="PostgreSQL database (postgresql://...) of the manifest; overrides the job file.",
)

SAME_ACCOUNT: _Decorator = click.option(
    "--same-account",
    is_flag=True,
    help="Confirm that a changed API key belongs to the same account, to continue with its tasks.",
)

SELECT: _Decorator = click.option(
    "--select",
    multiple=True,
    metavar="AXIS=VALUE",
    help="Only tasks with this axis value. Separate several values with commas; repeat for other axes.",
)


FLAGGED: _Decorator = click.option(
    "--flagged", is_flag=True, help="Only cells with flagged results, which differ from the request."
)


class Count(click.IntRange):
    """A number from 0; the help does not show its limit, which only protects the manifest."""

    def __init__(self) -> None:
        super().__init__(0, 10**12)

    def _describe_range(self) -> str:
        return "x>=0"


_YEAR = 366 * 86_400.0


class Duration(click.ParamType[float]):
    """`90s`, `50m`, `1h30m`, or a number of seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from seedream_batch.jobfile.units import seconds

        if isinstance(value, float):
            return value
        try:
            result = seconds(float(value) if str(value).replace(".", "", 1).isdecimal() else value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if result > _YEAR:
            self.fail(f"{value} is more than a year", param, ctx)
        return result
