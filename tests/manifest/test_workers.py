"""Several workers on one manifest: what each may do, and what becomes of it when one is gone."""

import json
import os
import platform
from functools import partial

import pytest
from postgres import why_not

from seedream_batch.errors import Fenced, ManifestLocked, StaleTransition
from seedream_batch.manifest import Manifest
from seedream_batch.manifest.connection import CLOCK
from seedream_batch.manifest.rescue import Rescued
from seedream_batch.manifest.submissions import Intent, Turns
from seedream_batch.model.job import Budget
from seedream_batch.model.task import TaskState
from seedream_batch.pacing import News, take_turns

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

NOW = 1_800_000_000.0
HERE = platform.node()


@pytest.fixture
def crew(postgres, spec_of):
    """Opens workers of one manifest, and whoever else wants it; the first one brings twenty tasks."""
    place = postgres.place()
    opened = []

    def join(*, pid=None, host=HERE):
        manifest = Manifest(place, shared=True)
        opened.append(manifest)
        manifest.begin_run(now=NOW, pid=pid or os.getpid(), host=host, version="1", service="http://127.0.0.1")
        if len(opened) == 1:
            manifest.enter([spec_of(number) for number in range(1, 21)], NOW)
        return manifest

    join.place = place
    yield join
    for manifest in opened:
        manifest.close()


def intents(tasks):
    return [Intent(task.id) for task in tasks]


def numbers(tasks):
    return [task.id for task in tasks]


def silence(manifest, other):
    """As if nothing had been heard of the other one for longer than its lease."""
    manifest._connection.rows("UPDATE workers SET until = 0 WHERE run = ? RETURNING run", (other._run,))


def test_each_takes_other_tasks(crew):
    first, second = crew(), crew()
    mine, theirs = first.due(5, NOW), second.due(7, NOW)
    assert numbers(mine) == [1, 2, 3, 4, 5]
    assert numbers(theirs) == [6, 7, 8, 9, 10, 11, 12]
    assert numbers(first.due(5, NOW)) == numbers(mine), "what is in hand is not taken anew"
    assert numbers(first.due(100, NOW)) == [1, 2, 3, 4, 5, *range(13, 21)]
    assert first.next_due() == second.next_due() == 0.0


def test_what_a_living_one_has_in_hand_is_nobody_elses(crew):
    first, second = crew(), crew()
    tasks = first.due(20, NOW)
    assert second.due(5, NOW) == []
    assert second.take_up(numbers(tasks)) == []
    assert second.next_due() is None
    assert second.others_have()
    assert not second.others_have(settling=True)
    claims = first.claim(intents(tasks[:2]), Budget(), NOW).claims
    assert second.others_have(settling=True)
    first.accepted(claims[0].task, ["task_1"], deadline=NOW, why="accepted", now=NOW)
    assert list(second.numbers(TaskState.ACCEPTED)) == []
    assert first.let_go() == set(numbers(tasks))
    assert list(second.numbers(TaskState.ACCEPTED)) == [1]
    assert [task.state for task in second.take_up([1, 2])] == [TaskState.ACCEPTED, TaskState.SUBMITTING]
    assert not first.left_to_do(numbers(tasks), resend=True)
    assert first.left_to_do([1, 2], resend=True)


def test_one_whose_lease_is_over_is_taken_away(crew):
    first, second = crew(), crew()
    tasks = first.due(4, NOW)
    claims = first.claim(intents(tasks[:2]), Budget(), NOW).claims
    first.accepted(claims[0].task, ["task_1"], deadline=NOW, why="accepted", now=NOW)
    assert second.beat(NOW, HERE).in_doubt == 0, "it is silent, and may yet be heard of"
    silence(second, first)
    beat = second.beat(NOW, HERE)
    assert (beat.others, beat.buried, beat.in_doubt) == (0, 1, 1)
    assert second.task(2).state is TaskState.UNCERTAIN
    assert numbers(second.take_up([1, 2, 3])) == [1, 2, 3]
    # Whatever it does from now on is refused, and changes nothing.
    with pytest.raises(Fenced, match="others have taken over its tasks"):
        first.accepted(claims[1].task, ["task_2"], deadline=NOW, why="accepted", now=NOW)
    with pytest.raises(Fenced):
        first.claim(intents(tasks[2:]), Budget(), NOW)
    with pytest.raises(Fenced):
        first.beat(NOW, HERE)
    assert second.task(2).task_ids == ()
    totals = second.totals()
    assert (totals.reserved_images, totals.images) == (2, 0)


