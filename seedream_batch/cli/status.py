"""`seedream-batch status`."""

from __future__ import annotations

import json

import click

from seedream_batch.cli.options import EMULATE, JOB

_EPILOG = """\b
Examples:
  seedream-batch status jobs/quickstart.yaml
  seedream-batch status jobs/quickstart.yaml --json | jq .tasks

Works beside a run that is going. Asks the service nothing, needs no key."""


@click.command("status", epilog=_EPILOG)
@JOB
@EMULATE
@click.option("--json", "as_json", is_flag=True, help="The status as JSON.")
def command(job: str, emulate: bool, as_json: bool) -> int:  # noqa: FBT001
    """Show what is stored, in flight, failed or uncertain, what it cost, and what expires."""
    from seedream_batch.cli.show import show_status
    from seedream_batch.cli.target import existing, load, manifest_of
    from seedream_batch.cli.words import say
    from seedream_batch.errors import UsageError
    from seedream_batch.manifest.lock import is_locked
    from seedream_batch.report import read_status
    from seedream_batch.report.status import status_json

    loaded = load(job, emulate=emulate, max_tasks=2**63)
    if emulate:
        manifest = manifest_of(loaded.job)
        fallen_back = False
        if not manifest.exists():
            raise UsageError(f"{job} was never run with --emulate: there is no {manifest}")
    else:
        _, manifest, fallen_back = existing(loaded.job, job)
    status = read_status(manifest, running=is_locked(manifest.parent))
    if as_json:
        say(json.dumps(status_json(status), ensure_ascii=False, indent=2))
    else:
        show_status(status, f"{job} --emulate" if emulate or fallen_back else job, emulated=fallen_back)
    return 0
