"""`seedream-batch completion`."""

from __future__ import annotations

import click

_EPILOG = """\b
Examples:
  eval "$(seedream-batch completion bash)"      (in ~/.bashrc)
  eval "$(seedream-batch completion zsh)"       (in ~/.zshrc, after compinit)
  seedream-batch completion fish > ~/.config/fish/completions/seedream-batch.fish

Completes commands, options, option values and job file names."""


@click.command("completion", epilog=_EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> int:
    """Print a completion script for a shell."""
    from click.shell_completion import BashComplete, FishComplete, ZshComplete

    from seedream_batch.cli.app import cli

    classes = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
    # Click reads this variable by default.
    script = classes[shell](cli, {}, "seedream-batch", "_SEEDREAM_BATCH_COMPLETE").source()
    click.echo(script, nl=False)
    return 0
