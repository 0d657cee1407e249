"""Opening: a new manifest, an old one, and every file that is none; reading beside a run that writes."""

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing

import pytest

from seedream_batch.errors import ManifestError, StorageError, UsageError
from seedream_batch.files.local_folder import sync_folder
from seedream_batch.manifest import Manifest, ManifestReader
from seedream_batch.manifest.db.sqlite_schema import APPLICATION_ID, MIGRATIONS
from seedream_batch.manifest.rescue_log import NAME, SIZE, Rescued, RescueFile, orphaned_logs
from seedream_batch.model.task import ImageState, TaskState, Totals

NOW = 1_800_000_000.0


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def made_by(path, *statements):
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return path


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_new_manifest_is_private(tmp_path, umask):
    before = os.umask(umask)
    try:
        manifest = Manifest(tmp_path / "manifest.db")
        manifest.facts.set({"job": "a"})
        modes = {path.name: mode(path) for path in tmp_path.iterdir()}
        manifest.close()
    finally:
        os.umask(before)
    assert modes == {"manifest.db": 0o600, "manifest.db-wal": 0o600, "manifest.db-shm": 0o600}
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.db"]


@pytest.mark.file_only
def test_settings_of_the_file(book):
    assert book.peek("PRAGMA journal_mode") == [("wal",)]
    assert book.peek("PRAGMA user_version") == [(len(MIGRATIONS),)]
    assert book.peek("PRAGMA application_id") == [(APPLICATION_ID,)]
    assert book.peek("PRAGMA integrity_check") == [("ok",)]
    settings = {name: book.manifest.connection.sql.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("synchronous", "foreign_keys")}  # fmt: skip
    assert settings == {"synchronous": 2, "foreign_keys": 1}


def test_an_empty_file_becomes_a_manifest(tmp_path):
    path = tmp_path / "manifest.db"
    path.touch()
    with pytest.raises(ManifestError, match="is empty: the first run was interrupted"):
        ManifestReader(path)
    Manifest(path).close()
    ManifestReader(path).close()


@pytest.mark.parametrize("opened", [Manifest, ManifestReader])
def test_an_old_sqlite_is_named_before_anything_is_made(tmp_path, monkeypatch, opened):
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.36.0")
    with pytest.raises(UsageError, match=r"is 3\.36\.0, and a manifest needs 3\.37\.0"):
        opened(tmp_path / "manifest.db")
    assert list(tmp_path.iterdir()) == []


def test_a_kill_before_the_first_migration_is_made_up_for(tmp_path):
    path = made_by(tmp_path / "manifest.db", f"PRAGMA application_id = {APPLICATION_ID}")
    Manifest(path).close()
    with ManifestReader(path) as reader:
        assert reader.wanted()[0] == 0


def test_a_migration_that_breaks_leaves_the_old_manifest(tmp_path, monkeypatch):
    path = tmp_path / "manifest.db"
    Manifest(path).close()
    before = path.read_bytes()
    good = MIGRATIONS
    monkeypatch.setattr(
        "seedream_batch.manifest.db.sqlite_schema.MIGRATIONS",
        (*good, "CREATE TABLE more (a); INSERT INTO nothing VALUES (1);"),
    )
    with pytest.raises(ManifestError, match="nothing"):
        Manifest(path)
    monkeypatch.setattr("seedream_batch.manifest.db.sqlite_schema.MIGRATIONS", good)
    Manifest(path).close()
    assert path.read_bytes() == before


def test_a_migration_of_a_later_version(tmp_path, monkeypatch):
    path = tmp_path / "manifest.db"
    first = Manifest(path)
    first.close()
    longer = (*MIGRATIONS, "CREATE TABLE more (a);")
    monkeypatch.setattr("seedream_batch.manifest.db.sqlite_schema.MIGRATIONS", longer)
    before = path.read_bytes()
    path.chmod(0o400)
    with ManifestReader(path) as reader:
        assert reader._rows("SELECT count(*) FROM more") == [(0,)], "read as if it were of this version"
    path.chmod(0o600)
    assert path.read_bytes() == before
    again = Manifest(path)
    assert again.id == first.id
    again.close()
    monkeypatch.undo()
    for opened in (Manifest, ManifestReader):
        with pytest.raises(ManifestError, match=rf"newer seedream-batch \(manifest version {len(longer)}"):
            opened(path)


