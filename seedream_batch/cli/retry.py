"""`seedream-batch retry`."""

from __future__ import annotations

import click

from seedream_batch.cli.options import EMULATE, JOB, SELECT

_EPILOG = """\b
Examples:
  seedream-batch retry jobs/quickstart.yaml
  seedream-batch retry jobs/quickstart.yaml --select subject=fox --select size=16:9,9:16

The next run submits them, as new attempts that are paid for as such. What moderation refused will be refused
again: change the prompt instead."""


@click.command("retry", epilog=_EPILOG)
@JOB
@SELECT
@EMULATE
def command(job: str, select: tuple[str, ...], emulate: bool) -> int:  # noqa: FBT001
    """Plan failed and lost tasks again."""
    from seedream_batch.cli.show import show_chosen
    from seedream_batch.cli.target import made
    from seedream_batch.expand.selection import selection
    from seedream_batch.run.decide import retry_tasks

    chosen = retry_tasks(made(job, emulate=emulate), selection(select))
    show_chosen(chosen, "planned again", f"`seedream-batch run {job}` submits them", "there is no failed or lost task")
    return 0
