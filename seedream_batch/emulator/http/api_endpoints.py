"""The endpoints of the API: submit, poll, upload, balance, models."""

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from aiohttp import BodyPartReader, web
from aiohttp.typedefs import Handler

from seedream_batch.emulator.config import EmulatorConfig
from seedream_batch.emulator.http import responses
from seedream_batch.emulator.http.exchange import Exchange
from seedream_batch.emulator.http.image_endpoints import result_url, upload_url
from seedream_batch.emulator.http.raw_responses import Finished, NoResponse, read_body, to_aiohttp
from seedream_batch.emulator.http.responses import Response, json_response
from seedream_batch.emulator.http.state import EmulatorState
from seedream_batch.emulator.world import request_rules
from seedream_batch.emulator.world.account import Submission
from seedream_batch.emulator.world.request_rules import nearest_ratio
from seedream_batch.emulator.world.tasks import Task, task_document, with_number_form
from seedream_batch.emulator.world.uploads import MAX_UPLOAD_BYTES

_MAX_KEY_LENGTH = 191
_UPLOAD_URL = re.compile(r"http://(?P<host>[^/]+):[0-9]+/uploads/(?P<name>.*)")
_WEBHOOK_DELAY = 0.01
"""Seconds after the end of a task: its document must say that it has ended."""


