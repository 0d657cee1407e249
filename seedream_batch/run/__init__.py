"""The run: decide, do, record."""

from seedream_batch.run.context import Event, EventKind, RunOptions, Stats, StopReason, Verification
from seedream_batch.run.session import RunResult, run_job
from seedream_batch.run.survey import survey

__all__ = ["Event", "EventKind", "RunOptions", "RunResult", "Stats", "StopReason", "Verification", "run_job", "survey"]
