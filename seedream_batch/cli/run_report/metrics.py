"""A summary of a run in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from seedream_batch.model.document import Json

_PREFIX = "seedream_batch"

_Sample = tuple[Mapping[str, str], float]


def are_metrics(data: bytes) -> bool:
    """Return whether these bytes are the metrics of an earlier run."""
    return data.startswith(f"# HELP {_PREFIX}_".encode())


def metrics(summary: Mapping[str, Json]) -> str:
    """Return the lines for a textfile collector; values that a run could not find out have no sample."""
    return "".join(line + "\n" for line in _lines(summary))


def _lines(summary: Mapping[str, Json]) -> Iterator[str]:
    job = {"job": str(summary["job"])}
    state, run = summary["state"], summary["run"]
    if state is not None:
        tasks = [({**job, "state": name}, count) for name, count in state["tasks"].items()]
        yield from _family("tasks", "Tasks of the job by state.", tasks)
        images = state["images"]
        yield from _family("images_asked_for", "Images that the job asks for.", [(job, images["asked_for"])])
        yield from _family("images_stored", "Images of the job that are stored.", [(job, images["stored"])])
        yield from _family("cost_usd", "What the job cost in all its runs, in US dollars.", [(job, state["cost_usd"])])
        flagged = [(job, state["flagged"])]
        yield from _family("tasks_flagged", "Tasks whose result is not what was requested.", flagged)
        yield from _family("reserved_usd", "What is held for tasks in flight.", [(job, state["reserved_usd"])])
    if run is not None:
        yield from _family("last_run_images_stored", "Images that the last run stored.", [(job, run["stored"])])
        yield from _family("last_run_cost_usd", "What the last run cost, in US dollars.", [(job, run["cost_usd"])])
    ended = [(job, summary["ended_at"])]
    yield from _family("last_run_end_timestamp_seconds", "When the last run ended, in unix seconds.", ended)
    yield from _family("last_run_duration_seconds", "How long the last run took.", [(job, summary["seconds"])])
    yield from _family("last_run_exit_code", "The exit code of the last run; 0 is good.", [(job, summary["exit_code"])])


def _family(name: str, about: str, samples: Iterable[_Sample]) -> Iterator[str]:
    yield f"# HELP {_PREFIX}_{name} {about}"
    yield f"# TYPE {_PREFIX}_{name} gauge"
    for labels, value in samples:
        inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        yield f"{_PREFIX}_{name}{{{inside}}} {value!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
