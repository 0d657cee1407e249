"""`seedream-batch init`."""

from __future__ import annotations

from pathlib import Path

import click

from seedream_batch.errors import StorageError, UsageError

_EPILOG = """\b
Example:
  seedream-batch init jobs/postcards.yaml

Asks nothing, and never overwrites a file."""

_TEMPLATE = """\
# yaml-language-server: $schema={schema}
#
# Check it:    seedream-batch validate {path}
# Preview it:  seedream-batch plan {path}
# Rehearse it: seedream-batch run {path} --emulate     (no key, no cost)
# Run it:      seedream-batch run {path}               (APIMART_API_KEY has the key)
version: 1

# Every combination of these values is one picture.
matrix:
  subject:
    - {{id: panda, text: a panda playing in a bamboo forest}}
    - {{id: fox, text: a fox asleep in the snow}}
    # or from a file beside this one, a row for each subject: subject: {{file: subjects.csv}}
  size: [1:1, 16:9]            # 1:1 4:3 3:4 16:9 9:16 3:2 2:3 21:9 9:21
  resolution: [2K]             # 2K 4K

vars:
  style: watercolour, soft morning light

request:
  prompt: "{{{{ subject.text }}}}, {{{{ style }}}}"
  watermark: false

output:
  dir: {folder}
  path: "{{{{ subject.id }}}}/{{{{ size }}}}-{{{{ resolution }}}}"

# A run never spends more than this.
budget:
  max_images: 100
  max_cost_usd: 5
  price_per_image_usd: 0.035
"""


@click.command("init", epilog=_EPILOG)
@click.argument("path", metavar="[FILE]", default="job.yaml", type=click.Path(path_type=Path))
def command(path: Path) -> int:
    """Write a commented job file to start from, and its schema beside it for editors.

    FILE is job.yaml if it is not given.
    """
    from seedream_batch.cli.words import say
    from seedream_batch.validate import schema_text

    if path.suffix not in {".yaml", ".yml"}:
        raise UsageError(f"{path} has to end in .yaml")
    if path.exists():
        raise UsageError(f"{path} exists already; nothing was changed")
    schema = path.with_name("job.schema.json")
    text = _TEMPLATE.format(schema=schema.name, path=path, folder=f"out/{path.stem}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
        if not schema.exists():
            schema.write_text(schema_text("job"), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{error.filename or path}: {error.strerror or error}") from error
    say(f"wrote {path}, and {schema} for your editor")
    say(f"next: seedream-batch plan {path}")
    return 0
