"""`prune`: what the job no longer has, and nothing else."""

import itertools
import json
import sqlite3
from contextlib import closing

import pytest
from PIL import Image

from seedream_batch.errors import StorageError
from seedream_batch.files.local_folder import OutputFolder
from seedream_batch.manifest.maintenance_store import MaintenanceStore


def words(text):
    return " ".join(text.split())


@pytest.fixture
def shrunk(bench, serve):
    """Six images were made; the job asks for one size by now."""
    serve()
    assert bench.run().code == 0
    bench.edit("size: [1:1, 16:9, 9:16]", "size: [1:1]")
    return bench


def dump(bench):
    return {
        table: bench.rows(f"SELECT * FROM {table}") for table in ("tasks", "attempts", "images", "events", "totals")
    }


def test_without_yes_it_only_shows(shrunk):
    before, files = dump(shrunk), shrunk.files().keys()
    done = shrunk.call("prune")
    assert done.code == 0, done
    assert "4 files" in done.out
    for name in ("fox/16-9.jpg", "fox/9-16.jpg", "panda/16-9.jpg", "panda/9-16.jpg"):
        assert name in done.out
    assert "Nothing was deleted" in done.out
    assert f"`seedream-batch prune {shrunk.job} --yes`" in words(done.out)
    assert dump(shrunk) == before
    assert shrunk.files().keys() == files


def test_kept_answers_go_with_the_images_unless_money_is_held(shrunk):
    with closing(sqlite3.connect(shrunk.out / "manifest.db")) as manifest:
        manifest.execute(
            "INSERT INTO answers (at, task, attempt, kind, headers, body, length, why)"
            " SELECT 0, id, 1, 'poll', '{}', '', 0, 'odd' FROM tasks"
        )
        manifest.execute("UPDATE attempts SET reserved_images = 1 WHERE task = 2")
        manifest.commit()
    assert shrunk.call("prune", "--yes").code == 0
    left = shrunk.rows("SELECT task FROM answers WHERE task != 2 ORDER BY task")
    assert left == shrunk.rows("SELECT id FROM tasks WHERE ordinal IS NOT NULL AND id != 2 ORDER BY id")
    assert shrunk.rows("SELECT count(*) FROM answers WHERE task = 2") == [(1,)]


def test_it_deletes_what_the_job_no_longer_has(shrunk):
    before = shrunk.requests()
    money = shrunk.rows("SELECT * FROM totals"), shrunk.rows("SELECT * FROM attempts")
    done = shrunk.call("prune", "--yes")
    assert done.code == 0, done
    assert "4 files" in done.out
    assert set(shrunk.files()) == {"fox/1-1.jpg", "panda/1-1.jpg"}
    assert shrunk.rows("SELECT count(*) FROM images") == [(2,)]
    assert shrunk.rows("SELECT state, ordinal IS NULL, count(*) FROM tasks GROUP BY 1, 2 ORDER BY 2") == [
        ("succeeded", 0, 2),
        ("planned", 1, 4),
    ]
    assert (shrunk.rows("SELECT * FROM totals"), shrunk.rows("SELECT * FROM attempts")) == money
    assert shrunk.requests() == before
    assert "nothing to delete" in shrunk.call("prune").out
    assert "no longer in the job" not in shrunk.call("status").out + shrunk.call("plan").out
    assert shrunk.run().code == 0
    assert shrunk.requests() == before
    shrunk.check()


@pytest.mark.thorough
def test_a_cell_that_comes_back_is_bought_again(shrunk):
    shrunk.call("prune", "--yes")
    shrunk.edit("size: [1:1]", "size: [1:1, 16:9]")
    shown = shrunk.call("plan").out
    assert "2 tasks, 2 images, 0.07 USD: generated before, but its images were pruned" in words(shown)
    assert shrunk.run().code == 0
    assert len(shrunk.files()) == 4
    assert len({charge["key"] for charge in shrunk.charges()}) == 8
    assert shrunk.rows("SELECT cost FROM totals") == [(8 * 35000,)]
    shrunk.check()
    # The log of each image goes on where it ended.
    for task, index in shrunk.rows('SELECT task, "index" FROM images'):
        moves = shrunk.rows("SELECT old, new FROM events WHERE task = ? AND image = ? ORDER BY id", task, index)
        assert all(before[1] == after[0] for before, after in itertools.pairwise(moves))


def test_a_changed_file_is_left(shrunk):
    path = shrunk.out / "fox" / "16-9.jpg"
    path.write_bytes(path.read_bytes() + b"mine")
    done = shrunk.call("prune", "--yes")
    assert done.code == 0, done
    assert "1 file changed since they were stored; delete them yourself" in done.out
    assert "fox/16-9.jpg" in done.out
    assert path.read_bytes().endswith(b"mine")
    assert set(shrunk.files()) == {"fox/1-1.jpg", "fox/16-9.jpg", "panda/1-1.jpg"}
    assert "nothing to delete" in shrunk.call("prune").out


