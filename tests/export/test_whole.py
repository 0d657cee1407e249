"""An export is there whole or not at all, and touches nothing that is not its own."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pages import EVERYTHING

from seedream_batch.cli.commands.export import command
from seedream_batch.cli.help_text import COMMANDS
from seedream_batch.export.dataset import Format
from seedream_batch.files.atomic import WholeFolder


def tree(folder):
    """What is in a folder, hidden names included."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def beside(bench):
    """The names in the folder where exports go, but for those that the job has there."""
    return {path.name for path in bench.folder.iterdir()} - {"job.yaml", "out"}


def words(text):
    return " ".join(text.split())


def test_files_are_linked(made, export):
    export("imagefolder")
    assert all(Path(made.folder / "data" / name).samefile(path) for name, path in made.files().items())
    # And the job goes on with them as before.
    assert made.call("verify").code == 0
    made.edit('path: "{{ subject.id }}/{{ size }}"', 'path: "{{ size }}/{{ subject.id }}"')
    assert made.run().code == 0
    assert "1-1/fox.jpg" in made.files()
    assert (made.folder / "data" / "fox" / "1-1.jpg").is_file()


def test_files_are_copied(made, export):
    export("imagefolder", "--copy")
    for name, path in made.files().items():
        copy = made.folder / "data" / name
        assert copy.read_bytes() == path.read_bytes()
        assert not copy.samefile(path)
    assert json.loads((made.folder / "data" / ".seedream-export.json").read_text())["options"] == {"copy": True}


def test_across_file_systems_files_are_copied(made, export, monkeypatch):
    def refused(*_, **__):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refused)
    export("csv", "--link")
    for name, path in made.files().items():
        copy = made.folder / "data" / "images" / name
        assert copy.read_bytes() == path.read_bytes()
        assert not copy.samefile(path)


def hidden(place, what):
    """A name that an export to a place has while it is not whole, or is being replaced."""
    return WholeFolder(place, ".seedream-export.json", replace=True)._hidden(what)


FORMATS = tuple(Format)


def test_every_format_can_be_given_and_is_described():
    choices = next(option.type.choices for option in command.params if option.name == "form")
    assert tuple(choices) == FORMATS, "cli/commands/export.py"
    for form in FORMATS:
        assert form in COMMANDS["export"], "cli/help_text.py"
        assert f"| `{form}` |" in EVERYTHING, "the table of formats in the documentation"


@pytest.mark.parametrize("form", FORMATS)
def test_files_in_disorder_are_named_and_nothing_is_exported(made, export, form):
    if form == "parquet":
        pytest.importorskip("pyarrow")
    (made.out / "fox" / "1-1.jpg").unlink()
    with (made.out / "panda" / "16-9.jpg").open("ab") as file:
        file.write(b"x")
    (made.out / "panda" / "9-16.jpg").unlink()
    (made.out / "panda" / "9-16.jpg").symlink_to(made.out / "panda" / "1-1.jpg")
    done = export(form, code=8)
    assert "nothing was exported" in done.err
    assert f"{made.out / 'fox' / '1-1.jpg'}: the file was deleted or moved" in done.err
    assert f"{made.out / 'panda' / '16-9.jpg'}: " in done.err
    assert " bytes instead of " in done.err
    assert f"{made.out / 'panda' / '9-16.jpg'}: not a regular file" in done.err
    assert beside(made) == set()


def test_of_many_files_in_disorder_some_are_named(made, export, monkeypatch):
    monkeypatch.setattr("seedream_batch.export.dataset.SHOWN", 2)
    for path in list(made.files().values())[:5]:
        path.unlink()
    told = export("csv", code=8).err.splitlines()
    assert [line.endswith("the file was deleted or moved") for line in told[1:3]] == [True, True]
    assert told[3:] == ["  and 3 more"]


def test_other_bytes_of_the_same_size_are_found_by_their_hash(made, export):
    path = made.out / "fox" / "1-1.jpg"
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    done = export("csv", "--verify", code=8)
    assert f"{path}: the file was changed on disk" in done.err
    assert beside(made) == set()
    export("csv")


def test_a_link_is_not_followed_out_of_the_output_folder(made, export):
    shutil.move(made.out / "fox", made.folder / "elsewhere")
    (made.out / "fox").symlink_to(made.folder / "elsewhere")
    assert "a link in that folder points outside" in export("csv", code=8).err
    assert beside(made) == {"elsewhere"}


@pytest.mark.parametrize("what", ["a file", "a folder", "an empty folder", "a link to an export", "a broken link"])
def test_what_stands_there_is_never_touched(made, export, what):
    place = made.folder / "data"
    if what == "a file":
        place.write_text("mine")
    elif "folder" in what:
        place.mkdir()
        if what == "a folder":
            (place / "mine.txt").write_text("mine")
    else:
        if what == "a link to an export":
            export("csv", to="real")
        place.symlink_to(made.folder / "real")
    before = tree(made.folder)
    for more in ((), ("--replace",)):
        done = export("jsonl", *more, code=2)
        assert "exists and is not an export, so it is not replaced" in words(done.err)
    assert tree(made.folder) == before
    assert place.is_symlink() == ("link" in what)


