"""Several workers on one manifest: what each may do, and what becomes of it when one is gone."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from crew import HERE, NOBODY, NOW, comes_back, intents, numbers, silence, waits

from seedream_batch.errors import ConnectionLost, Fenced, ManifestLocked, StaleTransition
from seedream_batch.manifest import Manifest
from seedream_batch.manifest.rescue_log import Rescued
from seedream_batch.manifest.worker_store import Beat
from seedream_batch.model.job import Budget
from seedream_batch.model.outcome import ImageUrl
from seedream_batch.model.task import TaskState

pytestmark = pytest.mark.quick


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
    assert second.own_tasks(numbers(tasks)) == []
    assert second.next_due() is None
    assert second.others_have()
    assert not second.others_have(settling=True)
    claims = first.claim(intents(tasks[:2]), Budget(), NOW).claims
    assert second.others_have(settling=True)
    first.accepted(claims[0].task, ["task_1"], deadline=NOW, why="accepted", now=NOW)
    assert list(second.numbers(TaskState.ACCEPTED)) == []
    assert first.release_tasks() == set(numbers(tasks))
    assert list(second.numbers(TaskState.ACCEPTED)) == [1]
    assert [task.state for task in second.own_tasks([1, 2])] == [TaskState.ACCEPTED, TaskState.SUBMITTING]
    assert not first.left_to_do(numbers(tasks), resend=True)
    assert first.left_to_do([1, 2], resend=True)


def test_what_is_still_at_work_is_not_let_go(crew):
    first, second = crew(), crew()
    tasks = first.due(4, NOW)
    first.claim(intents(tasks[:2]), Budget(), NOW)
    assert first.release_tasks(but=[1, 3]) == {2, 4}
    assert numbers(second.own_tasks([1, 2, 3, 4])) == [2, 4]
    assert first.release_tasks() == {1, 3}


def test_one_whose_lease_is_over_is_taken_away(crew):
    first, second = crew(), crew()
    tasks = first.due(4, NOW)
    claims = first.claim(intents(tasks[:2]), Budget(), NOW).claims
    first.accepted(claims[0].task, ["task_1"], deadline=NOW, why="accepted", now=NOW)
    assert second.send_heartbeat(NOW, HERE).in_doubt == 0, "it is silent, and may yet be heard of"
    silence(second, first)
    beat = second.send_heartbeat(NOW, HERE)
    assert beat == Beat(frozenset(), expired=1, in_doubt=1)
    assert second.task(2).state is TaskState.UNCERTAIN
    assert numbers(second.own_tasks([1, 2, 3])) == [1, 2, 3]
    # Its session was ended; whatever it does in a new one is refused, and changes nothing.
    with pytest.raises(ConnectionLost):
        first.accepted(claims[1].task, ["task_2"], deadline=NOW, why="accepted", now=NOW)
    with pytest.raises(Fenced, match="others have taken over its tasks"):
        first.connection.reconnect()
    with pytest.raises(Fenced, match="others have taken over its tasks"):
        first.accepted(claims[1].task, ["task_2"], deadline=NOW, why="accepted", now=NOW)
    with pytest.raises(Fenced):
        first.claim(intents(tasks[2:]), Budget(), NOW)
    with pytest.raises(Fenced):
        first.send_heartbeat(NOW, HERE)
    assert second.task(2).task_ids == ()
    totals = second.budget.totals()
    assert (totals.reserved_images, totals.images) == (2, 0)


def test_one_goes_while_another_one_comes(crew):
    first, second = crew(), crew()
    silence(second, first)
    third = crew()
    assert second.send_heartbeat(NOW, HERE) == Beat(frozenset([third.run]), expired=1, in_doubt=0)


def test_ids_that_come_too_late_are_known_by_their_key(crew):
    first, second = crew(), crew()
    [claim] = first.claim(intents(first.due(1, NOW)), Budget(), NOW).claims
    silence(second, first)
    second.send_heartbeat(NOW, HERE)
    comes_back(first)
    rescued = [Rescued(claim.key, ("task_1",), NOW)]
    assert first.import_ids(rescued, NOW, timeout=60) == 1
    assert second.task(1).state is TaskState.ACCEPTED
    assert numbers(second.own_tasks([1])) == [1]


def test_ids_for_what_another_one_has_in_hand_wait(crew):
    first, second = crew(), crew()
    [claim] = first.claim(intents(first.due(1, NOW)), Budget(), NOW).claims
    silence(second, first)
    second.send_heartbeat(NOW, HERE)
    second.own_tasks([1])
    comes_back(first)
    assert first.import_ids([Rescued(claim.key, ("task_1",), NOW)], NOW, timeout=60) == 0
    assert second.import_ids([Rescued(claim.key, ("task_1",), NOW)], NOW, timeout=60) == 1


def test_one_whose_process_is_gone_is_taken_away_at_once_on_its_own_machine(crew):
    first, second = crew(pid=NOBODY), crew()
    tasks = first.due(3, NOW)
    first.claim(intents(tasks), Budget(), NOW)
    assert len(second.send_heartbeat(NOW, HERE).others) == 1, "its session is there"
    first.close()
    while second.connection.present() != [second.run]:
        pass
    assert len(second.send_heartbeat(NOW, "another machine").others) == 1, "there nothing is known of its process"
    assert second.send_heartbeat(NOW, HERE).in_doubt == 3


def test_the_budget_is_shared(crew):
    first, second = crew(), crew()
    budget = Budget(max_images=5)
    mine = first.claim(intents(first.due(3, NOW)), budget, NOW)
    theirs = second.claim(intents(second.due(4, NOW)), budget, NOW)
    assert (len(mine.claims), len(theirs.claims)) == (3, 2)
    assert theirs.stopped_by == "budget.max_images 5"
    assert first.budget.totals() == second.budget.totals()
    assert first.budget.totals().reserved_images == 5
    first.not_executed(mine.claims[0].task, why="refused", not_before=0.0, now=NOW)
    assert len(second.claim(intents(second.due(2, NOW)), budget, NOW).claims) == 1
    first.end_run(now=NOW, outcome="finished")
    assert second.budget.totals().reserved_images == 5
    second.end_run(now=NOW, outcome="finished")
    assert second.budget.totals().reserved_images == 5


def test_a_new_price_raises_what_others_hold(crew):
    first, second = crew(), crew()
    [mine] = first.claim(intents(first.due(1, NOW)), Budget(), NOW).claims
    second.claim(intents(second.due(2, NOW)), Budget(), NOW)
    accepted = first.accepted(mine.task, ["task_1"], deadline=NOW, why="accepted", now=NOW)
    first.succeeded(
        accepted,
        [ImageUrl("https://img.example.com/1", None)],
        cost=50_000,
        why="completed",
        now=NOW,
        default_expiry=NOW,
    )
    totals = second.budget.totals()
    assert (totals.reserved_images, totals.reserved, totals.cost) == (2, 100_000, 50_000)


def test_an_answer_moves_a_task_once(crew):
    worker = crew()
    [claim] = worker.claim(intents(worker.due(1, NOW)), Budget(), NOW).claims
    worker.accepted(claim.task, ["task_1"], deadline=NOW, why="accepted", now=NOW)
    with pytest.raises(StaleTransition):
        worker.refused(claim.task, why="no", code="", now=NOW)


def test_a_person_waits_for_workers_that_were_cut_off(crew):
    first = crew(pid=NOBODY)
    first.claim(intents(first.due(2, NOW)), Budget(), NOW)
    with pytest.raises(ManifestLocked):
        Manifest(crew.place)
    first.close()
    alone = Manifest(crew.place)
    try:
        assert alone.others() == []
        assert [task.state for task in alone.tasks(TaskState.UNCERTAIN)] == [TaskState.UNCERTAIN] * 2
        assert alone.budget.totals().reserved_images == 2
        assert alone.was_cut_off()
    finally:
        alone.close()


def test_a_choice_is_each_ones_own(crew):
    first, second = crew(), crew()
    assert first.choose(lambda cell: cell["number"] > 15) == 5
    assert second.choose(lambda cell: cell["number"] < 3) == 2
    assert numbers(first.due(20, NOW)) == [16, 17, 18, 19, 20]
    assert numbers(second.due(20, NOW)) == [1, 2]


def test_what_another_one_is_just_choosing_can_be_taken(crew):
    first, second = crew(), crew()
    with second.group():
        second.choose(lambda cell: cell["number"] < 4)
        assert numbers(first.due(2, NOW)) == [1, 2]


def test_what_is_freed_is_what_is_held_by_then(crew, until):
    """A new price comes while another worker gives back what it holds."""
    first, second = crew(), crew()
    [mine] = first.claim(intents(first.due(1, NOW)), Budget(), NOW).claims
    [theirs] = second.claim(intents(second.due(1, NOW)), Budget(), NOW).claims
    task = first.accepted(mine.task, ["task_1"], deadline=NOW, why="accepted", now=NOW)
    with ThreadPoolExecutor() as threads:
        with first.group():
            links = [ImageUrl("https://img.example.com/1", None)]
            first.succeeded(task, links, cost=50_000, why="completed", now=NOW, default_expiry=NOW)
            given_back = threads.submit(
                second.not_executed, theirs.task, why="refused", not_before=0.0, now=NOW
            )  # fmt: skip
            until(lambda: waits(crew.place))
        given_back.result()
    totals = first.budget.totals()
    assert (totals.reserved_images, totals.reserved, totals.images, totals.cost) == (0, 0, 1, 50_000)
