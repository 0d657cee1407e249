"""The web application: all handlers, and the responses to requests that none of them expects."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from seedream_batch.emulator.http.api_endpoints import ApiEndpoints
from seedream_batch.emulator.http.control_endpoints import control_routes
from seedream_batch.emulator.http.image_endpoints import ImageEndpoints
from seedream_batch.emulator.http.raw_responses import Finished, to_aiohttp
from seedream_batch.emulator.http.responses import error_response
from seedream_batch.emulator.http.state import EmulatorState

_ADVANCE_SECONDS = 0.2
"""Interval for adding the ends of tasks to the ledger, so that the file is complete even if nobody polls."""
_BACKLOG = 1024


@contextlib.asynccontextmanager
async def serving(state: EmulatorState) -> AsyncIterator[int]:
    """Serve an emulator; yield the port.

    Raises:
        OSError: if the emulator can't listen on the address.
    """
    # aiohttp must not limit the size of requests: the handlers do, and their limits can change at run time.
    app = web.Application(client_max_size=0, middlewares=[_error_middleware(state)])
    app.add_routes([*ApiEndpoints(state).routes(), *ImageEndpoints(state).routes(), *control_routes(state)])
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
    async def respond(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Finished as finished:
            return finished.response
        except web.HTTPException as error:
            state.stats["unknown_path"] += 1
            message = f"{request.method} {request.path}: {error.reason}"
            return to_aiohttp(error_response(error.status, message, oddities=state.config))

    return respond
