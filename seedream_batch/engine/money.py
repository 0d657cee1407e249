"""What the account has left for what a run is about to buy."""

from __future__ import annotations

from seedream_batch.engine.context import Context, dollars
from seedream_batch.engine.values import StopReason
from seedream_batch.errors import CredentialsRefused, ServiceError


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
