"""`seedream-batch init`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import click

from seedream_batch.cli.options import OutputPath
from seedream_batch.cli.output.console import say
from seedream_batch.errors import StorageError, UsageError

_EPILOG = """\b
Example:
  seedream-batch init jobs/postcards.yaml

Never overwrites a file."""

_TEMPLATE = """\
# yaml-language-server: $schema={schema}
#
# A job for seedream-batch: 2 subjects x 2 sizes x 1 resolution = 4 images, about 0.14 USD. Edit it, then:
#
#   seedream-batch validate {path}
#       reports all errors, with their lines
#   seedream-batch plan {path}
#       shows what a run would generate, and for how much
#   seedream-batch run {path} --emulate
#       rehearses it with placeholder images: no key, no network, no cost
#   seedream-batch run {path}
#       generates the images: needs APIMART_API_KEY, costs money
#
# The first line is for editors with a YAML language server: they complete and explain keys, and mark errors.
version: 1

# Every combination of these values is one image.
matrix:
  # A value is a text, a number or a mapping, as here: `id` is for plans and file names, `text` for the prompt.
  # To read the subjects from a table next to this file, with the columns id and text:
  #   subject: {{file: subjects.csv}}
  subject:
    - {{id: panda, text: a panda playing in a bamboo forest}}
    - {{id: fox, text: a fox asleep in the snow}}
  size: [1:1, 16:9]     # 1:1 4:3 3:4 16:9 9:16 3:2 2:3 21:9 9:21; no quotes needed
  resolution: [2K]      # 2K 4K

# Words that all prompts share. If you change them, the next run regenerates every image.
vars:
  style: watercolour, soft morning light

# The request to the service. Each text is a template that can use the axes and the vars by name.
request:
  prompt: "{{{{ subject.text }}}}, {{{{ style }}}}"
  watermark: false

# Where the images go. The manifest.db in this folder records what is paid for: keep it, but not in git.
output:
  dir: {folder}    # relative to this file
  path: "{{{{ subject.id }}}}/{{{{ size }}}}-{{{{ resolution }}}}"    # 16:9 becomes 16-9; the extension is added

# Hard limits for all runs of this job together.
budget:
  max_images: 100
  max_cost_usd: 5
  price_per_image_usd: 0.035    # an estimate, until real costs are known
"""


@click.command("init", epilog=_EPILOG)
@click.argument("path", metavar="[FILE]", default="job.yaml", type=OutputPath(path_type=Path))
def command(path: Path) -> int:
    """Write a commented job file to start from, and its schema next to it for editors.

    FILE defaults to job.yaml.
    """
    from seedream_batch.validate.schemas import schema_text

    if path.suffix not in {".yaml", ".yml"}:
        raise UsageError(f"{path} must end in .yaml")
    if not str(path).isprintable():
        raise UsageError(f"{path} contains an unprintable character; choose another name")
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}; choose another name") from error
    else:
        raise UsageError(f"{path} already exists; nothing was changed")
    schema = path.with_name("job.schema.json")
    quoted = shlex.quote(str(path))
    # A name may contain a colon, a quote or a backslash; a JSON string is valid YAML.
    folder = json.dumps(f"out/{path.stem}", ensure_ascii=False)
    text = _TEMPLATE.format(schema=schema.name, path=quoted, folder=folder)
    known = schema_text("job")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
        if not schema.exists():
            schema.write_text(known, encoding="utf-8")
            beside = f"and {schema} for your editor"
        elif schema.read_bytes() == known.encode():
            beside = f"next to {schema} for your editor"
        else:
            beside = f"next to {schema}, which is from another version: `seedream-batch schema` prints the current one"
    except OSError as error:
        raise StorageError(f"{error.filename or path}: {error.strerror or error}") from error
    say(f"wrote {path}, {beside}")
    say(f"next: seedream-batch plan {quoted}")
    return 0
