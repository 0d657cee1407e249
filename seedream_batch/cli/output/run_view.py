"""Plans and results as text for a terminal of 80 columns."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from seedream_batch.cli.output.console import duration, flag_advice, number, row, say, short, size, usd, wrapped
from seedream_batch.engine.events import StopReason
from seedream_batch.model.job import Job
from seedream_batch.model.task import NOT_THERE, ImageState, TaskRecord, TaskState
from seedream_batch.planning import Action, Plan, manifest_lost

if TYPE_CHECKING:
    from seedream_batch.engine.session import RunResult

_INDENT = " " * 10

SHOWN = 10
"""Warnings shown at the end of a run."""


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
        tasks = number(plan.collect, "paid task")
        say(wrapped(f"{tasks} no longer in the job will still be downloaded."))
    if plan.left_out:
        say(wrapped(f"{number(plan.left_out, 'task')} not selected by --select."))
    if plan.dropped:
        dropped = number(plan.dropped, "earlier task is", "earlier tasks are")
        say(wrapped(f"{dropped} no longer in the job; the files are kept."))
    images, cost = plan.to_buy
    if images and job.store is not None:
        say(f"The images go to {job.store.url}.")
    if images and (occupied := plan.occupied):
        images, cost = images - occupied.images, cost - occupied.cost
        say(
            wrapped(
                f"A run would not generate {number(occupied.images, 'image')}: unknown files have these paths, such as"
                f" {occupied.path}, and {manifest_lost(job.manifest, occupied.images, usd(occupied.cost))}."
            )
        )
    if images:
        price = "" if job.budget.stated or plan.charged else " (a guess; set budget.price_per_image_usd)"
        say(wrapped(f"A run would generate {number(images, 'image')} for about {usd(cost)}{price}."))
    elif plan.work:
        say("A run would cost nothing.")
    elif count := plan.count((Action.HOLD, Action.LEAVE)):
        say(f"Nothing to run. {number(count, 'task needs', 'tasks need')} a decision; `status` shows what to do.")
    else:
        say("Nothing to do.")
    _show_budget(plan, job, images, cost)


def _show_budget(plan: Plan, job: Job, images: int, cost: int) -> None:
    """Print how many images the budget allows if it is too low for what would be bought."""
    budget, totals = job.budget, plan.totals
    allowed = []
    if images and budget.max_images is not None:
        left = max(0, budget.max_images - totals.images - totals.reserved_images)
        allowed.append((left, f"budget.max_images ({budget.max_images:,})"))
    if cost and budget.max_cost is not None:
        left = max(0, budget.max_cost - totals.cost - totals.reserved)
        allowed.append((left * images // cost, f"budget.max_cost_usd ({usd(budget.max_cost)})"))
    for count, limit in allowed:
        if 0 < count < images:
            share = f"about {count:,} of {number(images, 'image')}, {usd(count * cost // images)}"
            say(wrapped(f"{limit} stops the run after {share}."))
        elif not count:
            say(wrapped(f"{limit} is too low for another image: the run would generate none of them."))


def _show_axes(axes: dict[str, Counter[str]]) -> None:
    label = max((len(axis) for axis in axes), default=0) + 2
    for axis, counter in axes.items():
        names = [_quoted(name) + (f" ({count:,})" if count > 1 else "") for name, count in counter.most_common(12)]
        if len(counter) > 12:
            names.append(f"and {len(counter) - 12:,} more")
        say(wrapped(", ".join(names), indent=f"{_INDENT}{axis:<{label}}", hanging=" " * (len(_INDENT) + label)))


def _quoted(name: str) -> str:
    """Return a name for a list with commas, in quotes if it has one, as `--select` takes it."""
    if "," not in name or name[0] in "[{":
        return name
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def show_result(result: RunResult, job: Job, path: str) -> None:
    """Print what a run did, what is left, and what to do about it."""
    stats = result.stats
    say(wrapped(f"{job.name}: {_ended(result)}"))
    stored = result.images.get(ImageState.STORED, 0)
    fresh = f" ({stats.stored:,} new, {size(stats.stored_bytes)})" if stats.stored else " (none new)"
    say(f"  stored     {number(stored, 'image')}{fresh if stored else ''}")
    row("moved", stats.moved, "file")
    for state in (TaskState.FAILED, TaskState.LOST, TaskState.UNCERTAIN):
        count = result.tasks.get(state, 0)
        if count or state is not TaskState.LOST:
            say(f"  {state:<11}{number(count, 'task')}")
    for image_state in NOT_THERE:
        row(image_state, result.images.get(image_state, 0), "image")
    row("found", stats.found, "task", " that had been lost")
    if result.flagged:
        say(f"  flagged    {number(result.flagged, 'task')} with a result that differs from the request")
        for warning in result.warnings[:SHOWN]:
            say(wrapped(warning, indent="    ", hanging="      "))
        if result.flagged > SHOWN:
            say(f"    and more: seedream-batch status {path}")
    row("left", result.left, "task", " for the next run")
    held = f", {usd(result.totals.reserved)} held" if result.totals.reserved else ""
    say(f"  cost       {usd(stats.cost)} in this run, {usd(result.totals.cost)} in total{held}")
    say(f"  images in  {short(job.pictures)}")
    for line in _advice(result, path):
        say(wrapped(line))


def _ended(result: RunResult) -> str:
    if result.stop_reason is not None:
        return f"stopped after {duration(result.seconds)}: {result.stop_text}"
    counts = {str(state): result.tasks.get(state) for state in (TaskState.FAILED, TaskState.LOST, TaskState.UNCERTAIN)}
    counts |= {str(state): result.images.get(state) for state in NOT_THERE} | {"flagged": result.flagged}
    bad = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    seconds = duration(result.seconds)
    how = f"stopped after {seconds} with work left" if result.left else f"finished in {seconds}"
    return f"{how}{f': {bad}' if bad else ''}"


_NEXT = {
    StopReason.CREDENTIALS: "Check APIMART_API_KEY and run again. Accepted tasks are kept in the manifest.",
    StopReason.BALANCE: "Top up the account and run again to resume.",
    StopReason.BUDGET: "Raise the budget in the job file and run again to resume.",
    StopReason.STORAGE: "Fix this and run again to resume.",
}
"""What to do after a run that stopped for these reasons."""


def _advice(result: RunResult, path: str) -> list[str]:
    lines = []
    tasks = result.tasks
    if any(tasks.get(state) for state in (TaskState.FAILED, TaskState.LOST, TaskState.UNCERTAIN)):
        lines.append(f"Causes and what to do: `seedream-batch status {path}`")
    if tasks.get(TaskState.FAILED) or tasks.get(TaskState.LOST):
        lost = " (polls lost tasks first)" if tasks.get(TaskState.LOST) else ""
        lines.append(f"Queue failed or lost tasks again: `seedream-batch retry {path}`{lost}")
    if tasks.get(TaskState.UNCERTAIN):
        lines.append(f"Decide about uncertain tasks: `seedream-batch resolve {path}`")
    if any(result.images.get(state) for state in NOT_THERE):
        lines.append(f"Download missing images again for free: `seedream-batch verify {path}`")
        lines.append(f"Regenerate those without a link (charged again): `seedream-batch retry {path} --missing`")
    if result.flagged:
        lines += flag_advice(path)
    if result.stop_reason is StopReason.BUDGET and tasks.get(TaskState.UNCERTAIN):
        held = f"they hold {usd(result.totals.reserved)} of the budget"
        lines.append(f"Resolve the uncertain tasks before you raise the budget: {held}. Then run again to resume.")
    elif result.stop_reason in _NEXT:
        lines.append(_NEXT[result.stop_reason])
    resumable = result.stop_reason in {StopReason.TIME, StopReason.OUTAGE, StopReason.INTERRUPTED, StopReason.DOWNLOADS}
    if result.left and (resumable or (result.stop_reason is None and result.stats.trouble)):
        lines.append("Run again to resume.")
    return lines


def queued_again(tasks: list[TaskRecord], cost: int) -> str:
    """Return what queuing these tasks means for the next run; `cost` in millionths of a USD."""
    return f"queued again, {number(sum(task.images for task in tasks), 'image')} for about {usd(cost)}"


def show_chosen(tasks: list[TaskRecord], what: str, then: str, none: str) -> None:
    """Print the tasks that a person decided about."""
    if not tasks:
        say(f"Nothing to do: {none}.")
        return
    for task in tasks[:20]:
        say(f"  {task.paths[0]}")
    if len(tasks) > 20:
        say(f"  and {len(tasks) - 20:,} more")
    say(wrapped(f"{number(len(tasks), 'task')} {what}" + (f"; {then}." if then else ".")))
