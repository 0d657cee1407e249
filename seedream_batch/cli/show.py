"""Plans, results and states as text for a terminal of 80 columns."""

from __future__ import annotations

import json
import textwrap
import time
from collections import Counter
from typing import TYPE_CHECKING

from seedream_batch.cli.words import clean, duration, number, say, short, size, usd, width, wrapped
from seedream_batch.engine.values import StopReason
from seedream_batch.expand.matrix import label
from seedream_batch.model.document import Problem
from seedream_batch.model.job import Job
from seedream_batch.model.task import NOT_THERE, ImageState, TaskRecord, TaskState
from seedream_batch.planning import Action, Plan

if TYPE_CHECKING:
    from seedream_batch.engine.session import RunResult
    from seedream_batch.report import Status

_INDENT = " " * 10


def show_problems(problems: tuple[Problem, ...]) -> None:
    """One paragraph for each problem, on standard error."""
    for problem in problems:
        say(str(problem), err=True)


def show_plan(plan: Plan, job: Job) -> None:
    """Groups of tasks with what would happen and why, then what it would cost."""
    say(f"{job.name}: {number(plan.tasks, 'task')}, {number(plan.images, 'image')}")
    for group in plan.ordered():
        say()
        head = f"  {group.action:<8}{number(group.tasks, 'task')}"
        if group.images:
            head += f", {number(group.images, 'image')}, {usd(group.cost)}"
        say(wrapped(f"{head}: {group.why}", hanging=_INDENT))
        if group.action is not Action.KEEP:
            _show_axes(group.axes)
    say()
    if plan.collect:
        say(wrapped(f"{number(plan.collect, 'task')} that the job no longer has will be collected: they are paid for."))
    if plan.left_out:
        say(wrapped(f"{number(plan.left_out, 'task')} of the job are not chosen by --select, and left alone."))
    if plan.dropped:
        say(wrapped(f"{number(plan.dropped, 'task')} in the manifest are no longer in the job; their files stay."))
    images, cost = plan.to_buy
    if images:
        price = "" if job.budget.stated or plan.charged else "; the price is a guess, set budget.price_per_image_usd"
        say(wrapped(f"A run would buy {number(images, 'image')} for about {usd(cost)}{price}."))
    elif plan.work:
        say("A run would buy nothing.")
    elif plan.count((Action.HOLD, Action.LEAVE)):
        say("A run would do nothing; some tasks need a decision.")
    else:
        say("Nothing to do.")
    _show_budget(plan, job, images, cost)


def _show_budget(plan: Plan, job: Job, images: int, cost: int) -> None:
    """Says so when the budget will not do for what is to be bought."""
    budget, totals = job.budget, plan.totals
    if images and budget.max_images is not None:
        left = max(0, budget.max_images - totals.images - totals.reserved_images)
        if left < images:
            say(
                wrapped(f"budget.max_images {budget.max_images:,} leaves {number(left, 'image')}: the run stops there.")
            )
    if images and budget.max_cost is not None:
        left = max(0, budget.max_cost - totals.cost - totals.reserved)
        if left < cost:
            say(wrapped(f"budget.max_cost_usd {usd(budget.max_cost)} leaves {usd(left)}: the run stops there."))


def _show_axes(axes: dict[str, Counter[str]]) -> None:
    label = max((len(axis) for axis in axes), default=0) + 2
    for axis, counter in axes.items():
        names = [name if count == 1 else f"{name} ({count})" for name, count in counter.most_common(12)]
        if len(counter) > 12:
            names.append(f"and {len(counter) - 12:,} more")
        say(wrapped(", ".join(names), indent=f"{_INDENT}{axis:<{label}}", hanging=" " * (len(_INDENT) + label)))


