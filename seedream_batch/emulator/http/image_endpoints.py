"""The images: their URLs, and results and uploads, without API keys and with faults that only images have."""

import asyncio
import gzip
import hashlib
import re
from dataclasses import replace

from aiohttp import web

from seedream_batch.emulator.config import Oddities
from seedream_batch.emulator.faults.plan import Fault
from seedream_batch.emulator.http import raw_responses
from seedream_batch.emulator.http.exchange import Exchange
from seedream_batch.emulator.http.responses import Response, error_response, with_body_kind
from seedream_batch.emulator.http.state import EmulatorState
from seedream_batch.emulator.world.images import solid_image
from seedream_batch.emulator.world.tasks import Task

_SLOW_STEPS_PER_SECOND = 20


class ImageEndpoints:
    """The handlers of image URLs."""

    def __init__(self, state: EmulatorState) -> None:
        self._state = state

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/results/{task_id}/{name}", self._result),
            web.get("/uploads/{name}", self._uploaded),
        ]

    async def _result(self, request: web.Request) -> web.StreamResponse:
        exchange = Exchange(self._state, request, "image")
        await exchange.admit(auth=False)
        if "hop" in request.query:
            return _redirect_loop(request)
        exchange.match_faults()
        await exchange.before_execution()
        response = await self._image(request)
        for fault in exchange.faults:
            if fault.action == "slow":
                return await _send_slowly(request, response, fault.get("bytes_per_second"))
            if fault.action == "redirect_loop":
                return _redirect_loop(request)
            raw = _raw_response(response, fault)
            if raw is not None:
                raw_responses.send_raw(request, raw)
                return raw_responses.close_connection(request)
            response = self._replaced(response, fault)
        return await exchange.finish(response)

    async def _uploaded(self, request: web.Request) -> web.StreamResponse:
        Exchange(self._state, request, "uploaded_image")
        found = self._state.uploads.get(request.match_info["name"])
        if found is None:
            return raw_responses.to_aiohttp(error_response(404, oddities=self._state.config))
        upload, data = found
        if upload.created + self._state.config.upload_seconds < self._state.clock.now():
            return raw_responses.to_aiohttp(self._expired())
        return raw_responses.to_aiohttp(Response(200, data, content_type=upload.content_type))

    async def _image(self, request: web.Request) -> Response:
        task = self._state.account.tasks.get(request.match_info["task_id"])
        index = image_index(request.match_info["name"])
        now = self._state.clock.now()
        if task is None or index is None or index >= task.plan.delivered or task.state(now) != "completed":
            return with_body_kind(error_response(404, oddities=self._state.config), "html")
        query = request.query
        if not is_valid(task.plan.id, index, query.get("expires", ""), query.get("token", ""), now):
            return self._expired()
        image = await self._state.image_cache.image(task.plan, index)
        return Response(200, image.data, content_type=image.content_type)

    def _expired(self) -> Response:
        xml = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>'
        return Response(self._state.config.link_status, xml, content_type="application/xml")

    def _replaced(self, response: Response, fault: Fault) -> Response:
        match fault.action:
            case "truncated_image":
                return replace(response, body=_first_part(response, fault))
            case "html_200":
                page = b"<html><head><title>Please log in</title></head><body>Please log in</body></html>"
                return Response(200, page, content_type="text/html")
            case "wrong_type":
                return replace(response, content_type=fault.get("content_type"))
            case "wrong_size":
                small = solid_image(fault.get("width"), fault.get("height"))
                return Response(200, small.data, content_type=small.content_type)
            case "gzip":
                headers = {"Content-Encoding": "gzip"} if fault.get("declared") else {}
                return replace(response, body=gzip.compress(response.body, 1), headers=headers)
            case "expired":
                return self._expired()
        return response


def _first_part(response: Response, fault: Fault) -> bytes:
    return response.body[: int(len(response.body) * fault.get("keep"))]


def _redirect_loop(request: web.Request) -> web.Response:
    """Return a redirect to the same URL with a higher `hop`."""
    hop = request.query.get("hop", "")
    following = int(hop) + 1 if hop.isdecimal() and len(hop) < 20 else 1
    return web.Response(status=302, headers={"Location": str(request.rel_url.update_query(hop=str(following)))})


def _raw_response(response: Response, fault: Fault) -> bytes | None:
    """Return the bytes of a response whose length and body disagree; None for other faults."""
    if fault.action == "cut_chunked":
        part = _first_part(response, fault)
        return raw_responses.response_head(response, length=None) + b"%x\r\n%b\r\n" % (len(part), part)
    if fault.action == "long_length":
        return raw_responses.response_head(response, length=len(response.body) + fault.get("bytes")) + response.body
    if fault.action == "short_length":
        return raw_responses.response_head(response, length=len(response.body) // 2) + response.body
    return None


async def _send_slowly(request: web.Request, response: Response, bytes_per_second: float) -> web.StreamResponse:
    raw_responses.send_raw(request, raw_responses.response_head(response, length=len(response.body)))
    step = max(1, int(bytes_per_second / _SLOW_STEPS_PER_SECOND))
    for start in range(0, len(response.body), step):
        if raw_responses.is_disconnected(request):
            break
        raw_responses.send_raw(request, response.body[start : start + step])
        await asyncio.sleep(step / bytes_per_second)
    return raw_responses.close_connection(request)


_EXTENSIONS = {"jpeg": "jpg", "png": "png"}
_OTHER_EXTENSION = {"jpg": "png", "png": "jpg"}


def result_url(state: EmulatorState, task: Task, index: int, oddities: Oddities) -> str:
    """Return the URL of an image of a task; valid until the task's links expire.

    The expiry is part of the URL, so earlier URLs expire when they were meant to, even after a restart.
    """
    extension = _EXTENSIONS[task.plan.format_of(index)]
    if oddities.url_extension == "wrong":
        extension = _OTHER_EXTENSION[extension]
    name = str(index) if oddities.url_extension == "none" else f"{index}.{extension}"
    expires = str(int(task.links_until * 1000))
    token = _token(task.plan.id, index, expires)
    return f"{_origin(state)}/results/{task.plan.id}/{name}?expires={expires}&token={token}"


def upload_url(state: EmulatorState, name: str) -> str:
    return f"{_origin(state)}/uploads/{name}"


def image_index(name: str) -> int | None:
    """Return the index of an image from the last part of its URL's path; None if there is none."""
    match = re.fullmatch(r"([0-9]{1,4})(\.[^.]*)?", name)
    return None if match is None else int(match[1])


def is_valid(task_id: str, index: int, expires: str, token: str, now: float) -> bool:
    """Return whether `result_url` created a URL with this expiry and token, and it hasn't expired."""
    is_time = re.fullmatch(r"[0-9]{1,20}", expires) is not None
    return is_time and token == _token(task_id, index, expires) and now * 1000 < int(expires)


def _origin(state: EmulatorState) -> str:
    return f"http://{state.config.image_host}:{state.port}"


def _token(task_id: str, index: int, expires: str) -> str:
    return hashlib.sha256(f"{task_id}/{index}/{expires}".encode()).hexdigest()[:16]
