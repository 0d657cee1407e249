"""Guarded moves: each names the state it leaves, along the declared edges only, or changes nothing."""

from dataclasses import replace

import pytest
from crew import record_delivery
from examples import some

from seedream_batch.errors import StaleTransition
from seedream_batch.manifest import ManifestReader
from seedream_batch.manifest.task_queue import Intent
from seedream_batch.model.job import Budget
from seedream_batch.model.outcome import ImageUrl
from seedream_batch.model.task import EDGES, IMAGE_EDGES, ImageState, TaskState

NOW = 1_800_000_100.0
S = TaskState


def deliver(manifest, task):
    urls = [ImageUrl("https://img.example.com/0", None)]
    record_delivery(manifest, task, urls, cost=1, why="completed", now=NOW, default_expiry=NOW)


# What each write moves a task to, and the states from which it may.
WRITES = {
    "accepted": (lambda m, t: m.tasks.accepted(t, ["task_9"], deadline=NOW, why="w", now=NOW), S.ACCEPTED),
    "not_executed": (lambda m, t: m.tasks.not_executed(t, why="w", not_before=NOW, now=NOW), S.PLANNED),
    "refused": (lambda m, t: m.tasks.refused(t, why="w", code="c", now=NOW), S.FAILED),
    "uncertain": (lambda m, t: m.tasks.uncertain(t, why="w", code="c", held=False, now=NOW), S.UNCERTAIN),
    "succeeded": (deliver, S.SUCCEEDED),
    "failed": (lambda m, t: m.tasks.failed(t, why="w", code="c", retry_at=None, now=NOW), S.FAILED),
    "failed, again": (lambda m, t: m.tasks.failed(t, why="w", code="c", retry_at=NOW, now=NOW), S.PLANNED),
    "lost": (lambda m, t: m.tasks.lost(t, why="w", now=NOW), S.LOST),
    "found_again": (lambda m, t: m.tasks.reopen(t, deadline=NOW, why="w", now=NOW), S.ACCEPTED),
    "retry": (lambda m, t: m.decisions.retry([t], NOW), S.PLANNED),
    "remake": (lambda m, t: m.decisions.remake([t], NOW), S.PLANNED),
}
LEAVES = {
    "accepted": {S.SUBMITTING, S.UNCERTAIN},
    # Not from failed or lost, though there is an edge: that would free the money of a lost task, and keep its key.
    "not_executed": {S.SUBMITTING, S.UNCERTAIN},
    "refused": {S.SUBMITTING, S.UNCERTAIN},
    "uncertain": {S.SUBMITTING},
    "succeeded": {S.ACCEPTED},
    "failed": {S.ACCEPTED},
    "failed, again": {S.ACCEPTED},
    "lost": {S.ACCEPTED},
    "found_again": {S.LOST},
    # What failed is another decision than what succeeded and is not there any more: the one must not do the other.
    "retry": {S.FAILED, S.LOST},
    "remake": {S.SUCCEEDED},
}


@pytest.mark.parametrize("state", S)
@pytest.mark.parametrize("name", WRITES)
def test_every_write_from_every_state(book, name, state):
    write, to = WRITES[name]
    task = book.at(state)
    if state in LEAVES[name]:
        assert to in EDGES[state] or name == "failed, again"
        write(book.manifest, task)
        assert book.manifest.tasks.get(task.id).state is to
    else:
        before = book.dump()
        with pytest.raises(StaleTransition):
            write(book.manifest, task)
        assert book.dump() == before


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("state", some([*S], 3))
def test_a_record_that_is_out_of_date_moves_nothing(book, name, state):
    # The record says one thing, the row has gone on: to each state there is.
    task = book.at(state)
    for claimed in LEAVES[name] - {state}:
        before = book.dump()
        with pytest.raises(StaleTransition):
            WRITES[name][0](book.manifest, replace(task, state=claimed))
        assert book.dump() == before


