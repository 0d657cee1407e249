"""What `report` writes: once, again, beside a run, and never over what is somebody else's."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from seedream_batch.emulator import Emulator, EmulatorConfig
from seedream_batch.report.page import clean, label, script

SMALL = """\
version: 1
name: small
matrix: {subject: [panda, fox], size: [1:1, 16:9]}
request: {prompt: "{{ subject }}"}
output: {dir: "out/small #1 100%"}
"""


@pytest.fixture(scope="module")
def small_once(studio):
    """The same for all tests: a run takes seconds, a copy of its folder does not."""
    made = studio(SMALL)
    assert made.ran[0] == 0, made.ran
    return made


@pytest.fixture
def small(small_once, tmp_path):
    folder = tmp_path / "small"
    shutil.copytree(small_once.folder, folder)
    return type(small_once)(folder, SMALL)


def out(made):
    return made.folder / "out" / "small #1 100%"


def gallery(made):
    return made.folder / "out" / "small #1 100%-report"


def files(folder):
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def data(folder, name):
    """What a script of the gallery hands over."""
    (path,) = folder.glob(f"data/{name}")
    text = path.read_text(encoding="ascii")
    return json.loads("[" + re.fullmatch(r"seedream\.\w+\((.*)\);\n", text)[1] + "]")


def tiles(folder):
    """State and reason of each tile, by its path."""
    found = {}
    for path in folder.glob("data/cells-*.js"):
        for task in data(folder, path.name)[1]["tasks"]:
            found |= {tile[2]: (tile[1], tile[3]) for tile in task[6]}
    return found


def test_it_says_what_it_wrote(postcards, monkeypatch):
    monkeypatch.chdir(postcards.folder)
    code, text = postcards.call("report")
    assert (code, text) == (0, "gallery of 36 cells (33 images): out/postcards-report/index.html\n")
    assert postcards.told | {"thumbnails_made": 0, "index": ""} == {
        "index": "", "cells": 36, "tasks": 36, "images": 33, "thumbnails_made": 0,
    }  # fmt: skip


def test_the_folder_is_whole_and_small(small):
    told = small.report()
    assert told["thumbnails_made"] == 4
    folder = gallery(small)
    assert Path(told["index"]) == folder / "index.html"
    names = set(files(folder))
    assert {"index.html", ".seedream-report", "data/index.js", "assets/main.js", "assets/page.css"} <= names
    thumbs = [path for name, path in files(folder).items() if name.startswith("thumbs/")]
    assert len(thumbs) == 4
    for path in thumbs:
        with Image.open(path) as image:
            assert image.format == "WEBP"
            assert max(image.size) <= 256
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "style=" not in page
    assert not re.search(r"<script(?![^>]*\ssrc=)", page)
    assert not re.search(r"\son\w+=", page)
    assert not re.search(r"https?://", page)
    (index,) = data(folder, "index.js")
    assert index["images"] == "../small%20%231%20100%25/"
    assert (folder / "../small #1 100%").resolve() == out(small).resolve()


def test_again_makes_only_what_is_new(small):
    small.report()
    before = {name: (path.stat().st_ino, path.stat().st_mtime_ns) for name, path in files(gallery(small)).items()}
    assert small.report()["thumbnails_made"] == 0
    after = {name: (path.stat().st_ino, path.stat().st_mtime_ns) for name, path in files(gallery(small)).items()}
    assert {name for name in after if after[name] != before.get(name)} == {"data/index.js"}, "it tells the time"
    thumb = next(path for name, path in files(gallery(small)).items() if name.startswith("thumbs/"))
    thumb.unlink()
    assert small.report()["thumbnails_made"] == 1
    thumb.write_bytes(b"")
    assert small.report()["thumbnails_made"] == 1, "a power cut leaves files without bytes"


def test_chunks_of_before_are_removed(small):
    small.report()
    before = set(files(gallery(small)))
    small.report("--select", "subject=fox")
    after = set(files(gallery(small)))
    assert len([name for name in after if name.startswith("data/")]) == 3
    assert len([name for name in after if name.startswith("thumbs/")]) == 2
    assert not {name for name in after - before if name.startswith("thumbs/")}
    assert set(tiles(gallery(small))) == {"fox/1-1.jpg", "fox/16-9.jpg"}


def test_a_selection_that_fits_nothing_is_told(small):
    assert small.call("report", "--select", "subject=wolf")[0] == 2


def test_files_that_are_gone_or_changed_are_told(small):
    (out(small) / "fox" / "1-1.jpg").unlink()
    (out(small) / "panda" / "1-1.jpg").write_bytes(b"short")
    changed = out(small) / "panda" / "16-9.jpg"
    changed.write_bytes(b"\0" * changed.stat().st_size)
    assert small.report()["images"] == 1
    found = tiles(gallery(small))
    assert found["fox/1-1.jpg"] == (
        "missing",
        "the file was deleted or moved; run `seedream-batch verify`",
    )
    assert found["panda/1-1.jpg"][1].startswith("the file was changed on disk (5 bytes instead of ")
    assert found["panda/16-9.jpg"][1].startswith("the file was changed on disk")
    assert found["fox/16-9.jpg"] == ("stored", "")


def test_what_is_planned_and_in_flight_is_shown(studio):
    made = studio(SMALL, (), "--limit", "3", "--submit-only")
    told = made.report()
    assert (told["cells"], told["images"]) == (4, 0)
    states = sorted(state for state, _ in tiles(gallery(made)).values())
    assert states == ["accepted", "accepted", "accepted", "planned"]


def test_it_works_beside_a_run(small):
    from seedream_batch.manifest.run_lock import run_lock

    with run_lock(out(small)):
        assert small.report()["images"] == 4
    (index,) = data(gallery(small), "index.js")
    assert index["running"] is True


def test_emulated_images_have_a_gallery_of_their_own(small):
    code, text = small.call("report", "--emulate")
    assert code == 2
    assert "has not been run with --emulate" in text
    out(small).rename(out(small).with_name("small #1 100%-emulated"))
    told = small.report("--emulate")
    assert told["index"].endswith("small #1 100%-emulated-report/index.html")
    assert small.report() == told | {"thumbnails_made": 0}, "where there was no other run, that is the one"


def test_a_job_that_was_never_run(studio, tmp_path):
    made = type(studio(SMALL))(tmp_path, SMALL)
    code, text = made.call("report")
    assert code == 2
    assert "has not been run" in text
    assert [path.name for path in tmp_path.iterdir()] == ["job.yaml"]


# What is somebody else's


def test_a_folder_of_somebody_else_is_refused(small, tmp_path):
    other = tmp_path / "mine"
    other.mkdir()
    (other / "index.html").write_text("mine")
    code, text = small.call("report", "--to", other)
    assert code == 2
    assert "is not empty and is not a gallery; nothing was changed" in text
    assert (other / "index.html").read_text() == "mine"
    code, _ = small.call("report", "--to", other / "index.html")
    assert code == 2


@pytest.mark.parametrize("where", [".", "fox/gallery", ".."])
def test_the_folder_of_the_images_is_no_place_for_it(small, where):
    code, text = small.call("report", "--to", out(small) / where)
    assert code == 2
    assert "overlaps with the folder of the images" in text


def test_foreign_files_in_the_gallery_stay(small):
    small.report()
    mine = [
        gallery(small) / name for name in ("notes.txt", "data/mine.js", "thumbs/ab/mine.webp", "thumbs/holiday.webp")
    ]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    small.report()
    assert all(path.read_text() == "mine" for path in mine)


def test_links_are_not_followed_out(small, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    small.report()
    folder = gallery(small)
    for name in ("thumbs", "data", "assets"):
        shutil.rmtree(folder / name)
        (folder / name).symlink_to(outside)
        code, text = small.call("report")
        assert code == 8, text
        assert "points outside" in text
        (folder / name).unlink()
        assert list(outside.iterdir()) == []
        small.report()
    # A link in the place of a file is replaced, and not written through.
    target = outside / "target"
    target.write_text("mine")
    (folder / "index.html").unlink()
    (folder / "index.html").symlink_to(target)
    small.report()
    assert target.read_text() == "mine"
    assert not (folder / "index.html").is_symlink()


def test_images_behind_a_link_are_not_read(small, tmp_path):
    path = out(small) / "fox" / "1-1.jpg"
    path.rename(tmp_path / "outside.jpg")
    path.symlink_to(tmp_path / "outside.jpg")
    assert small.report()["images"] == 3
    assert tiles(gallery(small))["fox/1-1.jpg"][1].startswith("not a regular file")


def test_a_marker_that_is_a_link_is_none(small, tmp_path):
    folder = gallery(small)
    folder.mkdir()
    (folder / ".seedream-report").symlink_to(tmp_path / "elsewhere")
    assert small.call("report")[0] == 2
    assert not (tmp_path / "elsewhere").exists()


def test_one_at_a_time(small):
    from seedream_batch.report.gallery_folder import ReportFolder

    with ReportFolder(gallery(small)):
        code, text = small.call("report")
    assert code == 2
    assert "another `seedream-batch report` is writing" in text
    small.report()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(small, tmp_path):
    tmp_path.chmod(0o500)
    assert small.call("report", "--to", tmp_path / "gallery")[0] == 8


def test_what_a_killed_report_left_is_swept(small):
    small.report()
    part = gallery(small) / "thumbs" / ".seedream-0123456789abcdef.part"
    part.write_bytes(b"half")
    small.report()
    assert not part.exists()


# Several runs, several attempts


def test_the_timeline_counts_every_run_and_what_it_cost(studio):
    made = studio(SMALL, (), "--limit", "1")
    with Emulator(EmulatorConfig(image_size="tiny", task_seconds="fixed:0.05")) as emulator:
        assert made.run(emulator)[0] == 0
    made.report()
    (index,) = data(gallery(made), "index.js")
    assert [run[-1][1:] for run in index["timeline"]] == [[1, 1, 1, 0.035], [4, 4, 4, 0.14]]
    assert index["spent"] == 0.14
    times = [point[0] for run in index["timeline"] for point in run]
    assert times == sorted(times)


# Words


def test_texts_are_fit_for_a_page():
    assert clean("\U0001f3f4\U000e0067\U000e0062\U000e007f") == "\U0001f3f4\U000e0067\U000e0062\U000e007f"
    assert clean("a\x00b\x1b[1m\u202ec\ud800\nd\te") == "a?b?[1m?c?\nd\te".replace("?", "\N{REPLACEMENT CHARACTER}")
    assert clean("\N{WOMAN}\u200d\N{EAR OF RICE}") == "\N{WOMAN}\u200d\N{EAR OF RICE}", "joiners make one of two"
    assert label({"text": "x", "id": 7}) == "7"
    assert label({"name": "a  fox\n"}) == "a fox"
    assert label([1, "a"]) == '[1, "a"]'
    assert label(True) == "true"
    assert len(label("x" * 500)) == 80


def test_scripts_cannot_be_left():
    text = script("cells", 0, "</script><!--\u2028é")
    assert text == b'seedream.cells(0,"\\u003c/script>\\u003c!--\\u2028\\u00e9");\n'


def test_values_that_look_alike_stay_apart():
    from seedream_batch.report.gallery_records import Axes

    axes = Axes()
    assert axes.add({"a": {"id": "x", "n": 1}}, 1) == {0: 0, 1: 0}
    assert axes.add({"a": {"id": "x", "n": 2}}, 1) == {0: 1, 1: 0}
    assert axes.add({"b": 1}, 2) == {2: 0, 1: 1}
    assert axes.as_json() == [
        {"name": "a", "values": ["x", "x (2)"]},
        {"name": "sample", "values": ["1", "2"]},
        {"name": "b", "values": ["1"]},
    ]
