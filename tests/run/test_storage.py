"""A disk that does not take what it is given."""

import sqlite3
from contextlib import closing

import pytest

from seedream_batch.engine import scheduler as engine
from seedream_batch.manifest.db.sqlite_schema import APPLICATION_ID


def break_manifest(bench):
    """From now on the manifest takes no task ids."""
    with sqlite3.connect(bench.out / "manifest.db") as connection:
        connection.execute(
            "CREATE TRIGGER broken BEFORE UPDATE OF task_ids ON tasks BEGIN SELECT RAISE(ABORT, 'broken'); END"
        )


def mend_manifest(bench):
    with sqlite3.connect(bench.out / "manifest.db") as connection:
        connection.execute("DROP TRIGGER broken")


def test_task_ids_that_the_manifest_cannot_take_are_rescued(bench, serve):
    serve()
    bench.run("--limit", "0")
    break_manifest(bench)
    done = bench.run()
    assert done.code != 0
    assert "saved task id" in done.err
    paid = {charge["task_id"] for charge in bench.charges()}
    assert 1 <= len(paid) <= 6
    rescue = bench.out / "manifest.rescue"
    assert all(task_id in rescue.read_text() for task_id in paid)
    mend_manifest(bench)
    assert bench.run().code == 0
    assert len(bench.charges()) == 6
    assert len(bench.files()) == 6
    assert not rescue.exists()
    bench.check()


def test_a_rescue_file_that_was_cut_off(bench, serve):
    serve()
    bench.run("--limit", "0")
    break_manifest(bench)
    bench.run()
    rescue = bench.out / "manifest.rescue"
    text = rescue.read_bytes().split(b"\0", 1)[0]
    rescue.write_bytes(text + b'{"key": "sb-x", "task_')
    mend_manifest(bench)
    assert bench.run().code == 0
    assert len(bench.charges()) == 6


def test_nothing_is_bought_without_room_for_it(bench, serve, monkeypatch):
    serve()
    monkeypatch.setattr(engine, "LARGEST_IMAGE", 10**15)
    done = bench.run()
    assert done.code == 8, done
    assert "MB left" in done.err
    assert bench.charges() == []


@pytest.mark.parametrize("what", ["file", "folder of another"])
def test_an_output_folder_that_cannot_be_one(bench, serve, what):
    serve()
    if what == "file":
        bench.out.write_text("a file")
    else:
        bench.out.mkdir()
        (bench.out / "manifest.db").write_text("no database, but a text that is long enough to be looked at" * 20)
    done = bench.run()
    assert done.code == 8, done
    assert "Traceback" not in done.err
    assert bench.charges() == []


def test_a_foreign_database_is_not_touched(bench, serve):
    serve()
    bench.out.mkdir()
    path = bench.out / "manifest.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (id)")
    before = path.read_bytes()
    done = bench.run()
    assert done.code == 8, done
    assert "not a manifest" in done.err
    assert path.read_bytes() == before


@pytest.mark.parametrize("cut_off", [False, True])
def test_an_empty_manifest_is_none_yet(bench, serve, cut_off):
    serve()
    bench.out.mkdir()
    with closing(sqlite3.connect(bench.out / "manifest.db")) as connection:
        if cut_off:
            # Before a first run has made its tables.
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    (bench.out / "manifest.db").touch()
    for verb, *args in (
        ["status"], ["verify"], ["retry"], ["retry", "--missing"], ["prune"], ["resolve", "--forget"],
        ["report", "--to", "page"], ["export", "--format", "jsonl", "--to", "data"],
    ):  # fmt: skip
        done = bench.call(verb, *args)
        assert done.code == 2, (verb, done)
        assert "has not been run yet: out/manifest.db is empty" in " ".join(done.err.split()), (verb, done)
    assert bench.call("plan").code == 0
    assert bench.run().code == 0
    assert len(bench.charges()) == 6
