"""The text of `seedream-batch --help`, without slow imports."""

from __future__ import annotations

COMMANDS = {
    "validate": "Check job files and report all errors.",
    "plan": "Show what a run would do, why, and what it would cost.",
    "run": "Generate the missing images of a job.",
    "status": "Show the progress, failures and costs of a job.",
    "verify": "Check stored images and download missing ones again.",
    "retry": "Queue failed, missing or rejected images for the next run.",
    "resolve": "Decide about uncertain tasks, which may have been charged.",
    "prune": "Delete stored images that are no longer in a job.",
    "report": "Write an HTML gallery to search, compare and choose images.",
    "export": "Export images as imagefolder, webdataset, parquet, csv or jsonl.",
    "manifest": "Move a job's manifest between SQLite and PostgreSQL.",
    "balance": "Show the account balance; checks the API key.",
    "init": "Write a commented job file to start from.",
    "schema": "Print a JSON Schema for editors and other tools.",
    "completion": "Print a completion script for bash, zsh or fish.",
    "emulator": "Emulate the image service on this machine, with faults on demand.",
}
"""The commands and their one-line descriptions."""

_TEXT = """\
Usage: seedream-batch [OPTIONS] COMMAND [ARGS]...

  Generate thousands of images from job files. Interrupted runs resume, images
  are verified, and nothing is charged twice without your consent.

Options:
  --version   Show the version and exit.
  -h, --help  Show this message and exit.

Commands:
{verbs}

  Example:
    seedream-batch run jobs/quickstart.yaml --emulate

  `seedream-batch COMMAND --help` shows examples of each command."""


def text() -> str:
    """Return the output of `seedream-batch --help`, for 80 columns."""
    longest = max(map(len, COMMANDS))
    return _TEXT.format(verbs="\n".join(f"  {verb:<{longest}}  {does}" for verb, does in COMMANDS.items()))
