"""A run from the command line: with a service, a key, a display and a summary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from seedream_batch import batch
from seedream_batch.cli.exit_codes import Exit, of_state
from seedream_batch.cli.output.progress import display
from seedream_batch.cli.output.run_view import show_result
from seedream_batch.client.secret import ApiKey
from seedream_batch.engine.events import RunOptions, StopReason
from seedream_batch.engine.session import RunResult
from seedream_batch.engine.work import Generate, Work
from seedream_batch.errors import StorageError
from seedream_batch.jobfile import LoadedJob
from seedream_batch.model.job import Job

EMULATED = ApiKey("emulated")
"""The key for the emulator, which accepts any."""


def show_end(result: RunResult, job: Job, path: str, *, code: int, quiet: bool) -> None:
    """Show the result of a run; if quiet, only if something went wrong other than its time limit."""
    in_time = result.stop_reason is StopReason.TIME and of_state(result) is Exit.DONE
    if not quiet or not (code == Exit.DONE or in_time):
        show_result(result, job, path)


def perform(
    loaded: LoadedJob,
    key: ApiKey | None = None,
    *,
    work: Work | None = None,
    emulate: bool,
    options: RunOptions,
    select: Sequence[str] = (),
    quiet: bool = False,
    log_format: str = "text",
) -> RunResult:
    """Run the job and show its progress. Without a key, use that of the environment, or any for the emulator."""
    service: AbstractContextManager[str] | None = _emulator(loaded.job) if emulate else None
    if emulate and key is None:
        key = EMULATED
    shown = display(quiet=quiet, log_format=log_format)
    try:
        return batch.perform(
            loaded, work or Generate(), options, select=select, service=service, key=key, on_event=shown.event,
            on_start=shown.started, signals=True,
        )  # fmt: skip
    finally:
        shown.close()


@contextmanager
def _emulator(job: Job) -> Iterator[str]:
    """Run the emulator as long as the context; its state is stored with the images for the next run."""
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
