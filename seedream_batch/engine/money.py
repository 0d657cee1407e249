"""What a run may buy before it is known what things cost: by the account, and by prices that were never seen."""

from __future__ import annotations

from seedream_batch.engine.context import Context, dollars
from seedream_batch.engine.values import StopReason
from seedream_batch.errors import CredentialsRefused, ServiceError
from seedream_batch.model.task import TaskRecord

UNSURE = 10
"""How many times its estimate an image may turn out to cost, as long as no real price is known."""

MOST_UNPRICED = 4
"""Tasks in flight under a cap on cost that would not hold at such a price, as long as no real one is known."""


async def price_is_clear(context: Context, task: TaskRecord, at_work: int) -> bool:
    """Whether little hangs on the price, or it is known, or the service does not tell it; so many are `at_work`."""
    if context.job.budget.max_cost is None or (task.model, task.resolution) in context.costless:
        return True
    if await context.writer.do(lambda m: m.price_is_known(task)):
        return True
    totals = await context.writer.do(lambda m: m.totals())
    if totals.cost + UNSURE * (totals.reserved + task.images * task.price) <= context.job.budget.max_cost:
        return True
    # Those of earlier runs count, too: what is submitted and not collected has no known cost either.
    return max(at_work, await context.writer.do(lambda m: m.in_flight())) < MOST_UNPRICED


async def look_at_balance(context: Context, images: int, cost: int) -> None:
    """Asks what the account has before anything is bought: free of charge, and it finds a bad key, too."""
    try:
        balance = await context.service.balance()
    except CredentialsRefused as error:
        context.stop_submitting(StopReason.CREDENTIALS, f"the service refuses the API key ({error})")
        return
    except ServiceError as error:
        # Not every account may ask; a submission tells all that matters.
        context.tell(f"the balance is not known: {error}")
        return
    left = balance.remaining
    if left is None or left >= cost:
        return
    enough = max(0, left) * images // cost
    text = f"the account has {dollars(left)}; the {images:,} images to buy cost about {dollars(cost)}"
    if not enough:
        context.stop_submitting(StopReason.BALANCE, text)
    else:
        context.tell(f"{text}: it will do for about {enough:,} of them")
