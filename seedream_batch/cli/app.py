"""The `seedream-batch` command: its verbs, and the one place where errors become exit codes."""

from __future__ import annotations

import sys
from typing import Any

import click

from seedream_batch import __version__
from seedream_batch.cli.imports import importing
from seedream_batch.cli.overview import VERBS, text
from seedream_batch.errors import InvalidJob, SeedreamBatchError


class _Verbs(click.Group):
    """A group whose verbs are imported when they are used: the help of one needs nothing of the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in VERBS:
            return None
        if cmd_name == "emulator":
            from seedream_batch.emulator.command import command as emulator

            return emulator
        from importlib import import_module

        with importing():
            return import_module(f"seedream_batch.cli.{cmd_name}").command  # type: ignore[no-any-return]

    def get_help(self, ctx: click.Context) -> str:
        del ctx
        return text()

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        # A shell that asks how a line goes on is no place for a message.
        if name not in VERBS and not name.startswith("-") and not ctx.resilient_parsing:
            from seedream_batch.cli.words import wrapped
            from seedream_batch.validate import did_you_mean

            near = did_you_mean(name, VERBS)
            more = f"Did you mean `{near}`?" if near else f"There is {', '.join(VERBS)}."
            # Behind the word with which click begins.
            ctx.fail(
                wrapped(f"There is no command `{name}`. {more}", indent=" " * len("Error: "), hanging="  ").lstrip()
            )
        return super().resolve_command(ctx, args)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="seedream-batch")
def cli() -> None:
    """Make images from job files."""


def main(args: list[str] | None = None) -> None:
    """Runs the command line and leaves with its exit code. Every error becomes a sentence here, and only here."""
    try:
        code: Any = cli.main(args=args, prog_name="seedream-batch", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = 2
    except (KeyboardInterrupt, click.exceptions.Abort):
        click.echo("interrupted", err=True)
        code = 130
    except SeedreamBatchError as error:
        code = _told(error)
    except BrokenPipeError:
        # The reader of a pipe went away (`| head`): nobody is left to tell.
        sys.stderr.close()
        code = 0
    except Exception:  # noqa: BLE001 - a bug: say so, with what is needed to mend it
        import traceback

        traceback.print_exc()
        click.echo(
            f"\nThis is a bug in seedream-batch {__version__}. Please report it, with the lines above, to those you"
            " have it from.",
            err=True,
        )
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _told(error: SeedreamBatchError) -> int:
    from seedream_batch.cli.exits import of_error
    from seedream_batch.cli.show import show_problems
    from seedream_batch.cli.words import number, say, tell

    if isinstance(error, InvalidJob):
        show_problems(error.problems)
        say(number(len(error.problems), "problem"), err=True)
    else:
        tell(f"seedream-batch: {error}")
    return int(of_error(error))
