"""Each format, read by the library that it is for."""

import builtins
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from seedream_batch.export.split_layout import unmistakable
from seedream_batch.export.webdataset import sample_name


@pytest.fixture
def load(tmp_path):
    """`datasets.load_dataset` with a cache of its own."""
    datasets = pytest.importorskip("datasets")

    def load(form, **where):
        return datasets.load_dataset(form, cache_dir=str(tmp_path / "cache"), **where)

    return load


def contents(folder):
    """The bytes of all files in a folder, by name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def same_pixels(bench, row, stem):
    from PIL import Image

    with Image.open(bench.out / f"{stem}.jpg") as image:
        assert row["image"].tobytes() == image.tobytes()


def test_an_image_folder(made, export, load):
    export("imagefolder")
    assert set(contents(made.folder / "data")) == {*made.files(), "metadata.jsonl", ".seedream-export.json"}
    loaded = load("imagefolder", data_dir=str(made.folder / "data"))
    assert {name: len(rows) for name, rows in loaded.items()} == {"train": 6}
    row = loaded["train"][3]
    assert (row["subject.id"], row["cell.size"], row["prompt"]) == ("fox", "1:1", "a fox in the snow, watercolour")
    same_pixels(made, row, "fox/1-1")
    assert row["image"].size == (row["width"], row["height"])


def test_an_image_folder_with_splits(made, export, load):
    export("imagefolder", "--split", "train=0.5,test=0.5", "--group-by", "subject.id")
    assert (made.folder / "data" / "train" / "fox" / "1-1.jpg").is_file()
    loaded = load("imagefolder", data_dir=str(made.folder / "data"))
    assert {name: set(rows["subject.id"]) for name, rows in loaded.items()} == {"train": {"fox"}, "test": {"panda"}}
    same_pixels(made, loaded["test"][1], "panda/16-9")


def test_paths_that_begin_with_a_split(bench, serve, export, load):
    serve()
    bench.edit('path: "{{ subject.id }}/', "path: \"{{ 'test' if subject.id == 'fox' else 'train' }}/{{ subject.id }}/")
    assert bench.run().code == 0
    done = export("imagefolder")
    assert done.out.splitlines()[1:3] == ["  train      3 images", "  test       3 images"]
    loaded = load("imagefolder", data_dir=str(bench.folder / "data"))
    assert {name: set(rows["subject.id"]) for name, rows in loaded.items()} == {"train": {"panda"}, "test": {"fox"}}
    assert (bench.folder / "data" / "test" / "fox" / "1-1.jpg").is_file()
    # Split another way, no image is in two splits.
    export("imagefolder", "--split", "train=0.5,test=0.5", "--group-by", "size", to="other")
    loaded = load("imagefolder", data_dir=str(bench.folder / "other"))
    sides = {name: set(rows["cell.size"]) for name, rows in loaded.items()}
    assert sorted(map(len, loaded.values())) == [2, 4]
    assert not sides["train"] & sides["test"]


@pytest.mark.parametrize("path", ["dev/{{ subject.id }} {{ size }}", "{{ subject.id }}/{{ size }} test"])
def test_paths_that_only_look_like_a_split(bench, serve, export, load, path):
    serve()
    bench.edit('path: "{{ subject.id }}/{{ size }}"', f'path: "{path}"')
    if path.startswith("dev"):
        bench.edit('path: "dev', "path: \"{{ 'dev' if subject.id == 'fox' else 'prod' }}")
    assert bench.run().code == 0
    export("imagefolder")
    loaded = load("imagefolder", data_dir=str(bench.folder / "data"))
    assert {name: len(rows) for name, rows in loaded.items()} == {"train": 6}
    assert "prompt" in loaded["train"].column_names


def test_gaps_do_not_trouble_the_loader(bench, serve, export, load):
    serve()
    bench.edit("{id: panda, text:", "{id: panda, place: china, weight: 110.5, text:")
    bench.edit("{id: fox, text:", "{id: fox, legs: 4, old_file_name: a.jpg, text:")
    assert bench.run().code == 0
    export("imagefolder", "--split", "train=0.5,test=0.5", "--group-by", "subject.id")
    loaded = load("imagefolder", data_dir=str(bench.folder / "data"))
    found = {name: rows[0] for name, rows in loaded.items()}
    names = ("subject.place", "subject.weight", "subject.legs")
    assert [found["test"][name] for name in names] == ["china", "110.5", ""]
    assert [found["train"][name] for name in names] == ["", "", "4"]
    # Else the loader would open a file of that name.
    assert found["train"]["subject.old_file_name_"] == "a.jpg"


@pytest.mark.usefixtures("made")
def test_an_image_folder_has_no_other_splits(export):
    assert "an imagefolder has the splits train, validation" in export("imagefolder", "--split", "a=1", code=2).err
    done = export("imagefolder", "--split", "train=0.5,dev=0.2,val=0.3", code=2)
    assert "reads it and `dev` as the same split, validation" in " ".join(done.err.split())


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("test/a.jpg", "Test/a.jpg"),
        ("my-train_2/dev/test.jpg", "my-Train_2/Dev/test.jpg"),
        ("training.v2/x.jpg", "Training.v2/x.jpg"),
        ("latest/contest/Test/device/x.jpg", "latest/contest/Test/device/x.jpg"),
    ],
)
def test_folders_that_are_no_split(path, told):
    assert unmistakable(path) == told


READ = """
import hashlib, json, sys, webdataset
raw = list(webdataset.WebDataset(sys.argv[1], shardshuffle=False))
for one, seen in zip(raw, webdataset.WebDataset(sys.argv[1], shardshuffle=False).decode("pil"), strict=True):
    told = {"key": one["__key__"], "sha256": hashlib.sha256(one["jpg"]).hexdigest(), "row": json.loads(one["json"])}
    print(json.dumps({**told, "size": seen["jpg"].size}))