FOREIGN = {
    "a foreign database": lambda path: made_by(path, "CREATE TABLE mine (a)", "INSERT INTO mine VALUES (1)"),
    "one with a version": lambda path: made_by(path, "CREATE TABLE mine (a)", "PRAGMA user_version = 1"),
    "one with only a version": lambda path: made_by(path, "PRAGMA user_version = 3"),
    "one of another program": lambda path: made_by(path, "CREATE TABLE mine (a)", "PRAGMA application_id = 77"),
    "an empty one of another program": lambda path: made_by(path, "PRAGMA application_id = 77"),
    "a newer manifest": lambda path: made_by(
        path, f"PRAGMA application_id = {APPLICATION_ID}", "PRAGMA user_version = 99", "CREATE TABLE tasks (a)"
    ),
    "a text": lambda path: path.write_text("these are my notes\n" * 100),
    "a short text": lambda path: path.write_text("x"),
    "a picture": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(5000)),
}


@pytest.mark.parametrize("opened", [Manifest, ManifestReader])
@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN)
def test_what_is_no_manifest_is_refused_and_not_touched(tmp_path, make, opened):
    path = tmp_path / "manifest.db"
    make(path)
    before = path.read_bytes(), mode(path)
    with pytest.raises(ManifestError) as told:
        opened(path)
    assert str(path) in str(told.value)
    assert (path.read_bytes(), mode(path)) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["manifest.db"]


@pytest.mark.parametrize("opened", [Manifest, ManifestReader])
def test_a_folder_is_no_manifest(tmp_path, opened):
    (tmp_path / "manifest.db").mkdir()
    with pytest.raises(StorageError, match=r"manifest\.db"):
        opened(tmp_path / "manifest.db")
    assert list((tmp_path / "manifest.db").iterdir()) == []


