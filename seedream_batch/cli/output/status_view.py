"""The status of a job as text for a terminal of 80 columns."""

from __future__ import annotations

import json
import textwrap
import time
import unicodedata
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from seedream_batch.cli.output.console import clean, duration, flag_advice, number, short, size, usd, width, wrapped
from seedream_batch.manifest.statistics import Phase
from seedream_batch.model.cell import label
from seedream_batch.model.task import NOT_THERE, ImageRecord, ImageState, TaskRecord, TaskState
from seedream_batch.report.failure_causes import ADVICE
from seedream_batch.report.status import ids_in, per_minute

if TYPE_CHECKING:
    from seedream_batch.manifest.answer_store import KeptAnswer
    from seedream_batch.manifest.reader import WorkerRow
    from seedream_batch.report.status import AxisStatus, Status

WORKERS = 20
"""Workers that are shown."""

SILENT = 30.0
"""Seconds without a heartbeat after which a worker is shown as silent."""

ANSWERS = 5
"""Kept answers that are shown."""

CAUSES = 12
"""Causes of failures that are shown."""


def status_lines(status: Status, path: str, *, emulated: bool, now: float) -> list[str]:
    """Return the status at `now` (unix seconds) as lines; `path` is the job as given to commands."""
    blocks = list(_counts(status, path, emulated=emulated, now=now))
    for part in (
        _axis_lines(status.axes),
        list(_causes(status)),
        list(_doubts(status, path)),
        _troubled(status, path),
        _kept(status, path),
        _flagged(status, path),
    ):
        if part:
            blocks += ["", *part]
    return "\n".join(blocks).split("\n")


def progress_line(status: Status, now: float) -> str:
    """Return the status as one line, for logs."""
    stored = status.images.get(ImageState.STORED, 0)
    parts = [f"{stored:,} of {number(status.wanted_images, 'image')} stored"]
    in_flight = status.tasks.get(TaskState.SUBMITTING, 0) + status.tasks.get(TaskState.ACCEPTED, 0)
    parts.append(f"{in_flight:,} in flight")
    for state in (TaskState.FAILED, TaskState.LOST, TaskState.UNCERTAIN):
        parts += [f"{status.tasks[state]:,} {state}"] if status.tasks.get(state) else []
    parts.append(usd(status.totals.cost))
    parts += [_pace(status)] if status.pace else []
    return f"{_clock(now)} {status.job}: {', '.join(parts)}"


def _counts(status: Status, path: str, *, emulated: bool, now: float) -> Iterator[str]:
    if emulated:
        yield wrapped("No real run yet; this is the status of the emulated run.")
    yield wrapped(f"{status.job}: {short(status.folder)}{_run(status)}")
    stored = status.images.get(ImageState.STORED, 0)
    yield f"  images     {stored:,} of {status.wanted_images:,} stored, {size(status.stored_bytes)}"
    parts = [f"{count:,} {state}" for state in TaskState if (count := status.tasks.get(state, 0))]
    yield f"  tasks      {', '.join(parts) or 'none'}"
    waiting = status.images.get(ImageState.ANNOUNCED, 0)
    if waiting:
        yield f"  to fetch   {number(waiting, 'image')}{_expiry(status, now)}"
    for state in NOT_THERE:
        if status.images.get(state):
            yield f"  {state:<11}{number(status.images[state], 'image')}"
    totals = status.totals
    held = (
        f"; {usd(totals.reserved)} held for {number(totals.reserved_images, 'image')}" if totals.reserved_images else ""
    )
    yield f"  cost       {usd(totals.cost)} for {number(totals.images, 'image')}{held}"
    for note in status.cost_notes[:CAUSES]:
        text = f"{number(note.count, 'task')}: {note.note} ({note.path})"
        yield wrapped(clean(text), indent="             ", hanging="             ")
    if status.cost_notes:
        advice = f"Correct these costs: `seedream-batch resolve {path} --cost USD`"
        yield wrapped(advice, indent="             ", hanging="             ")
    if status.pace:
        yield f"  pace       {_pace(status)}"
    if len(status.workers) > 1:
        yield f"Workers ({len(status.workers):,}):"
        for worker in status.workers[:WORKERS]:
            yield wrapped(f"{worker.host} pid {worker.pid}: {_worker(worker)}", indent="  ", hanging="    ")
        if len(status.workers) > WORKERS:
            yield f"  and {len(status.workers) - WORKERS:,} more"
    if status.dropped:
        yield f"  dropped    {number(status.dropped, 'task')} no longer in the job; the files are kept"


