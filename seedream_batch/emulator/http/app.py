"""The web application: the handlers together, and what happens to a request that none of them expects."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from seedream_batch.emulator.http import raw_responses
from seedream_batch.emulator.http.api_endpoints import Service
from seedream_batch.emulator.http.control_endpoints import Control
from seedream_batch.emulator.http.image_endpoints import ImageServer
from seedream_batch.emulator.http.responses import error_answer
from seedream_batch.emulator.http.state import State

# Seconds between looks at the ends of tasks, so that the ledger file is complete without anybody asking.
_TICK = 0.2
_BACKLOG = 1024


@contextlib.asynccontextmanager
async def serving(state: State) -> AsyncIterator[int]:
    """Serve an emulator; gives the port.

    Raises:
        OSError: when the address can't be listened on.
    """
    # Without a limit of aiohttp's own: the handlers keep theirs, which can be changed while they run.
    app = web.Application(client_max_size=0, middlewares=[_guard(state)])
    for part in (Service(state), ImageServer(state), Control(state)):
        app.add_routes(part.routes())
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    ticking = asyncio.create_task(_tick(state))
    try:
        site = web.TCPSite(runner, state.config.host, state.config.port, backlog=_BACKLOG)
        await site.start()
        state.port = runner.addresses[0][1]
        yield state.port
    finally:
        ticking.cancel()
        state.room.release()
        await state.webhooks.close()
        await runner.cleanup()


async def _tick(state: State) -> None:
    while True:
        await asyncio.sleep(_TICK)
        state.account.advance()


def _guard(state: State) -> Middleware:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer what no handler takes in the service's form; say nothing to clients that are gone."""
        try:
            return await handler(request)
        except raw_responses.Disconnected:
            return raw_responses.Sent()
        except web.HTTPException as error:
            state.stats["unknown_path"] += 1
            message = f"{request.method} {request.path}: {error.reason}"
            return raw_responses.respond(error_answer(error.status, message, odd=state.config))

    return guard