@pytest.mark.parametrize("name", WRITES)
def test_an_answer_to_an_earlier_attempt_moves_nothing(book, name):
    first = book.at(S.ACCEPTED)
    book.manifest.tasks.failed(first, why="no", code="", retry_at=NOW, now=NOW)
    second = book.claim(book.manifest.tasks.get(first.id)).task
    assert (second.attempt, second.state) == (2, S.SUBMITTING)
    if S.ACCEPTED in LEAVES[name]:
        second = book.manifest.tasks.accepted(second, ["task_2"], deadline=NOW, why="w", now=NOW)
        late = first
    else:
        late = replace(second, attempt=1)
    before = book.dump()
    with pytest.raises(StaleTransition):
        WRITES[name][0](book.manifest, late)
    assert book.dump() == before


def test_a_task_that_is_not_there(book):
    task = replace(book.at(S.SUBMITTING), id=99)
    before = book.dump()
    with pytest.raises(StaleTransition):
        book.manifest.tasks.accepted(task, ["x"], deadline=NOW, why="w", now=NOW)
    assert book.dump() == before


def test_the_same_write_twice(book):
    task = book.at(S.SUBMITTING)
    book.manifest.tasks.accepted(task, ["task_1"], deadline=NOW, why="w", now=NOW)
    with pytest.raises(StaleTransition):
        book.manifest.tasks.accepted(task, ["task_2"], deadline=NOW, why="w", now=NOW)
    assert book.manifest.tasks.get(task.id).task_ids == ("task_1",)


@pytest.mark.parametrize("state", [state for state in S if state is not S.PLANNED])
def test_a_task_in_another_state_is_passed_over(book, state):
    task = book.at(state)
    before = book.dump()
    claimed = book.manifest.queue.claim([Intent(task.id)], Budget(), NOW)
    assert (claimed.claims, claimed.stopped_by) == ((), "")
    assert book.dump() == before


def test_a_claim_that_is_made_twice_is_given_once(book):
    [task] = book.tasks()
    claimed = book.manifest.queue.claim([Intent(task.id), Intent(task.id)], Budget(), NOW)
    assert len(claimed.claims) == 1


# What the writes leave behind


def test_the_fields_of_an_accepted_task(book):
    task = book.at(S.SUBMITTING)
    accepted = book.manifest.tasks.accepted(task, ["task_1", "task_2"], deadline=NOW + 5, why="replayed", now=NOW)
    assert (accepted.state, accepted.task_ids) == (S.ACCEPTED, ("task_1", "task_2"))
    assert (accepted.submitted_at, accepted.deadline, accepted.attempt) == (NOW, NOW + 5, 1)
    assert book.peek("SELECT outcome, task_ids FROM attempts") == [("accepted", '["task_1", "task_2"]')]


def test_an_uncertain_task_says_why_and_who_decides(book):
    task = book.at(S.SUBMITTING)
    book.manifest.tasks.uncertain(task, why="no answer", code="x", held=True, now=NOW)
    task = book.manifest.tasks.get(task.id)
    assert (task.reason, task.code, task.held) == ("no answer", "x", True)
    book.manifest.tasks.still_uncertain(task, why="asked again: no answer", held=False, now=NOW)
    task = book.manifest.tasks.get(task.id)
    assert (task.reason, task.held) == ("asked again: no answer", True), "a person's task stays a person's"
    accepted = book.manifest.tasks.accepted(task, ["task_1"], deadline=NOW, why="w", now=NOW)
    assert (accepted.reason, accepted.code, accepted.held) == ("", "", False)


@pytest.mark.parametrize("state", [state for state in S if state is not S.UNCERTAIN])
def test_only_an_uncertain_task_is_still_uncertain(book, state):
    task = book.at(state)
    before = book.dump()
    with pytest.raises(StaleTransition):
        book.manifest.tasks.still_uncertain(task, why="w", held=True, now=NOW)
    assert book.dump() == before


