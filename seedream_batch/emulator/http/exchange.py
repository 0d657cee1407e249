"""One request and its response: counted, admitted or refused, and changed by the faults that match it."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aiohttp import web

from seedream_batch.emulator.config import EmulatorConfig
from seedream_batch.emulator.faults.plan import Fault, RequestInfo
from seedream_batch.emulator.http import raw_responses, responses
from seedream_batch.emulator.http.raw_responses import Finished, NoResponse
from seedream_batch.emulator.http.responses import Response
from seedream_batch.emulator.http.state import EmulatorState

_IDEMPOTENCY_ERRORS = {
    "in_progress": (409, "idempotency_in_progress", "a request with this Idempotency-Key is being executed"),
    "indeterminate": (
        409,
        "idempotency_result_indeterminate",
        "the result of the request with this Idempotency-Key can't be determined",
    ),
    "unavailable": (
        503,
        "idempotency_unavailable",
        "idempotency is not available at the moment, the request was not executed",
    ),
    "key_reused": (409, "idempotency_key_reused", "this Idempotency-Key was used for another request body"),
}
"""Status, code and message."""

# Outcomes of a task, which the endpoints apply.
_TASK_OUTCOMES = frozenset({"fail", "never_end", "late_failure", "not_found", "unknown_status"})
_OUTCOME_PARAMETERS = ("status", "code", "message", "polls", "word")


class Exchange:
    """A request to an endpoint, and the faults that match it."""

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
        if endpoint in {"image", "uploaded_image"} and self.record["authorization"]:
            state.stats["leaked_credentials"] += 1
        state.log.append(self.record)

    async def admit(self, *, auth: bool = True) -> None:
        """Apply the faults that need no body, and check API key and rate limit.

        Raises `Finished` if the request ends here.
        """
        await self._apply_early_faults()
        if auth:
            if self.state.config.latency_seconds:
                await asyncio.sleep(self.state.config.latency_seconds)
            refusal = self._refusal()
            if refusal is not None:
                raise Finished(raw_responses.to_aiohttp(refusal))

    def match_faults(self, prompt: str | None = None) -> None:
        """Find the faults for this request; the prompt is that of a submission."""
        self.faults = self.state.plan.match(self._request_info(prompt), before_body=False)
        self.state.stats["faults"] += len(self.faults)

    def task_outcome(self) -> dict[str, Any] | None:
        """Return the first task outcome among the faults: its action and parameters."""
        for fault in self.faults:
            if fault.action in _TASK_OUTCOMES:
                parameters = {name: fault.get(name) for name in _OUTCOME_PARAMETERS if fault.get(name) is not None}
                return {"action": fault.action, **parameters}
        return None

    def oddity_overrides(self) -> dict[str, Any] | None:
        """Return the settings that the faults change for this request."""
        overrides: dict[str, Any] = {}
        for fault in self.faults:
            if fault.action == "oddity":
                overrides |= fault.get("set")
        return overrides or None

    @property
    def settings(self) -> EmulatorConfig:
        return self.state.settings(self.oddity_overrides())

    async def before_execution(self) -> None:
        """Apply the faults that come before the request is executed. Raises `Finished` if one of them ends it."""
        for fault in self.faults:
            if fault.get("at") == "before_bill":
                await self._wait(fault)
            if fault.action == "reset_after":
                raise Finished(raw_responses.reset(self.request))
            response = self._replacement(fault, "before_bill")
            if response is not None:
                raise Finished(raw_responses.to_aiohttp(response))

    async def finish(self, response: Response) -> web.StreamResponse:
        """Apply the faults that come after the request was executed, and send its response.

        Raises `Finished` if the client has disconnected.
        """
        for fault in self.faults:
            if fault.get("at") == "after_bill":
                await self._wait(fault)
        for fault in self.faults:
            if fault.action == "reset_after_bill":
                return raw_responses.reset(self.request)
            if fault.action == "cut_body":
                return raw_responses.send_truncated(self.request, response, fault.get("keep"))
            response = self._replacement(fault, "after_bill") or self._corrupted(response, fault)
        for fault in reversed(self.faults):
            if fault.action == "hang" and fault.get("at") == "mid_body":
                return await self._hold_mid_body(response, fault)
        return raw_responses.to_aiohttp(response)

    def error(self, status: int, message: str | None = None, **more: Any) -> Response:
        """Return an error response, in the form that the settings say."""
        return responses.error_response(status, message, oddities=self.settings, **more)

    def idempotency_error(self, code: str, retry_after: object = None) -> Response:
        """Return an error of the service's idempotency table."""
        status, full_code, message = _IDEMPOTENCY_ERRORS[code]
        if retry_after is None and code == "in_progress":
            retry_after = 1
        error = self.error(status, message, code=full_code, kind="idempotency_error")
        return replace(error, headers=responses.retry_after(retry_after))

    def _rate_limited(self, retry_after: object, seconds: float = 1.0) -> Response:
        return replace(self.error(429), headers=responses.retry_after(retry_after, seconds))

    def _request_info(self, prompt: str | None) -> RequestInfo:
        account = self.state.account
        if self.endpoint == "submit":
            return RequestInfo(self.endpoint, prompt, task_number=account.next_number)
        task_id = self.request.match_info.get("task_id")
        task = account.tasks.get(task_id or "")
        if task is None:
            return RequestInfo(self.endpoint, task_id=task_id)
        return RequestInfo(self.endpoint, task.plan.prompt, task_id, task.plan.number)

    async def _apply_early_faults(self) -> None:
        for fault in self.state.plan.match(self._request_info(None), before_body=True):
            self.state.stats["faults"] += 1
            if fault.action == "reset_during" and self.request.body_exists:
                length = self.request.content_length or 2
                await raw_responses.read_some(self.request, fault.get("bytes") or max(1, length // 2))
            raise Finished(raw_responses.reset(self.request))

    def _refusal(self) -> Response | None:
        config = self.state.config
        scheme, _, key = self.request.headers.get("Authorization", "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key or key in config.bad_keys:
            return self.error(401)
        if key in config.forbidden_keys:
            return self.error(403)
        seconds = self.state.rate_limit_wait(self.endpoint)
        if seconds > 0:
            self.state.stats["rate_limited"] += 1
            return self._rate_limited(config.retry_after, seconds)
        return None

    async def _wait(self, fault: Fault) -> None:
        """Wait for the end of a delay or a hang. Raises `Finished` if the client has disconnected."""
        if fault.action == "delay":
            await asyncio.sleep(fault.get("seconds"))
        if fault.action == "hang" and not await self.state.held.hold(self.request, self._describe_hold(fault)):
            raise Finished(NoResponse())

    def _replacement(self, fault: Fault, at: str) -> Response | None:
        """Return the response that a fault at this point gives instead of the real one."""
        if fault.action == "rate_limit" and at == "before_bill":
            return self._rate_limited(fault.get("retry_after"))
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
            return responses.with_body_kind(error, fault.get("body"))
        return None

    def _corrupted(self, response: Response, fault: Fault) -> Response:
        accepted = response.status < 300
        match fault.action:
            case "empty_body":
                return replace(response, body=b"")
            case "garbage_body":
                return replace(response, body=responses.GARBAGE)
            case "huge_body":
                # White space at the end leaves a JSON document valid.
                return replace(response, body=response.body + b" " * fault.get("bytes"))
            case "no_task_id" if accepted:
                return responses.with_task_id(response, None)
            case "same_id" if accepted:
                for task in self.state.account.tasks.values():
                    if task.plan.number == fault.get("of"):
                        return responses.with_task_id(response, task.plan.id)
            case "image_error":
                return responses.with_image_error(response, fault.get("image"), fault.get("code"), fault.get("message"))
        return response

    async def _hold_mid_body(self, response: Response, fault: Fault) -> NoResponse:
        half = len(response.body) // 2
        head = raw_responses.response_head(response, length=len(response.body))
        raw_responses.send_raw(self.request, head + response.body[:half])
        if await self.state.held.hold(self.request, self._describe_hold(fault)):
            raw_responses.send_raw(self.request, response.body[half:])
        return raw_responses.close_connection(self.request)

    def _describe_hold(self, fault: Fault) -> Mapping[str, Any]:
        about = {name: self.record[name] for name in ("at", "endpoint", "method", "path", "key")}
        return {**about, "held_at": fault.get("at"), "rule": fault.rule}
