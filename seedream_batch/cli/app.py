"""The `seedream-batch` command: its subcommands, and the one place where errors become exit codes."""

from __future__ import annotations

import errno
import io
import logging
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import click

from seedream_batch._version import __version__
from seedream_batch.cli.help_text import COMMANDS, text
from seedream_batch.cli.lazy_imports import importing
from seedream_batch.cli.output.console import number, say, tell, wrapped
from seedream_batch.errors import InvalidJob, SeedreamBatchError

_ACTING = ("retry", "resolve", "report", "export", "init", "manifest")
"""Commands that change something: what they print is a log."""


class _Commands(click.Group):
    """A group whose commands are imported when they are used: the help of one needs nothing of the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        if cmd_name == "emulator":
            from seedream_batch.emulator.command import command as emulator

            return emulator
        from importlib import import_module

        with importing():
            return import_module(f"seedream_batch.cli.commands.{cmd_name}").command  # type: ignore[no-any-return]

    def get_help(self, ctx: click.Context) -> str:
        del ctx
        return text()

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        # No message while a shell asks for completions.
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            from seedream_batch.validate.hints import did_you_mean

            near = did_you_mean(name, COMMANDS)
            more = f"Did you mean `{near}`?" if near else f"Commands: {', '.join(COMMANDS)}."
            # Follows the "Error: " that click prints.
            ctx.fail(wrapped(f"No such command `{name}`. {more}", indent=" " * len("Error: "), hanging="  ").lstrip())
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="seedream-batch")
def cli() -> None:
    """Generate images from job files."""


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit with its code. Errors become messages here, and only here."""
    # Log messages of libraries may contain parts of answers and URLs.
    logging.lastResort = _Log(logging.WARNING)
    try:
        code: Any = cli.main(args=args, prog_name="seedream-batch", standalone_mode=False)
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(file=shown)
        say(shown.getvalue().rstrip("\n"), err=True)
        code = 2
    except (KeyboardInterrupt, click.exceptions.Abort) as error:
        if isinstance(error.__cause__, EOFError):
            # click takes any EOFError for the end of a person's input, and no command reads any.
            code = _unexpected(error.__cause__)
        else:
            say("interrupted", err=True)
            code = 130
    except SeedreamBatchError as error:
        code = _report_error(error)
    except Exception as error:  # noqa: BLE001 - a bug: say so, with what is needed to correct it
        code = _unexpected(error)
    code = code if isinstance(code, int) else 0
    sys.exit(code or _unwritten_code(sys.argv[1:] if args is None else args))


def _unwritten_code(args: Sequence[str]) -> int:
    """Return the exit code of a command that succeeded: 8 if what it was asked to print could not be written.

    What the commands in `_ACTING` print is only a log of what they did, unless it is JSON.
    """
    from seedream_batch.cli.streams import unwritten

    lacking = unwritten()
    if not lacking or args[:1] == ["run"]:
        return 0
    say(f"seedream-batch: cannot write to standard output: {lacking}", err=True)
    return 0 if args[0] in _ACTING and "--json" not in args else 8


class _Log(logging.Handler):
    """Prints log messages of libraries to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        # A refusal by the system is not a bug, so its traceback is useless.
        message = f"{record.getMessage()}: {error}" if isinstance(error, OSError) else self.format(record)
        say(_without_secrets(message), err=True)


_OF_THE_MACHINE = {
    errno.EMFILE: "too many open files; raise the limit (ulimit -n) or lower run.max_in_flight",
    errno.ENFILE: "too many open files on this machine; close some programs and try again",
    errno.ENOMEM: "out of memory",
    errno.ENOSPC: "no space left on the device; free some space and try again",
    errno.EDQUOT: "disk quota exceeded; free some space and try again",
    errno.EIO: "the disk returned an input/output error; check the disk",
    errno.EROFS: "the file system is read-only",
    errno.EFBIG: "a file would exceed the size limit (ulimit -f)",
    errno.ESTALE: "a file on a network file system has disappeared; check the mount and try again",
}
"""System errors that no command can fix, wherever they come from."""


def _unexpected(error: Exception) -> int:
    """Report an unexpected error, a lack of system resources or a bug, and return the exit code."""
    number = error.errno if isinstance(error, OSError) else errno.ENOMEM if isinstance(error, MemoryError) else None
    message = _OF_THE_MACHINE.get(number) if number else None
    if isinstance(error, FileNotFoundError) and not _has_current_folder():
        tell("seedream-batch: the current folder was deleted; change to another folder or use absolute paths")
        return 2
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        message = "cannot start more threads; raise the limit (ulimit -u)"
    if message is not None:
        name = getattr(error, "filename", None)
        tell(f"seedream-batch: {f'{name}: ' if name else ''}{message}")
        # Half-initialised objects would print errors when they are destroyed.
        sys.unraisablehook = lambda _: None
        warnings.simplefilter("ignore")
        return 8
    import traceback

    say(_without_secrets("".join(traceback.format_exception(error))), err=True)
    tell(f"This is a bug in seedream-batch {__version__}. Please report it with the lines above.")
    return 1


def _has_current_folder() -> bool:
    import os

    try:
        os.getcwd()  # noqa: PTH109 - `Path.cwd` is the same
    except FileNotFoundError:
        return False
    return True


def _without_secrets(text: str) -> str:
    import os

    from seedream_batch.client.secret import known_secrets

    return known_secrets(os.environ).masked(text)


def _report_error(error: SeedreamBatchError) -> int:
    from seedream_batch.cli.exit_codes import of_error

    if isinstance(error, InvalidJob):
        for problem in error.problems:
            tell(str(problem))
        say(number(len(error.problems), "problem"), err=True)
    else:
        tell(f"seedream-batch: {error}")
    return int(of_error(error))
