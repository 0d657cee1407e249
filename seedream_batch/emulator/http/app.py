"""The web application: the handlers together, and what happens to a request that none of them expects."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from seedream_batch.emulator.http import raw_responses
from seedream_batch.emulator.http.api_endpoints import ApiEndpoints
from seedream_batch.emulator.http.control_endpoints import ControlEndpoints
from seedream_batch.emulator.http.image_endpoints import ImageEndpoints
from seedream_batch.emulator.http.responses import error_response
from seedream_batch.emulator.http.state import EmulatorState

# Seconds between looks at the ends of tasks, so that the ledger file is complete without anybody asking.
_ADVANCE_SECONDS = 0.2
_BACKLOG = 1024


@contextlib.asynccontextmanager
async def serving(state: EmulatorState) -> AsyncIterator[int]:
    """Serve an emulator; gives the port.

    Raises:
        OSError: when the address can't be listened on.
    """
    # Without a limit of aiohttp's own: the handlers keep theirs, which can be changed while they run.
    app = web.Application(client_max_size=0, middlewares=[_error_middleware(state)])
    for part in (ApiEndpoints(state), ImageEndpoints(state), ControlEndpoints(state)):
        app.add_routes(part.routes())
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    advancing = asyncio.create_task(_advance_forever(state))
    try:
        site = web.TCPSite(runner, state.config.host, state.config.port, backlog=_BACKLOG)
        await site.start()
        state.port = runner.addresses[0][1]
        yield state.port
    finally:
        advancing.cancel()
        state.held.release()
        await state.webhooks.close()
        await runner.cleanup()


async def _advance_forever(state: EmulatorState) -> None:
    while True:
        await asyncio.sleep(_ADVANCE_SECONDS)
        state.account.advance()


def _error_middleware(state: EmulatorState) -> Middleware:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer what no handler takes in the service's form; say nothing to clients that are gone."""
        try:
            return await handler(request)
        except raw_responses.ClientDisconnected:
            return raw_responses.NoResponse()
        except web.HTTPException as error:
            state.stats["unknown_path"] += 1
            message = f"{request.method} {request.path}: {error.reason}"
            return raw_responses.respond(error_response(error.status, message, odd=state.config))

    return guard
