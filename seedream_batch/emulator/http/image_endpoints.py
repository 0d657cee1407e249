"""The images: results and uploads, on paths of their own, without authorization, and with faults of their own."""

import asyncio
import gzip
from collections.abc import Callable, Mapping
from dataclasses import replace

from aiohttp import web

from seedream_batch.emulator.faults.plan import Fault
from seedream_batch.emulator.http import raw_responses
from seedream_batch.emulator.http.exchange import Exchange
from seedream_batch.emulator.http.links import image_index, is_good
from seedream_batch.emulator.http.responses import Response, error_response, of_kind
from seedream_batch.emulator.http.state import EmulatorState
from seedream_batch.emulator.world.images import solid_image
from seedream_batch.emulator.world.tasks import Task

_SLOW_STEPS_PER_SECOND = 20


class ImageEndpoints:
    """The handlers of what is fetched without a key."""

    def __init__(self, state: EmulatorState) -> None:
        self._state = state

    def routes(self) -> list[web.RouteDef]:
        """Where the handlers are."""
        return [
            web.get("/results/{task_id}/{name}", self.result),
            web.get("/uploads/{name}", self.uploaded),
        ]

    async def result(self, request: web.Request) -> web.StreamResponse:
        """GET /results/{task}/{index}.{extension}."""
        exchange = Exchange(self._state, request, "image")
        ended = await exchange.admit(auth=False)
        if ended is not None:
            return ended
        if exchange.record["authorization"]:
            self._state.stats["leaked_credentials"] += 1
        if "hop" in request.query:
            return _redirect_hop(request)
        task = self._state.account.tasks.get(request.match_info["task_id"])
        exchange.match_faults()
        ended = await exchange.before_execution()
        if ended is not None:
            return ended
        response = await self._image(request, task)
        for fault in exchange.faults:
            broken = await _apply_image_fault(request, response, fault, self._state)
            if broken is not None:
                return broken
        return await exchange.finish(response)

    async def uploaded(self, request: web.Request) -> web.StreamResponse:
        """GET /uploads/{name}."""
        exchange = Exchange(self._state, request, "uploaded_image")
        if exchange.record["authorization"]:
            self._state.stats["leaked_credentials"] += 1
        found = self._state.uploads.get(request.match_info["name"])
        if found is None:
            return raw_responses.respond(error_response(404, odd=self._state.config))
        upload, data = found
        if upload.created + self._state.config.upload_seconds < self._state.clock.now():
            return raw_responses.respond(_expired(self._state))
        return raw_responses.respond(Response(200, data, content_type=upload.content_type))

    async def _image(self, request: web.Request, task: Task | None) -> Response:
        index = image_index(request.match_info["name"])
        now = self._state.clock.now()
        if task is None or index is None or index >= task.plan.delivered or task.state(now) != "completed":
            return of_kind("html", error_response(404, odd=self._state.config))
        query = request.query
        if not is_good(task.plan.id, index, query.get("expires", ""), query.get("token", ""), now):
            return _expired(self._state)
        picture = await self._state.image_cache.image(task.plan, index)
        return Response(200, picture.data, content_type=picture.content_type)


def _expired(state: EmulatorState) -> Response:
    xml = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>'
    return Response(state.config.link_status, xml, content_type="application/xml")


def _redirect_hop(request: web.Request) -> web.Response:
    """One more turn of a redirect loop."""
    hop = int(request.query["hop"]) + 1 if request.query.get("hop", "").isdigit() else 1
    return web.Response(status=302, headers={"Location": str(request.rel_url.update_query(hop=str(hop)))})


async def _apply_image_fault(
    request: web.Request, response: Response, fault: Fault, state: EmulatorState
) -> web.StreamResponse | None:
    """The response of a fault that only images have; None for all others."""
    if fault.action == "slow":
        return await _slow(request, response, fault.get("bytes_per_second"))
    if fault.action == "redirect_loop":
        return _redirect_hop(request)
    wire_bytes = _raw_bytes(response, fault)
    if wire_bytes is not None:
        raw_responses.send_raw(request, wire_bytes)
        return raw_responses.close_connection(request)
    spoiler = _IMAGE_FAULTS.get(fault.action)
    return None if spoiler is None else raw_responses.respond(spoiler(response, fault, state))


def _raw_bytes(response: Response, fault: Fault) -> bytes | None:
    """What goes on the wire where length and body don't agree."""
    if fault.action == "cut_chunked":
        part = response.body[: int(len(response.body) * fault.get("keep"))]
        return raw_responses.response_head(response, length=None) + b"%x\r\n%b\r\n" % (len(part), part)
    if fault.action == "long_length":
        return raw_responses.response_head(response, length=len(response.body) + fault.get("bytes")) + response.body
    if fault.action == "short_length":
        return raw_responses.response_head(response, length=len(response.body) // 2) + response.body
    return None


def _truncated(response: Response, fault: Fault, _: EmulatorState) -> Response:
    return replace(response, body=response.body[: int(len(response.body) * fault.get("keep"))])


def _login_page(_answer: Response, _fault: Fault, _state: EmulatorState) -> Response:
    page = b"<html><head><title>Please log in</title></head><body>Please log in</body></html>"
    return Response(200, page, content_type="text/html")


def _wrong_type(response: Response, fault: Fault, _: EmulatorState) -> Response:
    return replace(response, content_type=fault.get("content_type"))


def _wrong_size(_answer: Response, fault: Fault, _state: EmulatorState) -> Response:
    small = solid_image(fault.get("width"), fault.get("height"))
    return Response(200, small.data, content_type=small.content_type)


def _gzip(response: Response, fault: Fault, _: EmulatorState) -> Response:
    headers = {"Content-Encoding": "gzip"} if fault.get("declared") else {}
    return replace(response, body=gzip.compress(response.body, 1), headers=headers)


_IMAGE_FAULTS: Mapping[str, Callable[[Response, Fault, EmulatorState], Response]] = {
    "truncated_image": _truncated,
    "html_200": _login_page,
    "wrong_type": _wrong_type,
    "wrong_size": _wrong_size,
    "gzip": _gzip,
    "expired": lambda _answer, _fault, state: _expired(state),
}


async def _slow(request: web.Request, response: Response, bytes_per_second: float) -> web.StreamResponse:
    raw_responses.send_raw(request, raw_responses.response_head(response, length=len(response.body)))
    step = max(1, int(bytes_per_second / _SLOW_STEPS_PER_SECOND))
    for start in range(0, len(response.body), step):
        if raw_responses.is_disconnected(request):
            break
        raw_responses.send_raw(request, response.body[start : start + step])
        await asyncio.sleep(step / bytes_per_second)
    return raw_responses.close_connection(request)