def test_ids_that_come_too_late_are_known_by_their_key(crew):
    first, second = crew(), crew()
    [claim] = first.claim(intents(first.due(1, NOW)), Budget(), NOW).claims
    silence(second, first)
    second.beat(NOW, HERE)
    first.step_out()
    rescued = [Rescued(claim.key, ("task_1",), NOW)]
    assert first.take_in(rescued, NOW, timeout=60) == 1
    assert second.task(1).state is TaskState.ACCEPTED
    assert numbers(second.take_up([1])) == [1]


def test_ids_for_what_another_one_has_in_hand_wait(crew):
    first, second = crew(), crew()
    [claim] = first.claim(intents(first.due(1, NOW)), Budget(), NOW).claims
    silence(second, first)
    second.beat(NOW, HERE)
    second.take_up([1])
    first.step_out()
    assert first.take_in([Rescued(claim.key, ("task_1",), NOW)], NOW, timeout=60) == 0
    assert second.take_in([Rescued(claim.key, ("task_1",), NOW)], NOW, timeout=60) == 1


def test_one_whose_process_is_gone_is_taken_away_at_once_on_its_own_machine(crew):
    first, second = crew(pid=2**22 + 1), crew()
    tasks = first.due(3, NOW)
    first.claim(intents(tasks), Budget(), NOW)
    assert second.beat(NOW, HERE).others == 1, "its session is there"
    first.close()
    while second._connection.present() != [second._run]:
        pass
    assert second.beat(NOW, "another machine").others == 1, "there nothing is known of its process"
    assert second.beat(NOW, HERE).in_doubt == 3


def test_one_whose_session_is_gone_may_come_back_for_a_while(crew):
    first, second = crew(), crew()
    first.due(3, NOW)
    first._connection._raw.close()
    while second._connection.present() != [second._run]:
        pass
    assert second.beat(NOW, "another machine").others == 1
    [(gone,)] = second._connection.rows("SELECT gone IS NOT NULL FROM workers WHERE run = ?", (first._run,))
    assert gone
    assert not first.again()
    assert second.beat(NOW, "another machine").others == 1
    [(gone,)] = second._connection.rows("SELECT gone IS NOT NULL FROM workers WHERE run = ?", (first._run,))
    assert not gone
    first._connection._raw.close()
    while second._connection.present() != [second._run]:
        pass
    second.beat(NOW, "another machine")
    second._connection.rows(f"UPDATE workers SET gone = {CLOCK} - 11 WHERE gone IS NOT NULL RETURNING run")
    assert second.beat(NOW, "another machine").others == 0
    with pytest.raises(ManifestLocked):
        first.again()


def test_the_budget_is_shared(crew):
    first, second = crew(), crew()
    budget = Budget(max_images=5)
    mine = first.claim(intents(first.due(3, NOW)), budget, NOW)
    theirs = second.claim(intents(second.due(4, NOW)), budget, NOW)
    assert (len(mine.claims), len(theirs.claims)) == (3, 2)
    assert theirs.stopped_by == "budget.max_images 5"
    assert first.totals() == second.totals()
    assert first.totals().reserved_images == 5
    first.not_executed(mine.claims[0].task, why="refused", not_before=0.0, now=NOW)
    assert len(second.claim(intents(second.due(2, NOW)), budget, NOW).claims) == 1
    first.end_run(now=NOW, outcome="finished")
    assert second.totals().reserved_images == 5
    second.end_run(now=NOW, outcome="finished")
    assert second.totals().reserved_images == 5


