"""`seedream-batch verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from seedream_batch.cli.options import EMULATE, FLAGGED, JOB, MANIFEST, SAME_ACCOUNT, SELECT
from seedream_batch.cli.output.console import give
from seedream_batch.errors import UsageError

if TYPE_CHECKING:
    from seedream_batch.client.secret import ApiKey

_EPILOG = """\b
Examples:
  seedream-batch verify jobs/quickstart.yaml
  seedream-batch verify jobs/quickstart.yaml --deep
  seedream-batch verify jobs/quickstart.yaml --select subject=fox --json | jq .not_there

Checks that each stored image exists with the right size, SHA-256 and dimensions. Missing images are downloaded again
for free, as long as the service provides links. Nothing is charged. Changed files are reported, never touched. Works
offline and without a key if nothing is missing.

Tasks that completed with too few images are polled, and images that the service added since then are downloaded.

--flagged checks only results that differ from the request. Stored images are never downloaded again, even if the
service has a different image by now.

Exit codes: 0 all images are stored, 3 some are missing, 8 some files cannot be read, 9 some results differ from the
request; others as for `run`."""


@click.command("verify", epilog=_EPILOG)
@JOB
@SELECT
@FLAGGED
@click.option("--deep", is_flag=True, help="Also decode every image.")
@EMULATE
@MANIFEST
@SAME_ACCOUNT
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing if all images are stored.")
def command(
    job: str,
    select: tuple[str, ...],
    flagged: bool,
    deep: bool,
    emulate: bool,
    manifest: str | None,
    same_account: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Check the stored images of JOB and download missing ones again."""
    from seedream_batch.cli.execute import perform
    from seedream_batch.cli.exit_codes import Exit, of_verification
    from seedream_batch.cli.job_target import made, named
    from seedream_batch.cli.output.maintenance_view import SHOWN, show_verification, verification_json
    from seedream_batch.cli.output.picks_view import chosen_results
    from seedream_batch.engine.events import RunOptions
    from seedream_batch.engine.work import Verify

    loaded = made(job, emulate=emulate, manifest=manifest)
    key, without = _key(emulate=emulate)
    options = RunOptions(
        collect=True,
        chooses=chosen_results(select, loaded.job, flagged=flagged),
        same_account=same_account,
    )
    work = Verify(deep=deep, asks=not without, named=None if as_json else SHOWN)
    result = perform(loaded, key, work=work, emulate=emulate, options=options, quiet=quiet or as_json)
    code = of_verification(result)
    if as_json:
        give(verification_json(result, loaded.job))
    elif not quiet or code != Exit.DONE:
        show_verification(result, loaded.job, named(job, emulate=emulate, manifest=manifest), without)
    return code


def _key(*, emulate: bool) -> tuple[ApiKey, str]:
    """Return the API key, or an unused placeholder and why there is no key: then the service is not asked."""
    from seedream_batch.cli.execute import EMULATED
    from seedream_batch.client.secret import ApiKey
    from seedream_batch.environment import api_key

    if emulate:
        return EMULATED, ""
    try:
        return api_key(), ""
    except UsageError as error:
        return ApiKey("none"), str(error)