class ApiEndpoints:
    """The handlers under /v1."""

    def __init__(self, state: EmulatorState) -> None:
        self._state = state

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/images/generations", self._submit),
            web.get("/v1/tasks/{task_id}", self._handler("poll", self._poll)),
            web.post("/v1/uploads/images", self._upload),
            web.get("/v1/balance", self._handler("balance", self._balance)),
            web.get("/v1/user/balance", self._handler("balance", self._balance)),
            web.get("/v1/models", self._handler("models", self._models)),
            web.get("/v1/model-schema", self._handler("models", self._model_schema)),
        ]

    def _handler(self, endpoint: str, execute: Callable[[Exchange], Response]) -> Handler:
        """Return the handler of requests without a body."""

        async def handle(request: web.Request) -> web.StreamResponse:
            exchange = Exchange(self._state, request, endpoint)
            await exchange.admit()
            exchange.match_faults()
            await exchange.before_execution()
            return await exchange.finish(execute(exchange))

        return handle

    async def _submit(self, request: web.Request) -> web.StreamResponse:
        exchange = Exchange(self._state, request, "submit")
        await exchange.admit()
        raw = await read_body(request, self._state.config.max_body_bytes)
        if raw is None:
            return to_aiohttp(exchange.error(413))
        digest = hashlib.sha256(raw).hexdigest()
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError):
            body = None  # which no check accepts
        exchange.record["body_sha256"] = digest
        prompt = body.get("prompt") if isinstance(body, dict) else None
        account = self._state.account
        exchange.match_faults(prompt if isinstance(prompt, str) else None)
        account.advance()
        submission = await self._check(exchange, body, digest)
        if isinstance(submission, Response):
            await exchange.before_execution()
            return await exchange.finish(submission)
        # Until this request has been executed, another one with the same key gets an "in progress" error.
        if submission.key is not None and self._state.config.honour_keys:
            account.in_flight[submission.key] = digest
        try:
            await exchange.before_execution()
            response = self._execute(exchange, submission)
        finally:
            if submission.key is not None:
                account.in_flight.pop(submission.key, None)
        return await exchange.finish(response)

    async def _check(self, exchange: Exchange, body: object, digest: str) -> Submission | Response:
        """Return a valid body as a submission, otherwise the response: an error, or one to replay."""
        wrong = request_rules.check_request(body, strict=self._state.config.strict)
        if not wrong and isinstance(body, dict):
            wrong = await self._check_images(body)
            if not wrong:
                key = exchange.request.headers.get("Idempotency-Key")
                response = None if key is None else self._check_key(exchange, key, digest)
                return response or Submission(
                    body, digest, key, request_rules.images_requested(body), self._ratio(body)
                )
        # `param` names the first field.
        return exchange.error(400, "; ".join(wrong), param=wrong[0].split(":", 1)[0])

    async def _check_images(self, body: dict[str, Any]) -> list[str]:
        """Return what is wrong with the images in data URIs and with references to uploads."""
        wrong = []
        references = body.get("image_urls", ())
        if any(each.startswith("data:") for each in references):
            # Megabytes of base64 take their time; other requests need not wait for it.
            wrong = await asyncio.to_thread(request_rules.check_inline_images, body)
        for index, each in enumerate(references):
            if self._own_upload(each) is None:
                wrong.append(f"image_urls[{index}]: no such upload, or no longer: {each}")
        return wrong

    def _check_key(self, exchange: Exchange, key: str, digest: str) -> Response | None:
        """Return the response to a used or invalid idempotency key; None for a new one."""
        account = self._state.account
        if not self._state.config.honour_keys:
            return None
        if not 1 <= len(key) <= _MAX_KEY_LENGTH or not all("!" <= each <= "~" for each in key):
            message = "Idempotency-Key: must be 1 to 191 visible ASCII characters"
            return exchange.error(400, message, param="Idempotency-Key")
        if key in account.in_flight:
            return exchange.idempotency_error("in_progress" if account.in_flight[key] == digest else "key_reused")
        if key not in account.stored_responses:
            return None
        first_digest, stored = account.stored_responses[key]
        if first_digest != digest:
            return exchange.idempotency_error("key_reused")
        self._state.stats["replayed"] += 1
        response = json_response(stored["body"], stored["status"])
        return replace(response, headers={**stored["headers"], responses.REPLAYED_HEADER: "true"})

    def _own_upload(self, reference: str) -> bytes | None:
        """Return the bytes of an upload; b"" for references to other hosts, None for a missing or expired upload."""
        # The emulator may have been restarted on another port.
        match = _UPLOAD_URL.match(reference)
        if match is None or match["host"] not in {self._state.config.image_host, "127.0.0.1", "localhost"}:
            return b""
        found = self._state.uploads.get(match["name"])
        if found is None or found[0].created + self._state.config.upload_seconds < self._state.clock.now():
            return None
        return found[1]

    def _ratio(self, body: Mapping[str, Any]) -> str:
        """Return the ratio to draw; `auto` is that of the first reference image, if it is known."""
        ratio = str(body.get("size", "1:1"))
        if ratio != "auto":
            return ratio
        first = body["image_urls"][0]
        inspected = request_rules.inspect_image(request_rules.data_uri_bytes(first) or self._own_upload(first) or b"")
        return "1:1" if inspected is None else nearest_ratio(inspected[1], inspected[2])

    def _execute(self, exchange: Exchange, submission: Submission) -> Response:
        """Charge for a submission and create its tasks."""
        config, account = self._state.config, self._state.account
        if not account.can_pay(submission.images, config.price_usd):
            return exchange.error(402)
        settings = exchange.settings
        versioned = settings.versioned and exchange.request.headers.get(responses.VERSION_HEADER) == responses.VERSION
        tasks = account.create_tasks(
            submission,
            settings,
            # The versioned envelope has room for one task only.
            parts=1 if versioned else settings.submit_entries,
            outcome=exchange.task_outcome(),
            oddities=exchange.oddity_overrides(),
        )
        ids = [task.plan.id for task in tasks]
        if versioned:
            response = responses.accepted_versioned(ids[0], oddities=settings)
        else:
            response = responses.accepted(ids, oddities=settings)
        stored = {"status": response.status, "headers": dict(response.headers), "body": json.loads(response.body)}
        account.charge(submission, tasks, stored if config.honour_keys and submission.key is not None else None)
        webhook = submission.body.get("webhook")
        if isinstance(webhook, str):
            for task in tasks:
                self._call_webhook(task, webhook)
        return response

    def _poll(self, exchange: Exchange) -> Response:
        state = self._state
        state.account.advance()
        task = state.account.tasks.get(exchange.request.match_info["task_id"])
        if task is None:
            return exchange.error(404, "task not found")
        task.polls += 1
        settings = state.settings(task.plan.oddities, exchange.oddity_overrides())
        # A fault on the poll changes this one response; one on the submission decides how the task ends.
        for_poll, for_task = exchange.task_outcome(), task.plan.outcome or {}
        outcome = for_poll or for_task
        action = outcome.get("action")
        applies = for_poll is not None or task.polls <= outcome.get("polls", task.polls)
        if action == "not_found" and applies:
            return exchange.error(404, "task not found")
        status = task.state(state.clock.now())
        if for_poll and action == "never_end":
            status = "processing"
        elif for_poll and action == "fail":
            status = outcome.get("status", "failed")
        elif action == "unknown_status" and applies and (for_poll or "polls" in outcome or status != "completed"):
            status = "processing"
            settings = replace(settings, processing_word=outcome["word"])
        if status == "completed" and for_task.get("action") == "late_failure":
            task.completed_polls += 1
            if task.completed_polls > for_task.get("polls", 1):
                state.account.fail_late(task)
                status = "failed"
        return self._task_response(
            task, settings, status, outcome, language=exchange.request.query.get("language", "en")
        )

    def _task_response(
        self,
        task: Task,
        settings: EmulatorConfig,
        status: str,
        outcome: Mapping[str, Any],
        *,
        language: str = "en",
    ) -> Response:
        """Return the document of a task, with new URLs if it is completed and they have expired."""
        now = self._state.clock.now()
        if status == "completed":
            if not task.links_until:
                task.links_until = task.plan.ends + settings.link_seconds
            if settings.renew_links and now >= task.links_until:
                task.links_until = now + settings.link_seconds
        document = task_document(
            task,
            now,
            state=status,
            oddities=settings,
            error=outcome,
            result_url=lambda index: result_url(self._state, task, index, settings),
            language=language,
        )
        return json_response(document)

    def _call_webhook(self, task: Task, webhook: str) -> None:
        """Post the task's document when it ends. In strict mode, a request with a webhook is refused."""
        if task.plan.never_ends:
            return

        def document() -> Response:
            self._state.account.advance()
            settings = self._state.settings(task.plan.oddities)
            return self._task_response(task, settings, task.state(self._state.clock.now()), task.plan.outcome or {})

        seconds = task.plan.ends - self._state.clock.now() + _WEBHOOK_DELAY
        self._state.webhooks.call_later(webhook, seconds, document, retries=self._state.config.webhook_retries)

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        exchange = Exchange(self._state, request, "upload")
        await exchange.admit()
        sent = await _read_file_field(request)
        if sent is not None:
            exchange.record["body_sha256"] = hashlib.sha256(sent[1]).hexdigest()
        exchange.match_faults()
        await exchange.before_execution()
        return await exchange.finish(self._store_upload(exchange, sent))

    def _store_upload(self, exchange: Exchange, sent: tuple[str, bytes] | None) -> Response:
        if sent is None:
            return exchange.error(400, "file: a multipart field with this name is required", param="file")
        filename, data = sent
        if len(data) > MAX_UPLOAD_BYTES:
            return exchange.error(413, "file: must be at most 20 MB", param="file")
        upload = self._state.uploads.put(data)
        if upload is None:
            return exchange.error(400, "file: must be a jpeg, png, webp or gif image", param="file")
        document = {
            "url": upload_url(self._state, upload.name),
            "filename": filename,
            "content_type": upload.content_type,
            "bytes": upload.size,
            "created_at": int(upload.created),
        }
        return json_response(with_number_form(document, exchange.settings))

    def _balance(self, exchange: Exchange) -> Response:
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
        return json_response(with_number_form(document, exchange.settings))

    def _models(self, _: Exchange) -> Response:
        models = request_rules.MODELS
        listed = [{"id": name, "object": "model", "owned_by": "emulator", "type": "image"} for name in models]
        return json_response({"object": "list", "data": listed})

    def _model_schema(self, exchange: Exchange) -> Response:
        model = exchange.request.query.get("model", "")
        if model not in request_rules.MODELS:
            return exchange.error(404, f"model: {model!r} is not one of {', '.join(request_rules.MODELS)}")
        schema = {"type": "object", "required": ["model", "prompt"], "properties": request_rules.PARAMETERS}
        return json_response({"success": True, "data": {"model": model, "type": "image", "schema": schema}})


async def _read_file_field(request: web.Request) -> tuple[str, bytes] | None:
    """Return name and bytes of the field `file`, one byte more than allowed if it is too large; None without one.

    Raises `Finished` if the client disconnects.
    """
    if not request.content_type.startswith("multipart/"):
        return None
    try:
        async for part in await request.multipart():
            if isinstance(part, BodyPartReader) and part.name == "file":
                data = bytearray()
                while len(data) <= MAX_UPLOAD_BYTES and (chunk := await part.read_chunk(1 << 16)):
                    data += chunk
                return part.filename or "file", bytes(data[: MAX_UPLOAD_BYTES + 1])
    except ConnectionError as error:
        raise Finished(NoResponse()) from error
    except ValueError:
        return None
    return None