def show_result(result: RunResult, job: Job, path: str) -> None:
    """What a run did, what is left, and what to do about it."""
    stats = result.stats
    ended = "done" if result.stop_reason is None else f"stopped ({result.stop_text})"
    if result.stop_reason is None and result.left:
        ended = "stopped with work left"
    say(wrapped(f"{job.name}: {ended}, {duration(result.seconds)}"))
    stored = result.images.get(ImageState.STORED, 0)
    fresh = f", {stats.stored:,} of them new ({size(stats.stored_bytes)})" if stats.stored else ", none of them new"
    say(f"  stored     {number(stored, 'image')}{fresh if stored else ''}")
    if stats.moved:
        say(f"  moved      {number(stats.moved, 'file')}")
    for state in (TaskState.FAILED, TaskState.LOST, TaskState.UNCERTAIN):
        count = result.tasks.get(state, 0)
        if count or state is not TaskState.LOST:
            say(f"  {state:<11}{number(count, 'task')}")
    for image_state in NOT_THERE:
        if result.images.get(image_state):
            say(f"  {image_state:<11}{number(result.images[image_state], 'image')}")
    left = result.left
    if left:
        say(f"  left       {number(left, 'task')} for the next run")
    held = f", {usd(result.totals.reserved)} held" if result.totals.reserved else ""
    say(f"  cost       {usd(stats.cost)} now, {usd(result.totals.cost)} in all{held}")
    say(f"  images in  {short(job.output_dir)}")
    for line in _advice(result, path):
        say(wrapped(line))


def _advice(result: RunResult, path: str) -> list[str]:
    lines = []
    tasks = result.tasks
    if any(tasks.get(state) for state in (TaskState.FAILED, TaskState.LOST, TaskState.UNCERTAIN)):
        lines.append(f"`seedream-batch status {path}` says what went wrong.")
    if tasks.get(TaskState.FAILED) or tasks.get(TaskState.LOST):
        lines.append(f"`seedream-batch retry {path}` plans failed and lost tasks again.")
    if tasks.get(TaskState.UNCERTAIN):
        lines.append(f"`seedream-batch resolve {path}` decides about uncertain ones.")
    if any(result.images.get(state) for state in NOT_THERE):
        lines.append(f"`seedream-batch verify {path}` asks again for images that are not there, free of charge.")
    if result.stop_reason is StopReason.CREDENTIALS:
        lines.append("Check APIMART_API_KEY. What was accepted is in the manifest; run again with a good key.")
    if result.stop_reason is StopReason.BALANCE:
        lines.append("Top the account up, then run again: it goes on where it stopped.")
    if result.stop_reason is StopReason.BUDGET:
        lines.append("Raise the budget in the job file to go on.")
    if result.stop_reason in {StopReason.TIME, StopReason.OUTAGE, StopReason.INTERRUPTED} and result.left:
        lines.append("Run again: it goes on where it stopped.")
    return lines


def show_chosen(tasks: list[TaskRecord], what: str, then: str, none: str) -> None:
    """The tasks that a person decided about."""
    if not tasks:
        say(f"{none} that fits; nothing was changed")
        return
    for task in tasks[:20]:
        say(f"  {task.paths[0]}")
    if len(tasks) > 20:
        say(f"  and {len(tasks) - 20:,} more")
    say(wrapped(f"{number(len(tasks), 'task')} {what}" + (f"; {then}." if then else ".")))


