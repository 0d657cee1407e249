"""Submitting: the intent first, then one POST, then what came of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import assert_never

from seedream_batch.api.service import UPLOAD_LIFETIME
from seedream_batch.errors import CredentialsRefused, ServiceError, StorageError
from seedream_batch.files.references import BadReferenceImage, data_uri, reference_bytes
from seedream_batch.lifecycle import Move, after_submission, backoff
from seedream_batch.manifest.rescue import Rescued
from seedream_batch.manifest.store import Claim, Intent, Manifest
from seedream_batch.model.job import REFERENCE, Reference, Send
from seedream_batch.model.outcome import Submission, Submitted
from seedream_batch.model.task import TaskRecord, TaskState
from seedream_batch.run.context import MOST_UNCLEAR, Context, EventKind, StopReason, event

RESENDS = 4
"""How often one run sends an uncertain task again under its key."""

UPLOAD_MARGIN = 2 * 3600.0
"""Seconds of life that an uploaded reference must have left to be used: the service fetches it some time later."""


class Submitter:
    """Sends tasks, one at a time for each, and records every outcome before anything else happens to the task."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._uploading: dict[str, asyncio.Lock] = {}
        self._most_unanswered = 4
        self._unanswered = 0
        self._answered = asyncio.Event()

    async def wait_for_turn(self) -> None:
        """Waits until the next submission may go out, and takes its turn; raises `Stopping`.

        Few go out together at first: as long as nothing is known of the service, few are then in doubt. The turn
        ends with `submit`, or with `give_up_turn`.
        """
        context = self._context
        while self._unanswered >= self._most_unanswered:
            self._answered.clear()
            await context.until(self._answered.wait())
        await context.rest(context.pace.next_slot(context.monotonic()))
        self._unanswered += 1

    def give_up_turn(self) -> None:
        """Ends a turn without a submission, or after its answer."""
        self._unanswered -= 1
        self._answered.set()

    async def submit(self, task: TaskRecord) -> TaskRecord | None:
        """Sends a planned task in its turn; the accepted task, or None when it was not accepted."""
        context = self._context
        try:
            try:
                kept = await self._with_uploads(task)
                body = await self._with_inlined(kept or task.body)
            except (ServiceError, StorageError, BadReferenceImage) as error:
                self._not_prepared(error)
                return None
            intent = Intent(task.id, kept)
            now = context.clock()
            claimed = await context.writer.do(lambda m: m.claim([intent], context.job.budget, now))
            if claimed.stopped_by:
                # Not the end yet: what is in flight may cost less than was held for it.
                context.over_budget = claimed.stopped_by
                return None
            if not claimed.claims:
                return None
            claim = claimed.claims[0]
            context.stats.submitted += 1
            outcome = await context.service.submit(body, claim.key)
            return await self._record(claim, outcome)
        finally:
            self.give_up_turn()

    async def resend(self, task: TaskRecord) -> TaskRecord | None:
        """Sends an uncertain task again, with the identical body under the same key, until its fate is known.

        The accepted task, or None when it stays uncertain or is refused. Only for services whose keys are trusted.
        """
        context = self._context
        claim = await context.writer.do(lambda m: m.open_claim(task))
        if claim is None:
            return None
        try:
            body = await self._with_inlined(claim.body)
        except (StorageError, BadReferenceImage) as error:
            told = f"cannot be sent again as it was: {error}"
            await context.writer.do(lambda m: m.still_uncertain(task, why=told, held=True, now=context.clock()))
            return None
        for tries in range(1, RESENDS + 1):
            if context.stop_reason is StopReason.CREDENTIALS:
                return None
            outcome = await context.service.submit(body, claim.key)
            accepted = await self._record(claim, outcome)
            if accepted is not None or outcome.kind is Submitted.REFUSED or outcome.kind is Submitted.INDETERMINATE:
                return accepted
            wait = backoff(tries, random=context.random)
            await context.rest(max(wait, outcome.retry_after or 0.0))
        return None

    async def _record(self, claim: Claim, outcome: Submission) -> TaskRecord | None:
        context = self._context
        task = claim.task
        self._notice(outcome)
        move = after_submission(task.state, outcome)
        now = context.clock()
        if move is None:
            held = outcome.kind is Submitted.INDETERMINATE
            told = f"sent again under the same key: {outcome.message or outcome.kind}"
            await context.writer.do(lambda m: m.still_uncertain(task, why=told, held=held, now=now))
            return None
        match move.to:
            case TaskState.ACCEPTED:
                return await self._accepted(claim, move, outcome, now)
            case TaskState.PLANNED:
                wait = outcome.retry_after or backoff(1, random=context.random)
                await context.writer.do(lambda m: m.not_executed(task, why=move.why, not_before=now + wait, now=now))
                context.stats.submitted -= 1
            case TaskState.FAILED:
                await context.writer.do(lambda m: m.refused(task, why=move.why, code=move.code, now=now))
                context.stats.failed += 1
                context.emit(event(EventKind.FAILED, task, move.why, code=move.code))
            case TaskState.UNCERTAIN:
                await context.writer.do(
                    lambda m: m.uncertain(task, why=move.why, code=move.code, held=move.held, now=now)
                )
                context.stats.uncertain += 1
                context.emit(event(EventKind.UNCERTAIN, task, f"perhaps made and paid for: {move.why}"))
                if context.options.resend and not move.held:
                    uncertain = await context.writer.do(lambda m: m.task(task.id))
                    await context.rest(outcome.retry_after or backoff(1, random=context.random))
                    return await self.resend(uncertain)
            case TaskState.SUBMITTING | TaskState.SUCCEEDED | TaskState.LOST:
                raise AssertionError(f"a submission does not lead to {move.to}")
            case _:
                assert_never(move.to)
        return None

    async def _accepted(self, claim: Claim, move: Move, outcome: Submission, now: float) -> TaskRecord:
        context = self._context
        task = claim.task
        deadline = now + context.job.run.task_timeout

        def store(manifest: Manifest) -> TaskRecord:
            return manifest.accepted(task, outcome.task_ids, deadline=deadline, why=move.why, now=now)

        try:
            accepted = await context.writer.do(store)
        except Exception as error:
            # Whatever the reason is: ids that are paid for must not go with it.
            self._rescue(claim, outcome, now, error)
            raise
        if task.state is TaskState.UNCERTAIN:
            context.stats.uncertain = max(0, context.stats.uncertain - 1)
        context.emit(event(EventKind.SUBMITTED, accepted, move.why))
        return accepted

    def _rescue(self, claim: Claim, outcome: Submission, now: float, why: Exception) -> None:
        """The manifest cannot take ids that are paid for: they go to the rescue file, or at least to the log."""
        context = self._context
        ids = " ".join(outcome.task_ids)
        try:
            context.rescue.add(Rescued(claim.key, outcome.task_ids, now))
        except StorageError as error:
            text = f"could not be written anywhere; note it down: task id {ids}, key {claim.key} ({why}; {error})"
        else:
            text = f"task id {ids} went to {context.rescue.path}, since the manifest cannot be written ({why})"
        context.emit(event(EventKind.WARNING, claim.task, text))

    def _notice(self, outcome: Submission) -> None:
        """What an outcome tells of the service as a whole."""
        context = self._context
        kind = outcome.kind
        told = f"HTTP {outcome.status}: {outcome.message}" if outcome.status else outcome.message
        if kind is Submitted.UNREACHABLE:
            context.not_heard(outcome.message)
            return
        if kind is not Submitted.UNKNOWN:
            context.heard_from_service()
        context.unclear = context.unclear + 1 if kind is Submitted.UNKNOWN else 0
        match kind:
            case Submitted.ACCEPTED:
                context.pace.accepted()
                self._most_unanswered = min(2 * self._most_unanswered, context.job.run.max_in_flight)
            case Submitted.UNAUTHORIZED:
                context.stop_submitting(StopReason.CREDENTIALS, f"the service refuses the API key ({told})")
            case Submitted.UNPAID:
                context.stop_submitting(StopReason.BALANCE, f"the account's balance is too low ({told})")
            case Submitted.RATE_LIMITED | Submitted.UNAVAILABLE:
                wait = outcome.retry_after if outcome.retry_after is not None else backoff(2, random=context.random)
                context.slow_down(wait, told)
            case Submitted.UNKNOWN if context.unclear >= MOST_UNCLEAR:
                text = f"{context.unclear} submissions in a row got no clear answer (the last: {told})"
                context.stop_submitting(StopReason.UNCLEAR, text)
            case _:
                pass

    def _not_prepared(self, error: Exception) -> None:
        context = self._context
        if isinstance(error, CredentialsRefused):
            context.stop_submitting(StopReason.CREDENTIALS, f"the service refuses the API key ({error})")
        elif isinstance(error, ServiceError):
            context.stop_submitting(StopReason.OUTAGE, str(error))
        else:
            context.stop_submitting(StopReason.STORAGE, f"a reference image: {error}")

    async def _with_uploads(self, task: TaskRecord) -> str | None:
        """The request with local references as URLs of uploads, where the job wants that; None: the task's own body.

        It is kept with the intent, since a later upload gets another URL and a resend has to be identical.
        """
        if REFERENCE not in task.body or self._context.job.send is Send.INLINE:
            return None
        return await self._replace(task.body, self._uploaded)

    async def _with_inlined(self, body: str) -> str:
        """The request as it goes over the wire: references that stand by their hash become data URIs."""
        return await self._replace(body, self._inlined) if REFERENCE in body else body

    async def _replace(self, text: str, sendable: Callable[[Reference], Awaitable[str]]) -> str:
        body = json.loads(text)
        urls = body.get("image_urls", [])
        for index, url in enumerate(urls):
            if url.startswith(REFERENCE):
                reference = self._context.references.get(url.removeprefix(REFERENCE))
                if reference is None:
                    raise StorageError("its reference image is no longer in the job")
                urls[index] = await sendable(reference)
        return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    async def _inlined(self, reference: Reference) -> str:
        return data_uri(reference, await asyncio.to_thread(self._bytes, reference))

    async def _uploaded(self, reference: Reference) -> str:
        context = self._context
        origin = context.service.origin
        # Tasks that share a reference wait for one upload instead of each making its own.
        async with self._uploading.setdefault(reference.sha256, asyncio.Lock()):
            good_until = context.clock() + UPLOAD_MARGIN
            known = await context.writer.do(lambda m: m.upload(reference.sha256, origin, good_until))
            if known is not None:
                return known
            data = await asyncio.to_thread(self._bytes, reference)
            url = await context.service.upload(data, reference.media_type)
            expires = context.clock() + UPLOAD_LIFETIME
            await context.writer.do(lambda m: m.uploaded(reference.sha256, origin, url, expires))
            return url

    def _bytes(self, reference: Reference) -> bytes:
        data, _ = reference_bytes(reference.text, self._context.job.folder)
        if hashlib.sha256(data).hexdigest() != reference.sha256:
            raise StorageError(f"the reference image {reference.text[:80]} changed while the run was going")
        return data
