"""Files that move, step aside, or were being moved when a run was killed."""

import sqlite3

import pytest


def cut_off(bench, *statements):
    """Leaves the manifest as a kill would."""
    with sqlite3.connect(bench.out / "manifest.db") as connection:
        for statement in statements:
            connection.execute(statement)
        connection.execute("UPDATE runs SET ended_at = NULL")


@pytest.fixture
def made(bench, serve):
    serve()
    assert bench.run().code == 0
    return bench


def test_a_move_that_was_cut_off_before_its_record(made):
    old, new = made.out / "fox" / "1-1.jpg", made.out / "elsewhere" / "fox.jpg"
    number = made.rows("SELECT task FROM images WHERE path = 'fox/1-1.jpg'")[0][0]
    cut_off(made, f"UPDATE images SET via = 'elsewhere/fox.jpg', target = 'elsewhere/fox.jpg' WHERE task = {number}")
    new.parent.mkdir()
    old.rename(new)
    # The job says yet another place by now.
    made.edit('"{{ subject.id }}/{{ size }}"', '"third/{{ subject.id }}-{{ size }}"')
    assert made.run().code == 0
    assert len(made.files()) == 6
    assert "third/fox-1-1.jpg" in made.files()
    assert len(made.charges()) == 6
    made.check()


def test_a_move_that_was_cut_off_and_the_edit_taken_back(made):
    number = made.rows("SELECT task FROM images WHERE path = 'fox/1-1.jpg'")[0][0]
    cut_off(made, f"UPDATE images SET via = 'elsewhere/fox.jpg' WHERE task = {number}")
    new = made.out / "elsewhere" / "fox.jpg"
    new.parent.mkdir()
    (made.out / "fox" / "1-1.jpg").rename(new)
    assert made.run().code == 0
    made.run()
    assert "fox/1-1.jpg" in made.files()
    made.check()


def test_a_file_named_before_the_kill_whose_path_was_edited(made):
    cut_off(made, "UPDATE images SET state = 'announced' WHERE path = 'fox/1-1.jpg'")
    before = made.requests()
    made.edit('"{{ subject.id }}/{{ size }}"', '"{{ size }}/{{ subject.id }}"')
    assert made.run().code == 0
    assert "1-1/fox.jpg" in made.files()
    assert len(made.files()) == 6
    assert made.requests() == before
    made.check()


@pytest.fixture
def unsynced(monkeypatch):
    """Names in folders so called cannot be brought to the disk."""
    import seedream_batch.files.folder as module

    names, sync_folder = set(), module.sync_folder

    def sync(folder):
        if folder.name in names:
            raise OSError(5, "Input/output error")
        sync_folder(folder)

    monkeypatch.setattr(module, "sync_folder", sync)
    return names


def test_a_move_that_was_cut_off_is_believed_once_it_is_on_the_disk(made, unsynced):
    number = made.rows("SELECT task FROM images WHERE path = 'fox/1-1.jpg'")[0][0]
    cut_off(made, f"UPDATE images SET via = 'elsewhere/fox.jpg' WHERE task = {number}")
    new = made.out / "elsewhere" / "fox.jpg"
    new.parent.mkdir()
    (made.out / "fox" / "1-1.jpg").rename(new)
    for name in ("elsewhere", "fox"):
        unsynced.add(name)
        assert made.run().code == 8
        assert made.rows("SELECT path, via FROM images WHERE task = ?", number) == [
            ("fox/1-1.jpg", "elsewhere/fox.jpg")
        ]
        unsynced.clear()
    assert made.run().code == 0
    made.check()


def test_a_file_that_was_named_before_the_kill_counts_once_its_name_is_on_the_disk(made, unsynced):
    cut_off(made, "UPDATE images SET state = 'announced' WHERE path = 'fox/1-1.jpg'")
    before = made.requests()
    unsynced.add("fox")
    assert made.run().code == 8
    assert made.rows("SELECT path FROM images WHERE state = 'announced'") == [("fox/1-1.jpg",)]
    unsynced.clear()
    assert made.run().code == 0
    assert made.requests() == before
    made.check()


def test_three_paths_in_a_circle(made):
    before = {name: path.read_bytes() for name, path in made.files().items()}
    made.edit(
        '"{{ subject.id }}/{{ size }}"',
        "\"{{ subject.id }}/{{ {'1:1': '16-9', '16:9': '9-16', '9:16': '1-1'}[size] }}\"",
    )
    assert made.run().code == 0
    after = made.files()
    for subject in ("panda", "fox"):
        for old, new in (("1-1", "16-9"), ("16-9", "9-16"), ("9-16", "1-1")):
            assert after[f"{subject}/{new}.jpg"].read_bytes() == before[f"{subject}/{old}.jpg"]
    assert len(after) == 6
    made.check()


def test_a_picture_of_an_older_prompt_that_comes_late_takes_no_place(bench, serve):
    serve(task_seconds="fixed:0.4")
    bench.write('version: 1\nmatrix: {a: [x]}\nrequest: {prompt: "old {{ a }}"}\noutput: {dir: out, path: "{{ a }}"}\n')
    bench.run("--submit-only")
    bench.edit("old", "new")
    assert bench.run().code == 0
    bench.run()
    prompts = dict(bench.rows("SELECT path, body FROM images JOIN tasks ON tasks.id = images.task"))
    assert "new" in prompts["x.jpg"]
    assert len(prompts) == 2
    assert next(path for path in prompts if path != "x.jpg").startswith("superseded/")
    assert not (bench.out / ".seedream-moving").exists()
    bench.check()


def test_a_picture_too_many_does_not_fight_another_cell(bench, serve):
    from PIL import Image

    serve(deliver=1)
    Image.new("RGB", (64, 48), "teal").save(bench.folder / "cup.png")
    bench.write(
        "version: 1\nmatrix: {name: [p, p-3]}\n"
        'request: {prompt: "{{ name }}", n: 2, image_urls: [cup.png]}\noutput: {dir: out, path: "{{ name }}"}\n'
    )
    assert bench.run().code == 0
    first = bench.files()
    assert len(first) == 6
    before = bench.requests()
    assert bench.run().code == 0
    assert bench.files().keys() == first.keys()
    assert bench.requests() == before
    bench.check()


def test_a_file_that_is_gone_is_told(made):
    (made.out / "fox" / "1-1.jpg").unlink()
    made.edit('"{{ subject.id }}/{{ size }}"', '"{{ size }}/{{ subject.id }}"')
    done = made.run()
    assert done.code == 3, done
    assert "fox/1-1.jpg is gone" in done.err
    assert "5 files" in done.out
    assert len(made.charges()) == 6


def test_a_file_that_was_named_and_not_recorded_is_known_again_without_a_kill(made):
    # As a second Ctrl-C leaves it when the rename is under way: the run says that it ended.
    with sqlite3.connect(made.out / "manifest.db") as connection:
        connection.execute("UPDATE images SET state = 'announced' WHERE path = 'fox/1-1.jpg'")
    before = made.requests()
    assert made.run().code == 0
    assert made.requests() == before
    assert len(made.files()) == 6
    made.check()