def test_a_task_that_was_not_executed_is_nobodys_to_decide(book):
    task = book.at(S.SUBMITTING)
    book.manifest.tasks.uncertain(task, why="no answer", code="x", held=True, now=NOW)
    book.manifest.tasks.not_executed(book.manifest.tasks.get(task.id), why="not sent", not_before=NOW + 3, now=NOW)
    task = book.manifest.tasks.get(task.id)
    assert (task.state, task.held, task.code, task.reason, task.not_before) == (
        S.PLANNED,
        False,
        "",
        "not sent",
        NOW + 3,
    )


@pytest.mark.quick
def test_recovering(book):
    tasks = book.tasks(4)
    for task in tasks[:3]:
        book.claim(task)
    book.manifest.tasks.accepted(book.manifest.tasks.get(tasks[0].id), ["task_1"], deadline=NOW, why="w", now=NOW)
    book.reopen()
    assert book.manifest.tasks.recover(NOW) == 2
    assert [task.state for task in map(book.manifest.tasks.get, range(1, 5))] == [
        S.ACCEPTED,
        S.UNCERTAIN,
        S.UNCERTAIN,
        S.PLANNED,
    ]
    left = book.manifest.tasks.get(2)
    assert (left.reason, left.held) == ("the run ended before the service answered", False)
    assert book.peek("SELECT outcome FROM attempts ORDER BY task") == [("accepted",), ("uncertain",), ("uncertain",)]
    assert book.manifest.budget.totals().reserved_images == 3, "what may have been paid stays reserved"
    assert book.manifest.tasks.recover(NOW) == 0


@pytest.mark.quick
def test_due_tasks_come_in_the_order_of_the_job(book):
    book.enter(*(book.spec(number) for number in (5, 3, 9, 1)))
    assert [task.ordinal for task in book.manifest.queue.due(10, NOW)] == [1, 3, 5, 9]
    assert [task.ordinal for task in book.manifest.queue.due(2, NOW)] == [1, 3]
    first = book.claim(book.manifest.queue.due(1, NOW)[0]).task
    book.manifest.tasks.not_executed(first, why="w", not_before=NOW + 10, now=NOW)
    assert [task.ordinal for task in book.manifest.queue.due(10, NOW)] == [3, 5, 9]
    assert [task.ordinal for task in book.manifest.queue.due(10, NOW + 10)] == [1, 3, 5, 9]
    assert book.manifest.queue.next_due() == 0
    book.enter()
    assert book.manifest.queue.due(10, NOW) == []
    assert book.manifest.queue.next_due() is None


# Events


@pytest.mark.one_alone
def test_events_name_the_run_and_are_never_changed(book):
    book.at(S.SUBMITTING)
    run = book.manifest.workers.begin_run(now=NOW, pid=7, host="h", version="v", service="s")
    book.manifest.tasks.recover(NOW)
    assert book.peek("SELECT run, old, new FROM events ORDER BY id") == [
        (None, "planned", "submitting"),
        (run, "submitting", "uncertain"),
    ]
    before = book.dump()
    for change in ("UPDATE events SET why = ''", "DELETE FROM events", "UPDATE events SET id = id + 1"):
        with pytest.raises(book.guards, match="append-only"):
            book.manifest.connection.sql.execute(change)
    assert book.dump() == before


# Images


def image_at(book, state):
    task = book.at(S.ACCEPTED)
    [image] = book.deliver(task)
    if state in {ImageState.STORED, ImageState.MISSING}:
        image = book.store(image, "fox/1.png")
    if state is ImageState.MISSING:
        book.manifest.images.move(image, state, "gone", NOW)
    if state in {ImageState.REJECTED, ImageState.EXPIRED}:
        book.manifest.images.move(image, state, "why", NOW)
    [image] = book.manifest.images.of_task(task.id)
    assert image.state is state
    return image


