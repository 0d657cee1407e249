"""`seedream-batch manifest`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from seedream_batch.cli.output.console import number, say
from seedream_batch.errors import UsageError, translate_os_errors

if TYPE_CHECKING:
    from seedream_batch.model.locations import Place

_EPILOG = """\b
Examples:
  seedream-batch manifest copy out/foxes/manifest.db postgresql://db.example.com/images
  seedream-batch manifest copy "postgresql://db.example.com/images?schema=seedream_foxes" out/foxes/manifest.db

FROM and TO are files or schemas in PostgreSQL databases; for TO, ?schema= defaults to a schema named after the job.
From then on, runs use TO. FROM is kept, but marked as moved, and runs refuse to use it. To resume an interrupted copy,
repeat the command. Images stay where they are."""


@click.group("manifest")
def command() -> None:
    """Move a job's manifest between SQLite and PostgreSQL."""


@command.command("copy", epilog=_EPILOG)
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
def copy(source: str, target: str) -> int:
    """Copy the manifest FROM to TO, which is used from then on."""
    from seedream_batch.cli.job_target import shown
    from seedream_batch.manifest import ManifestReader
    from seedream_batch.manifest.copy import copy_manifest
    from seedream_batch.manifest.db.open import exists

    old = _place(source, "")
    if not exists(old):
        raise UsageError(f"no manifest found at {shown(old)}")
    with ManifestReader(old) as reader:
        job = reader.facts.get("job")
    new = _place(target, job)
    say(f"{number(copy_manifest(old, new), 'task')} copied to {shown(new)}")
    return 0


def _place(text: str, job: str) -> Place:
    """Parse the location of a manifest; its schema is named after the job, unless the URL names one."""
    from pathlib import Path

    from seedream_batch.jobfile.addresses import names_schema, server

    if "://" not in text:
        path = Path(text)
        # SQLite would wait forever for the other end of a pipe.
        with translate_os_errors(path):
            if path.exists() and not path.is_file():
                raise UsageError(f"{path} is not a regular file; name a manifest")
        return path
    try:
        if not job and not names_schema(text):
            raise UsageError("the URL of FROM must name the schema: add ?schema=NAME")
        return server(text, job)
    except ValueError as error:
        raise UsageError(f"not a manifest URL: {error}") from None
