"""The line of a worker to its server, and the locks that hang on it: lost, waited for, taken again."""

import asyncio

import pytest
from crew import HERE, NOW, cut, numbers, silence
from postgres import asked

from seedream_batch.errors import Collision, ManifestLocked
from seedream_batch.manifest import Manifest
from seedream_batch.manifest.async_writer import ManifestWriter, repeated
from seedream_batch.manifest.db.connection import CLOCK


@pytest.mark.quick
def test_one_whose_session_is_gone_may_come_back_for_a_while(crew):
    first, second = crew(), crew()
    first.queue.due(3, NOW)
    first.connection._raw.close()
    while second.connection.workers.present() != [second.connection.worker]:
        pass
    assert len(second.workers.send_heartbeat(NOW, "another machine").others) == 1
    [(gone,)] = second.connection.rows("SELECT gone IS NOT NULL FROM workers WHERE run = ?", (first.connection.worker,))
    assert gone
    assert not first.connection.reconnect()
    assert len(second.workers.send_heartbeat(NOW, "another machine").others) == 1
    [(gone,)] = second.connection.rows("SELECT gone IS NOT NULL FROM workers WHERE run = ?", (first.connection.worker,))
    assert not gone
    first.connection._raw.close()
    while second.connection.workers.present() != [second.connection.worker]:
        pass
    second.workers.send_heartbeat(NOW, "another machine")
    second.connection.rows(f"UPDATE workers SET gone = {CLOCK} - 11 WHERE gone IS NOT NULL RETURNING run")
    assert len(second.workers.send_heartbeat(NOW, "another machine").others) == 0
    with pytest.raises(ManifestLocked):
        first.connection.reconnect()


def test_tasks_may_be_made_slowly(crew, spec_of, until, monkeypatch):
    """A worker that says nothing within a transaction is taken for one that was stopped, but not one that expands."""
    monkeypatch.setattr("seedream_batch.manifest.db.postgres.STOPPED", 0.05)
    worker = crew()
    idle = "SELECT 1 FROM pg_stat_activity WHERE state = 'idle in transaction' AND now() - state_change > '0.3 s'"

    def slowly():
        yield spec_of(1)
        until(lambda: asked(crew.place, idle))
        yield spec_of(2)

    assert worker.sync_job(slowly(), NOW).known == 2


def test_whoever_keeps_others_out_does_so_on_a_new_line(crew):
    first, second = crew(), crew()
    first.connection.workers.lock_startup(lambda: pytest.fail("nobody else does"))
    cut(first)
    first.connection.reconnect()
    asks = []

    def wait():
        asks.append(1)
        first.connection.workers.unlock_startup()

    second.connection.workers.lock_startup(wait)
    assert asks == [1]


def test_whoever_kept_others_out_and_was_replaced_hears_of_it(crew):
    first, second = crew(), crew()
    first.connection.workers.lock_startup(lambda: pytest.fail("nobody else does"))
    cut(first)
    second.connection.workers.lock_startup(lambda: None)
    with pytest.raises(ManifestLocked, match="another worker started"):
        first.connection.reconnect()


def test_making_the_tasks_for_long_is_no_silence(crew, spec_of):
    first, second = crew(), crew()

    def slowly():
        yield spec_of(1)
        silence(second, first)
        assert second.workers.send_heartbeat(NOW, HERE).expired == 0, "it is in the middle of a transaction"

    first.sync_job(slowly(), NOW)
    assert second.workers.send_heartbeat(NOW, HERE).expired == 0
    silence(second, first)
    first.workers.renew_lease()
    assert second.workers.send_heartbeat(NOW, HERE).expired == 0


def test_whether_one_that_begins_is_a_worker(crew):
    crew()
    second = crew()
    beginning = Manifest(crew.place, shared=True)
    session = beginning.connection._raw.info.backend_pid
    try:
        assert second.connection.workers.startup_lock_holder() is None
        beginning.connection.workers.lock_startup(lambda: pytest.fail("nobody else does"))
        assert second.connection.workers.startup_lock_holder() == (session, False)
        beginning.workers.begin_run(now=NOW, pid=1, host=HERE, version="1", service="")
        assert second.connection.workers.startup_lock_holder() == (session, True)
        beginning.connection.workers.unlock_startup()
        assert second.connection.workers.startup_lock_holder() is None
    finally:
        beginning.close()


def test_a_table_that_is_locked_for_long_is_waited_for(crew):
    """As an administrator does who makes an index."""
    worker = crew()
    worker.connection.sql.execute("SET lock_timeout TO 50")
    outside = crew()
    tries = []

    def due():
        tries.append(1)
        if len(tries) == 3:
            outside.connection.sql.execute("ROLLBACK")
        return worker.queue.due(1, NOW)

    async def wait():
        writer = ManifestWriter(worker)
        try:
            outside.connection.sql.execute("BEGIN; LOCK TABLE tasks")
            return await writer.do(due)
        finally:
            await writer.close()

    assert numbers(asyncio.run(wait())) == [1]
    assert len(tries) == 3


def comes_and_goes(crew):
    worker = crew()
    worker.workers.end_run(now=NOW, outcome="finished")
    worker.close()


def test_one_alone_hears_that_workers_came_and_went(crew):
    comes_and_goes(crew)
    alone = Manifest(crew.place)
    try:
        cut(alone)
        comes_and_goes(crew)
        with pytest.raises(ManifestLocked, match="another run used"):
            alone.connection.reconnect()
    finally:
        alone.close()


def test_a_lock_that_is_not_given_leaves_no_transaction_behind(crew):
    worker = crew()
    worker.connection.sql.execute("SET lock_timeout TO 50")
    burying = crew()
    with burying.group():
        assert burying.connection.workers.may_expire(worker.connection.worker)
        with pytest.raises(Collision):
            worker.queue.due(1, NOW)
        assert not worker.connection.in_transaction
    assert numbers(worker.queue.due(1, NOW)) == [1]


def test_a_stopped_one_does_not_keep_others_out_for_good(crew):
    """Its lease is over, and its session, with the lock that others wait for, is ended."""
    first, second = crew(), crew()
    first.connection.workers.lock_startup(lambda: pytest.fail("nobody else does"))
    silence(second, first)
    second.connection.workers.lock_startup(lambda: second.workers.expire(NOW, HERE))
    assert second.workers.others() == []


def test_a_call_that_is_broken_off_is_made_again():
    outcomes = [Collision("broken off"), Collision("broken off"), None]

    def call():
        if outcome := outcomes.pop(0):
            raise outcome
        return "done"

    assert repeated(call) == "done"
    assert outcomes == []