def test_what_nobody_recorded_is_left(shrunk):
    stranger = shrunk.out / "fox" / "stranger.jpg"
    stranger.write_bytes(b"mine")
    shrunk.write(shrunk.job.read_text().replace("    - {id: fox, text: a fox in the snow}\n", ""))
    assert "5 files" in shrunk.call("prune", "--yes").out
    assert set(shrunk.files()) == {"fox/stranger.jpg", "panda/1-1.jpg"}
    stranger.unlink()


def test_folders_that_it_empties_go(shrunk):
    shrunk.write(shrunk.job.read_text().replace("    - {id: fox, text: a fox in the snow}\n", ""))
    shrunk.call("prune", "--yes")
    assert not (shrunk.out / "fox").exists()
    assert (shrunk.out / "panda").exists()


def test_superseded_pictures_go_and_their_folder_with_them(bench, serve):
    serve()
    assert bench.run().code == 0
    bench.edit("in the snow", "in the rain")
    assert bench.run().code == 0
    assert len([name for name in bench.files() if name.startswith("superseded/")]) == 3
    (bench.out / "superseded" / "mine.txt").write_text("mine")
    assert "3 files" in bench.call("prune", "--yes").out
    assert (bench.out / "superseded" / "mine.txt").exists()
    assert not (bench.out / "superseded" / "fox").exists()
    (bench.out / "superseded" / "mine.txt").unlink()
    assert "0 files" in bench.call("prune", "--yes").out
    assert not (bench.out / "superseded").exists()
    assert len(bench.files()) == 6
    assert bench.call("verify").code == 0
    bench.check()


@pytest.mark.parametrize("what", ["accepted", "announced", "uncertain"])
def test_what_is_in_flight_stays(bench, serve, what):
    serve()
    if what == "announced":
        bench.emulator.set_faults([{"on": "image", "action": "status", "status": 500, "prompt": "fox"}])
        bench.run()
    elif what == "accepted":
        bench.run("--submit-only")
    else:
        bench.emulator.set_faults([{"on": "submit", "action": "reset_after_bill"}])
        bench.run()
    bench.emulator.set_faults([])
    waiting = bench.rows("SELECT count(*) FROM tasks WHERE state IN ('accepted', 'uncertain') OR id IN"
                         " (SELECT task FROM images WHERE state = 'announced')")[0][0]  # fmt: skip
    assert waiting
    before = bench.rows("SELECT count(*) FROM images WHERE state = 'announced'")
    bench.edit("size: [1:1, 16:9, 9:16]", "size: [21:9]")
    done = bench.call("prune", "--yes")
    assert f"in flight  {waiting} task" in done.out
    assert bench.rows("SELECT count(*) FROM images WHERE state = 'announced'") == before
    bench.run()
    states = dict(bench.rows("SELECT state, count(*) FROM images GROUP BY 1"))
    assert states == ({"stored": 2} if what == "uncertain" else {"stored": 2 + waiting}), "it is collected"
    bench.check()


def test_what_was_never_sent_loses_its_row(bench, serve):
    serve()
    bench.run("--limit", "0")
    bench.edit("size: [1:1, 16:9, 9:16]", "size: [1:1]")
    assert json.loads(bench.call("prune", "--json").out)["never_sent"] == 4
    assert bench.rows("SELECT count(*) FROM tasks") == [(6,)]
    assert json.loads(bench.call("prune", "--yes", "--json").out)["never_sent"] == 4
    assert bench.rows("SELECT count(*) FROM tasks") == [(2,)]
    bench.edit("size: [1:1]", "size: [1:1, 16:9]")
    assert "not generated yet" in bench.call("plan").out
    assert bench.run().code == 0
    bench.check()


def test_what_failed_stays_failed(bench, serve):
    serve()
    bench.emulator.set_faults([{"on": "submit", "action": "fail", "code": "OutputImageSensitiveContentDetected"}])
    assert bench.run().code == 3
    bench.emulator.set_faults([])
    bench.edit("size: [1:1, 16:9, 9:16]", "size: [1:1]")
    bench.call("prune", "--yes")
    bench.edit("size: [1:1]", "size: [1:1, 16:9, 9:16]")
    assert bench.run().code == 3
    assert bench.states() == {"failed": 6}, "left alone until a person decides"


def test_a_kill_between_the_files_and_their_rows(shrunk, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MaintenanceStore, "prune", killed)
        assert shrunk.call("prune", "--yes").code == 130
    assert set(shrunk.files()) == {"fox/1-1.jpg", "panda/1-1.jpg"}
    assert shrunk.rows("SELECT count(*) FROM images") == [(6,)]
    assert shrunk.call("prune", "--yes").code == 0
    assert shrunk.rows("SELECT count(*) FROM images") == [(2,)]
    shrunk.check()


