"""Several workers on one manifest: what each may do, and what becomes of it when one is gone."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from crew import HERE, NOBODY, NOW, comes_back, intents, numbers, record_delivery, silence, waits

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
    mine, theirs = first.queue.due(5, NOW), second.queue.due(7, NOW)
    assert numbers(mine) == [1, 2, 3, 4, 5]
    assert numbers(theirs) == [6, 7, 8, 9, 10, 11, 12]
    assert numbers(first.queue.due(5, NOW)) == numbers(mine), "what is in hand is not taken anew"
    assert numbers(first.queue.due(100, NOW)) == [1, 2, 3, 4, 5, *range(13, 21)]
    assert first.queue.next_due() == second.queue.next_due() == 0.0


def test_what_a_living_one_has_in_hand_is_nobody_elses(crew):
    first, second = crew(), crew()
    tasks = first.queue.due(20, NOW)
    assert second.queue.due(5, NOW) == []
    assert second.queue.own(numbers(tasks)) == []
    assert second.queue.next_due() is None
    assert second.queue.others_have()
    assert not second.queue.others_have(settling=True)
    claims = first.queue.claim(intents(tasks[:2]), Budget(), NOW).claims
    assert second.queue.others_have(settling=True)
    first.tasks.accepted(claims[0].task, ["task_1"], deadline=NOW, why="accepted", now=NOW)
    assert list(second.queue.unowned(TaskState.ACCEPTED)) == []
    assert first.queue.release() == set(numbers(tasks))
    assert list(second.queue.unowned(TaskState.ACCEPTED)) == [1]
    assert [task.state for task in second.queue.own([1, 2])] == [TaskState.ACCEPTED, TaskState.SUBMITTING]
    assert not first.queue.left_to_do(numbers(tasks), resend=True)
    assert first.queue.left_to_do([1, 2], resend=True)


def test_what_is_still_at_work_is_not_let_go(crew):
    first, second = crew(), crew()
    tasks = first.queue.due(4, NOW)
    first.queue.claim(intents(tasks[:2]), Budget(), NOW)
    assert first.queue.release(but=[1, 3]) == {2, 4}
    assert numbers(second.queue.own([1, 2, 3, 4])) == [2, 4]
    assert first.queue.release() == {1, 3}


def test_one_whose_lease_is_over_is_taken_away(crew):
    first, second = crew(), crew()
    tasks = first.queue.due(4, NOW)
    claims = first.queue.claim(intents(tasks[:2]), Budget(), NOW).claims
    first.tasks.accepted(claims[0].task, ["task_1"], deadline=NOW, why="accepted", now=NOW)
    assert second.workers.send_heartbeat(NOW, HERE).in_doubt == 0, "it is silent, and may yet be heard of"
    silence(second, first)
    beat = second.workers.send_heartbeat(NOW, HERE)
    assert beat == Beat(frozenset(), expired=1, in_doubt=1)
    assert second.tasks.get(2).state is TaskState.UNCERTAIN
    assert numbers(second.queue.own([1, 2, 3])) == [1, 2, 3]
    # Its session was ended; whatever it does in a new one is refused, and changes nothing.
    with pytest.raises(ConnectionLost):
        first.tasks.accepted(claims[1].task, ["task_2"], deadline=NOW, why="accepted", now=NOW)
    with pytest.raises(Fenced, match="other workers took over its tasks"):
        first.connection.reconnect()
    with pytest.raises(Fenced, match="other workers took over its tasks"):
        first.tasks.accepted(claims[1].task, ["task_2"], deadline=NOW, why="accepted", now=NOW)
    with pytest.raises(Fenced):
        first.queue.claim(intents(tasks[2:]), Budget(), NOW)
    with pytest.raises(Fenced):
        first.workers.send_heartbeat(NOW, HERE)
    assert second.tasks.get(2).task_ids == ()
    totals = second.budget.totals()
    assert (totals.reserved_images, totals.images) == (2, 0)


def test_one_goes_while_another_one_comes(crew):
    first, second = crew(), crew()
    silence(second, first)
    third = crew()
    assert second.workers.send_heartbeat(NOW, HERE) == Beat(frozenset([third.connection.worker]), expired=1, in_doubt=0)


def test_ids_that_come_too_late_are_known_by_their_key(crew):
    first, second = crew(), crew()
    [claim] = first.queue.claim(intents(first.queue.due(1, NOW)), Budget(), NOW).claims
    silence(second, first)
    second.workers.send_heartbeat(NOW, HERE)
    comes_back(first)
    rescued = [Rescued(claim.key, ("task_1",), NOW)]
    assert first.tasks.import_ids(rescued, NOW, timeout=60) == 1
    assert second.tasks.get(1).state is TaskState.ACCEPTED
    assert numbers(second.queue.own([1])) == [1]


def test_ids_for_what_another_one_has_in_hand_wait(crew):
    first, second = crew(), crew()
    [claim] = first.queue.claim(intents(first.queue.due(1, NOW)), Budget(), NOW).claims
    silence(second, first)
    second.workers.send_heartbeat(NOW, HERE)
    second.queue.own([1])
    comes_back(first)
    assert first.tasks.import_ids([Rescued(claim.key, ("task_1",), NOW)], NOW, timeout=60) == 0
    assert second.tasks.import_ids([Rescued(claim.key, ("task_1",), NOW)], NOW, timeout=60) == 1


def test_one_whose_process_is_gone_is_taken_away_at_once_on_its_own_machine(crew):
    first, second = crew(pid=NOBODY), crew()
    tasks = first.queue.due(3, NOW)
    first.queue.claim(intents(tasks), Budget(), NOW)
    assert len(second.workers.send_heartbeat(NOW, HERE).others) == 1, "its session is there"
    first.close()
    while second.connection.workers.present() != [second.connection.worker]:
        pass
    assert len(second.workers.send_heartbeat(NOW, "another machine").others) == 1, (
        "there nothing is known of its process"
    )
    assert second.workers.send_heartbeat(NOW, HERE).in_doubt == 3


def test_the_budget_is_shared(crew):
    first, second = crew(), crew()
    budget = Budget(max_images=5)
    mine = first.queue.claim(intents(first.queue.due(3, NOW)), budget, NOW)
    theirs = second.queue.claim(intents(second.queue.due(4, NOW)), budget, NOW)
    assert (len(mine.claims), len(theirs.claims)) == (3, 2)
    assert theirs.stopped_by == "budget.max_images (5)"
    assert first.budget.totals() == second.budget.totals()
    assert first.budget.totals().reserved_images == 5
    first.tasks.not_executed(mine.claims[0].task, why="refused", not_before=0.0, now=NOW)
    assert len(second.queue.claim(intents(second.queue.due(2, NOW)), budget, NOW).claims) == 1
    first.workers.end_run(now=NOW, outcome="finished")
    assert second.budget.totals().reserved_images == 5
    second.workers.end_run(now=NOW, outcome="finished")
    assert second.budget.totals().reserved_images == 5


def test_a_new_price_raises_what_others_hold(crew):
    first, second = crew(), crew()
    [mine] = first.queue.claim(intents(first.queue.due(1, NOW)), Budget(), NOW).claims
    second.queue.claim(intents(second.queue.due(2, NOW)), Budget(), NOW)
    accepted = first.tasks.accepted(mine.task, ["task_1"], deadline=NOW, why="accepted", now=NOW)
    record_delivery(
        first,
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
    [claim] = worker.queue.claim(intents(worker.queue.due(1, NOW)), Budget(), NOW).claims
    worker.tasks.accepted(claim.task, ["task_1"], deadline=NOW, why="accepted", now=NOW)
    with pytest.raises(StaleTransition):
        worker.tasks.refused(claim.task, why="no", code="", now=NOW)


def test_a_person_waits_for_workers_that_were_cut_off(crew):
    first = crew(pid=NOBODY)
    first.queue.claim(intents(first.queue.due(2, NOW)), Budget(), NOW)
    with pytest.raises(ManifestLocked):
        Manifest(crew.place)
    first.close()
    alone = Manifest(crew.place)
    try:
        assert alone.workers.others() == []
        assert [task.state for task in alone.tasks.in_state(TaskState.UNCERTAIN)] == [TaskState.UNCERTAIN] * 2
        assert alone.budget.totals().reserved_images == 2
        assert alone.workers.was_cut_off()
    finally:
        alone.close()


def test_a_choice_is_each_ones_own(crew):
    first, second = crew(), crew()
    assert first.queue.select(lambda cell: cell["number"] > 15) == 5
    assert second.queue.select(lambda cell: cell["number"] < 3) == 2
    assert numbers(first.queue.due(20, NOW)) == [16, 17, 18, 19, 20]
    assert numbers(second.queue.due(20, NOW)) == [1, 2]


def test_what_another_one_is_just_choosing_can_be_taken(crew):
    first, second = crew(), crew()
    with second.group():
        second.queue.select(lambda cell: cell["number"] < 4)
        assert numbers(first.queue.due(2, NOW)) == [1, 2]


def test_what_is_freed_is_what_is_held_by_then(crew, until):
    """A new price comes while another worker gives back what it holds."""
    first, second = crew(), crew()
    [mine] = first.queue.claim(intents(first.queue.due(1, NOW)), Budget(), NOW).claims
    [theirs] = second.queue.claim(intents(second.queue.due(1, NOW)), Budget(), NOW).claims
    task = first.tasks.accepted(mine.task, ["task_1"], deadline=NOW, why="accepted", now=NOW)
    with ThreadPoolExecutor() as threads:
        with first.group():
            links = [ImageUrl("https://img.example.com/1", None)]
            record_delivery(first, task, links, cost=50_000, why="completed", now=NOW, default_expiry=NOW)
            given_back = threads.submit(
                second.tasks.not_executed, theirs.task, why="refused", not_before=0.0, now=NOW
            )  # fmt: skip
            until(lambda: waits(crew.place))
        given_back.result()
    totals = first.budget.totals()
    assert (totals.reserved_images, totals.reserved, totals.images, totals.cost) == (0, 0, 1, 50_000)