def _worker(worker: WorkerRow) -> str:
    parts = [f"{worker.in_flight:,} in flight", f"{number(worker.images, 'image')}, {usd(worker.cost)}"]
    if worker.gone or worker.silent_for > SILENT:
        parts.append(f"{'dead' if worker.gone else 'silent'} for {duration(worker.silent_for)}")
    return ", ".join(parts)


def _run(status: Status) -> str:
    run = status.run
    if run is None:
        return ""
    if len(status.workers) > 1:
        return f", {len(status.workers):,} workers running"
    if status.going:
        return f", running (pid {run.pid}, since {_clock(run.started_at)})"
    if run.ended_at is None:
        return f", last run {_clock(run.started_at)}, crashed or killed"
    ended = "finished" if run.outcome == "finished" else f"stopped: {run.outcome}"
    return f", last run {_clock(run.started_at)}, {ended}"


def _pace(status: Status) -> str:
    if status.pace is None:
        return ""
    left = status.seconds_left
    more = "" if left is None else f", about {duration(left)} left"
    return f"{per_minute(status.pace):,.1f} images a minute{more}"


def _causes(status: Status) -> Iterator[str]:
    """Yield failed and lost tasks in groups, each with advice."""
    if not status.causes:
        return
    count = sum(cause.count for cause in status.causes)
    yield f"Failed or lost ({count:,}):"
    for cause in status.causes[:CAUSES]:
        code = f"{cause.code}: " if cause.code and cause.code not in cause.reason else ""
        yield wrapped(f"{cause.count:,} {cause.state}: {code}{cause.reason}", indent="  ", hanging="    ")
        yield wrapped(cause.path, **_field("first"))
        yield wrapped(ADVICE[cause.kind], **_field("fix"))
    if len(status.causes) > CAUSES:
        yield f"  and {len(status.causes) - CAUSES:,} more causes"


def _doubts(status: Status, path: str) -> Iterator[str]:
    """Yield what a person needs to know to decide about each uncertain task."""
    if not status.uncertain:
        return
    count = status.tasks.get(TaskState.UNCERTAIN, 0)
    yield f"Uncertain, may have been charged ({count:,}):"
    for doubt in status.uncertain:
        task = doubt.task
        yield wrapped(task.paths[0], indent="  ", hanging="    ")
        yield wrapped(label(json.loads(task.cell), task.sample if task.sample > 1 else None), **_field("cell"))
        yield from _prompt(task)
        yield f"    sent   {_clock(doubt.sent_at)}; may have cost {usd(doubt.reserved)}"
        yield wrapped(f"{task.code}: {task.reason}" if task.code else task.reason, **_field("error"))
        if doubt.kept:
            yield wrapped(_start(doubt.kept[0]), **_field("answer"))
        ids = ids_in(doubt.kept)
        if ids:
            yield wrapped(f"{', '.join(ids[:3])} (in the answer)", **_field("id?"))
    if count > len(status.uncertain):
        yield f"  and {count - len(status.uncertain):,} more"
    yield wrapped(
        f"Look for them in the task list on the service's website, then run `seedream-batch resolve {path}` with"
        " --resend, --task-id ID, --forget or --give-up."
    )


def _prompt(task: TaskRecord) -> Iterator[str]:
    prompt = " ".join(clean(str(json.loads(task.body).get("prompt", ""))).split())
    lines = textwrap.wrap(prompt, width() - 11, max_lines=2, placeholder=" ...", break_on_hyphens=False)
    for place, line in enumerate(lines):
        yield f"    {'' if place else 'prompt':<7}{line}"


def _section(head: str, lines: list[str], more: str, *advice: str) -> list[str]:
    """Return a list under its head, how many more there are, and what to do; empty if the list is."""
    if not lines:
        return []
    shown = [wrapped(line, indent="  ", hanging="    ") for line in lines]
    return [head, *shown, *([f"  and {more} more"] if more else []), *map(wrapped, advice)]


