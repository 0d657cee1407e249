"""The endpoints of the API: submit, poll, upload, balance, models."""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from aiohttp import BodyPartReader, web

from seedream_batch.emulator.config import Oddities
from seedream_batch.emulator.http import raw_responses, responses
from seedream_batch.emulator.http.exchange import Exchange
from seedream_batch.emulator.http.links import result_url, upload_url
from seedream_batch.emulator.http.responses import Response
from seedream_batch.emulator.http.state import EmulatorState
from seedream_batch.emulator.world import request_rules
from seedream_batch.emulator.world.account import Submission
from seedream_batch.emulator.world.model_schema import model_schema
from seedream_batch.emulator.world.sizes import nearest_ratio
from seedream_batch.emulator.world.tasks import Task, task_document, with_number_form
from seedream_batch.emulator.world.uploads import MAX_UPLOAD_BYTES

_MAX_KEY_LENGTH = 191


class ApiEndpoints:
    """The handlers under /v1."""

    def __init__(self, state: EmulatorState) -> None:
        self._state = state

    def routes(self) -> list[web.RouteDef]:
        """Where the handlers are."""
        return [
            web.post("/v1/images/generations", self.submit),
            web.get("/v1/tasks/{task_id}", self.poll),
            web.post("/v1/uploads/images", self.upload),
            web.get("/v1/balance", self.balance),
            web.get("/v1/user/balance", self.balance),
            web.get("/v1/models", self.models),
            web.get("/v1/model-schema", self.schema),
        ]

    async def submit(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/images/generations."""
        exchange = Exchange(self._state, request, "submit")
        ended = await exchange.admit()
        if ended is not None:
            return ended
        raw = await raw_responses.read_body(request, self._state.config.max_body_bytes)
        if raw is None:
            return raw_responses.respond(exchange.error(413))
        body, digest = _parsed(raw), hashlib.sha256(raw).hexdigest()
        exchange.record["body_sha256"] = digest
        prompt = body.get("prompt") if isinstance(body, dict) else None
        account = self._state.account
        exchange.match_faults(prompt if isinstance(prompt, str) else None)
        account.advance()
        checked = await self._checked(exchange, body)
        submission = checked if isinstance(checked, Response) else self._submission(exchange, checked, digest)
        if isinstance(submission, Response):
            return await exchange.before_execution() or await exchange.finish(submission)
        # From here to the end of the execution another request with this key is told that it is in progress.
        if submission.key is not None and self._state.config.honour_keys:
            account.in_flight[submission.key] = digest
        try:
            ended = await exchange.before_execution()
            if ended is not None:
                return ended
            response = self._execute(exchange, submission)
        finally:
            if submission.key is not None:
                account.in_flight.pop(submission.key, None)
        return await exchange.finish(response)

    async def poll(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/tasks/{id}."""
        exchange = Exchange(self._state, request, "poll")
        ended = await exchange.admit()
        if ended is not None:
            return ended
        task = self._state.account.tasks.get(request.match_info["task_id"])
        exchange.match_faults()
        ended = await exchange.before_execution()
        return ended or await exchange.finish(self._poll_response(exchange, task))

    async def upload(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/uploads/images."""
        exchange = Exchange(self._state, request, "upload")
        ended = await exchange.admit()
        if ended is not None:
            return ended
        sent = await _read_file_field(request)
        if sent is not None:
            exchange.record["body_sha256"] = hashlib.sha256(sent[1]).hexdigest()
        exchange.match_faults()
        return await exchange.before_execution() or await exchange.finish(self._store_upload(exchange, sent))

    async def balance(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/balance and /v1/user/balance."""
        exchange = Exchange(self._state, request, "balance")
        ended = await exchange.admit()
        if ended is not None:
            return ended
        exchange.match_faults()
        ended = await exchange.before_execution()
        if ended is not None:
            return ended
        account = self._state.account
        account.advance()
        remaining = account.remaining_usd
        document = {
            "success": True,
            "remain_balance": -1 if remaining is None else round(remaining, 6),
            "remain_credits": -1 if remaining is None else round(remaining * 10, 6),
            "used_balance": round(account.used_usd, 6),
            "used_credits": round(account.used_usd * 10, 6),
            "unlimited_quota": remaining is None,
        }
        return await exchange.finish(responses.json_response(with_number_form(document, exchange.oddities)))

    async def models(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/models."""
        listed = [
            {"id": name, "object": "model", "owned_by": "emulator", "type": "image"} for name in request_rules.MODELS
        ]
        return await self._respond(request, responses.json_response({"object": "list", "data": listed}))

    async def schema(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/model-schema?model=."""
        model = request.query.get("model", "")
        if model not in request_rules.MODELS:
            message = f"model: {model!r} is not one of {', '.join(request_rules.MODELS)}"
            return await self._respond(request, responses.error_response(404, message, odd=self._state.config))
        return await self._respond(request, responses.json_response(model_schema(model)))

    async def _respond(self, request: web.Request, response: Response) -> web.StreamResponse:
        exchange = Exchange(self._state, request, "models")
        ended = await exchange.admit()
        if ended is not None:
            return ended
        exchange.match_faults()
        return await exchange.before_execution() or await exchange.finish(response)

    async def _checked(self, exchange: Exchange, body: object) -> dict[str, Any] | Response:
        """The body, if it keeps to all limits."""
        wrong = request_rules.check_request(body, strict=self._state.config.strict)
        if not wrong and isinstance(body, dict):
            references = body.get("image_urls", ())
            if any(each.startswith("data:") for each in references):
                # Megabytes of base64 take their time; other requests need not wait for it.
                wrong = await asyncio.to_thread(request_rules.check_inline_images, body)
            wrong += [
                f"image_urls[{index}]: no such upload, or no longer: {each}"
                for index, each in enumerate(references)
                if self._own_upload(each) is None
            ]
            if not wrong:
                return body
        return responses.refusal(wrong, odd=exchange.oddities)

    def _own_upload(self, reference: str) -> bytes | None:
        """The bytes of an upload of ours; empty for references to elsewhere, None for an upload that isn't there."""
        name = self._upload_name(reference)
        if name is None:
            return b""
        found = self._state.uploads.get(name)
        if found is None or found[0].created + self._state.config.upload_seconds < self._state.clock.now():
            return None
        return found[1]

    def _upload_name(self, reference: str) -> str | None:
        # Any port of ours: the emulator may have been started again on another one since.
        for host in {self._state.config.image_host, "127.0.0.1", "localhost"}:
            rest = reference.removeprefix(f"http://{host}:")
            if rest != reference and "/uploads/" in rest and rest.partition("/uploads/")[0].isdigit():
                return rest.partition("/uploads/")[2]
        return None

    def _submission(self, exchange: Exchange, body: dict[str, Any], digest: str) -> Submission | Response:
        """The order of a good body, or the answer that its idempotency key leads to."""
        key = exchange.request.headers.get("Idempotency-Key")
        if key is not None and self._state.config.honour_keys:
            response = self._replayed(exchange, key, digest)
            if response is not None:
                return response
        return Submission(body, digest, key, request_rules.images_requested(body), self._ratio(body))

    def _replayed(self, exchange: Exchange, key: str, digest: str) -> Response | None:
        account = self._state.account
        if not 1 <= len(key) <= _MAX_KEY_LENGTH or not all("!" <= each <= "~" for each in key):
            return exchange.error(
                400, "Idempotency-Key: must be 1 to 191 visible ASCII characters", param="Idempotency-Key"
            )
        if key in account.in_flight:
            return exchange.idempotency_error("in_progress" if account.in_flight[key] == digest else "key_reused")
        stored = account.stored_responses.get(key)
        if stored is None:
            return None
        if stored.digest != digest:
            return exchange.idempotency_error("key_reused")
        self._state.stats["replayed"] += 1
        kept = stored.response
        response = responses.json_response(kept["body"], kept["status"])
        headers = {**kept["headers"], responses.REPLAYED_HEADER: "true"}
        return Response(response.status, response.body, headers)

    def _ratio(self, body: Mapping[str, Any]) -> str:
        asked = str(body.get("size", "1:1"))
        if asked != "auto":
            return asked
        first = body["image_urls"][0]
        inspected = request_rules.inspect_image(request_rules.data_uri_bytes(first) or self._own_upload(first) or b"")
        return "1:1" if inspected is None else nearest_ratio(inspected[1], inspected[2])

    def _execute(self, exchange: Exchange, submission: Submission) -> Response:
        config, account = self._state.config, self._state.account
        if not account.can_pay(submission.images, config.price_usd):
            return exchange.error(402)
        oddities = exchange.oddities
        versioned = oddities.versioned and exchange.request.headers.get(responses.VERSION_HEADER) == responses.VERSION
        tasks = account.create_tasks(
            submission,
            oddities,
            # The versioned envelope has room for one task only.
            parts=1 if versioned else oddities.submit_entries,
            outcome=exchange.task_outcome(),
            oddities=exchange.oddity_overrides(),
        )
        ids = [task.plan.id for task in tasks]
        if versioned:
            response = responses.accepted_versioned(ids[0], odd=oddities)
        else:
            response = responses.accepted(ids, odd=oddities)
        kept = {"status": response.status, "headers": dict(response.headers), "body": json.loads(response.body)}
        account.charge(submission, tasks, kept if config.honour_keys and submission.key is not None else None)
        webhook = submission.body.get("webhook")
        if isinstance(webhook, str):
            for task in tasks:
                self._call_webhook(task, webhook)
        return response

    def _poll_response(self, exchange: Exchange, task: Task | None) -> Response:
        state = self._state
        state.account.advance()
        if task is None:
            return exchange.error(404, "task not found")
        task.polls += 1
        now = state.clock.now()
        odd = state.oddities(task.plan.oddities, exchange.oddity_overrides())
        # A fault on this poll is for this one answer; one from the submission is what became of the task.
        here, planned = exchange.task_outcome(), task.plan.outcome or {}
        outcome = here or planned
        action = outcome.get("action")
        within = here is not None or task.polls <= outcome.get("polls", task.polls)
        if action == "not_found" and within:
            return exchange.error(404, "task not found")
        status = task.state(now)
        if here is not None and action == "never_end":
            status = "processing"
        elif here is not None and action == "fail":
            status = outcome.get("status", "failed")
        elif action == "unknown_status" and within and (here or "polls" in outcome or status != "completed"):
            status = "processing"
            odd = state.oddities(task.plan.oddities, exchange.oddity_overrides(), {"processing_word": outcome["word"]})
        if status == "completed":
            status = self._complete(task, planned, now)
        return self._task_response(task, odd, status, outcome, exchange.request.query.get("language", "en"))

    def _task_response(
        self, task: Task, odd: Oddities, status: str, outcome: Mapping[str, Any], language: str = "en"
    ) -> Response:
        document = task_document(
            task,
            self._state.clock.now(),
            state=status,
            oddities=odd,
            error=outcome,
            result_url=lambda index: result_url(self._state, task, index, odd),
            language=language,
        )
        return responses.json_response(document)

    def _call_webhook(self, task: Task, webhook: str) -> None:
        """Have the task's document posted when it ends; only the lenient mode lets a webhook come this far."""
        if task.plan.never_ends:
            return

        def document() -> Response:
            self._state.account.advance()
            now = self._state.clock.now()
            status, planned = task.state(now), task.plan.outcome or {}
            if status == "completed":
                self._renew_links(task, now)
            return self._task_response(task, self._state.oddities(task.plan.oddities), status, planned)

        # A little late rather than early: the document must say that the task has ended.
        seconds = task.plan.ends - self._state.clock.now() + 0.01
        self._state.webhooks.call_later(webhook, seconds, document, retries=self._state.config.webhook_retries)

    def _complete(self, task: Task, planned: Mapping[str, Any], now: float) -> str:
        """Give out links of a completed task; unless this is where it turns out to have failed."""
        if planned.get("action") == "late_failure":
            task.completed_polls += 1
            if task.completed_polls > planned.get("polls", 1):
                self._state.account.fail_late(task)
                return "failed"
        self._renew_links(task, now)
        return "completed"

    def _renew_links(self, task: Task, now: float) -> None:
        config = self._state.config
        if not task.links_until:
            task.links_until = task.plan.ends + config.link_seconds
        if config.renew_links and now >= task.links_until:
            task.links_until = now + config.link_seconds

    def _store_upload(self, exchange: Exchange, sent: tuple[str, bytes] | None) -> Response:
        if sent is None:
            return exchange.error(400, "file: a multipart field with this name is required", param="file")
        filename, data = sent
        if len(data) > MAX_UPLOAD_BYTES:
            return exchange.error(413, "file: must be at most 20 MB", param="file")
        upload = self._state.uploads.put(data)
        if upload is None:
            return exchange.error(400, "file: must be a jpeg, png, webp or gif picture", param="file")
        document = {
            "url": upload_url(self._state, upload.name),
            "filename": filename,
            "content_type": upload.content_type,
            "bytes": upload.size,
            "created_at": int(upload.created),
        }
        return responses.json_response(with_number_form(document, exchange.oddities))


def _parsed(raw: bytes) -> object:
    """The JSON in a body; None, which no limit allows, for anything else."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


async def _read_file_field(request: web.Request) -> tuple[str, bytes] | None:
    """Name and bytes of the field `file`; of too large a file one byte more than is allowed."""
    if not request.content_type.startswith("multipart/"):
        return None
    try:
        async for part in await request.multipart():
            if isinstance(part, BodyPartReader) and part.name == "file":
                data = bytearray()
                while chunk := await part.read_chunk(1 << 16):
                    data += chunk
                    if len(data) > MAX_UPLOAD_BYTES:
                        break
                return part.filename or "file", bytes(data[: MAX_UPLOAD_BYTES + 1])
    except ConnectionError as error:
        raise raw_responses.ClientDisconnected from error
    except ValueError:
        return None
    return None
