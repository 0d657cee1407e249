"""A manifest that moves to another place: all of it or nothing, and only one of the two is used."""

import itertools
from contextlib import nullcontext
from pathlib import Path

import pytest

from seedream_batch.errors import ManifestLocked, StorageError, UsageError
from seedream_batch.manifest import Manifest
from seedream_batch.manifest import copy as module
from seedream_batch.manifest.copy import TABLES, copy_manifest
from seedream_batch.manifest.facts import MOVED_TO
from seedream_batch.manifest.run_lock import run_lock
from seedream_batch.model.locations import name_of
from seedream_batch.model.outcome import Kept
from seedream_batch.model.task import ImageState, TaskState

NOW = 1_800_000_000.0


@pytest.fixture
def other(tmp_path):
    """Files for manifests, each in a folder of its own."""
    numbers = itertools.count()

    def file():
        folder = tmp_path / f"other-{next(numbers)}"
        folder.mkdir()
        return folder / "manifest.db"

    return file


def filled(book):
    """A job in the middle of its work."""
    book.manifest.workers.begin_run(now=NOW, pid=7, host="box", version="1", service="https://x")
    book.manifest.facts.set({"job": "foxes", "service": "https://x"})
    first, second, third, *_ = book.tasks(6)
    accepted = book.manifest.tasks.accepted(book.claim(first).task, ["t1"], deadline=NOW + 9, why="w", now=NOW)
    [image] = book.deliver(accepted)
    book.store(image, "fox/1.png")
    book.manifest.tasks.accepted(book.claim(second, body='{"é": 1}').task, ["t2"], deadline=NOW + 9, why="w", now=NOW)
    kept = Kept("no task id in the answer", 200, "{}", '{"note": "task_9 \\x00 é"}', 25)
    book.manifest.tasks.uncertain(book.claim(third).task, why="no answer", code="", held=True, now=NOW, kept=kept)
    book.manifest.images.uploaded("a" * 64, "https://x", "https://img/1", NOW + 99)
    book.enter(*(book.spec(number) for number in range(1, 6)))


def without_marks(dump):
    return {**dump, "facts": [row for row in dump["facts"] if row[0] != MOVED_TO]}


@pytest.mark.one_alone
def test_all_of_it_goes(book, open_book, other, tmp_path):
    filled(book)
    before = {table: sorted(rows) for table, rows in book.dump().items()}
    book.manifest.close()
    assert copy_manifest(book.place, other()) == 6
    there = type(book)(tmp_path / "other-0" / "manifest.db")
    # And on to the other kind of place, or the same one.
    there.manifest.close()
    target = open_book()
    target.manifest.close()
    assert copy_manifest(there.place, target.place) == 6
    target.reopen()
    book.reopen()
    assert {table: sorted(rows) for table, rows in without_marks(target.dump()).items()} == before
    assert target.manifest.id == book.manifest.id
    target.sound()


@pytest.mark.quick
@pytest.mark.one_alone
def test_it_goes_on_where_it_was(book, open_book):
    filled(book)
    book.manifest.close()
    target = open_book()
    target.manifest.close()
    copy_manifest(book.place, target.place)
    target.reopen()
    book.reopen()
    manifest = target.manifest
    run = manifest.workers.begin_run(now=NOW + 5, pid=8, host="box", version="1", service="https://x")
    assert run == 2
    [accepted] = manifest.tasks.in_state(TaskState.ACCEPTED)
    [image] = target.deliver(accepted)
    assert target.store(image, "fox/2.png", "b").state is ImageState.STORED
    claim = target.claim(manifest.tasks.in_state(TaskState.PLANNED)[0])
    assert claim.task.state is TaskState.SUBMITTING
    target.enter(*(target.spec(number) for number in range(1, 9)))
    assert manifest.connection.rows("SELECT count(*) FROM tasks") == [(8,)]
    target.sound()


def test_every_table_is_copied(book):
    tables = (
        {table for (table,) in book.peek("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if isinstance(book.place, Path)
        else {table for (table,) in book.peek("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")}
        - {"format", "choices", "lines", "workers", "pace"}
    )
    assert tables - {"sqlite_sequence"} == set(TABLES)


def test_the_old_one_is_marked_and_goes_nowhere_else(book, other):
    filled(book)
    book.manifest.close()
    target = other()
    copy_manifest(book.place, target)
    book.reopen()
    assert book.manifest.facts.get(MOVED_TO) == name_of(target)
    book.manifest.close()
    # The same once more is as good as done.
    assert copy_manifest(book.place, target) == 6
    with pytest.raises(UsageError, match="was moved to"):
        copy_manifest(book.place, other())
    book.reopen()


def test_what_is_there_is_not_overwritten(book, other):
    filled(book)
    book.manifest.close()
    target = type(book)(other())
    target.tasks(1)
    target.manifest.close()
    before = target.dump()
    with pytest.raises(UsageError, match="already has tasks"):
        copy_manifest(book.place, target.place)
    assert target.dump() == before
    book.reopen()
    assert book.manifest.facts.get(MOVED_TO) == ""


def test_a_copy_that_was_cut_off_is_begun_again(book, other, monkeypatch):
    filled(book)
    book.manifest.close()
    target = other()
    copy_table = module.copy_table

    def cut_off(old, new, table):
        if table == "images":
            raise KeyboardInterrupt
        copy_table(old, new, table)

    with monkeypatch.context() as patched:
        patched.setattr(module, "copy_table", cut_off)
        with pytest.raises(KeyboardInterrupt):
            copy_manifest(book.place, target)
    halfway = Manifest(target)
    assert halfway.is_empty()
    halfway.close()
    assert copy_manifest(book.place, target) == 6
    book.reopen()


def test_a_copy_that_fails_leaves_the_old_one_in_use(book, other, monkeypatch):
    filled(book)
    book.manifest.close()
    target = other()

    def full(*_):
        raise StorageError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module, "copy_table", full)
        with pytest.raises(StorageError, match="no space"):
            copy_manifest(book.place, target)
    book.reopen()
    assert book.manifest.facts.get(MOVED_TO) == ""


def test_what_cannot_be_copied(book, other, tmp_path):
    book.manifest.close()
    with pytest.raises(UsageError, match="are the same manifest"):
        copy_manifest(book.place, book.place)
    with pytest.raises(UsageError, match="a separate folder"):
        copy_manifest(tmp_path / "manifest.db", tmp_path / "twin.db")
    with pytest.raises(UsageError, match="no manifest found"):
        copy_manifest(other(), book.place)
    with pytest.raises(StorageError, match="does not exist"):
        copy_manifest(book.place, tmp_path / "none" / "manifest.db")
    book.reopen()


def test_a_manifest_that_is_at_work_stays(book, other):
    filled(book)
    # One in a file is held by its run, one on a server by its connection.
    with run_lock(book.path.parent) if isinstance(book.place, Path) else nullcontext(), pytest.raises(ManifestLocked):
        copy_manifest(book.place, other())
