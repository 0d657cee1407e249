"""The text of `seedream-batch --help`, without slow imports."""

from __future__ import annotations

COMMANDS = {
    "validate": "Check job files; say everything that is wrong with them.",
    "plan": "Show what a run would do, and why; changes nothing.",
    "run": "Make every image that a job asks for and that is not there yet.",
    "status": "Show what is stored, in flight, failed, and what it cost.",
    "verify": "Check stored images against the manifest; fetch what is not there.",
    "retry": "Plan failed and lost tasks again, or missing and rejected images.",
    "resolve": "Decide about tasks that were perhaps made and paid for.",
    "prune": "Delete the images that a job no longer asks for.",
    "report": "Write a page that shows all images: to look, compare, choose.",
    "export": "Make a dataset: imagefolder, webdataset, parquet, csv or jsonl.",
    "manifest": "Move the manifest of a job to a database, or back.",
    "balance": "Show what the account has left; checks the API key.",
    "init": "Write a commented job file to start from.",
    "schema": "Print a JSON Schema, for editors and other tools.",
    "completion": "Print what lets bash, zsh or fish complete what you type.",
    "emulator": "Play the image service on this machine, with faults on demand.",
}
"""The commands and their one-line descriptions."""

_TEXT = """\
Usage: seedream-batch [OPTIONS] COMMAND [ARGS]...

  Make images by the thousand from job files: resumable, checked, and paid for
  once.

Options:
  --version   Show the version and exit.
  -h, --help  Show this message and exit.

Commands:
{verbs}

  Example:
    seedream-batch run jobs/quickstart.yaml --emulate

  `seedream-batch COMMAND --help` has an example of each command."""


def text() -> str:
    """Return the output of `seedream-batch --help`, for 80 columns."""
    longest = max(map(len, COMMANDS))
    return _TEXT.format(verbs="\n".join(f"  {verb:<{longest}}  {does}" for verb, does in COMMANDS.items()))
