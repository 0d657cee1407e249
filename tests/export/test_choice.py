"""What was kept and rejected in the gallery decides what is exported."""

import hashlib
import json

import pytest


@pytest.fixture
def choose(made):
    """Writes a choice among the images of the job, by their paths; a changed hash behind `!`."""

    def write(keep=(), reject=(), job="test"):
        rows = {
            path: {"fingerprint": fingerprint, "index": index, "sha256": sha256}
            for path, fingerprint, index, sha256 in made.rows(
                'SELECT path, fingerprint, "index", sha256 FROM images JOIN tasks ON tasks.id = task'
            )
        }

        def entry(path):
            if path.startswith("!"):
                return rows[path[1:]] | {"sha256": "0" * 64}
            return rows[path]

        file = made.folder / "choice.json"
        value = {"seedream_batch_choice": 1, "job": job, "keep": [*map(entry, keep)], "reject": [*map(entry, reject)]}
        file.write_text(json.dumps(value))
        return str(file)

    return write


def exported(bench, lines, to="data"):
    return {row["path"].removeprefix("images/") for row in lines(bench.folder / to / "images.jsonl")}


def test_what_was_kept_is_exported(made, choose, export, lines):
    done = export("jsonl", "--choice", choose(keep=["fox/1-1.jpg", "panda/9-16.jpg"], reject=["fox/16-9.jpg"]))
    assert exported(made, lines) == {"fox/1-1.jpg", "panda/9-16.jpg"}
    assert "2 images exported" in done.out
    assert done.err == ""
    for path in ("fox/1-1.jpg", "panda/9-16.jpg"):
        copy = next((made.folder / "data").rglob(path)).read_bytes()
        assert hashlib.sha256(copy).digest() == hashlib.sha256(made.files()[path].read_bytes()).digest()
    marker = json.loads((made.folder / "data" / ".seedream-export.json").read_text())
    assert marker["options"]["choice"] == "choice.json"


def test_without_anything_kept_all_but_the_rejected(made, choose, export, lines):
    export("jsonl", "--choice", choose(reject=["fox/16-9.jpg"]))
    assert exported(made, lines) == {path for path in made.files() if path != "fox/16-9.jpg"}
    done = export("csv", "--choice", choose(), to="all")
    assert "6 images exported" in done.out


def test_what_is_not_stored_does_not_count_where_something_is_kept(made, choose, export):
    made.edit("size: [1:1, 16:9, 9:16]", "size: [1:1, 16:9, 9:16, 4:3]")
    assert "not stored" not in export("jsonl", "--choice", choose(keep=["fox/1-1.jpg"])).err
    assert "2 are not stored" in export("jsonl", "--choice", choose(reject=["fox/1-1.jpg"]), to="rest").err


def test_an_entry_about_another_picture_is_told_and_left_out(made, choose, export, lines):
    done = export("jsonl", "--choice", choose(keep=["fox/1-1.jpg", "!fox/16-9.jpg"]))
    assert exported(made, lines) == {"fox/1-1.jpg"}
    assert "1 image of the choice skipped:\n  image 1 of " in done.err
    assert "regenerated since then" in done.err
    # What came instead of a rejected picture was not rejected.
    done = export("jsonl", "--choice", choose(reject=["fox/1-1.jpg", "!fox/16-9.jpg"]), "--json", to="rest")
    assert exported(made, lines, "rest") == {path for path in made.files() if path != "fox/1-1.jpg"}
    assert len(json.loads(done.out)["left_out_of_the_choice"]) == 1


def test_an_entry_about_an_image_that_the_job_lacks(made, choose, export, lines):
    file = choose(keep=["fox/1-1.jpg", "panda/1-1.jpg"])
    made.edit("    - {id: panda, text: a panda in a bamboo forest}\n", "")
    done = export("jsonl", "--choice", file)
    assert exported(made, lines) == {"fox/1-1.jpg"}
    assert "no such stored image in the job" in done.err


def test_with_a_selection_both_have_to_take_it(made, choose, export, lines):
    file = choose(keep=["fox/1-1.jpg", "panda/1-1.jpg"])
    done = export("jsonl", "--choice", file, "--select", "subject=fox")
    assert exported(made, lines) == {"fox/1-1.jpg"}
    assert done.err == ""


@pytest.mark.parametrize("form", ["imagefolder", "webdataset", "csv"])
def test_every_form_takes_the_same(made, choose, export, form):
    assert made.files()
    assert "1 image exported" in export(form, "--choice", choose(keep=["fox/1-1.jpg"])).out


def test_choices_that_cannot_be_exported(made, choose, export):
    done = export("jsonl", "--choice", choose(keep=["!fox/1-1.jpg"]), code=2)
    assert "nothing to export: the choice contains no stored image" in done.err
    assert "regenerated since then" in done.err
    assert "is a choice for the job 'other'" in export("jsonl", "--choice", choose(job="other"), code=2).err
    assert "name a file exported by the gallery" in export("jsonl", "--choice", "none.json", code=2).err
    assert not (made.folder / "data").exists()