@pytest.mark.parametrize("old", ImageState)
@pytest.mark.parametrize("new", ImageState)
def test_every_move_of_an_image(book, old, new):
    image = image_at(book, old)
    if new is ImageState.STORED and old is ImageState.ANNOUNCED:
        book.place_image(image, "fox/1.png", book.file())
    before = book.dump()
    if new in IMAGE_EDGES[old]:
        book.manifest.images.move(image, new, "why", NOW)
        [moved] = book.manifest.images.of_task(image.task)
        assert (moved.state, moved.reason) == (new, "" if new is ImageState.STORED else "why")
        assert book.peek("SELECT old, new FROM events WHERE image = 1 ORDER BY id DESC LIMIT 1") == [(old, new)]
    else:
        with pytest.raises(StaleTransition):
            book.manifest.images.move(image, new, "why", NOW)
        assert book.dump() == before


@pytest.mark.parametrize("actual", ImageState)
@pytest.mark.parametrize("claimed", ImageState)
def test_an_image_record_that_is_out_of_date(book, actual, claimed):
    if actual is claimed:
        return
    image = replace(image_at(book, actual), state=claimed)
    before = book.dump()
    for new in IMAGE_EDGES[claimed]:
        with pytest.raises(StaleTransition):
            book.manifest.images.move(image, new, "why", NOW)
    with pytest.raises(StaleTransition):
        book.place_image(image, "fox/2.png", book.file("b"))
    assert book.dump() == before


def test_nothing_is_stored_that_was_not_placed(book):
    image = image_at(book, ImageState.ANNOUNCED)
    before = book.dump()
    with pytest.raises(book.guards):
        book.manifest.images.move(image, ImageState.STORED, "stored", NOW)
    assert book.dump() == before


@pytest.mark.parametrize("state", [ImageState.STORED, ImageState.REJECTED, ImageState.EXPIRED])
def test_placing_what_cannot_be_stored(book, state):
    image = image_at(book, state)
    before = book.dump()
    with pytest.raises(StaleTransition):
        book.place_image(image, "fox/9.png", book.file("b"))
    assert book.dump() == before


def test_placing_twice_is_trying_again(book):
    image = image_at(book, ImageState.ANNOUNCED)
    book.place_image(image, "fox/1.png", book.file("a"))
    book.place_image(image, "fox/1.jpg", book.file("b", format="JPEG"))
    [image] = book.manifest.images.of_task(image.task)
    assert (image.state, image.path, image.sha256, image.format) == (
        ImageState.ANNOUNCED,
        "fox/1.jpg",
        "b" * 64,
        "JPEG",
    )


def test_trying_again(book):
    image = image_at(book, ImageState.ANNOUNCED)
    image = book.manifest.images.retry_download(image, why="cut", url=None, expires_at=None, now=NOW)
    assert (image.tries, image.reason, image.url) == (1, "cut", "https://img.example.com/1-0")
    image = book.manifest.images.retry_download(
        image, why="gone", url="https://new.example.com/0", expires_at=NOW + 9, now=NOW
    )
    assert (image.tries, image.url, image.expires_at) == (2, "https://new.example.com/0", NOW + 9)


@pytest.mark.parametrize("state", [state for state in ImageState if state is not ImageState.ANNOUNCED])
def test_only_an_announced_image_is_tried_again(book, state):
    image = image_at(book, state)
    before = book.dump()
    with pytest.raises(StaleTransition):
        book.manifest.images.retry_download(image, why="w", url="https://x", expires_at=None, now=NOW)
    assert book.dump() == before


def test_relocating(book):
    image = image_at(book, ImageState.STORED)
    book.manifest.images.relocate(image, "away/1.png", target="fox/2.png", now=NOW)
    [moved] = book.manifest.images.of_task(image.task)
    assert (moved.path, moved.target) == ("away/1.png", "fox/2.png")
    assert book.manifest.images.moving() == [moved]
    before = book.dump()
    with pytest.raises(StaleTransition):
        book.manifest.images.relocate(image, "elsewhere.png", target=None, now=NOW)
    assert book.dump() == before
    book.manifest.images.relocate(moved, "fox/2.png", target=None, now=NOW)
    assert book.manifest.images.moving() == []