def _troubled(status: Status, path: str) -> list[str]:
    lines = [f"{task.paths[0]} image {image.index}: {why_missing(image)}" for image, task in status.troubled]
    return _section("Missing images:", lines, "", f"Download them again for free: `seedream-batch verify {path}`")


def why_missing(image: ImageRecord) -> str:
    """Return why a delivered image is not stored: its state, unless the reason says it."""
    return image.reason if image.state is ImageState.MISSING and image.reason else f"{image.state}, {image.reason}"


def _kept(status: Status, path: str) -> list[str]:
    """Return the answers of the service that were not fully understood."""
    shown = status.kept[:ANSWERS]
    more = status.kept_answers - len(shown)
    lines = [f"{task.paths[0]}: {answer.kind}, {_how(answer)}: {answer.kept.why}" for answer, task in shown]
    advice = f"See them in full, under `answers`: `seedream-batch status {path} --json`"
    head = f"Unclear answers from the service ({status.kept_answers:,}):"
    return _section(head, lines, f"{more:,}" if more else "", advice)


def _how(answer: KeptAnswer) -> str:
    status = "no HTTP" if answer.kept.status is None else f"HTTP {answer.kept.status}"
    return f"{status}, {number(answer.kept.length, 'byte')}"


def _start(answer: KeptAnswer) -> str:
    """Return the start of an answer, at most two lines."""
    body = " ".join(clean(answer.kept.body[:1000]).split())
    start = textwrap.shorten(body, 2 * (width() - 11) - 20, placeholder=" ...") if " " in body else body[:100]
    return f"{_how(answer)}: {start or 'empty'}"


def _flagged(status: Status, path: str) -> list[str]:
    warnings = [warning for flagged in status.flagged for warning in flagged.warnings]
    more = status.flagged_tasks - len(status.flagged)
    head = f"Flagged, differ from the request ({number(status.flagged_tasks, 'task')}):"
    return _section(head, warnings, number(more, "task") if more else "", *flag_advice(path))


def _field(name: str) -> dict[str, str]:
    return {"indent": f"    {name:<7}", "hanging": " " * 11}


def _expiry(status: Status, now: float) -> str:
    if status.next_expiry is None:
        return ""
    left = status.next_expiry[0] - now
    if left <= 0:
        return "; some download links have expired"
    soon = " (run now)" if left < 3600 else ""
    return f"; the first download link expires in {duration(left)}{soon}"


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


VALUES = 12
"""Values of an axis that are shown."""

_NAMES = 28
"""Columns for the names; with five columns of numbers that makes 80."""
_NUMBERS = 10


def _axis_lines(axes: Mapping[str, AxisStatus]) -> list[str]:
    """Return a table of the axes with more than one value; empty if all tasks are in the same phase."""
    several = {axis: status for axis, status in axes.items() if len(status.values) > 1}
    parts = [
        part for part in Phase if any(value.parts.get(part) for status in several.values() for value in status.values)
    ]
    if len(parts) < 2:
        return []
    lines: list[str] = []
    for axis, status in several.items():
        if lines:
            lines.append("")
        lines.append(_row(f"  {axis}", [str(part).replace("_", " ") for part in parts]))
        lines += [
            _row(f"    {value.name}", [f"{value.parts.get(part, 0):,}" for part in parts])
            for value in status.values[:VALUES]
        ]
        more = len(status.values) - VALUES + status.more
        if more > 0:
            lines.append(f"    and {more:,}{' or more' if status.cut else ''} more")
    return lines


def _row(name: str, cells: list[str]) -> str:
    """Return a row of the table; in its first column, some characters take two columns of a terminal and some none."""
    name = clean(name)
    if _columns(name) > _NAMES:
        while _columns(name) >= _NAMES:
            name = name[:-1]
        name += "…"
    return name + " " * (_NAMES - _columns(name)) + "".join(f"{cell:>{_NUMBERS}}" for cell in cells)


def _columns(text: str) -> int:
    wide = sum(unicodedata.east_asian_width(char) in {"W", "F"} for char in text)
    return len(text) + wide - sum(bool(unicodedata.combining(char)) for char in text)