def test_reading_what_is_not_there_makes_nothing(tmp_path):
    with pytest.raises(StorageError, match=r"none\.db"):
        ManifestReader(tmp_path / "none.db")
    with pytest.raises(StorageError):
        Manifest(tmp_path / "none" / "manifest.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.file_only
def test_a_damaged_manifest_is_told(open_book):
    book = open_book()
    book.enter(*(book.spec(number) for number in range(1, 300)))
    book.close()
    data = bytearray(book.path.read_bytes())
    data[8192:] = b"\xff" * (len(data) - 8192)
    book.path.write_bytes(data)

    def read_all():
        with ManifestReader(book.place) as reader:
            reader.counts()
            reader.totals()
            reader.tasks(TaskState.PLANNED, 1000)

    def write():
        manifest = Manifest(book.path)
        try:
            manifest.tasks.in_state(TaskState.PLANNED)
            manifest.sync_job([book.spec(1)], NOW)
        finally:
            manifest.close()

    for call in (read_all, write):
        with pytest.raises((ManifestError, StorageError), match=r"manifest\.db"):
            call()


def test_odd_names(tmp_path):
    folder = tmp_path / "a b?c#d%20e"
    folder.mkdir()
    Manifest(folder / "manifest.db").close()
    with ManifestReader(folder / "manifest.db") as reader:
        assert reader.wanted()[0] == 0
    assert [path.name for path in folder.iterdir() if path.suffix == ".db"] == ["manifest.db"]


# Reading beside a run


def test_a_snapshot_is_of_one_moment(book):
    book.tasks(2)
    with ManifestReader(book.place) as frozen, ManifestReader(book.place) as live:
        frozen.snapshot()
        claim = book.claim(book.manifest.tasks.get(1))
        assert (frozen.counts(), frozen.totals()) == ({TaskState.PLANNED: 2}, Totals())
        assert live.counts() == {TaskState.PLANNED: 1, TaskState.SUBMITTING: 1}
        assert live.totals() == Totals(1, book.PRICE)
        book.manifest.tasks.accepted(claim.task, ["task_1"], deadline=NOW, why="w", now=NOW)
        assert frozen.counts() == {TaskState.PLANNED: 2}
    with ManifestReader(book.place) as reader:
        assert reader.counts() == {TaskState.PLANNED: 1, TaskState.ACCEPTED: 1}


def test_a_reader_sees_nothing_of_an_open_transaction(book):
    with ManifestReader(book.place) as reader, book.manifest.group():
        book.manifest.sync_job([book.spec(1)], NOW)
        assert reader.wanted()[0] == 0
        assert book.manifest.tasks.get(1).ordinal == 1
    with ManifestReader(book.place) as reader:
        assert reader.wanted()[0] == 1


def test_readers_and_a_writer_do_not_wait_for_each_other(book):
    tasks = book.tasks(60)
    failures, done = [], threading.Event()

    def read():
        try:
            while not done.is_set():
                with ManifestReader(book.place) as reader:
                    reader.snapshot()
                    totals = reader.totals()
                    counts = reader.counts()
                    assert totals.reserved_images == counts.get(TaskState.SUBMITTING, 0)
                    assert sum(counts.values()) == 60
        except Exception as error:  # noqa: BLE001 - shown below
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for task in tasks:
        book.claim(task)
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []


@pytest.mark.file_only
def test_a_manifest_without_its_wal_files(book):
    book.tasks(1)
    book.manifest.close()
    assert not book.path.with_name("manifest.db-wal").exists()
    with ManifestReader(book.place) as reader:
        assert reader.wanted()[0] == 1
    book.reopen()


def test_a_reader_after_a_killed_writer_sees_what_was_committed(tmp_path):
    path = tmp_path / "manifest.db"
    script = f"""
import os, signal
from pathlib import Path
from seedream_batch.manifest import Manifest
manifest = Manifest(Path({str(path)!r}))
manifest.facts.set({{"job": "committed"}})
with manifest.group():
    manifest.facts.set({{"job": "not committed"}})
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert path.with_name("manifest.db-wal").exists()
    with ManifestReader(path) as reader:
        assert reader.facts.get("job") == "committed"
    manifest = Manifest(path)
    assert manifest.facts.get("job") == "committed"
    manifest.close()


@pytest.mark.quick
def test_what_a_reader_tells(book):
    first, second, third = book.tasks(3)
    run = book.manifest.workers.begin_run(now=NOW, pid=7, host="box", version="1", service="https://x")
    accepted = book.manifest.tasks.accepted(book.claim(first).task, ["t1"], deadline=NOW, why="w", now=NOW)
    [image] = book.deliver(accepted)
    stored = book.store(image, "fox/1.png")
    lost = book.manifest.tasks.accepted(book.claim(second).task, ["t2"], deadline=NOW, why="w", now=NOW)
    book.manifest.tasks.lost(lost, why="404", now=NOW)
    book.manifest.facts.set({"job": "foxes"})
    book.enter(*(book.spec(number) for number in (1, 2)))
    with ManifestReader(book.place) as reader:
        assert reader.facts.get("job") == "foxes"
        assert reader.facts.get("nothing") == ""
        last = reader.last_run()
        assert (last.id, last.pid, last.host, last.ended_at, last.outcome) == (run, 7, "box", None, None)
        assert reader.counts() == {TaskState.SUCCEEDED: 1, TaskState.LOST: 1}
        # The third has no files and is not in flight: nothing of it stays.
        assert (reader.with_results(), reader.dropped(), reader.wanted()) == (1, 0, (2, 2))
        assert reader.image_counts() == {ImageState.STORED: 1}
        assert reader.stored_bytes() == 10
        assert reader.next_expiry() is None
        assert [task.id for task in reader.tasks(TaskState.LOST, 5)] == [second.id]
        assert set(reader.lookup([first.fingerprint, "none"])) == {first.fingerprint}
        assert reader.images_of([first.id, third.id]) == {first.id: [stored]}
        assert set(reader.by_path(['["fox/1"]', '["fox/3"]'])) == {'["fox/1"]'}
        assert reader.troubled_images(5) == []
    book.manifest.images.move(stored, ImageState.MISSING, "gone", NOW)
    book.manifest.workers.end_run(now=NOW + 5, outcome="finished")
    with ManifestReader(book.place) as reader:
        [(image, task)] = reader.troubled_images(5)
        assert (image.state, task.id) == (ImageState.MISSING, first.id)
        assert reader.last_run().outcome == "finished"


@pytest.mark.file_only
def test_a_reader_cannot_write(book):
    with ManifestReader(book.place) as reader, pytest.raises(StorageError, match="readonly"):
        reader._rows("UPDATE totals SET cost = 0")


def test_what_expires_next(book):
    book.tasks(3)
    for number, expires in ((1, NOW + 100), (2, NOW + 3000), (3, NOW + 9000)):
        claim = book.claim(book.manifest.tasks.get(number))
        task = book.manifest.tasks.accepted(claim.task, [f"t{number}"], deadline=NOW, why="w", now=NOW)
        book.deliver(task, expires=expires)
    with ManifestReader(book.place) as reader:
        assert reader.next_expiry() == (NOW + 100, 2)


# Task ids that the manifest could not take


def test_rescued_task_ids_come_home(book, tmp_path):
    claim = book.claim(book.tasks()[0])
    rescue = RescueFile(tmp_path, sync_folder)
    rescue.prepare()
    rescue.add(Rescued(claim.key, ("task_1", "task_2"), NOW))
    rescue.add(Rescued("another key", ("task_3",), NOW))
    assert rescue.path.stat().st_size == SIZE
    assert mode(rescue.path) == 0o600
    rescue.close()
    book.reopen()
    book.manifest.tasks.recover(NOW)
    with orphaned_logs(tmp_path, book.manifest.id, at_work=None) as left:
        [file] = left.files
        assert len(file.rescued) == 2
        assert book.manifest.tasks.import_ids(file.rescued, NOW, timeout=60) == 1
        task = book.manifest.tasks.get(1)
        assert (task.state, task.task_ids, task.deadline) == (TaskState.ACCEPTED, ("task_1", "task_2"), NOW + 60)
        # Known already: taken in once more, nothing changes.
        assert book.manifest.tasks.import_ids(file.rescued, NOW, timeout=60) == 1
        file.imported(1)
        assert rescue.path.exists(), "the other one belongs to no attempt"
        file.imported(2)
    assert not rescue.path.exists()


@pytest.mark.parametrize("left", [b"", b"\0" * 100, b'{"key": "k"', b'{"key": "k"}\n', b"\xff\n", b"[]\n3\nnull\n"])
def test_a_rescue_file_that_was_cut(tmp_path, left):
    rescue = RescueFile(tmp_path, sync_folder)
    rescue.path.write_bytes(left)
    with orphaned_logs(tmp_path, "any", at_work=None) as found:
        assert list(found.files[0].rescued) == []
    rescue.prepare()
    assert rescue.path.stat().st_size == SIZE
    rescue.close()
    assert not rescue.path.exists()


def test_what_is_added_behind_a_line_that_was_cut_is_read(tmp_path):
    (tmp_path / NAME).write_bytes(b'{"key": "k"')
    rescue = RescueFile(tmp_path, sync_folder)
    rescue.add(Rescued("key", ("task_1",), NOW))
    rescue.close()
    with orphaned_logs(tmp_path, "any", at_work=None) as left:
        assert [one.key for one in left.files[0].rescued] == ["key"]


@pytest.mark.file_only
@pytest.mark.parametrize("happened", ["moved", "replaced"])
def test_nothing_is_claimed_while_the_file_is_not_in_its_place(book, happened):
    """SQLite would go on writing to a file that nobody finds again, and the images would be bought once more."""
    first, second = book.tasks(2)
    sent = book.claim(first).task
    aside = book.path.with_name("aside.db")
    book.path.rename(aside)
    if happened == "replaced":
        book.path.write_bytes(aside.read_bytes())
    with pytest.raises(StorageError, match="moved, replaced or deleted"):
        book.claim(second)
    # What was sent before is still recorded.
    book.manifest.tasks.accepted(sent, ["task_1"], deadline=book.NOW + 60, why="accepted", now=book.NOW)
    aside.replace(book.path)
    assert book.claim(second).task.id == second.id
