"""One request on its way through: counted, let in or refused, and played with by the faults that meet it."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aiohttp import web

from seedream_batch.emulator.config import Oddities
from seedream_batch.emulator.faults.plan import Fault, Occasion
from seedream_batch.emulator.http import raw_responses, responses
from seedream_batch.emulator.http.responses import Answer
from seedream_batch.emulator.http.state import State

_IDEMPOTENCY_MESSAGES = {
    "in_progress": "a request with this Idempotency-Key is being executed",
    "indeterminate": "the result of the request with this Idempotency-Key can't be determined",
    "unavailable": "idempotency is not available at the moment, the request was not executed",
    "key_reused": "this Idempotency-Key was used for another request body",
}
# What becomes of the task, not of the request: for whoever answers, not for this module.
OUTCOMES = frozenset({"fail", "never_end", "late_failure", "not_found", "unknown_status"})


class Visit:
    """A request to one of the endpoints, from its headers to its answer."""

    def __init__(self, state: State, request: web.Request, endpoint: str) -> None:
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

    async def enter(self, *, auth: bool = True) -> web.StreamResponse | None:
        """The end of the request before its body is read, if that is where it ends."""
        struck = await self._strike_early()
        if struck is not None:
            return struck
        if not auth:
            return None
        if self.state.config.latency_seconds:
            await asyncio.sleep(self.state.config.latency_seconds)
        refused = self._refused()
        return None if refused is None else raw_responses.respond(refused)

    def meet(self, prompt: str | None = None) -> None:
        """Find the faults that this request meets; the prompt is that of a submission."""
        if self.state.plan:
            self.faults = self.state.plan.meet(self._occasion(prompt), headers_only=False)
            self.state.stats["faults"] += len(self.faults)

    def outcome(self) -> dict[str, Any] | None:
        """The task outcome that the faults ask for."""
        for fault in self.faults:
            if fault.action in OUTCOMES:
                names = ("status", "code", "message", "polls", "word")
                return {
                    "action": fault.action,
                    **{name: fault.get(name) for name in names if fault.get(name) is not None},
                }
        return None

    def oddities(self) -> dict[str, Any] | None:
        """The oddities that the faults ask for."""
        asked: dict[str, Any] = {}
        for fault in self.faults:
            if fault.action == "oddity":
                asked |= fault.get("set")
        return asked or None

    @property
    def odd(self) -> Oddities:
        """The oddities to play in the answer."""
        return self.state.odd(self.oddities())

    async def before(self) -> web.StreamResponse | None:
        """Play what strikes before the request is executed; the response where that ends it."""
        for fault in self.faults:
            if fault.get("at") == "before_bill" and not await self._pass(fault):
                return raw_responses.Sent()
            if fault.action == "reset_after":
                return raw_responses.reset(self.request)
            answer = self._instead(fault, "before_bill")
            if answer is not None:
                return raw_responses.respond(answer)
        return None

    async def after(self, answer: Answer) -> web.StreamResponse:
        """Play what strikes after the request was executed, on its answer."""
        middle: Fault | None = None
        for fault in self.faults:
            if fault.get("at") == "after_bill" and not await self._pass(fault):
                return raw_responses.Sent()
            if fault.action == "hang" and fault.get("at") == "mid_body":
                middle = fault
        for fault in self.faults:
            if fault.action == "reset_after_bill":
                return raw_responses.reset(self.request)
            if fault.action == "cut_body":
                return raw_responses.send_truncated(self.request, answer, fault.get("keep"))
            answer = self._instead(fault, "after_bill") or self._spoiled(answer, fault)
        if middle is not None:
            return await self._held_in_body(answer, middle)
        return raw_responses.respond(answer)

    def error(self, status: int, message: str | None = None, **more: Any) -> Answer:
        """A refusal, with the oddities that are played."""
        return responses.error_answer(status, message, odd=self.odd, **more)

    def limited(self, style: object, seconds: float = 1.0) -> Answer:
        """The 429 of the rate limit."""
        return replace(self.error(429), headers=responses.retry_after(style, seconds))

    def idempotency(self, code: str, retry: object = None) -> Answer:
        """One of the refusals of the idempotency table."""
        status = 503 if code == "unavailable" else 409
        if retry is None and code == "in_progress":
            retry = 1
        said = self.error(status, _IDEMPOTENCY_MESSAGES[code], code=_idempotency_code(code), kind="idempotency_error")
        return replace(said, headers=responses.retry_after(retry))

    def _occasion(self, prompt: str | None) -> Occasion:
        account = self.state.account
        if self.endpoint == "submit":
            return Occasion(self.endpoint, prompt, task_number=account.next_number)
        wanted = self.request.match_info.get("task_id")
        task = account.tasks.get(wanted or "")
        if task is None:
            return Occasion(self.endpoint, task_id=wanted)
        return Occasion(self.endpoint, task.plan.prompt, wanted, task.plan.number)

    async def _strike_early(self) -> web.StreamResponse | None:
        if not self.state.plan:
            return None
        for fault in self.state.plan.meet(self._occasion(None), headers_only=True):
            self.state.stats["faults"] += 1
            if fault.action == "reset_during" and self.request.body_exists:
                length = self.request.content_length or 2
                await raw_responses.read_some(self.request, fault.get("bytes") or max(1, length // 2))
            return raw_responses.reset(self.request)
        return None

    def _refused(self) -> Answer | None:
        config = self.state.config
        scheme, _, key = self.request.headers.get("Authorization", "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key or key in config.bad_keys:
            return self.error(401)
        if key in config.forbidden_keys:
            return self.error(403)
        wait = self.state.overdrawn(self.endpoint)
        if wait > 0:
            self.state.stats["rate_limited"] += 1
            return self.limited(config.retry_after, wait)
        return None

    async def _pass(self, fault: Fault) -> bool:
        """Let a delay or a hang go by; whether the request goes on."""
        if fault.action == "delay":
            await asyncio.sleep(fault.get("seconds"))
        if fault.action == "hang":
            return await self.state.room.hold(self.request, self._about(fault))
        return True

    def _instead(self, fault: Fault, at: str) -> Answer | None:
        """The answer that a fault gives in place of the real one."""
        if fault.action == "rate_limit" and at == "before_bill":
            return self.limited(fault.get("retry_after"))
        if fault.action == "redirect" and at == "before_bill":
            return Answer(fault.get("status"), b"", {"Location": fault.get("url")})
        if fault.get("at") != at:
            return None
        if fault.action == "idempotency":
            return self.idempotency(fault.get("code"), fault.get("retry_after"))
        if fault.action == "status":
            error = self.error(
                fault.get("status"), fault.get("message"), code=fault.get("code"), kind=fault.get("type")
            )
            error = replace(error, headers=responses.retry_after(fault.get("retry_after")))
            return responses.of_kind(fault.get("body"), error)
        return None

    def _spoiled(self, answer: Answer, fault: Fault) -> Answer:
        if fault.action == "empty_body":
            return replace(answer, body=b"")
        if fault.action == "garbage_body":
            return replace(answer, body=responses.GARBAGE)
        if fault.action == "huge_body":
            # White space at its end leaves a JSON document what it is.
            return replace(answer, body=answer.body + b" " * fault.get("bytes"))
        if fault.action == "no_task_id" and answer.status < 300:
            return responses.without_task_id(answer)
        if fault.action == "same_id" and answer.status < 300:
            tasks = self.state.account.tasks.values()
            first = next((task.plan.id for task in tasks if task.plan.number == fault.get("of")), None)
            return answer if first is None else responses.with_task_id(answer, first)
        if fault.action == "image_error":
            return responses.with_image_error(answer, fault.get("image"), fault.get("code"), fault.get("message"))
        return answer

    async def _held_in_body(self, answer: Answer, fault: Fault) -> raw_responses.Sent:
        half = len(answer.body) // 2
        raw_responses.send_raw(
            self.request, raw_responses.response_head(answer, length=len(answer.body)) + answer.body[:half]
        )
        if await self.state.room.hold(self.request, self._about(fault)):
            raw_responses.send_raw(self.request, answer.body[half:])
        return raw_responses.close_connection(self.request)

    def _about(self, fault: Fault) -> Mapping[str, Any]:
        about = {name: self.record[name] for name in ("at", "endpoint", "method", "path", "key")}
        return {**about, "held_at": fault.get("at"), "rule": fault.rule}


def _idempotency_code(code: str) -> str:
    return {"indeterminate": "idempotency_result_indeterminate"}.get(code, f"idempotency_{code}")
