"""Compare the account's balance with what a run is about to buy."""

from __future__ import annotations

from seedream_batch.client.wire import Balance
from seedream_batch.engine.context import RunContext, dollars
from seedream_batch.engine.events import StopReason
from seedream_batch.errors import AccessRefused, CredentialsRefused, NotReached, ServiceError
from seedream_batch.lifecycle import backoff


async def _balance(context: RunContext) -> Balance:
    """Return the balance; retry until the service is reached, since nothing can be bought before that either.

    Raise `RunStopped`, `CredentialsRefused` or `ServiceError`.
    """
    tries = 0
    while True:
        try:
            return await context.control.free(context.service.balance())
        except NotReached as error:
            context.health.unanswered(error.reason)
        tries += 1
        await context.control.rest(backoff(tries, random=context.random))


async def check_balance(context: RunContext, images: int, cost: int) -> None:
    """Check the balance before anything is bought; this is free and also detects a bad key. Raise `RunStopped`.

    `cost` in millionths of a USD. Stops submissions if the key is refused or not even one image is affordable; warns if
    not all are.
    """
    try:
        balance = await _balance(context)
    except ServiceError as error:
        if isinstance(error, CredentialsRefused) and not isinstance(error, AccessRefused):
            context.control.stop_submitting(StopReason.CREDENTIALS, f"the service rejected the API key ({error})")
        else:
            # Not every key may ask for it; a submission reveals all that matters.
            context.control.warn(f"cannot check the balance: {error}")
            context.health.unproven = True
        return
    left = balance.remaining
    if left is None or left >= cost:
        return
    enough = max(0, left) * images // cost
    text = f"the account has {dollars(left)}, but the planned images ({images:,}) cost about {dollars(cost)}"
    if not enough:
        context.control.stop_submitting(StopReason.BALANCE, text)
    else:
        context.control.warn(f"{text}; enough for about {enough:,} of them")
