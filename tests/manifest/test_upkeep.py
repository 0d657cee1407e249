"""Images after they were stored: checked, had again, made anew, pruned."""

import pytest

from seedream_batch.errors import StaleTransition
from seedream_batch.model.outcome import ImageUrl
from seedream_batch.model.task import EDGES, IMAGE_EDGES, PRUNED, ImageState, TaskState

NOW = 1_800_000_100.0
I = ImageState  # noqa: E741 - as short as the tables want it
S = TaskState

# Written down a second time: an edge that is added has to be added here, too, with its reason.
TASK_EDGES = {
    S.PLANNED: {S.SUBMITTING, S.SUCCEEDED},  # succeeded: its files came back before they were paid for anew
    S.SUBMITTING: {S.ACCEPTED, S.PLANNED, S.FAILED, S.UNCERTAIN},
    S.ACCEPTED: {S.SUCCEEDED, S.FAILED, S.LOST},
    S.SUCCEEDED: {S.PLANNED},  # by `retry --missing` and `prune` only
    S.FAILED: {S.PLANNED},
    S.LOST: {S.ACCEPTED, S.PLANNED},  # accepted: a free poll found it
    S.UNCERTAIN: {S.ACCEPTED, S.PLANNED, S.FAILED},
}
PICTURE_EDGES = {
    I.ANNOUNCED: {I.STORED, I.REJECTED, I.EXPIRED},
    I.STORED: {I.MISSING},
    I.REJECTED: {I.ANNOUNCED},  # `verify` asks again, a second attempt has other links
    I.EXPIRED: {I.ANNOUNCED},
    I.MISSING: {I.ANNOUNCED, I.STORED},
}


def test_the_edges_are_these():
    assert EDGES == TASK_EDGES
    assert IMAGE_EDGES == PICTURE_EDGES


@pytest.fixture
def series(book):
    """A task of three stored images."""
    task = book.at(S.ACCEPTED, images=3)
    for image in book.deliver(task, 3, 3 * book.PRICE):
        book.store(image, f"fox/1-{image.index}.png")
    return book.manifest.tasks.get(task.id)


def lose(book, task, *indices, link=False):
    for index in indices:
        image = book.manifest.images.of_task(task.id)[index - 1]
        book.manifest.images.move(image, I.MISSING, "gone", NOW)
        book.manifest.images.update_reason(book.manifest.images.of_task(task.id)[index - 1], "no link", NOW, link=link)
    return book.manifest.tasks.get(task.id)


def again(book, task, images=3):
    """The next attempt of a task that was planned again."""
    claim = book.claim(task)
    accepted = book.manifest.tasks.accepted(claim.task, ["t2"], deadline=NOW, why="w", now=NOW)
    return book.deliver(accepted, images, images * book.PRICE)


def test_pages_of_what_is_to_be_checked(book, series):
    lose(book, series, 2)
    seen, after = [], (0, 0)
    while page := book.manifest.upkeep.to_check(after, 2):
        seen += [image.index for image in page]
        after = (page[-1].task, page[-1].index)
    assert seen == [1, 2, 3]
    book.enter()
    assert book.manifest.upkeep.to_check((0, 0), 10) == [], "only those of the job"


def test_what_is_stored_is_not_announced_anew(book, series):
    task = lose(book, series, 2)
    assert [one.id for one in book.manifest.upkeep.to_remake()] == [task.id]
    assert (book.manifest.upkeep.unrecoverable().images, book.manifest.upkeep.unrecoverable().cost) == (
        1,
        3 * book.PRICE,
    )
    book.manifest.decisions.remake([task], NOW)
    images = again(book, book.manifest.tasks.get(task.id))
    assert [image.state for image in images] == [I.STORED, I.ANNOUNCED, I.STORED]
    assert (images[1].tries, images[1].reason) == (0, "")
    assert book.manifest.budget.totals().cost == 6 * book.PRICE
    assert book.manifest.images.delivered(task.id) == 3


@pytest.mark.parametrize(("delivered", "states"), [(1, "mss"), (2, "mas"), (4, "masa")])
def test_another_number_of_images_the_second_time(book, series, delivered, states):
    task = lose(book, series, 1, 2)
    book.manifest.decisions.remake([task], NOW)
    images = again(book, book.manifest.tasks.get(task.id), delivered)
    told = {I.STORED: "s", I.MISSING: "m", I.ANNOUNCED: "a"}
    expected = {"mss": "ams", "mas": "aas", "masa": "aasa"}[states]
    assert "".join(told[image.state] for image in images) == expected