def show_status(status: Status, path: str, *, emulated: bool) -> None:
    """The state of a job; `path` is the job as it is given to commands."""
    if emulated:
        say(wrapped("There was no real run yet; this is the emulated one."))
    going = ""
    run = status.run
    if status.running and run is not None and run.ended_at is None:
        going = f", a run is going (pid {run.pid}, since {_clock(run.started_at)})"
    elif run is not None and run.ended_at is not None:
        ended = "finished" if run.outcome == "finished" else f"stopped: {run.outcome}"
        going = f", last run {_clock(run.started_at)}, {ended}"
    elif run is not None:
        going = f", the last run ({_clock(run.started_at)}) was cut off"
    say(wrapped(f"{status.job}: {short(status.folder)}{going}"))
    stored = status.images.get(ImageState.STORED, 0)
    say(f"  images     {stored:,} of {status.wanted_images:,} stored, {size(status.stored_bytes)}")
    parts = [f"{count:,} {state}" for state in TaskState if (count := status.tasks.get(state, 0))]
    say(f"  tasks      {', '.join(parts) or 'none'}")
    waiting = status.images.get(ImageState.ANNOUNCED, 0)
    if waiting:
        say(f"  to fetch   {number(waiting, 'image')}{_expiry(status)}")
    for state in NOT_THERE:
        if status.images.get(state):
            say(f"  {state:<11}{number(status.images[state], 'image')}")
    totals = status.totals
    held = (
        f"; {usd(totals.reserved)} held for {number(totals.reserved_images, 'image')}" if totals.reserved_images else ""
    )
    say(f"  cost       {usd(totals.cost)} for {number(totals.images, 'image')}{held}")
    if status.dropped:
        say(f"  dropped    {number(status.dropped, 'task')} no longer in the job; their files stay")
    _show_tasks("Failed", status.tasks.get(TaskState.FAILED, 0), status.failed)
    _show_tasks("Lost", status.tasks.get(TaskState.LOST, 0), status.lost)
    _show_doubts(status, path)
    if status.troubled:
        say()
        say("Images that are not there:")
        for image, task in status.troubled:
            say(
                wrapped(
                    f"{task.paths[0]} image {image.index}: {image.state}, {image.reason}", indent="  ", hanging="    "
                )
            )
        say(wrapped(f"`seedream-batch verify {path}` asks for them again, free of charge."))


def _show_tasks(title: str, count: int, tasks: list[TaskRecord]) -> None:
    if not tasks:
        return
    say()
    say(f"{title} ({count:,}):")
    for task in tasks:
        code = f"{task.code}: " if task.code and task.code not in task.reason else ""
        say(wrapped(f"{task.paths[0]}: {code}{task.reason}", indent="  ", hanging="    "))
    if count > len(tasks):
        say(f"  and {count - len(tasks):,} more")


def _show_doubts(status: Status, path: str) -> None:
    """What a person needs to know to decide about each uncertain task."""
    if not status.uncertain:
        return
    count = status.tasks.get(TaskState.UNCERTAIN, 0)
    say()
    say(f"Uncertain: perhaps made and paid for ({count:,}):")
    for doubt in status.uncertain:
        task = doubt.task
        prompt = " ".join(clean(str(json.loads(task.body).get("prompt", ""))).split())
        lines = textwrap.wrap(prompt, width() - 11, max_lines=2, placeholder=" ...", break_on_hyphens=False)
        say(wrapped(task.paths[0], indent="  ", hanging="    "))
        say(wrapped(label(json.loads(task.cell), task.sample if task.sample > 1 else None), **_field("cell")))
        say("\n".join(f"    {'prompt' if not number else '':<7}{line}" for number, line in enumerate(lines)))
        say(f"    sent   {_clock(doubt.sent_at)}; it may have cost {usd(doubt.reserved)}")
        say(wrapped(f"{task.code}: {task.reason}" if task.code else task.reason, **_field("heard")))
    if count > len(status.uncertain):
        say(f"  and {count - len(status.uncertain):,} more")
    say(
        wrapped(
            f"Look for them on the service's pages, then say what is to be done: `seedream-batch resolve {path}` with"
            " --resend, --task-id ID, --forget or --give-up."
        )
    )


def _field(name: str) -> dict[str, str]:
    return {"indent": f"    {name:<7}", "hanging": " " * 11}


def _expiry(status: Status) -> str:
    if status.next_expiry is None:
        return ""
    left = status.next_expiry[0] - time.time()
    if left <= 0:
        return "; some links have expired"
    soon = " (soon: run now)" if left < 3600 else ""
    return f"; the first link expires in {duration(left)}{soon}"


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
