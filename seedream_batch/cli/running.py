"""A run as the command line makes it: with a service, a key, a display, a summary and an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from seedream_batch.api.secret import ApiKey
from seedream_batch.cli.environment import api_key, origin
from seedream_batch.cli.exits import Exit, of_run
from seedream_batch.cli.progress import display
from seedream_batch.cli.show import show_result
from seedream_batch.engine.session import RunResult, run_job
from seedream_batch.engine.values import RunOptions
from seedream_batch.errors import StorageError
from seedream_batch.load import LoadedJob
from seedream_batch.model.job import Job

EMULATED = ApiKey("emulated")
"""The key for our own emulator, which takes any."""


def run(loaded: LoadedJob, path: str, *, emulate: bool, options: RunOptions, quiet: bool, log_format: str) -> int:
    """Runs the job, shows what happens and what came of it; the exit code."""
    key = EMULATED if emulate else api_key()
    result = perform(loaded, key, emulate=emulate, options=options, quiet=quiet, log_format=log_format)
    code = of_run(result)
    if not quiet or code != Exit.DONE:
        show_result(result, loaded.job, path)
    return code


def perform(
    loaded: LoadedJob, key: ApiKey, *, emulate: bool, options: RunOptions, quiet: bool, log_format: str
) -> RunResult:
    """Runs the job and shows what happens; what came of it."""
    service: AbstractContextManager[str] = _emulator(loaded.job) if emulate else nullcontext(origin())
    shown = display(quiet=quiet, log_format=log_format)
    try:
        return run_job(
            loaded.job,
            tasks=loaded.tasks(),
            references=loaded.references,
            service=service,
            key=key,
            options=options,
            emit=shown.event,
            started=shown.started,
        )
    finally:
        shown.close()


@contextmanager
def _emulator(job: Job) -> Iterator[str]:
    """The emulator, for as long as the run goes; what it knows is kept beside the images, for the next run."""
    from seedream_batch.emulator import Emulator, EmulatorConfig, LedgerError

    state = Path(job.output_dir, ".emulator")
    try:
        emulator = Emulator(EmulatorConfig(state_dir=state))
        emulator.start()
    except (LedgerError, OSError) as error:
        raise StorageError(f"the emulator cannot start: {error}") from error
    try:
        yield emulator.url
    finally:
        emulator.stop()
