"""Submit tasks: commit the intent, send one POST, record the outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import assert_never

from seedream_batch.engine.context import MOST_UNCLEAR, RunContext, event
from seedream_batch.engine.events import EventKind, StopReason
from seedream_batch.engine.reference_sender import ReferenceSender
from seedream_batch.engine.service_health import Refusals
from seedream_batch.engine.stop_control import Signal
from seedream_batch.engine.workers.heartbeat import BEAT
from seedream_batch.errors import BalanceTooLow, CredentialsRefused, RequestRefused, ServiceError, StorageError
from seedream_batch.files.references import BadReferenceImage
from seedream_batch.lifecycle import Move, after_submission, backoff
from seedream_batch.manifest.rescue_log import Rescued
from seedream_batch.manifest.task_queue import Claim, Intent
from seedream_batch.manifest.task_store import Acceptance
from seedream_batch.model.outcome import Submission, Submitted
from seedream_batch.model.service_messages import is_dead_reference, is_moderation
from seedream_batch.model.task import TaskRecord, TaskState
from seedream_batch.pacing.rate_limiter import LATE

RESENDS = 4
"""How often one run resends an uncertain task under its idempotency key."""

_FINAL = {Submitted.ACCEPTED, Submitted.REFUSED, Submitted.BLOCKED, Submitted.INDETERMINATE}
"""Answers to a resend after which the task is not resent."""

KEY_LIFETIME = 20 * 3600.0
"""Seconds for which a service is trusted to know an idempotency key; undocumented, a day is usual."""

SKEW = 60.0
"""Seconds by which the clocks of workers may differ."""

MOST_UPLOADS = 5
"""Uploads of reference images that may fail in a row before submissions stop."""

MOST_SAME_IDS = 3
"""Tasks answered with the id of another task after which submissions stop."""

MOST_NOT_OFFERED = 3
"""Answers in a row that the model is not offered after which submissions stop."""

MOST_PAGES = 5
"""Web pages with a 429 that one task may get while others are accepted, before it counts as blocked."""

SLOW = 2.0
"""Seconds that a database server may take to store task ids before they are also written to the rescue file."""


class Submitter:
    """Sends tasks, one request at a time for each; records every outcome before anything else happens to the task."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._references = ReferenceSender(context)
        self._most_unanswered = 4
        self._unanswered = 0
        self._answered = Signal()
        self._bad_uploads = 0
        self._same_ids = 0
        """Tasks for which the service returned the id of another one."""
        self._warned_of_slowness = False
        self._refusals = Refusals()
        self._not_offered = 0
        self._pages: dict[int, tuple[int, int]] = {}
        """Tasks that got a web page with a 429: how often, and how many tasks had been accepted by then."""
        self.claims = 0
        """How many intents were committed so far."""
        self.unclaimed: set[int] = set()
        """Started tasks that have no committed intent yet."""

    async def wait_for_turn(self) -> None:
        """Wait until the next submission may be sent, and take its turn; raise `RunStopped`.

        Few requests are outstanding at first: while nothing is known of the service, few tasks can become uncertain. If
        not even the balance is answered, it is one.
        The turn ends with `submit` or `resend`, or with `give_up_turn`.
        """
        context = self._context
        while self._unanswered >= (1 if context.health.unproven else self._most_unanswered):
            self._answered.clear()
            await context.control.until(self._answered)
        self._unanswered += 1
        try:
            await context.health.wait_for_life()
            await context.coordinator.wait_for_turn()
        except BaseException:
            self.give_up_turn()
            raise

    def give_up_turn(self) -> None:
        """End a turn without a submission, or after its answer."""
        self._unanswered -= 1
        self._answered.set()

    async def submit(self, task: TaskRecord) -> TaskRecord | None:
        """Submit a planned task in its turn; return the accepted task, or None. Raise `RunStopped`."""
        try:
            sent = await self._send(task)
        finally:
            self.unclaimed.discard(task.id)
            self.give_up_turn()
        if sent is None:
            return None
        claim, outcome = sent
        accepted = await self._record(claim, outcome)
        uncertain = outcome.kind in {Submitted.UNKNOWN, Submitted.IN_PROGRESS}
        if accepted is not None or not uncertain or not self._context.options.resend:
            return accepted
        await self._context.control.rest(outcome.retry_after or backoff(1, random=self._context.random))
        return await self.resend(
            await self._context.writer.do(self._context.manifest.tasks.get, task.id), just_sent=True
        )

    async def resend(self, task: TaskRecord, *, just_sent: bool = False) -> TaskRecord | None:
        """Resend an uncertain task, with the identical body under the same key, until its outcome is known.

        Return the accepted task, or None if it stays uncertain. Only for services trusted to recognise keys, and only
        while they can be expected to know the key, as for a task that was `just_sent`. Raise `RunStopped`.
        """
        context = self._context
        claim = await context.writer.do(context.manifest.queue.open_claim, task)
        if claim is None:
            return None
        if not just_sent and (expired := await self._expired(claim)):
            await self._hold(task, expired)
            return None
        try:
            body = await self._references.with_inlined(claim.body)
        except (StorageError, BadReferenceImage) as error:
            await self._hold(task, f"cannot be resent unchanged: {error}")
            return None
        for tries in range(1, RESENDS + 1):
            if context.control.reason is StopReason.CREDENTIALS:
                return None
            await self.wait_for_turn()
            try:
                context.start.rescue.prepare()
                # During the wait another worker may have taken over the task and recorded its outcome.
                if tries > 1 and await context.writer.do(context.manifest.queue.open_claim, task) is None:
                    return None
                await self._wait_to_send(await context.coordinator.resend_turn())
                if not context.coordinator.lease_covers(body):
                    await context.control.rest(BEAT)
                    continue
                outcome = await self._classified(task, await context.service.submit(body, claim.key))
                self._notice(outcome, first=False)
                accepted = await self._record(claim, outcome)
            finally:
                self.give_up_turn()
            if accepted is not None or outcome.kind in _FINAL:
                return accepted
            await context.control.rest(max(backoff(tries, random=context.random), outcome.retry_after or 0.0))
        return None

    async def _expired(self, claim: Claim) -> str:
        """Return why the service may have forgotten the key of a claim; empty if it should know it.

        An unknown age counts as too old.
        """
        now = self._context.clock.unix()
        newest = await self._context.writer.do(self._context.manifest.workers.newest_run)
        age = now - claim.opened_at
        if age < 0 or newest > now + SKEW:
            return "the clock was set back since it was sent, so the service may no longer know the Idempotency-Key"
        if age > KEY_LIFETIME:
            return f"sent {age / 3600:.0f} h ago, so the service may no longer know the Idempotency-Key"
        return ""

    async def _send(self, task: TaskRecord) -> tuple[Claim, Submission] | None:
        """Return the committed intent and the outcome of its POST; None when nothing was sent."""
        context = self._context
        try:
            sent_body = await self._references.with_uploads(task)
            body = await self._references.with_inlined(sent_body or task.body)
        except (ServiceError, StorageError, BadReferenceImage) as error:
            await self._handle_bad_reference(task, error)
            return None
        self._bad_uploads = 0
        # Uploads take a while; nothing is bought once the run is ending.
        context.control.check()
        if not context.control.may_submit():
            return None
        context.start.rescue.prepare()
        claim, wait = await context.coordinator.claim(Intent(task.id, sent_body))
        if claim is None:
            return None
        self.unclaimed.discard(task.id)
        self.claims += 1
        context.record.stats.submitted += 1
        # A short wait that is never cancelled: from here on, only an answer tells the outcome.
        await self._wait_to_send(wait)
        if not context.coordinator.lease_covers(body):
            await self._not_sent(claim)
            return None
        outcome = await self._classified(task, await context.service.submit(body, claim.key))
        self._notice(outcome, first=True)
        return claim, outcome

    async def _classified(self, task: TaskRecord, outcome: Submission) -> Submission:
        """Return the outcome; if the key is valid, a 403 is about this request, and a 401 about the model."""
        if outcome.kind is Submitted.RATE_LIMITED and outcome.kept is not None:
            return self._blocked_page(task, outcome)
        if outcome.kind is not Submitted.UNAUTHORIZED or await self._context.health.refuses_key(outcome.status):
            return outcome
        message = f"{outcome.message or 'refused'} (the balance endpoint accepts the API key)"
        kind = Submitted.NO_MODEL if outcome.status == 401 else Submitted.BLOCKED
        return replace(outcome, kind=kind, message=message)

    def _blocked_page(self, task: TaskRecord, outcome: Submission) -> Submission:
        """Return the outcome of a 429 with a firewall's page: about this request if others are accepted in between."""
        times, accepted = self._pages.get(task.id, (0, -1))
        if self._refusals.successes > accepted:
            times += 1
        self._pages[task.id] = times, self._refusals.successes
        if times < MOST_PAGES:
            return outcome
        return replace(
            outcome, kind=Submitted.BLOCKED, message=f"{outcome.message}, {times} times; others were accepted"
        )

    async def _wait_to_send(self, wait: float) -> None:
        """Wait until a request may be sent; requests that a busy loop wakes late are not sent together."""
        context = self._context
        while wait > 0:
            due = context.clock.monotonic() + wait
            await asyncio.sleep(wait)
            now = context.clock.monotonic()
            wait = context.health.limiter.leaving(now) if now - due > LATE else 0.0

    async def _not_sent(self, claim: Claim) -> None:
        """Plan a claimed task again: the lease may expire, and others take over the task, before it is answered."""
        context = self._context
        now = context.clock.unix()
        why = "not sent: this worker sent no heartbeat for too long"
        if not self._warned_of_slowness:
            self._warned_of_slowness = True
            context.control.warn(f"{context.manifest.name} answers too slowly; submissions wait for it")
        await context.writer.do(
            context.manifest.tasks.not_executed, claim.task, why=why, not_before=now + BEAT, now=now
        )
        context.record.stats.submitted -= 1

    async def _record(self, claim: Claim, outcome: Submission) -> TaskRecord | None:
        context = self._context
        task = claim.task
        move = after_submission(task.state, outcome)
        now = context.clock.unix()
        if move is None:
            why = f"resent with the same key: {outcome.message or outcome.kind}"
            if outcome.kind in {Submitted.INDETERMINATE, Submitted.REFUSED, Submitted.BLOCKED}:
                await self._hold(task, why, outcome)
            else:
                await context.writer.do(
                    context.manifest.tasks.still_uncertain, task, why=why, held=False, now=now, kept=outcome.kept
                )
            return None
        match move.to:
            case TaskState.ACCEPTED:
                return await self._accepted(claim, move, outcome, now)
            case TaskState.PLANNED:
                wait = outcome.retry_after or backoff(1, random=context.random)
                await self._planned_again(task, outcome, move.why, now + wait)
            case TaskState.FAILED:
                if await self._has_other_uploads(claim, outcome):
                    why = f"{move.why}; uploading its reference images again"
                    await self._planned_again(task, outcome, why, now)
                else:
                    await self._refused(task, move, now, outcome)
            case TaskState.UNCERTAIN:
                await context.writer.do(
                    context.manifest.tasks.uncertain,
                    task,
                    why=move.why,
                    code=move.code,
                    held=move.held,
                    now=now,
                    kept=outcome.kept,
                )
                context.record.stats.uncertain += 1
                context.control.emit(event(EventKind.UNCERTAIN, task, f"may have been charged: {move.why}"))
            case TaskState.SUBMITTING | TaskState.SUCCEEDED | TaskState.LOST:
                raise AssertionError(f"a submission does not lead to {move.to}")
            case _:
                assert_never(move.to)
        return None

    async def _accepted(self, claim: Claim, move: Move, outcome: Submission, now: float) -> TaskRecord | None:
        context = self._context
        task = claim.task
        deadline = now + context.job.run.task_timeout
        acceptance = Acceptance(task, outcome.task_ids, deadline, move.why, now, outcome.kept)
        rescued = False
        try:
            storing: Awaitable[TaskRecord] = context.writer.join(context.manifest.tasks.accept_all, acceptance)
            if not context.manifest.connection.in_process:
                storing = asyncio.ensure_future(storing)
                if not (await asyncio.wait({storing}, timeout=SLOW))[0]:
                    # The server may recover, but a kill meanwhile must not lose paid task ids.
                    self._rescue_ids(claim, outcome, now, "the manifest's server did not answer")
                    rescued = True
            accepted = await storing
        except BaseException as error:
            # Whatever the error is, a cancellation included: paid task ids must not be lost.
            if not rescued:
                leaving = isinstance(error, asyncio.CancelledError)
                why = "the run was stopped at once" if leaving else f"the manifest cannot be written ({error})"
                self._rescue_ids(claim, outcome, now, why)
            raise
        if accepted.state is TaskState.UNCERTAIN:
            context.record.stats.uncertain += task.state is not TaskState.UNCERTAIN
            context.control.emit(event(EventKind.UNCERTAIN, accepted, accepted.reason))
            self._same_ids += 1
            if self._same_ids == MOST_SAME_IDS:
                context.control.stop_submitting(
                    StopReason.UNCLEAR, "the service returned the same task id for several tasks"
                )
            return None
        if task.state is TaskState.UNCERTAIN:
            context.record.stats.uncertain = max(0, context.record.stats.uncertain - 1)
        context.control.emit(event(EventKind.SUBMITTED, accepted, move.why))
        return accepted

    async def _planned_again(self, task: TaskRecord, outcome: Submission, why: str, not_before: float) -> None:
        """Plan a task again that was certainly not executed."""
        context = self._context
        now = context.clock.unix()
        await context.writer.do(
            context.manifest.tasks.not_executed, task, why=why, not_before=not_before, now=now, kept=outcome.kept
        )
        context.record.stats.submitted -= 1

    async def _has_other_uploads(self, claim: Claim, outcome: Submission) -> bool:
        """Return whether the service refused a lost upload, and the task can be sent with a new one."""
        dead = outcome.kind is Submitted.REFUSED and is_dead_reference(outcome.code, outcome.message)
        return dead and await self._references.forget(claim.task, claim.body)

    async def _refused(self, task: TaskRecord, move: Move, now: float, outcome: Submission | None = None) -> None:
        context = self._context
        kept = None if outcome is None else outcome.kept
        await context.writer.do(context.manifest.tasks.refused, task, why=move.why, code=move.code, now=now, kept=kept)
        context.record.stats.failed += 1
        context.control.emit(event(EventKind.FAILED, task, move.why, code=move.code))

    async def _hold(self, task: TaskRecord, why: str, outcome: Submission | None = None) -> None:
        """Leave an uncertain task to the user's decision."""
        now = self._context.clock.unix()
        kept = None if outcome is None else outcome.kept
        await self._context.writer.do(
            self._context.manifest.tasks.still_uncertain, task, why=why, held=True, now=now, kept=kept
        )
        self._context.control.emit(event(EventKind.UNCERTAIN, task, why))

    def _rescue_ids(self, claim: Claim, outcome: Submission, now: float, why: str) -> None:
        """Write task ids that the manifest may not store to the rescue file, or at least to the log."""
        context = self._context
        ids = " ".join(outcome.task_ids)
        try:
            context.start.rescue.add(Rescued(claim.key, outcome.task_ids, now))
        except StorageError as failure:
            text = f"cannot be stored; write this down: task id {ids}, key {claim.key} ({why}; {failure})"
        else:
            text = f"saved task id {ids} in {context.start.rescue.path}, because {why}"
        context.control.emit(event(EventKind.RESCUED, claim.task, text))

    def _notice(self, outcome: Submission, *, first: bool) -> None:
        """Apply what an outcome says about the service as a whole; `first` for a task that was not sent before."""
        context = self._context
        kind = outcome.kind
        message = f"HTTP {outcome.status}: {outcome.message}" if outcome.status else outcome.message
        if kind in {Submitted.UNREACHABLE, Submitted.UNAVAILABLE}:
            context.health.unanswered(message)
        elif kind is Submitted.UNKNOWN:
            context.health.doubtful = True
        elif kind is not Submitted.RATE_LIMITED:
            context.health.answered()
        if first and kind not in {Submitted.UNREACHABLE, Submitted.UNAVAILABLE, Submitted.RATE_LIMITED}:
            # The others say nothing about tasks or the model, and must not interrupt a series of such answers.
            context.health.unclear = context.health.unclear + 1 if kind is Submitted.UNKNOWN else 0
            self._not_offered = self._not_offered + 1 if kind is Submitted.NO_MODEL else 0
        self._react(outcome, message, first=first)

    def _react(self, outcome: Submission, message: str, *, first: bool) -> None:
        context = self._context
        match outcome.kind:
            case Submitted.ACCEPTED:
                self._refusals.accepted()
                context.coordinator.accepted()
                self._most_unanswered = min(
                    2 * self._most_unanswered, context.job.run.max_in_flight, context.service.connections
                )
            case Submitted.UNAUTHORIZED:
                context.control.stop_submitting(StopReason.CREDENTIALS, f"the service rejected the API key ({message})")
            case Submitted.UNPAID:
                context.control.stop_submitting(StopReason.BALANCE, f"the account's balance is too low ({message})")
            case Submitted.RATE_LIMITED:
                context.health.asked_to_wait(self._pause(outcome), message)
                context.coordinator.refused(self._pause(outcome))
            case Submitted.UNREACHABLE if outcome.status is not None:
                # A redirect. A retry would be redirected again, at best.
                context.control.stop_submitting(StopReason.OUTAGE, outcome.message)
            case Submitted.UNAVAILABLE:
                context.coordinator.refused(self._pause(outcome))
            case Submitted.UNKNOWN if context.health.unclear >= MOST_UNCLEAR:
                text = f"{context.health.unclear} submissions in a row got no clear answer (the last: {message})"
                context.control.stop_submitting(StopReason.UNCLEAR, text)
            case Submitted.NO_MODEL:
                context.coordinator.refused(self._pause(outcome))
                if self._not_offered >= MOST_NOT_OFFERED:
                    text = f"the service rejects every submission ({message})"
                    context.control.stop_submitting(StopReason.OUTAGE, text)
            case Submitted.REFUSED | Submitted.BLOCKED if first:
                self._notice_refusal(outcome, message)
            case _:
                pass

    def _notice_refusal(self, outcome: Submission, reason: str) -> None:
        """Count a refusal. One for content is about the prompt; any other may be the first of thousands."""
        blocked = outcome.kind is Submitted.BLOCKED
        if not blocked and is_moderation(outcome.code, outcome.message):
            return
        if self._refusals.refused(reason, blocked=blocked):
            text = f"{self._refusals.count} tasks in a row were refused for the same reason ({reason})"
            self._context.control.stop_submitting(StopReason.REFUSED, text)

    def _pause(self, outcome: Submission) -> float:
        return outcome.retry_after if outcome.retry_after is not None else backoff(2, random=self._context.random)

    async def _handle_bad_reference(self, task: TaskRecord, error: Exception) -> None:
        """Handle a reference image that could not be prepared, so that nothing was sent."""
        context = self._context
        match error:
            case CredentialsRefused() if await context.health.refuses_key(error.status):
                context.control.stop_submitting(StopReason.CREDENTIALS, f"the service rejected the API key ({error})")
            case BalanceTooLow():
                context.control.stop_submitting(StopReason.BALANCE, f"the account's balance is too low ({error})")
            case RequestRefused():
                # The service refuses this image: that fails the tasks that use it, and no others.
                claim = await context.coordinator.claim_now(Intent(task.id))
                if claim is not None:
                    await self._refused(claim.task, Move(TaskState.FAILED, str(error)), context.clock.unix())
            case ServiceError():
                self._bad_uploads += 1
                if self._bad_uploads >= MOST_UPLOADS:
                    context.control.stop_submitting(StopReason.OUTAGE, str(error))
                else:
                    await context.control.rest(backoff(self._bad_uploads, random=context.random))
            case _:
                context.control.stop_submitting(StopReason.STORAGE, f"{task.paths[0]}: {error}")