@pytest.mark.parametrize("state", [state for state in ImageState if state is not ImageState.STORED])
def test_only_a_stored_image_is_relocated(book, state):
    image = image_at(book, state)
    before = book.dump()
    with pytest.raises(StaleTransition):
        book.manifest.images.relocate(image, "away/1.png", target=None, now=NOW)
    assert book.dump() == before


def test_two_stored_images_have_two_paths(book):
    tasks = book.tasks(2)
    images = []
    for task in tasks:
        accepted = book.manifest.tasks.accepted(book.claim(task).task, [f"t{task.id}"], deadline=NOW, why="w", now=NOW)
        images += book.deliver(accepted)
    first = book.store(images[0], "fox/1.png", "a")
    book.place_image(images[1], "fox/1.png", book.file("b"))
    before = book.dump()
    with pytest.raises(book.guards):
        book.manifest.images.move(images[1], ImageState.STORED, "stored", NOW)
    assert book.dump() == before
    second = book.store(images[1], "fox/2.png", "b")
    before = book.dump()
    with pytest.raises(book.guards):
        book.manifest.images.relocate(second, "fox/1.png", target=None, now=NOW)
    assert book.dump() == before
    assert book.manifest.images.owner("fox/1.png") == (first, True)
    assert book.manifest.images.owner("fox/3.png") is None


def test_announced_images_come_soonest_first(book):
    for number, expires in ((1, 300), (2, 100), (3, 200)):
        [task] = [task for task in book.tasks(3) if task.ordinal == number]
        accepted = book.manifest.tasks.accepted(book.claim(task).task, [f"t{number}"], deadline=NOW, why="w", now=NOW)
        book.deliver(accepted, expires=NOW + expires)
    records = book.manifest.tasks.records(book.manifest.queue.to_fetch())
    assert [book.manifest.images.of_task(task.id)[0].expires_at - NOW for task in records] == [100, 200, 300]


@pytest.mark.file_only
def test_what_is_in_flight_is_found_without_a_look_at_all_the_rest(book):
    told = []
    book.tasks(3)
    book.manifest.connection.sql.set_trace_callback(told.append)
    book.manifest.queue.to_fetch()
    book.manifest.queue.unowned(S.ACCEPTED)
    book.manifest.connection.sql.set_trace_callback(None)
    plans = [" ".join(row[3] for row in book.peek(f"EXPLAIN QUERY PLAN {one}")) for one in told]
    assert "USING INDEX images_open" in plans[0]
    assert "USING INDEX tasks_open" in plans[1]


# Uploads


def test_uploads_are_remembered_for_each_service_until_they_end(book):
    manifest = book.manifest
    manifest.images.uploaded("a" * 64, "https://one", "https://files/1", NOW + 100)
    assert manifest.images.upload("a" * 64, "https://one", NOW + 99) == "https://files/1"
    assert manifest.images.upload("a" * 64, "https://one", NOW + 100) is None
    assert manifest.images.upload("a" * 64, "https://two", NOW) is None
    assert manifest.images.upload("b" * 64, "https://one", NOW) is None
    manifest.images.uploaded("a" * 64, "https://one", "https://files/2", NOW + 200)
    assert manifest.images.upload("a" * 64, "https://one", NOW + 150) == "https://files/2"


# How long tasks took


def test_how_long_tasks_took_is_handed_on(book):
    with ManifestReader(book.place) as reader:
        assert reader.facts.task_times() == {}
        for times in ({"2K": [20.0, 19.5]}, {"2K": [21.0], "4K": [60.0]}):
            book.manifest.facts.set_task_times(times)
            assert reader.facts.task_times() == times