def test_a_kill_between_a_file_and_its_folder(shrunk):
    for name in ("16-9", "9-16", "1-1"):
        (shrunk.out / "fox" / f"{name}.jpg").unlink()
    shrunk.write(shrunk.job.read_text().replace("    - {id: fox, text: a fox in the snow}\n", ""))
    shrunk.call("prune", "--yes")
    assert not (shrunk.out / "fox").exists()
    assert shrunk.rows("SELECT count(*) FROM images") == [(1,)]


def test_a_move_that_was_cut_off(shrunk):
    (shrunk.out / "fox" / "16-9.jpg").rename(shrunk.out / "fox" / "new.jpg")
    with sqlite3.connect(shrunk.out / "manifest.db") as connection:
        connection.execute("UPDATE images SET via = 'fox/new.jpg' WHERE path = 'fox/16-9.jpg'")
        connection.execute("UPDATE runs SET ended_at = NULL")
    assert "4 files" in shrunk.call("prune", "--yes").out
    assert set(shrunk.files()) == {"fox/1-1.jpg", "panda/1-1.jpg"}


def test_a_file_that_cannot_be_deleted_keeps_its_rows(shrunk, monkeypatch):
    real = OutputFolder.unlink

    def broken(self, path):
        if path == "fox/16-9.jpg":
            raise StorageError(f"{path}: Operation not permitted")
        real(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "unlink", broken)
        done = shrunk.call("prune", "--yes")
    assert done.code == 8, done
    assert "fox/16-9.jpg: Operation not permitted" in done.out
    assert shrunk.rows("SELECT count(*) FROM images") == [(3,)]
    assert shrunk.call("prune", "--yes").code == 0
    assert shrunk.rows("SELECT count(*) FROM images") == [(2,)]


@pytest.mark.thorough
def test_a_place_that_another_picture_has_by_now(bench, serve):
    serve()
    assert bench.run().code == 0
    gone = bench.out / "fox" / "1-1.jpg"
    gone.rename(bench.folder / "away.jpg")
    bench.call("verify", "--select", "subject=panda")
    bench.edit("in the snow", "in the rain")
    bench.run()
    taken = gone.read_bytes()
    bench.call("prune", "--yes")
    assert gone.read_bytes() == taken
    assert len(bench.files()) == 6
    bench.check()


def test_another_job_file_prunes_nothing(shrunk):
    other = shrunk.folder / "other.yaml"
    other.write_text(shrunk.job.read_text().replace("a fox", "a wolf"))
    shrunk.job = other
    done = shrunk.call("prune", "--yes")
    assert done.code == 2, done
    assert len(shrunk.files()) == 6


def test_a_job_with_a_mistake_prunes_nothing(shrunk):
    shrunk.edit("{{ subject.text }}", "{{ subject.txt }}")
    assert shrunk.call("prune", "--yes").code == 2
    assert len(shrunk.files()) == 6
    assert shrunk.rows("SELECT count(*) FROM images") == [(6,)]


def test_for_machines(shrunk):
    (shrunk.out / "fox" / "16-9.jpg").write_bytes(b"mine")
    found = json.loads(shrunk.call("prune", "--json").out)
    assert (found["deleted"], found["files"], len(found["paths"])) == (False, 3, 3)
    assert found["changed"] == ["fox/16-9.jpg"]
    found = json.loads(shrunk.call("prune", "--yes", "--json").out)
    assert (found["deleted"], found["files"], found["changed"]) == (True, 3, ["fox/16-9.jpg"])


@pytest.mark.thorough
def test_a_series_of_which_one_is_missing(bench, serve):
    serve()
    Image.new("RGB", (64, 48), "teal").save(bench.folder / "cup.png")
    bench.write(
        "version: 1\nmatrix: {mood: [calm, wild]}\n"
        'request: {prompt: "a cup, {{ mood }}", n: 3, image_urls: [cup.png]}\noutput: {dir: out, path: "{{ mood }}"}\n'
    )
    assert bench.run().code == 0
    bench.emulator.set_faults([{"on": "poll", "action": "status", "status": 404}])
    (bench.out / "calm-2.jpg").unlink()
    bench.call("verify")
    bench.call("retry", "--missing")
    # Planned again, and then dropped before it was sent.
    bench.edit("[calm, wild]", "[wild]")
    assert "2 files" in bench.call("prune", "--yes").out
    bench.emulator.set_faults([])
    bench.edit("[wild]", "[calm, wild]")
    assert "its images were pruned" in words(bench.call("plan").out)
    assert bench.run().code == 0
    assert len(bench.files()) == 6
    bench.check()


def test_dropped_without_files_is_not_counted(bench, serve):
    serve()
    bench.run("--limit", "1")
    bench.edit("size: [1:1, 16:9, 9:16]", "size: [21:9]")
    assert "1 earlier task is no longer" in words(bench.call("plan").out)
    bench.run("--limit", "0")
    assert "dropped    1 task" in bench.call("status").out
    assert json.loads(bench.call("status", "--json").out)["no_longer_in_the_job"] == 1
