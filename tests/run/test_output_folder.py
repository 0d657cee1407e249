"""Output folders that cannot be: told in a sentence by every command, before anything is bought."""

import json
import os
from pathlib import Path

import pytest


def job(bench, folder, **more):
    output = {"output": {"dir": folder}} if folder is not None else {}
    value = {"version": 1, "matrix": {"a": ["x"]}, "request": {"prompt": "{{ a }}"}, **output, **more}
    bench.write(json.dumps(value, ensure_ascii=False))


def refused(bench, code, *words, verbs=("validate", "plan", "run", "status", "verify", "export")):
    for verb in verbs:
        more = ["--format", "csv", "--to", str(bench.folder / "data")] if verb == "export" else []
        done = bench.call(verb, *more)
        assert done.code == code, (verb, done)
        assert "Traceback" not in done.err
        told = " ".join((done.err + done.out).split())
        assert all(word in told for word in words), (verb, done)
    assert bench.requests() == 0


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("loop/x", ["output.dir", "loop is a link to loop"]),
        ("loop", ["output.dir", "which does not exist"]),
        ("disk/images", ["output.dir", "disk is a link to", "which does not exist"]),
        ("x" * 300, ["output.dir", "300 bytes", "file systems allow 255"]),
        ("fine/" + "ü" * 128, ["output.dir", "256 bytes"]),
        ("a\nb", ["output.dir", "invisible characters"]),
        ("\u202egnp", ["output.dir", "invisible characters"]),
        ("a\u2066b", ["output.dir", "invisible characters"]),
        ("/proc/self", ["output.dir", "system folder"]),
        ("/sys/x", ["output.dir", "system folder"]),
    ],
)
def test_a_folder_that_cannot_be_is_told_by_every_command(bench, serve, folder, words):
    serve()
    (bench.folder / "loop").symlink_to("loop")
    (bench.folder / "disk").symlink_to("/mnt/none/of/these")
    job(bench, folder)
    refused(bench, 2, "job.yaml:1:", *words)


def test_the_folder_that_a_job_has_by_default_is_looked_at_as_well(bench, serve):
    serve()
    (bench.folder / "out").symlink_to("/mnt/none/of/these")
    job(bench, None)
    refused(bench, 2, "output.dir", "out is a link to /mnt/none/of/these")
    assert not Path("/mnt/none").exists()


@pytest.mark.parametrize("folder", ["taken", "taken/below", "/dev/null"])
def test_a_file_where_the_folder_should_be(bench, serve, folder):
    serve()
    (bench.folder / "taken").write_text("mine")
    job(bench, folder)
    refused(bench, 8, "is not a folder", "another output.dir", verbs=["run"])
    assert (bench.folder / "taken").read_text() == "mine"


@pytest.mark.parametrize("folder", ["a\u200db", "fa\u0301milia", "日本 🐼", "-rf", "a:b", "x" * 255])
def test_unusual_names_are_names(bench, serve, folder):
    serve()
    job(bench, folder)
    assert bench.run().code == 0
    bench.out = bench.folder / folder
    assert len(bench.files()) == 1


def test_the_folder_of_a_rehearsal_may_be_too_long(bench, serve):
    serve()
    job(bench, "x" * 250)
    for verb in ("plan", "run", "status"):
        done = bench.call(verb, "--emulate")
        assert (done.code, "Traceback" in done.err) == (8, False), (verb, done)


@pytest.mark.parametrize("to", ["~/data", "$HOME/data", "loop/data", "x" * 300, "taken/data", "a\nb", "/proc/self/x"])
def test_odd_folders_for_exports_and_galleries(bench, serve, to):
    serve()
    assert bench.run("--limit", "1").code == 0
    (bench.folder / "loop").symlink_to("loop")
    (bench.folder / "taken").write_text("mine")
    before = sorted(path.name for path in bench.folder.iterdir())
    for call in (["export", "--format", "csv"], ["report"]):
        done = bench.call(*call, "--to", to)
        assert (done.code in {2, 8}, "Traceback" in done.err) == (True, False), done
        assert done.err.strip()
    assert sorted(path.name for path in bench.folder.iterdir()) == before


@pytest.mark.parametrize("there", ["link", "loop", "fifo", "folder"])
def test_a_manifest_that_is_no_file_buys_nothing_again(bench, serve, there):
    """A link to a disk that is not mounted, or what somebody put there: a new manifest would buy all again."""
    serve()
    job(bench, "images")
    assert bench.call("run").code == 0
    requests = bench.requests()
    manifest = bench.folder / "images" / "manifest.db"
    for file in manifest.parent.iterdir():
        file.unlink()
    if there in {"link", "loop"}:
        manifest.symlink_to("/mnt/none/manifest.db" if there == "link" else "manifest.db")
    elif there == "fifo":
        os.mkfifo(manifest)
    else:
        manifest.mkdir()
    for verb in ("plan", "run", "status", "verify"):
        done = bench.call(verb)
        assert (done.code, "manifest.db" in done.err, "Traceback" in done.err) == (8, True, False), (verb, done)
    assert bench.requests() == requests


def squeezed(done):
    return " ".join((done.err + done.out).split())


def test_images_without_their_manifest_are_explained(bench, serve):
    serve()
    assert bench.run().code == 0
    (bench.out / "manifest.db").unlink()
    done = bench.call("plan")
    assert done.code == 0
    assert "A run would not generate 6 images: unknown files have these paths" in squeezed(done)
    assert f"deleted or not copied along, restore {bench.out / 'manifest.db'}" in squeezed(done)
    assert "a run generates 6 images for about 0.21 USD" in squeezed(done)
    assert "would generate 6 images" not in done.out
    done = bench.run()
    assert done.code == 8
    assert "and 5 more already exist, but the manifest had no images yet" in squeezed(done)
    assert f"restore {bench.out / 'manifest.db'}" in squeezed(done)
    assert "a run generates 6 images for about 0.21 USD" in squeezed(done)
    assert len(bench.charges()) == 6
    # The failed run created a manifest, which has no image either.
    assert "unknown files have these paths" in squeezed(bench.call("plan"))
    assert "6 images: unknown" not in squeezed(bench.call("plan", "--select", "size=1:1"))
    assert "2 images: unknown" in squeezed(bench.call("plan", "--select", "size=1:1"))


def test_a_file_in_the_way_of_a_job_with_images_is_not_a_lost_manifest(bench, serve):
    serve()
    assert bench.run("--select", "subject=panda").code == 0
    for size in ("1-1", "16-9"):
        (bench.out / "fox").mkdir(exist_ok=True)
        (bench.out / "fox" / f"{size}.jpg").write_bytes(b"mine")
    assert "unknown files" not in squeezed(bench.call("plan"))
    done = bench.run()
    assert "and 1 more already exist and are not from this job; move them away" in squeezed(done)
    assert "manifest.db" not in done.err
