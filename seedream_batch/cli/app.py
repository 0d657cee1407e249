"""The `seedream-batch` command: its verbs, and the one place where errors become exit codes."""

from __future__ import annotations

import sys
import traceback
from typing import Any

import click

from seedream_batch import __version__
from seedream_batch.errors import InvalidJob, SeedreamBatchError

_VERBS = {
    "validate": "Check job files; say everything that is wrong with them.",
    "plan": "Show what a run would do, and why; changes nothing.",
    "run": "Make every image that a job asks for and that is not there yet.",
    "status": "Show what is stored, in flight, failed, and what it cost.",
    "verify": "Check stored images against the manifest; fetch what is not there.",
    "retry": "Plan failed and lost tasks again, or those whose images are missing.",
    "resolve": "Decide about tasks that were perhaps made and paid for.",
    "prune": "Delete the images that a job no longer asks for.",
    "balance": "Show what the account has left; checks the API key.",
    "init": "Write a commented job file to start from.",
    "schema": "Print a JSON Schema, for editors and other tools.",
    "emulator": "Play the image service on this machine, with faults on demand.",
}
"""The verbs and what they do, so that `--help` loads none of them."""


class _Verbs(click.Group):
    """A group whose verbs are imported when they are used: the help of one needs nothing of the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _VERBS:
            return None
        if cmd_name == "emulator":
            from seedream_batch.emulator.command import command as emulator

            return emulator
        from importlib import import_module

        return import_module(f"seedream_batch.cli.{cmd_name}").command  # type: ignore[no-any-return]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(_VERBS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in _VERBS and not name.startswith("-"):
            from seedream_batch.validate import did_you_mean

            near = did_you_mean(name, _VERBS)
            more = f" Did you mean `{near}`?" if near else f" There is {', '.join(_VERBS)}."
            ctx.fail(f"There is no command `{name}`.{more}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Example:
  seedream-batch run jobs/quickstart.yaml --emulate

`seedream-batch COMMAND --help` has an example of each command.""",
)
@click.version_option(__version__, prog_name="seedream-batch")
def cli() -> None:
    """Make images by the thousand from job files: resumable, checked, and paid for once."""


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
    from seedream_batch.cli.words import number, say

    if isinstance(error, InvalidJob):
        show_problems(error.problems)
        say(number(len(error.problems), "problem"), err=True)
    else:
        say(f"seedream-batch: {error}", err=True)
    return int(of_error(error))
