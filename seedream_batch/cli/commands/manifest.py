"""`seedream-batch manifest`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from seedream_batch.model.locations import Place

_EPILOG = """\b
Examples:
  seedream-batch manifest copy out/foxes/manifest.db postgresql://db.example.com/images
  seedream-batch manifest copy "postgresql://db.example.com/images?schema=seedream_foxes" out/foxes/manifest.db

FROM and TO are files, or schemas in PostgreSQL databases; without ?schema= it is that of the job. What is in flight is
collected from TO, and what is planned is bought from there. FROM stays, is marked, and no run uses it any more. A copy
that was cut off is begun again with the same line. Images stay where they are."""


@click.group("manifest")
def command() -> None:
    """Move the manifest of a job to a database, or back."""


@command.command("copy", epilog=_EPILOG)
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
def copy(source: str, target: str) -> int:
    """Copy the manifest FROM into TO, which is used from then on."""
    from seedream_batch.cli.job_target import shown
    from seedream_batch.cli.output.console import number, say
    from seedream_batch.errors import UsageError
    from seedream_batch.manifest import ManifestReader
    from seedream_batch.manifest.copy import copy_manifest
    from seedream_batch.manifest.db.open import exists

    old = _place(source, "")
    if not exists(old):
        raise UsageError(f"there is no manifest {shown(old)}")
    with ManifestReader(old) as reader:
        job = reader.facts.get("job")
    new = _place(target, job)
    say(f"{number(copy_manifest(old, new), 'task')} copied to {shown(new)}")
    return 0


def _place(text: str, job: str) -> Place:
    """Parse the location of a manifest; its schema is named after the job, unless the URL names one."""
    from pathlib import Path

    from seedream_batch.errors import UsageError, translate_os_errors
    from seedream_batch.jobfile.postgres_url import names_schema, server

    if "://" not in text:
        path = Path(text)
        # SQLite would wait forever for the other end of a pipe.
        with translate_os_errors(path):
            if path.exists() and not path.is_file():
                raise UsageError(f"{path} is no ordinary file; name that of a manifest")
        return path
    try:
        if not job and not names_schema(text):
            raise UsageError("the URL of FROM has to name the schema: ?schema=NAME")
        return server(text, job)
    except ValueError as error:
        raise UsageError(f"that is no address of a manifest: {error}") from None
