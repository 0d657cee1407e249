"""Files that move, step aside, or were being moved when a run was killed."""

import hashlib
import os
import shutil
import sqlite3
from random import Random

import pytest

from seedream_batch.files.image_inspection import FORMATS
from seedream_batch.manifest.db.sqlite_schema import APPLICATION_ID, MIGRATIONS


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


@pytest.mark.thorough
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


@pytest.mark.thorough
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
    import seedream_batch.files.local_folder as module

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


@pytest.mark.thorough
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


@pytest.mark.thorough
def test_a_picture_too_many_does_not_fight_another_cell(bench, serve):
    from PIL import Image

    serve(deliver=1)
    Image.new("RGB", (64, 48), "teal").save(bench.folder / "cup.png")
    bench.write(
        "version: 1\nmatrix: {name: [p, p-3]}\n"
        'request: {prompt: "{{ name }}", n: 2, image_urls: [cup.png]}\noutput: {dir: out, path: "{{ name }}"}\n'
    )
    assert bench.run().code == 9
    first = bench.files()
    assert len(first) == 6
    before = bench.requests()
    assert bench.run().code == 9
    assert bench.files().keys() == first.keys()
    assert bench.requests() == before
    bench.check()


def test_a_file_that_is_gone_is_told(made):
    (made.out / "fox" / "1-1.jpg").unlink()
    made.edit('"{{ subject.id }}/{{ size }}"', '"{{ size }}/{{ subject.id }}"')
    done = made.run()
    assert done.code == 3, done
    assert "fox/1-1.jpg was deleted or moved" in done.err
    assert "5 files" in done.out
    assert len(made.charges()) == 6


@pytest.mark.thorough
def test_a_file_that_was_named_and_not_recorded_is_known_again_without_a_kill(made):
    # As a second Ctrl-C leaves it when the rename is under way: the run says that it ended.
    with sqlite3.connect(made.out / "manifest.db") as connection:
        connection.execute("UPDATE images SET state = 'announced' WHERE path = 'fox/1-1.jpg'")
    before = made.requests()
    assert made.run().code == 0
    assert made.requests() == before
    assert len(made.files()) == 6
    made.check()


ELSEWHERE = ('"{{ subject.id }}/{{ size }}"', '"new/{{ subject.id }}-{{ size }}"')


def away(bench, name):
    """Takes a file out of the folder, as somebody does who has another use for it; where it is."""
    kept = bench.folder / "away.jpg"
    (bench.out / name).rename(kept)
    return kept