"""


@pytest.fixture
def read():
    """The samples of a shard. In a process of its own: the library leaves files open, which is an error here."""
    pytest.importorskip("webdataset")

    def read(shard):
        command = [sys.executable, "-c", READ, str(shard)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return read


def test_a_webdataset(made, export, read):
    export("webdataset")
    samples = read(made.folder / "data" / "test-train-000000.tar")
    assert [sample["key"] for sample in samples] == [
        f"{subject}/{size}" for subject in ("panda", "fox") for size in ("1-1", "16-9", "9-16")
    ]
    for sample in samples:
        row = sample["row"]
        assert sample["sha256"] == row["sha256"]
        assert sample["size"] == [row["width"], row["height"]]
        assert row["path"] == f"{sample['key']}.jpg"
    assert samples[3]["row"]["cell"]["subject"]["id"] == "fox"


def test_shards_are_no_larger_than_told(made, export):
    whole = 2 * 10_240  # two records, what a tar file is measured in
    export("webdataset", "--shard-size", str(whole), "--split", "train=0.5,test=0.5")
    shards = sorted((made.folder / "data").glob("*.tar"))
    assert all(shard.stat().st_size <= whole for shard in shards)
    assert len(shards) > 2
    for name in ("train", "test"):
        mine = [shard.name for shard in shards if f"-{name}-" in shard.name]
        assert mine == [f"test-{name}-{number:06d}.tar" for number in range(len(mine))]
    members = []
    for shard in shards:
        with tarfile.open(shard) as tar:
            for member in tar:
                members.append(member.name)
                assert (member.mtime, member.uid, member.gid, member.uname, member.mode) == (0, 0, 0, "", 0o644)
    assert sorted(name for name in members if name.endswith(".jpg")) == sorted(made.files())
    # A sample that is larger than a shard has one of its own.
    export("webdataset", "--shard-size", "1", to="tiny")
    assert len(list((made.folder / "tiny").glob("*.tar"))) == 6


def test_shards_are_the_same_again(made, export):
    export("webdataset", "--split", "train=0.5,test=0.5")
    export("webdataset", "--split", "train=0.5,test=0.5", to="again")
    assert contents(made.folder / "data") == contents(made.folder / "again")


def test_names_with_dots_and_foreign_letters(bench, serve, export, read):
    serve()
    long = "w" * 150
    bench.edit('path: "{{ subject.id }}/{{ size }}"', f'path: "v1.5/{{{{ size }}}}.{{{{ subject.id }}}} Füchse {long}"')
    assert bench.run().code == 0
    export("webdataset")
    samples = read(bench.folder / "data" / "test-train-000000.tar")
    assert len(samples) == 6
    assert samples[0]["key"] == f"v1.5/1-1%2Epanda Füchse {long}"


def test_no_two_names_become_one():
    names = ["a/b.c.jpg", "a/b%2Ec.jpg", "a/b%252Ec.jpg", "a/b-c.png", "b.c.jpg"]
    found = [sample_name(name) for name in names]
    assert len(set(found)) == len(names)
    assert found[0] == ("a/b%2Ec", ".jpg")


def test_a_parquet_file_with_images(made, export, load):
    parquet = pytest.importorskip("pyarrow.parquet")
    export("parquet", "--split", "train=0.5,test=0.5", "--group-by", "subject.id")
    files = {name: str(made.folder / "data" / f"{name}.parquet") for name in ("train", "test")}
    loaded = load("parquet", data_files=files)
    assert {name: set(rows["subject.id"]) for name, rows in loaded.items()} == {"train": {"fox"}, "test": {"panda"}}
    same_pixels(made, loaded["train"][2], "fox/9-16")
    for row in parquet.read_table(files["test"]).to_pylist():
        assert row["image"]["path"] == row["path"]
        assert row["image"]["bytes"] == made.files()[row["path"]].read_bytes()
        assert row["cost_usd"] == 0.035


def test_a_parquet_file_beside_its_images(made, export):
    parquet = pytest.importorskip("pyarrow.parquet")
    export("parquet", "--images", "path")
    table = parquet.read_table(made.folder / "data" / "images.parquet")
    assert "image" not in table.column_names
    for row in table.to_pylist():
        assert Path(made.folder / "data" / row["path"]).samefile(made.out / row["path"][7:])


def test_row_groups_are_bounded(made, export, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("seedream_batch.export.parquet.GROUP_BYTES", 1)
    export("parquet")
    monkeypatch.undo()
    file = parquet.ParquetFile(made.folder / "data" / "images.parquet")
    assert (file.num_row_groups, file.metadata.num_rows) == (6, 6)


def test_a_split_without_images_has_an_empty_file(made, export):
    parquet = pytest.importorskip("pyarrow.parquet")
    export("parquet", "--split", "train=0.999,test=0.001")
    assert parquet.read_table(made.folder / "data" / "test.parquet").num_rows == 0


def test_without_pyarrow_it_is_named(made, export, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.partition(".")[0] == "pyarrow":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    done = export("parquet", code=2)
    assert "pip install 'seedream-batch[parquet]'" in done.err
    assert not (made.folder / "data").exists()