def test_a_link_that_may_still_give_it_is_not_paid_over(book, series):
    task = lose(book, series, 2, link=True)
    assert book.manifest.upkeep.to_remake() == []
    assert [one.id for one in book.manifest.upkeep.maybe_restorable()] == [task.id]


def test_what_waits_to_be_fetched_is_not_made_anew(book, series):
    lose(book, series, 1, 2)
    book.manifest.images.renew_link(
        book.manifest.images.of_task(series.id)[0],
        ImageUrl("https://img.example.com/n", None),
        default_expiry=NOW + 9,
        now=NOW,
    )
    assert book.manifest.upkeep.to_remake() == []
    assert book.manifest.images.of_task(series.id)[0].expires_at == NOW + 9
    assert book.manifest.upkeep.waiting() == 1


def test_a_task_whose_images_came_back_has_succeeded(book, series):
    task = lose(book, series, 1, 2)
    book.manifest.decisions.remake([task], NOW)
    for index in (1, 2):
        assert book.manifest.upkeep.restore_complete(NOW) == 0
        assert book.restore(task, index)
    assert book.manifest.upkeep.restore_complete(NOW) == 1
    assert book.manifest.tasks.get(task.id).state is S.SUCCEEDED
    assert book.manifest.tasks.get(task.id).task_ids == ("task_1",)


def test_a_file_at_a_place_that_is_anothers_is_not_taken_back(book, series):
    lose(book, series, 1)
    other = book.manifest.tasks.in_state(S.PLANNED)
    assert other == []
    book.enter(book.spec(1, images=3), book.spec(2))
    [second] = book.manifest.tasks.in_state(S.PLANNED)
    [image] = book.deliver(
        book.manifest.tasks.accepted(book.claim(second).task, ["t9"], deadline=NOW, why="w", now=NOW)
    )
    book.store(image, "fox/1-1.png")
    assert not book.restore(series, 1)


@pytest.mark.quick
def test_prune_keeps_the_account(book, series):
    book.enter()
    totals, attempts = book.manifest.budget.totals(), book.peek("SELECT * FROM attempts")
    [(task, images)] = book.manifest.upkeep.to_prune(0, 10)
    assert len(images) == 3
    book.manifest.upkeep.prune([task], NOW)
    assert book.manifest.images.of_task(series.id) == []
    pruned = book.manifest.tasks.get(series.id)
    assert (pruned.state, pruned.ordinal, pruned.reason) == (S.PLANNED, None, PRUNED)
    assert (book.manifest.budget.totals(), book.peek("SELECT * FROM attempts")) == (totals, attempts)
    assert book.manifest.queue.due(9, NOW) == [], "the job does not have it"
    book.enter(book.spec(1, images=3))
    [image, *_] = again(book, book.manifest.queue.due(9, NOW)[0])
    assert image.state is I.ANNOUNCED
    assert book.peek("SELECT number FROM attempts ORDER BY number") == [(1,), (2,)]


@pytest.mark.parametrize("state", [S.SUBMITTING, S.ACCEPTED, S.UNCERTAIN])
def test_prune_passes_over_what_is_in_flight(book, state):
    book.at(state)
    book.enter()
    assert book.manifest.upkeep.to_prune(0, 10) == []
    assert (book.manifest.upkeep.dropped().in_flight, book.manifest.upkeep.dropped().files) == (1, 0)
    assert book.manifest.upkeep.prune_never_sent() == 0


def test_rows_of_what_was_never_sent(book):
    book.tasks(3)
    book.enter(book.spec(1))
    assert book.manifest.upkeep.dropped().never_sent == 2
    assert book.manifest.upkeep.prune_never_sent() == 2
    assert book.peek("SELECT count(*) FROM tasks") == [(1,)]


@pytest.mark.usefixtures("series")
def test_a_look_changes_nothing(book):
    before = book.dump()
    with book.manifest.rolled_back():
        book.enter()
        assert book.manifest.upkeep.dropped().files == 3
    assert book.dump() == before
    with pytest.raises(StaleTransition), book.manifest.rolled_back():
        raise StaleTransition("anything else gets out")
    assert book.dump() == before
