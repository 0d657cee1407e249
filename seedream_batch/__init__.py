"""Declarative, resumable batches of paid Seedream 4.5 images from YAML job files.

    from seedream_batch import load_job, plan, run

    job = load_job("jobs/postcards.yaml")
    print(plan(job).to_buy)
    result = run(job)

What goes wrong is raised as the errors of `seedream_batch.errors`.
"""

import importlib
from typing import TYPE_CHECKING

from seedream_batch._version import __version__

if TYPE_CHECKING:
    from seedream_batch.batch import plan, run, run_async
    from seedream_batch.engine.events import Event, EventKind, RunOptions, Stats, StopReason
    from seedream_batch.engine.interruption import Interruption
    from seedream_batch.engine.session import RunResult
    from seedream_batch.jobfile import LoadedJob, load_job
    from seedream_batch.planning import Plan

__all__ = [
    "Event",
    "EventKind",
    "Interruption",
    "LoadedJob",
    "Plan",
    "RunOptions",
    "RunResult",
    "Stats",
    "StopReason",
    "__version__",
    "load_job",
    "plan",
    "run",
    "run_async",
]

# The HTTP client and the template engine take half a second to import: not before somebody asks for them.
_LAZY = {
    "Event": "engine.events",
    "EventKind": "engine.events",
    "Interruption": "engine.interruption",
    "LoadedJob": "jobfile",
    "Plan": "planning",
    "RunOptions": "engine.events",
    "RunResult": "engine.session",
    "Stats": "engine.events",
    "StopReason": "engine.events",
    "load_job": "jobfile",
    "plan": "batch",
    "run": "batch",
    "run_async": "batch",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
