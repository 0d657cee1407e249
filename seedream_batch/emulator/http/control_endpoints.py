"""The emulator's own endpoints, under /emulator/, to inspect and change it while it runs."""

import json
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from seedream_batch.emulator.config import ConfigError
from seedream_batch.emulator.faults.plan import FaultError
from seedream_batch.emulator.http.state import EmulatorState


def control_routes(state: EmulatorState) -> list[web.RouteDef]:
    """Return the handlers under /emulator/. They need no API key, and no fault applies to them."""

    def ledger(request: web.Request, _: Any) -> object:
        first = request.query.get("first", "0")
        return state.ledger_entries(int(first) if first.isdecimal() and len(first) < 20 else 0)

    def requests(request: web.Request, _: Any) -> object:
        endpoint = request.query.get("endpoint")
        return [each for each in state.log if endpoint in (None, each["endpoint"])]

    def set_faults(_: web.Request, document: Any) -> object:
        if not isinstance(document, list):
            raise FaultError("the body must be a JSON list of rules")
        state.set_faults(document)
        return state.plan.as_json()

    def configure(_: web.Request, document: Any) -> object:
        if not isinstance(document, dict):
            raise ConfigError("the body must be a JSON object with settings")
        state.configure(document)
        return state.config.as_json()

    def reset(*_: Any) -> object:
        state.reset()
        return {"reset": True}

    return [
        web.get("/emulator/ledger", _handler(ledger)),
        web.get("/emulator/stats", _handler(lambda *_: state.stats)),
        web.get("/emulator/requests", _handler(requests)),
        web.get("/emulator/faults", _handler(lambda *_: state.plan.as_json())),
        web.put("/emulator/faults", _handler(set_faults)),
        web.delete("/emulator/faults", _handler(lambda request, _: set_faults(request, []))),
        web.get("/emulator/config", _handler(lambda *_: state.config.as_json())),
        web.patch("/emulator/config", _handler(configure)),
        web.get("/emulator/waiting", _handler(lambda *_: state.held.as_json())),
        web.delete("/emulator/waiting", _handler(lambda *_: {"released": state.held.release()})),
        web.post("/emulator/reset", _handler(reset)),
    ]


def _handler(action: Callable[[web.Request, Any], object]) -> Handler:
    """Return the handler that responds with the JSON that an action returns for a request and its JSON body."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            document = json.loads(await request.read())
        except (ValueError, RecursionError):
            document = None
        try:
            return web.json_response(action(request, document))
        except (ConfigError, FaultError) as error:
            return web.json_response({"error": str(error)}, status=400)

    return handle
