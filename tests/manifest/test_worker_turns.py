"""When a worker may send: turns from the pace that all share, and whether its word counts."""

import asyncio
import json
from functools import partial

import pytest
from crew import NOW, intents

from seedream_batch.engine.stop_control import RunStopped
from seedream_batch.engine.workers.claim_batcher import ClaimBatcher
from seedream_batch.engine.workers.heartbeat import WorkerLease
from seedream_batch.manifest.async_writer import ManifestWriter
from seedream_batch.manifest.db.connection import CLOCK, LEASE
from seedream_batch.manifest.task_queue import Intent, SharedRate
from seedream_batch.manifest.worker_store import GRACE
from seedream_batch.model.job import Budget
from seedream_batch.model.task import TaskState
from seedream_batch.pacing import RateFeedback, reserve_slots
from seedream_batch.pacing.rate_limiter import MOST_HELD


def take(rate, news=None):
    def turns(state, clock, most):
        return SharedRate(*reserve_slots(state, rate, clock, most, lead=0.0, news=news or RateFeedback()))

    return turns


def test_turns_are_shared(crew):
    first, second = crew(), crew()
    claims = partial(first.queue.claim, budget=Budget(), now=NOW, take=take(10.0), monotonic=lambda: 0.0)
    mine = claims(intents(first.queue.due(3, NOW)))
    theirs = second.queue.claim(
        intents(second.queue.due(12, NOW)), Budget(), NOW, take=take(10.0), monotonic=lambda: 0.0
    )
    assert len(mine.turns) == len(mine.claims) == 3
    assert mine.turns[2] - mine.turns[0] == pytest.approx(0.2, abs=0.06)
    # No turn is far away, so that no intent waits for long.
    assert 1 <= len(theirs.turns) == len(theirs.claims) <= 2
    assert theirs.turns[0] > 0.15
    assert theirs.free_in > 0
    assert theirs.turns == tuple(sorted(theirs.turns))


def test_a_pause_is_everybodys(crew):
    first, second = crew(), crew()
    clock = first.connection.rows(f"SELECT {CLOCK}")[0][0]
    first.queue.claim([], Budget(), NOW, take=take(10.0, RateFeedback(refused=[(clock, 30.0)])))
    waiting = second.queue.claim(intents(second.queue.due(2, NOW)), Budget(), NOW, take=take(10.0))
    assert waiting.claims == ()
    assert 25 < waiting.free_in < 30.1
    assert second.tasks.get(1).state is TaskState.PLANNED


def test_turns_without_intents_come_first(crew):
    worker = crew()
    claimed = worker.queue.claim(intents(worker.queue.due(2, NOW)), Budget(), NOW, take=take(100.0), also=2)
    assert len(claimed.turns) == 4
    assert len(claimed.claims) == 2


@pytest.mark.quick
def test_the_pace_is_kept_as_text(crew):
    worker = crew()
    worker.queue.claim(intents(worker.queue.due(1, NOW)), Budget(), NOW, take=take(None))
    [(state,)] = worker.connection.rows("SELECT state FROM pace")
    assert json.loads(state)["rate"] == 8.0


class Heard:
    """What a run knows of its place among the workers, at moments that the test gives."""

    def __init__(self, manifest):
        self.manifest = manifest
        self.now = 0.0

    async def beats(self, *steps):
        writer = ManifestWriter(self.manifest, lost=lambda _: None)
        crew = WorkerLease(writer, clock=lambda: self.now, warn=lambda _: None)
        try:
            for step in steps:
                await crew.send_heartbeat()
                step(crew)
        finally:
            await writer.close()


def test_a_run_that_has_heard_nothing_for_a_while_does_not_count(crew):
    """Others take over ten seconds after its session has ended, long before its lease is over."""
    heard = Heard(crew())

    def look(crew):
        heard.now = GRACE - 2.1
        assert crew.counts_for(180)
        heard.now = GRACE - 1.9
        assert not crew.counts_for(180)
        crew.on_heartbeat(5.0)
        assert crew.counts_for(180)
        heard.now = 12.9
        assert crew.counts_for(180)
        crew.on_heartbeat(LEASE)
        heard.now = LEASE
        assert not crew.counts_for(180), "the lease is over by then"

    asyncio.run(heard.beats(look))


def test_one_that_is_gone_may_have_left_something_whoever_has_taken_it_away(crew):
    worker, other = crew(), crew()
    heard = Heard(worker)

    def leave(crew):
        assert not crew.left_something
        other.workers.end_run(now=NOW, outcome="finished")

    def look(crew):
        assert crew.left_something

    asyncio.run(heard.beats(leave, look))


def test_a_pause_that_is_heard_before_the_first_turn_counts(crew):
    """And the news of a claim are in the times of the server, wherever that is."""
    worker = crew()

    async def claims():
        writer = ManifestWriter(worker, lost=lambda _: None)
        rests = []

        async def rest(seconds):
            rests.append(seconds)
            raise RunStopped

        claims = ClaimBatcher(
            writer, Budget(), 10.0, clock=lambda: NOW, monotonic=lambda: 5.0, may_go_on=lambda: True, rest=rest,
            heard=lambda _: None,
        )  # fmt: skip
        try:
            claims.refused(30.0)
            assert await claims.claim(Intent(1)) is None
        finally:
            await writer.close()
        assert len(rests) == 1
        assert 28 < rests[0] < 30.1

    asyncio.run(claims())
    assert worker.tasks.get(1).state is TaskState.PLANNED


def test_an_outage_does_not_put_turns_off(crew):
    """A claim that took a minute, since the server was gone, does not make the next turns come as late."""
    worker = crew()
    worker.queue.due(2, NOW)
    moments = iter([0.0, 0.0, 0.0, 60.0])

    async def claims():
        writer = ManifestWriter(worker, lost=lambda _: None)
        now = 0.0

        def monotonic():
            nonlocal now
            now = next(moments, now)
            return now

        claims = ClaimBatcher(
            writer, Budget(), 100.0, clock=lambda: NOW, monotonic=monotonic, may_go_on=lambda: True, rest=asyncio.sleep,
            heard=lambda _: None,
        )  # fmt: skip
        try:
            await claims.claim(Intent(1))
            assert now == 60.0
            _, turn = await claims.claim(Intent(2))
            assert turn - 60.0 <= MOST_HELD
        finally:
            await writer.close()

    asyncio.run(claims())
