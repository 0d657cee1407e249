"""`seedream-batch schema`."""

from __future__ import annotations

import click

_EPILOG = """\b
Examples:
  seedream-batch schema > job.schema.json
  seedream-batch schema request | jq .properties.size.enum

\b
Editors find the schema by the first line of a job file:
  # yaml-language-server: $schema=job.schema.json"""


@click.command("schema", epilog=_EPILOG)
@click.argument("name", type=click.Choice(["job", "request", "summary", "status"]), default="job")
def command(name: str) -> int:
    """Print the JSON Schema of job files, API requests, run summaries or `status --json`."""
    from seedream_batch.validate.schemas import schema_text

    click.echo(schema_text(name), nl=False)
    return 0
