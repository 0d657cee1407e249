"""Results of `verify` and `prune`, as text for a terminal of 80 columns and as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from seedream_batch.cli.output.console import duration, flag_advice, listed, number, row, say, short, size, usd, wrapped
from seedream_batch.cli.output.status_view import why_missing
from seedream_batch.model.document import Json
from seedream_batch.model.job import MICRO, Job
from seedream_batch.model.task import ImageRecord, TaskRecord, TaskState, image_path

if TYPE_CHECKING:
    from seedream_batch.engine.session import RunResult
    from seedream_batch.operations.prune import Pruned

SHOWN = 20
"""Files that are named; counts always cover everything."""


def show_verification(result: RunResult, job: Job, path: str, without_key: str) -> None:
    """Print the result of a verification and what to do; `without_key` says why there is no API key."""
    checks, stats = result.verified, result.stats
    say(
        wrapped(
            f"{job.name}: {number(checks.checked, 'image')} checked in {duration(result.seconds)}, {checks.whole:,} OK"
        )
    )
    if result.stop_reason is not None:
        say(wrapped(f"stopped: {result.stop_text}", indent="  ", hanging="    "))
    row("restored", checks.came_back, "image", " that had been missing")
    row("found", stats.found, "task", " that had been lost")
    row("added", stats.added, "image", " to incomplete results")
    row("downloaded", stats.stored, "image", f" again for free ({size(stats.stored_bytes)})")
    row("unreadable", checks.unread, "file", lines=checks.unreadable)
    if result.not_there is not None:
        images = result.not_there.images
        missing = [f"{_path_of(image, task)}: {why_missing(image)}" for image, task in images]
        row("missing", result.not_there.count, "image", lines=missing)
    flagged = " with a result that differs from the request"
    row("flagged", result.flagged, "task", flagged, result.warnings)
    for line in _advice(result, path, without_key):
        say(wrapped(line))


def _advice(result: RunResult, path: str, without_key: str) -> list[str]:
    checks, lacking = result.verified, result.not_there
    lines = []
    if checks.in_the_way:
        lines.append(
            f"{number(checks.in_the_way, 'image')} cannot be downloaded because another file is in the way: move it and"
            " verify again."
        )
    if checks.to_ask:
        lines.append(f"Downloading {number(checks.to_ask, 'image')} again is free, but needs a key: {without_key}.")
    if checks.unanswered:
        lines.append(
            f"The service gave no clear answer about {number(checks.unanswered, 'image')}: verify again later."
        )
    if result.flagged:
        lines += flag_advice(path)
    if lacking is None:
        return lines
    if lacking.waiting:
        lines.append(f"{number(lacking.waiting, 'image')} could not be downloaded now: verify again later.")
    if lacking.lost.images:
        lines.append(
            f"{number(lacking.lost.images, 'image')} can no longer be downloaded. Regenerate for about"
            f" {usd(lacking.lost.cost)}: `seedream-batch retry {path} --missing`"
        )
    if any(task.state is not TaskState.SUCCEEDED for _, task in lacking.images):
        lines.append(f"Generate the queued images: `seedream-batch run {path}`")
    return lines


def verification_json(result: RunResult, job: Job) -> Json:
    """Return the result of a verification as JSON; money in USD."""
    checks, lacking = result.verified, result.not_there
    images = lacking.images if lacking else []
    return {
        "job": job.name,
        "folder": str(job.pictures),
        **{name: getattr(checks, name) for name in ("checked", "whole", "came_back", "broken")},
        "fetched": result.stats.stored,
        "found": result.stats.found,
        "added": result.stats.added,
        "unreadable": checks.unread,
        "in_the_way": checks.in_the_way,
        "to_ask": checks.to_ask,
        "unanswered": checks.unanswered,
        "waiting": lacking.waiting if lacking else 0,
        "flagged_tasks": result.flagged,
        "warnings": result.warnings,
        "not_there": [
            {
                "path": _path_of(image, task),
                "index": image.index,
                "state": str(image.state),
                "reason": image.reason,
                "fingerprint": task.fingerprint,
                "cell": json.loads(task.cell),
                "task_state": str(task.state),
            }
            for image, task in images
        ],
        "cannot_be_had_again": {
            "images": lacking.lost.images if lacking else 0,
            "cost_usd": (lacking.lost.cost if lacking else 0) / MICRO,
        },
        "stopped": result.stop_text,
    }


def show_pruned(pruned: Pruned, job: Job, path: str) -> None:
    """Print what would be deleted, or was, and what stays."""
    files = f"{number(pruned.files, 'file')}, {size(pruned.bytes)}"
    if pruned.done:
        say(wrapped(f"{job.name}: {files} deleted in {short(job.pictures)}"))
    elif pruned.files:
        say(wrapped(f"{job.name}: {files} in {short(job.pictures)} no longer in the job"))
    else:
        say(wrapped(f"{job.name}: nothing to delete in {short(job.pictures)}"))
    listed(pruned.paths, pruned.files)
    changed = " changed since they were stored; delete them yourself"
    row("kept", len(pruned.changed), "file", changed, pruned.changed[:SHOWN])
    unreadable = " with a file that cannot be read or deleted"
    row("kept", len(pruned.unreadable), "task", unreadable, pruned.unreadable[:SHOWN])
    row("in flight", pruned.found.in_flight, "task", ": paid for, kept until a run downloads the images")
    if not pruned.done and pruned.files:
        say(wrapped(f"Nothing was deleted. To delete the files: `seedream-batch prune {path} --yes`"))


def pruned_json(pruned: Pruned) -> Json:
    """Return what would be deleted, or was, as JSON."""
    return {
        "deleted": pruned.done,
        **{name: getattr(pruned, name) for name in ("files", "bytes", "paths", "changed", "unreadable")},
        "in_flight": pruned.found.in_flight,
        "never_sent": pruned.found.never_sent,
    }


def _path_of(image: ImageRecord, task: TaskRecord) -> str:
    """Return the path of an image, or the planned one if it was never stored."""
    return image.path or image_path(task.paths, task.images, image.index, task.fingerprint)
