"""Bringing the manifest in line with the job: what is new, known, moved and dropped, and nothing besides."""

import pytest

from seedream_batch.manifest.sync_job import SyncResult
from seedream_batch.model.task import ImageState, TaskState

NOW = 1_800_000_000.0


def ordinals(book):
    return book.peek("SELECT ordinal FROM tasks ORDER BY id")


@pytest.mark.quick
def test_new_known_and_dropped(book):
    spec = book.spec
    assert book.enter(spec(1), spec(2), spec(3)) == SyncResult(new=3)
    assert book.enter(spec(1), spec(2), spec(3)) == SyncResult(known=3)
    assert book.enter(spec(1), spec(3), spec(4)) == SyncResult(new=1, known=2, dropped=1)
    assert ordinals(book) == [(1,), (None,), (3,), (4,)]
    assert book.enter(spec(1), spec(2), spec(3), spec(4)) == SyncResult(known=4)
    assert ordinals(book) == [(1,), (2,), (3,), (4,)]
    assert book.enter() == SyncResult(dropped=4)
    assert book.enter() == SyncResult()
    assert book.peek("SELECT count(*) FROM tasks") == [(4,)], "nothing is deleted"


@pytest.mark.parametrize("count", [499, 500, 501, 1000, 1203])
def test_many_tasks_in_batches(book, count):
    specs = [book.spec(number) for number in range(1, count + 1)]
    assert book.enter(*specs) == SyncResult(new=count)
    assert book.enter(*reversed(specs)) == SyncResult(known=count)
    assert book.enter(*specs[1::2]) == SyncResult(known=count // 2, dropped=count - count // 2)
    assert book.enter(*specs) == SyncResult(known=count)


def test_another_order_changes_no_row_but_the_place(book):
    book.enter(*(book.spec(number) for number in range(1, 6)))
    before = book.peek("SELECT id, fingerprint, body, paths FROM tasks ORDER BY id")
    turned = [book.spec(number, ordinal=6 - number) for number in range(1, 6)]
    assert book.enter(*turned) == SyncResult(known=5)
    assert book.peek("SELECT id, fingerprint, body, paths FROM tasks ORDER BY id") == before
    assert [task.ordinal for task in book.manifest.tasks.in_state(TaskState.PLANNED)] == [1, 2, 3, 4, 5]
    assert [task.id for task in book.manifest.tasks.in_state(TaskState.PLANNED)] == [5, 4, 3, 2, 1]


def test_nothing_to_change_is_nothing_written(book):
    book.enter(book.spec(1), book.spec(2))
    before = book.dump()
    book.manifest.sync_job([book.spec(1), book.spec(2)], NOW + 1000)
    assert book.dump() == before


def test_labels_and_prices_follow_the_job_and_the_body_stays(book):
    book.enter(book.spec(1))
    book.enter(book.spec(1, cell='{"a": 1}', price=7, body="{}", images=1))
    task = book.manifest.tasks.get(1)
    assert (task.cell, task.price) == ('{"a": 1}', 7)
    assert task.body == book.spec(1).body, "a resend has to be identical"


@pytest.mark.parametrize("state", TaskState)
def test_a_task_keeps_its_state_when_the_job_changes(book, state):
    task = book.at(state)
    book.enter()
    assert book.manifest.tasks.get(task.id).state is state
    book.enter(book.spec(1, paths=("elsewhere/1",)))
    assert book.manifest.tasks.get(task.id).state is state


@pytest.mark.parametrize("after", [0, 1, 499, 500, 501])
@pytest.mark.parametrize("error", [ValueError("a cell is wrong"), KeyboardInterrupt()])
def test_a_stream_that_breaks_changes_nothing(book, after, error):
    book.enter(book.spec(1), book.spec(2), book.spec(3000))
    book.stored_before = book.dump()

    def stream():
        for number in range(2, after + 2):
            yield book.spec(number, paths=(f"new/{number}",))
        raise error

    with pytest.raises(type(error)):
        book.manifest.sync_job(stream(), NOW)
    assert book.dump() == book.stored_before
    assert book.enter(book.spec(1)) == SyncResult(known=1, dropped=2), "and the manifest can still be used"


def test_a_stream_that_reads_the_manifest_is_no_trouble(book):
    book.enter(book.spec(1))

    def stream():
        yield book.spec(1)
        assert book.manifest.tasks.get(1).ordinal == 1
        assert book.peek("SELECT count(*) FROM tasks") == [(1,)]
        yield book.spec(2)

    assert book.manifest.sync_job(stream(), NOW) == SyncResult(new=1, known=1)


# Files that have to move


def targets(book):
    return book.peek('SELECT path, target FROM images ORDER BY task, "index"')


def test_a_changed_path_aims_the_stored_file(book):
    book.stored("fox/1.png")
    assert book.enter(book.spec(1, paths=("hare/1",))) == SyncResult(known=1, moved=1)
    assert targets(book) == [("fox/1.png", "hare/1.png")]
    assert [image.target for image in book.manifest.images.moving()] == ["hare/1.png"]
    assert book.enter(book.spec(1, paths=("hare/1",))) == SyncResult(known=1)
    assert targets(book) == [("fox/1.png", "hare/1.png")], "it still has to move"


def test_a_path_that_comes_back_aims_at_nothing(book):
    book.stored("fox/1.png")
    book.enter(book.spec(1, paths=("hare/1",)))
    assert book.enter(book.spec(1)) == SyncResult(known=1)
    assert targets(book) == [("fox/1.png", None)]
    assert book.manifest.images.moving() == []


def test_the_extension_is_that_of_the_file(book):
    book.stored("fox/1.jpg")
    book.enter(book.spec(1, paths=("v1.5/fox",)))
    assert targets(book) == [("fox/1.jpg", "v1.5/fox.jpg")]


def test_each_image_of_a_task_has_its_own_aim(book):
    task = book.at(TaskState.ACCEPTED, images=3)
    images = book.deliver(task, 4)
    for image in images:
        book.store(image, f"fox/1-{image.index}.png", str(image.index))
    assert book.enter(book.spec(1, images=3, paths=("a/x", "a/y", "a/z"))) == SyncResult(known=1, moved=1)
    *asked, more = [target for _, target in targets(book)]
    assert asked == ["a/x.png", "a/y.png", "a/z.png"]
    assert more.startswith("a/z-4"), "one more than was asked for"


def test_a_dropped_task_that_comes_back_aims_again(book):
    image = book.stored("fox/1.png")
    book.enter()
    book.manifest.images.relocate(image, "superseded/fox/1-1-1.png", target=None, now=NOW)
    assert book.enter(book.spec(1)) == SyncResult(known=1, moved=1)
    assert targets(book) == [("superseded/fox/1-1-1.png", "fox/1.png")]


def test_a_file_that_was_placed_before_a_kill_is_aimed_too(book):
    # The name was given, the word that it is stored was not; then somebody edited the path.
    [image] = book.deliver(book.at(TaskState.ACCEPTED))
    book.place_image(image, "fox/1.png", book.file())
    assert book.enter(book.spec(1, paths=("hare/1",))) == SyncResult(known=1)
    assert book.manifest.images.moving() == [], "not before it is known to be there"
    book.manifest.images.move(image, ImageState.STORED, "stored", NOW)
    assert [(image.path, image.target) for image in book.manifest.images.moving()] == [("fox/1.png", "hare/1.png")]


def test_a_file_that_is_fetched_anew_goes_where_the_job_wants_it_now(book):
    [image] = book.deliver(book.at(TaskState.ACCEPTED))
    book.place_image(image, "fox/1.png", book.file())
    book.enter(book.spec(1, paths=("hare/1",)))
    book.store(book.manifest.images.of_task(1)[0], "hare/1.png")
    assert targets(book) == [("hare/1.png", None)]
    assert book.manifest.images.moving() == []


def test_a_missing_file_that_comes_back_moves_on(book):
    image = book.stored("fox/1.png")
    book.manifest.images.move(image, ImageState.MISSING, "gone", NOW)
    assert book.enter(book.spec(1, paths=("hare/1",))) == SyncResult(known=1)
    book.manifest.images.move(book.manifest.images.of_task(1)[0], ImageState.STORED, "found again", NOW)
    assert [image.target for image in book.manifest.images.moving()] == ["hare/1.png"]


def test_a_task_of_a_dropped_job_is_no_owner(book):
    book.stored("fox/1.png")
    assert book.manifest.images.owner("fox/1.png")[1] is True
    book.enter()
    assert book.manifest.images.owner("fox/1.png")[1] is False
