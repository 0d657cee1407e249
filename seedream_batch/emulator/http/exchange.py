"""One request on its way through: counted, let in or refused, and played with by the faults that meet it."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aiohttp import web

from seedream_batch.emulator.config import EmulatorConfig
from seedream_batch.emulator.faults.plan import Fault, RequestInfo
from seedream_batch.emulator.http import raw_responses, responses
from seedream_batch.emulator.http.responses import Response
from seedream_batch.emulator.http.state import EmulatorState

_IDEMPOTENCY_MESSAGES = {
    "in_progress": "a request with this Idempotency-Key is being executed",
    "indeterminate": "the result of the request with this Idempotency-Key can't be determined",
    "unavailable": "idempotency is not available at the moment, the request was not executed",
    "key_reused": "this Idempotency-Key was used for another request body",
}
# What becomes of the task, not of the request: for whoever answers, not for this module.
TASK_OUTCOMES = frozenset({"fail", "never_end", "late_failure", "not_found", "unknown_status"})


class Exchange:
    """A request to one of the endpoints, from its headers to its answer."""

    def __init__(self, state: EmulatorState, request: web.Request, endpoint: str) -> None:
        """Count and log the request."""
        self.state = state
        self.request = request
        self.endpoint = endpoint
        self.faults: list[Fault] = []
        self.record: dict[str, Any] = {
            "at": state.clock.now(),
            "endpoint": endpoint,
            "method": request.method,
            "path": request.path_qs,
            "headers": list(request.headers),
            "authorization": "Authorization" in request.headers,
            "key": request.headers.get("Idempotency-Key"),
            "body_sha256": None,
        }
        state.stats[endpoint] += 1
        state.log.append(self.record)

    async def admit(self, *, auth: bool = True) -> web.StreamResponse | None:
        """The end of the request before its body is read, if that is where it ends."""
        struck = await self._apply_early_faults()
        if struck is not None:
            return struck
        if not auth:
            return None
        if self.state.config.latency_seconds:
            await asyncio.sleep(self.state.config.latency_seconds)
        refused = self._refusal()
        return None if refused is None else raw_responses.respond(refused)

    def match_faults(self, prompt: str | None = None) -> None:
        """Find the faults that this request meets; the prompt is that of a submission."""
        if self.state.plan:
            self.faults = self.state.plan.match(self._request_info(prompt), before_body=False)
            self.state.stats["faults"] += len(self.faults)

    def task_outcome(self) -> dict[str, Any] | None:
        """The task outcome that the faults ask for."""
        for fault in self.faults:
            if fault.action in TASK_OUTCOMES:
                names = ("status", "code", "message", "polls", "word")
                return {
                    "action": fault.action,
                    **{name: fault.get(name) for name in names if fault.get(name) is not None},
                }
        return None

    def oddity_overrides(self) -> dict[str, Any] | None:
        """The oddities that the faults ask for."""
        asked: dict[str, Any] = {}
        for fault in self.faults:
            if fault.action == "oddity":
                asked |= fault.get("set")
        return asked or None

    @property
    def oddities(self) -> EmulatorConfig:
        """The oddities to play in the answer."""
        return self.state.oddities(self.oddity_overrides())

    async def before_execution(self) -> web.StreamResponse | None:
        """Play what strikes before the request is executed; the response where that ends it."""
        for fault in self.faults:
            if fault.get("at") == "before_bill" and not await self._wait(fault):
                return raw_responses.NoResponse()
            if fault.action == "reset_after":
                return raw_responses.reset(self.request)
            response = self._replacement(fault, "before_bill")
            if response is not None:
                return raw_responses.respond(response)
        return None

    async def finish(self, response: Response) -> web.StreamResponse:
        """Play what strikes after the request was executed, on its answer."""
        middle: Fault | None = None
        for fault in self.faults:
            if fault.get("at") == "after_bill" and not await self._wait(fault):
                return raw_responses.NoResponse()
            if fault.action == "hang" and fault.get("at") == "mid_body":
                middle = fault
        for fault in self.faults:
            if fault.action == "reset_after_bill":
                return raw_responses.reset(self.request)
            if fault.action == "cut_body":
                return raw_responses.send_truncated(self.request, response, fault.get("keep"))
            response = self._replacement(fault, "after_bill") or self._corrupted(response, fault)
        if middle is not None:
            return await self._hold_mid_body(response, middle)
        return raw_responses.respond(response)

    def error(self, status: int, message: str | None = None, **more: Any) -> Response:
        """A refusal, with the oddities that are played."""
        return responses.error_response(status, message, odd=self.oddities, **more)

    def rate_limited(self, style: object, seconds: float = 1.0) -> Response:
        """The 429 of the rate limit."""
        return replace(self.error(429), headers=responses.retry_after(style, seconds))

    def idempotency_error(self, code: str, retry: object = None) -> Response:
        """One of the refusals of the idempotency table."""
        status = 503 if code == "unavailable" else 409
        if retry is None and code == "in_progress":
            retry = 1
        said = self.error(status, _IDEMPOTENCY_MESSAGES[code], code=_idempotency_code(code), kind="idempotency_error")
        return replace(said, headers=responses.retry_after(retry))

    def _request_info(self, prompt: str | None) -> RequestInfo:
        account = self.state.account
        if self.endpoint == "submit":
            return RequestInfo(self.endpoint, prompt, task_number=account.next_number)
        wanted = self.request.match_info.get("task_id")
        task = account.tasks.get(wanted or "")
        if task is None:
            return RequestInfo(self.endpoint, task_id=wanted)
        return RequestInfo(self.endpoint, task.plan.prompt, wanted, task.plan.number)

    async def _apply_early_faults(self) -> web.StreamResponse | None:
        if not self.state.plan:
            return None
        for fault in self.state.plan.match(self._request_info(None), before_body=True):
            self.state.stats["faults"] += 1
            if fault.action == "reset_during" and self.request.body_exists:
                length = self.request.content_length or 2
                await raw_responses.read_some(self.request, fault.get("bytes") or max(1, length // 2))
            return raw_responses.reset(self.request)
        return None

    def _refusal(self) -> Response | None:
        config = self.state.config
        scheme, _, key = self.request.headers.get("Authorization", "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key or key in config.bad_keys:
            return self.error(401)
        if key in config.forbidden_keys:
            return self.error(403)
        wait = self.state.rate_limit_wait(self.endpoint)
        if wait > 0:
            self.state.stats["rate_limited"] += 1
            return self.rate_limited(config.retry_after, wait)
        return None

    async def _wait(self, fault: Fault) -> bool:
        """Let a delay or a hang go by; whether the request goes on."""
        if fault.action == "delay":
            await asyncio.sleep(fault.get("seconds"))
        if fault.action == "hang":
            return await self.state.held.hold(self.request, self._describe_hold(fault))
        return True

    def _replacement(self, fault: Fault, at: str) -> Response | None:
        """The answer that a fault gives in place of the real one."""
        if fault.action == "rate_limit" and at == "before_bill":
            return self.rate_limited(fault.get("retry_after"))
        if fault.action == "redirect" and at == "before_bill":
            return Response(fault.get("status"), b"", {"Location": fault.get("url")})
        if fault.get("at") != at:
            return None
        if fault.action == "idempotency":
            return self.idempotency_error(fault.get("code"), fault.get("retry_after"))
        if fault.action == "status":
            error = self.error(
                fault.get("status"), fault.get("message"), code=fault.get("code"), kind=fault.get("type")
            )
            error = replace(error, headers=responses.retry_after(fault.get("retry_after")))
            return responses.of_kind(fault.get("body"), error)
        return None

    def _corrupted(self, response: Response, fault: Fault) -> Response:
        if fault.action == "empty_body":
            return replace(response, body=b"")
        if fault.action == "garbage_body":
            return replace(response, body=responses.GARBAGE)
        if fault.action == "huge_body":
            # White space at its end leaves a JSON document what it is.
            return replace(response, body=response.body + b" " * fault.get("bytes"))
        if fault.action == "no_task_id" and response.status < 300:
            return responses.without_task_id(response)
        if fault.action == "same_id" and response.status < 300:
            tasks = self.state.account.tasks.values()
            first = next((task.plan.id for task in tasks if task.plan.number == fault.get("of")), None)
            return response if first is None else responses.with_task_id(response, first)
        if fault.action == "image_error":
            return responses.with_image_error(response, fault.get("image"), fault.get("code"), fault.get("message"))
        return response

    async def _hold_mid_body(self, response: Response, fault: Fault) -> raw_responses.NoResponse:
        half = len(response.body) // 2
        raw_responses.send_raw(
            self.request, raw_responses.response_head(response, length=len(response.body)) + response.body[:half]
        )
        if await self.state.held.hold(self.request, self._describe_hold(fault)):
            raw_responses.send_raw(self.request, response.body[half:])
        return raw_responses.close_connection(self.request)

    def _describe_hold(self, fault: Fault) -> Mapping[str, Any]:
        about = {name: self.record[name] for name in ("at", "endpoint", "method", "path", "key")}
        return {**about, "held_at": fault.get("at"), "rule": fault.rule}


def _idempotency_code(code: str) -> str:
    return {"indeterminate": "idempotency_result_indeterminate"}.get(code, f"idempotency_{code}")