def test_a_new_price_raises_what_others_hold(crew):
    first, second = crew(), crew()
    [mine] = first.claim(intents(first.due(1, NOW)), Budget(), NOW).claims
    second.claim(intents(second.due(2, NOW)), Budget(), NOW)
    accepted = first.accepted(mine.task, ["task_1"], deadline=NOW, why="accepted", now=NOW)
    from seedream_batch.model.outcome import ImageUrl

    first.succeeded(
        accepted,
        [ImageUrl("https://img.example.com/1", None)],
        cost=50_000,
        why="completed",
        now=NOW,
        default_expiry=NOW,
    )
    totals = second.totals()
    assert (totals.reserved_images, totals.reserved, totals.cost) == (2, 100_000, 50_000)


def take(rate, news=None):
    def turns(state, clock, most):
        return Turns(*take_turns(state, rate, clock, most, lead=0.0, news=news or News()))

    return turns


def test_turns_are_shared(crew):
    first, second = crew(), crew()
    claims = partial(first.claim, budget=Budget(), now=NOW, take=take(10.0), monotonic=lambda: 0.0)
    mine = claims(intents(first.due(3, NOW)))
    theirs = second.claim(intents(second.due(12, NOW)), Budget(), NOW, take=take(10.0), monotonic=lambda: 0.0)
    assert len(mine.turns) == len(mine.claims) == 3
    assert mine.turns[2] - mine.turns[0] == pytest.approx(0.2, abs=0.06)
    # No turn is far away, so that no intent waits for long.
    assert 1 <= len(theirs.turns) == len(theirs.claims) <= 2
    assert theirs.turns[0] > 0.15
    assert theirs.free_in > 0
    assert theirs.turns == tuple(sorted(theirs.turns))


def test_a_pause_is_everybodys(crew):
    first, second = crew(), crew()
    clock = first._connection.rows(f"SELECT {CLOCK}")[0][0]
    first.claim([], Budget(), NOW, take=take(10.0, News(refused=[(clock, 30.0)])))
    waiting = second.claim(intents(second.due(2, NOW)), Budget(), NOW, take=take(10.0))
    assert waiting.claims == ()
    assert 25 < waiting.free_in < 30.1
    assert second.task(1).state is TaskState.PLANNED


def test_turns_without_intents_come_first(crew):
    worker = crew()
    claimed = worker.claim(intents(worker.due(2, NOW)), Budget(), NOW, take=take(100.0), also=2)
    assert len(claimed.turns) == 4
    assert len(claimed.claims) == 2


def test_an_answer_moves_a_task_once(crew):
    worker = crew()
    [claim] = worker.claim(intents(worker.due(1, NOW)), Budget(), NOW).claims
    worker.accepted(claim.task, ["task_1"], deadline=NOW, why="accepted", now=NOW)
    with pytest.raises(StaleTransition):
        worker.refused(claim.task, why="no", code="", now=NOW)


def test_a_person_waits_for_workers_that_were_cut_off(crew):
    first = crew(pid=2**22 + 1)
    first.claim(intents(first.due(2, NOW)), Budget(), NOW)
    with pytest.raises(ManifestLocked):
        Manifest(crew.place)
    first.close()
    alone = Manifest(crew.place)
    try:
        assert alone.others() == []
        assert [task.state for task in alone.tasks(TaskState.UNCERTAIN)] == [TaskState.UNCERTAIN] * 2
        assert alone.totals().reserved_images == 2
        assert alone.was_cut_off()
    finally:
        alone.close()


def test_a_choice_is_each_ones_own(crew):
    first, second = crew(), crew()
    assert first.choose(lambda cell: cell["number"] > 15) == 5
    assert second.choose(lambda cell: cell["number"] < 3) == 2
    assert numbers(first.due(20, NOW)) == [16, 17, 18, 19, 20]
    assert numbers(second.due(20, NOW)) == [1, 2]


def test_the_pace_is_kept_as_text(crew):
    worker = crew()
    worker.claim(intents(worker.due(1, NOW)), Budget(), NOW, take=take(None))
    [(state,)] = worker._connection.rows("SELECT state FROM pace")
    assert json.loads(state)["rate"] == 8.0
