"""`seedream-batch balance`."""

from __future__ import annotations

import asyncio

import click

from seedream_batch.cli.output.console import say, usd
from seedream_batch.errors import CredentialsRefused

_EPILOG = """\b
Example:
  seedream-batch balance

Free of charge. Exit code 6: the service rejected the key."""


@click.command("balance", epilog=_EPILOG)
def command() -> int:
    """Show the account balance; a quick way to check the API key."""
    from seedream_batch.client.service import Service
    from seedream_batch.client.wire import Balance
    from seedream_batch.environment import api_key, origin

    async def ask() -> Balance:
        async with Service(origin(), api_key(), connections=1) as service:
            return await service.balance()

    try:
        balance = asyncio.run(ask())
    except CredentialsRefused as error:
        raise CredentialsRefused(f"the service rejected the API key ({error}); check APIMART_API_KEY") from None
    left = "unlimited" if balance.remaining is None else usd(balance.remaining)
    used = "" if balance.used is None else f", {usd(balance.used)} used"
    say(f"{left} left{used} ({origin()})")
    return 0
