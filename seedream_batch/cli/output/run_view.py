"""Plans and results as text for a terminal of 80 columns."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from seedream_batch.cli.output.console import duration, flagged_advice, number, say, short, size, tell, usd, wrapped
from seedream_batch.engine.events import StopReason
from seedream_batch.model.document import Problem
from seedream_batch.model.job import Job
from seedream_batch.model.task import NOT_THERE, ImageState, TaskRecord, TaskState
from seedream_batch.planning import Action, Plan

if TYPE_CHECKING:
    from seedream_batch.engine.session import RunResult

_INDENT = " " * 10

SHOWN = 10
"""Warnings shown at the end of a run."""


def show_problems(problems: tuple[Problem, ...]) -> None:
    """Print one paragraph per problem on standard error."""
    for problem in problems:
        tell(str(problem))


def show_plan(plan: Plan, job: Job) -> None:
    """Print groups of tasks with what would happen and why, then the cost."""
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
    if images and job.store is not None:
        say(f"The images go to {job.store.url}.")
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
    """Print a warning if the budget is too low for what would be bought."""
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
    """Print what a run did, what is left, and what to do about it."""
    stats = result.stats
    say(wrapped(f"{job.name}: {_ended(result)}"))
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
    if stats.found:
        say(f"  found      {number(stats.found, 'task')} that had been lost")
    if result.flagged:
        say(f"  flagged    {number(result.flagged, 'task')} with a result that is not what was requested")
        for warning in result.warnings[:SHOWN]:
            say(wrapped(warning, indent="    ", hanging="      "))
        if result.flagged > SHOWN:
            say(f"    and more: `seedream-batch status {path}`")
    left = result.left
    if left:
        say(f"  left       {number(left, 'task')} for the next run")
    held = f", {usd(result.totals.reserved)} held" if result.totals.reserved else ""
    say(f"  cost       {usd(stats.cost)} now, {usd(result.totals.cost)} in all{held}")
    say(f"  images in  {short(job.pictures)}")
    for line in _advice(result, path):
        say(wrapped(line))


def _ended(result: RunResult) -> str:
    if result.stop_reason is not None:
        return f"stopped after {duration(result.seconds)}: {result.stop_text}"
    if result.left:
        return f"stopped with work left, {duration(result.seconds)}"
    bad = sum(result.tasks.get(state, 0) for state in (TaskState.FAILED, TaskState.LOST, TaskState.UNCERTAIN))
    bad += sum(result.images.get(state, 0) for state in NOT_THERE)
    how = "finished, but not all is there" if bad else "done"
    if result.flagged and not bad:
        how = "finished, but not all is as requested"
    return f"{how}, {duration(result.seconds)}"


def _advice(result: RunResult, path: str) -> list[str]:
    lines = []
    tasks = result.tasks
    if any(tasks.get(state) for state in (TaskState.FAILED, TaskState.LOST, TaskState.UNCERTAIN)):
        lines.append(f"`seedream-batch status {path}` says what went wrong, and what to do.")
    if tasks.get(TaskState.FAILED) or tasks.get(TaskState.LOST):
        first = "polls lost tasks once more, then " if tasks.get(TaskState.LOST) else ""
        lines.append(f"`seedream-batch retry {path}` {first}plans failed and lost tasks again.")
    if tasks.get(TaskState.UNCERTAIN):
        lines.append(f"`seedream-batch resolve {path}` decides about uncertain ones.")
    if any(result.images.get(state) for state in NOT_THERE):
        lines.append(f"`seedream-batch verify {path}` asks again for images that are not there, free of charge.")
    if result.flagged:
        lines.append(flagged_advice(path))
    if result.stop_reason is StopReason.CREDENTIALS:
        lines.append("Check APIMART_API_KEY. What was accepted is in the manifest; run again with a good key.")
    if result.stop_reason is StopReason.BALANCE:
        lines.append("Top the account up, then run again: it goes on where it stopped.")
    if result.stop_reason is StopReason.BUDGET:
        lines.append("Raise the budget in the job file to go on.")
    if result.stop_reason is StopReason.STORAGE:
        lines.append("Correct that, then run again: it continues where it stopped.")
    if result.stop_reason in {StopReason.TIME, StopReason.OUTAGE, StopReason.INTERRUPTED} and result.left:
        lines.append("Run again: it goes on where it stopped.")
    return lines


def show_chosen(tasks: list[TaskRecord], what: str, then: str, none: str) -> None:
    """Print the tasks that a person decided about."""
    if not tasks:
        say(f"{none} that fits; nothing was changed")
        return
    for task in tasks[:20]:
        say(f"  {task.paths[0]}")
    if len(tasks) > 20:
        say(f"  and {len(tasks) - 20:,} more")
    say(wrapped(f"{number(len(tasks), 'task')} {what}" + (f"; {then}." if then else ".")))