def test_an_earlier_export_is_replaced_only_if_that_is_said(made, export):
    export("csv")
    assert "add --replace" in words(export("jsonl", code=2).err)
    assert (made.folder / "data" / "images.csv").is_file()
    export("jsonl", "--replace")
    assert not (made.folder / "data" / "images.csv").exists()
    assert (made.folder / "data" / "images.jsonl").is_file()
    assert beside(made) == {"data"}
    about = json.loads((made.folder / "data" / ".seedream-export.json").read_text())
    assert (about["job"], about["format"], about["images"]) == ("test", "jsonl", 6)


def test_an_export_that_fails_leaves_the_earlier_one(made, export):
    export("csv")
    before = tree(made.folder / "data")
    (made.out / "fox" / "1-1.jpg").unlink()
    export("csv", "--replace", code=8)
    assert tree(made.folder / "data") == before
    assert beside(made) == {"data"}


@pytest.mark.parametrize("to", ["out/data", "out/deeper/data"])
def test_the_output_folder_is_no_place_for_it(made, export, to):
    assert "is in the job's output folder" in words(export("csv", to=to, code=2).err)
    assert not (made.out / "deeper").exists()


def test_folders_above_it_are_made(made, export):
    export("csv", to="a/b/data")
    assert (made.folder / "a" / "b" / "data" / "images.csv").is_file()
    assert tree(made.folder / "a" / "b") >= {"data", "data/images.csv"}
    assert {path.name for path in (made.folder / "a" / "b").iterdir()} == {"data"}


@pytest.mark.parametrize("form", FORMATS)
def test_when_a_file_cannot_be_written_nothing_is_left(bench, serve, form):
    if form == "parquet":
        pytest.importorskip("pyarrow")
    serve(image_bytes=100_000)
    assert bench.run().code == 0
    command = [sys.executable, "-m", "seedream_batch", "export", str(bench.job), "--format", form, "--to", "data"]

    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        # More than SQLite needs beside a manifest, and less than an image.
        resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, 70_000))

    copy = [] if form in {"webdataset", "parquet"} else ["--copy"]
    # Python would keep the truncated bytecode of what it imports with this limit.
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*command, *copy], cwd=bench.folder, env=env, preexec_fn=limited, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 8, done
    assert "Traceback" not in done.stderr
    assert "File too large" in done.stderr
    assert beside(bench) == set()


def test_what_a_killed_export_left_is_cleared(made, export):
    left = hidden(made.folder / "data", "making")
    left.mkdir()
    (left / "images.csv").write_text("half")
    others = {hidden(made.folder / "other", "making").name, f"{left.name}.mine", left.name.replace("making", "kept")}
    for name in others:
        (made.folder / name).mkdir()
    export("csv")
    assert beside(made) == {"data", *others}


def test_a_replacement_that_was_cut_off_is_taken_back(made, export):
    export("csv")
    (made.folder / "data").rename(hidden(made.folder / "data", "replaced"))
    assert "add --replace" in words(export("jsonl", code=2).err)
    assert (made.folder / "data" / "images.csv").is_file()
    assert beside(made) == {"data"}
    # Cut off a moment later, the new one is there already, and the old one goes.
    shutil.copytree(made.folder / "data", hidden(made.folder / "data", "replaced"))
    export("jsonl", "--replace")
    assert beside(made) == {"data"}


@pytest.mark.parametrize("form", ["imagefolder", "webdataset"])
def test_a_kill_leaves_all_of_it_or_nothing_that_can_be_seen(bench, serve, export, until, form):
    serve(image_bytes=3_000_000)
    assert bench.run().code == 0
    copy = ["--copy"] if form == "imagefolder" else []
    command = [sys.executable, "-m", "seedream_batch", "export", str(bench.job), "--format", form, "--to", "data"]
    with subprocess.Popen([*command, *copy], cwd=bench.folder, stdout=subprocess.DEVNULL) as process:
        until(lambda: beside(bench))
        process.kill()
    place = bench.folder / "data"
    assert not place.exists() or (place / ".seedream-export.json").is_file()
    export(form, *copy, "--replace")
    assert beside(bench) == {"data"}


def test_a_name_may_be_long(made, export):
    name = "ü" * 127
    export("csv", to=name)
    assert (made.folder / name / "images.csv").is_file()


def test_one_that_is_going_is_left_alone(tmp_path):
    with WholeFolder(tmp_path / "data", "marker", replace=False) as first:
        first.close(first.open("file"))
        with WholeFolder(tmp_path / "data", "marker", replace=False) as second:
            second.keep({})
        assert (tmp_path / "data" / "marker").is_file()
        with pytest.raises(Exception, match="add --replace"):
            first.keep({})
    assert tree(tmp_path) == {"data", "data/marker"}