def back(kept, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    kept.rename(path)


def nothing_to_do(bench):
    assert bench.call("plan", "--detailed-exitcode").code == 0
    assert bench.call("verify").code == 0
    assert len(bench.files()) == 6
    assert len(bench.charges()) == 6
    bench.check()


@pytest.mark.parametrize("verb", ["run", "verify"])
@pytest.mark.parametrize("place", ["fox/1-1.jpg", "new/fox-1-1.jpg"])
def test_a_file_that_was_away_while_its_path_was_edited_comes_to_its_place(made, verb, place):
    kept = away(made, "fox/1-1.jpg")
    made.edit(*ELSEWHERE)
    assert made.run().code == 3
    back(kept, made.out / place)
    assert made.call(verb).code == 0
    assert made.run().code == 0
    assert "new/fox-1-1.jpg" in made.files()
    nothing_to_do(made)


def test_a_file_that_the_user_moved_along_with_the_edit_is_known_there(made):
    before = made.requests()
    made.edit(*ELSEWHERE)
    for name, path in made.files().items():
        back(path, made.out / "new" / name.replace("/", "-"))
    assert made.run().code == 0
    assert made.requests() == before
    nothing_to_do(made)


@pytest.mark.thorough
def test_a_picture_that_comes_back_where_another_one_was_is_told_apart(made):
    kept = away(made, "fox/1-1.jpg")
    made.edit('"{{ subject.id }}/{{ size }}"', "\"{{ {'fox': 'panda', 'panda': 'fox'}[subject.id] }}/{{ size }}\"")
    assert made.run().code == 3
    back(kept, made.out / "panda" / "1-1.jpg")
    done = made.call("verify")
    assert (done.code, "move it away" in done.out) == (0, False)
    nothing_to_do(made)


def test_the_place_of_a_file_that_came_back_is_free_before_anything_is_bought_for_it(made):
    kept = away(made, "fox/1-1.jpg")
    made.edit(*ELSEWHERE)
    assert made.run().code == 3
    back(kept, made.out / "fox" / "1-1.jpg")
    made.edit(
        "size: [1:1, 16:9, 9:16]", "size: [1:1, 16:9, 9:16]\ninclude: [{subject: {id: owl, text: an owl}, size: 1:1}]"
    )
    made.edit(
        '"new/{{ subject.id }}-{{ size }}"',
        "\"{{ 'fox/1-1' if subject.id == 'owl' else 'new/' ~ subject.id ~ '-' ~ size }}\"",
    )
    assert made.run().code == 0
    assert {"fox/1-1.jpg", "new/fox-1-1.jpg"} < made.files().keys()
    assert len(made.charges()) == 7
    made.check()


def first_version(file, *statements):
    """Makes a manifest one of version 1, and changes it."""
    new = file.with_name("earlier.db")
    connection = sqlite3.connect(new)
    connection.executescript(MIGRATIONS[0])
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 1")
    connection.execute("ATTACH ? AS old", (str(file),))
    connection.execute("DELETE FROM totals")
    for table in ("facts", "runs", "tasks", "attempts", "images", "uploads", "prices", "totals", "events"):
        columns = ", ".join(f'"{row[1]}"' for row in connection.execute(f"PRAGMA main.table_info({table})"))
        connection.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM old.{table}")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    for name in ("manifest.db-wal", "manifest.db-shm"):
        file.with_name(name).unlink(missing_ok=True)
    new.replace(file)


@pytest.mark.thorough
def test_a_manifest_of_an_earlier_version_brings_such_files_home(made):
    number = made.rows("SELECT task FROM images WHERE path = 'fox/1-1.jpg'")[0][0]
    made.edit(*ELSEWHERE)
    assert made.run().code == 0
    old = made.out / "fox" / "1-1.jpg"
    back(made.out / "new" / "fox-1-1.jpg", old)
    first_version(
        made.out / "manifest.db",
        f"UPDATE images SET path = 'fox/1-1.jpg' WHERE task = {number}",
        f"INSERT INTO events (at, task, image, old, new, why) VALUES (1, {number}, 1, 'missing', 'stored', '')",
    )
    assert made.run().code == 0
    nothing_to_do(made)


def put(path, kind, outside):
    """Something of the user's at a path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "folder":
        path.mkdir()
        (path / "thesis.txt").write_text("mine")
    elif kind == "link":
        outside.write_text("secret")
        path.symlink_to(outside)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(b"my own picture")


def seen(path):
    """What somebody sees at a path."""
    if path.is_symlink():
        return "link", str(path.readlink())
    if path.is_dir():
        return "folder", sorted((one.name, seen(one)) for one in path.iterdir())
    return ("file", path.read_bytes()) if path.is_file() else ("other", "")


@pytest.mark.parametrize("kind", ["folder", "link", "pipe", "picture"])
def test_what_the_user_put_in_the_place_of_a_picture_is_not_moved(made, kind):
    path = made.out / "fox" / "1-1.jpg"
    path.unlink()
    put(path, kind, made.folder / "outside")
    before = seen(path)
    made.edit(*ELSEWHERE)
    done = made.run()
    assert done.code == 3
    assert "fox/1-1.jpg: " in done.err
    assert "the file there is kept" in done.err
    assert seen(path) == before
    assert made.rows("SELECT state FROM images WHERE path = 'fox/1-1.jpg'") == [("missing",)]
    # Its place in the job is free, so it can be had again without touching the other.
    assert made.call("verify").code == 0
    assert "new/fox-1-1.jpg" in made.files()
    assert seen(path) == before
    assert made.call("plan", "--detailed-exitcode").code == 0
    assert len(made.charges()) == 6


@pytest.mark.parametrize("kind", ["folder", "link", "picture"])
def test_nothing_is_bought_for_a_place_where_an_older_picture_was_changed(made, kind):
    path = made.out / "fox" / "1-1.jpg"
    path.unlink()
    put(path, kind, made.folder / "outside")
    before = seen(path)
    made.edit("a fox in the snow", "a fox in the rain")
    done = made.run()
    assert done.code == 8
    assert "fox/1-1.jpg already exists" in " ".join(done.out.split())
    assert len(made.charges()) == 8
    assert seen(path) == before
    done = made.call("prune", "--yes")
    assert done.code == 0
    assert seen(path) == before


@pytest.mark.parametrize("extension", [extension for extension, _ in FORMATS.values()])
def test_a_file_of_any_format_is_seen_before_its_place_is_paid_for(bench, serve, extension):
    serve()
    path = bench.out / "fox" / f"1-1.{extension}"
    put(path, "picture", bench.folder / "outside")
    done = bench.run()
    assert (done.code, path.name in done.out) == (8, True), done
    assert len(bench.charges()) == 5
    assert path.read_bytes() == b"my own picture"


class User:
    """Somebody who uses the output folder as a folder like any other."""

    def __init__(self, bench, random):
        self.bench = bench
        self.random = random
        self.away = {}
        self.own = {}

    def places(self):
        stems = [
            f"{subject}{size}.jpg"
            for subject in ("panda/", "fox/", "new/panda-", "new/fox-")
            for size in ("1-1", "16-9")
        ]
        return [self.bench.out / stem for stem in stems]

    def act(self):
        path = self.random.choice(self.places())
        there = os.path.lexists(path)
        if self.own.pop(path, None) is not None:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            return
        choice = self.random.choice(["put", "take", "delete", "restore"])
        if choice == "restore" and self.away and not there:
            name = self.random.choice(sorted(self.away))
            del self.away[name]
            back(self.bench.folder / name, path)
        elif choice in {"put", "take"} and there:
            name = f"away-{self.random.random()}.jpg"
            path.rename(self.bench.folder / name)
            self.away[name] = path
        elif choice == "delete" and there:
            path.unlink()
        if choice == "put":
            put(path, self.random.choice(["folder", "link", "picture"]), self.bench.folder / "outside")
            self.own[path] = seen(path)

    def goes(self):
        """Takes everything away that the program does not call its own: copies of its pictures, too."""
        stored = set(self.bench.rows("SELECT path, sha256 FROM images WHERE state = 'stored'"))
        for path in [*self.own, *self.bench.files().values()]:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif os.path.lexists(path):
                name = path.relative_to(self.bench.out).as_posix()
                if path.is_symlink() or (name, hashlib.sha256(path.read_bytes()).hexdigest()) not in stored:
                    path.unlink()


@pytest.mark.parametrize("seed", [4, 5, 7, *sorted({*range(30)} - {4, 5, 7})])
def test_whatever_the_user_does_with_the_files(bench, serve, seed):
    serve()
    bench.edit("[1:1, 16:9, 9:16]", "[1:1, 16:9]")
    assert bench.run().code == 0
    user = User(bench, Random(seed))
    layouts = list(ELSEWHERE)
    for _ in range(8):
        for _ in range(user.random.randint(1, 3)):
            user.act()
        if user.random.random() < 0.4:
            bench.edit(*layouts)
            layouts.reverse()
        done = bench.call(*user.random.choice([["run"], ["verify"], ["verify", "--deep"], ["prune", "--yes"]]))
        assert done.code in {0, 3, 8}, done
        assert {path: seen(path) for path in user.own} == user.own
    user.goes()
    for verb in ("verify", "run", "verify", "run"):
        done = bench.call(verb)
    assert done.code == 0, done
    assert bench.call("plan", "--detailed-exitcode").code == 0
    assert bench.rows("SELECT count(*) FROM images WHERE state = 'stored'") == [(4,)]
    assert len(bench.charges()) == 4
    bench.check()


# An earlier picture of the job, put back where the job wants another one


@pytest.fixture
def edited(made):
    """The prompt of the fox was edited after its first pictures were made; one of them is kept at hand."""
    saved = (made.out / "fox" / "1-1.jpg").read_bytes()
    made.edit("a fox in the snow", "a fox in the rain")
    return made, saved


@pytest.mark.parametrize("moment", ["missing", "copied", "while it is made"])
def test_an_earlier_picture_steps_aside(edited, moment):
    made, saved = edited
    place = made.out / "fox" / "1-1.jpg"
    if moment == "missing":
        place.unlink()
        made.edit("a fox in the rain", "a fox in the fog")
        assert made.call("plan").code == 0
        with sqlite3.connect(made.out / "manifest.db") as connection:
            connection.execute("UPDATE images SET state = 'missing', reason = 'gone' WHERE path = 'fox/1-1.jpg'")
    elif moment == "copied":
        assert made.run().code == 0
        made.edit("a fox in the rain", "a fox in the fog")
        with sqlite3.connect(made.out / "manifest.db") as connection:
            connection.execute("UPDATE images SET state = 'missing', reason = 'gone' WHERE path = 'fox/1-1.jpg'")
    else:
        assert made.run("--submit-only").code == 0
        with sqlite3.connect(made.out / "manifest.db") as connection:
            connection.execute("UPDATE images SET state = 'missing', reason = 'gone' WHERE path = 'fox/1-1.jpg'")
    place.write_bytes(saved)
    before = len(made.charges())
    done = made.run()
    assert done.code == 0, done
    assert len(made.charges()) - before == (0 if moment == "while it is made" else 3)
    assert made.states() == {"succeeded": 6}
    assert place.read_bytes() != saved
    aside = [path for name, path in made.files().items() if name.startswith("superseded/fox/1-1")]
    assert saved in [path.read_bytes() for path in aside]
    requests = made.requests()
    assert made.run().code == 0
    assert made.requests() == requests
    made.check()


@pytest.mark.thorough
def test_a_move_to_a_place_with_an_earlier_picture(made):
    saved = (made.out / "fox" / "1-1.jpg").read_bytes()
    target = made.out / "1-1" / "panda.jpg"
    target.parent.mkdir()
    target.write_bytes(saved)
    made.edit('"{{ subject.id }}/{{ size }}"', '"{{ size }}/{{ subject.id }}"')
    assert made.run().code == 0
    assert len(made.files()) == 7
    assert target.read_bytes() != saved
    assert len(made.charges()) == 6
    made.check()


def test_a_file_of_somebody_else_stays(edited):
    made, saved = edited
    place = made.out / "fox" / "1-1.jpg"
    place.write_bytes(saved + b"!")
    done = made.run()
    assert done.code == 8, done
    assert place.read_bytes() == saved + b"!"
