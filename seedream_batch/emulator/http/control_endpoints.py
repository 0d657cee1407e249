"""The emulator's own endpoints, under /emulator/: look inside and change it while it runs."""

import json
from typing import Any

from aiohttp import web

from seedream_batch.emulator.config import ConfigError
from seedream_batch.emulator.faults.plan import FaultError
from seedream_batch.emulator.http.state import EmulatorState


class ControlEndpoints:
    """The handlers under /emulator/. They need no key, and no fault meets them."""

    def __init__(self, state: EmulatorState) -> None:
        self._state = state

    def routes(self) -> list[web.RouteDef]:
        """Where the handlers are."""
        return [
            web.get("/emulator/ledger", self.ledger),
            web.get("/emulator/stats", self.stats),
            web.get("/emulator/requests", self.requests),
            web.get("/emulator/faults", self.faults),
            web.put("/emulator/faults", self.set_faults),
            web.delete("/emulator/faults", self.no_faults),
            web.get("/emulator/config", self.config),
            web.patch("/emulator/config", self.configure),
            web.get("/emulator/waiting", self.waiting),
            web.delete("/emulator/waiting", self.release),
            web.post("/emulator/reset", self.reset),
        ]

    async def ledger(self, request: web.Request) -> web.Response:
        """The entries so far, as a list; `?first=N` leaves out the first N."""
        first = request.query.get("first", "0")
        return web.json_response(self._state.ledger_entries(int(first) if first.isdigit() else 0))

    async def stats(self, request: web.Request) -> web.Response:  # noqa: ARG002 - the signature is aiohttp's
        """Requests by endpoint, and some counts more."""
        return web.json_response(dict(self._state.stats))

    async def requests(self, request: web.Request) -> web.Response:
        """The latest requests, the oldest first; `?endpoint=` for those to one endpoint."""
        wanted = request.query.get("endpoint")
        return web.json_response([each for each in self._state.log if wanted in (None, each["endpoint"])])

    async def faults(self, request: web.Request) -> web.Response:  # noqa: ARG002 - the signature is aiohttp's
        """The rules in force and how often each fired."""
        return web.json_response(self._state.plan.as_json())

    async def set_faults(self, request: web.Request) -> web.Response:
        """Replace the rules by a JSON list."""
        document = await _json(request)
        if not isinstance(document, list):
            return _wrong("the body must be a JSON list of rules")
        try:
            self._state.set_faults(document)
        except FaultError as error:
            return _wrong(str(error))
        return web.json_response(self._state.plan.as_json())

    async def no_faults(self, request: web.Request) -> web.Response:  # noqa: ARG002 - the signature is aiohttp's
        """Drop all rules."""
        self._state.set_faults([])
        return web.json_response([])

    async def config(self, request: web.Request) -> web.Response:  # noqa: ARG002 - the signature is aiohttp's
        """The settings."""
        return web.json_response(self._state.config.as_json())

    async def configure(self, request: web.Request) -> web.Response:
        """Change some settings by a JSON object."""
        document = await _json(request)
        if not isinstance(document, dict):
            return _wrong("the body must be a JSON object with settings")
        try:
            self._state.configure(document)
        except ConfigError as error:
            return _wrong(str(error))
        return web.json_response(self._state.config.as_json())

    async def waiting(self, request: web.Request) -> web.Response:  # noqa: ARG002 - the signature is aiohttp's
        """The requests that a hang holds."""
        return web.json_response(self._state.held.as_json())

    async def release(self, request: web.Request) -> web.Response:  # noqa: ARG002 - the signature is aiohttp's
        """Let them go on."""
        return web.json_response({"released": self._state.held.release()})

    async def reset(self, request: web.Request) -> web.Response:  # noqa: ARG002 - the signature is aiohttp's
        """Forget everything but the settings."""
        self._state.reset()
        return web.json_response({"reset": True})


async def _json(request: web.Request) -> Any:
    try:
        return json.loads(await request.read())
    except ValueError:
        return None


def _wrong(message: str) -> web.Response:
    return web.json_response({"error": message}, status=400)
