"""What is exported, and what each row says."""

import csv
import json
from datetime import UTC, datetime

import pytest
from filelock import FileLock

from seedream_batch.export.columns import converted
from seedream_batch.export.csv_jsonl import harmless
from seedream_batch.export.stored_images import share

COLUMNS = [
    "subject.id", "subject.text", "cell.size", "path", "prompt", "size", "resolution", "width", "height", "format",
    "task_id", "sample", "index", "cost_usd", "sha256", "bytes", "submitted_at", "ended_at", "stored_at",
]  # fmt: skip


def table(bench, to="data", name="images"):
    with (bench.folder / to / f"{name}.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_says_what_the_manifest_says(made, export):
    done = export("csv")
    size = sum(path.stat().st_size for path in made.files().values()) / 1000
    assert done.out == f"test: 6 images exported as csv, {size:.1f} KB\n  in         data\n"
    assert done.err == ""
    rows = table(made)
    assert list(rows[0]) == COLUMNS
    # In the order of the job: the last axis turns fastest.
    assert [row["path"] for row in rows] == [
        f"images/{subject}/{size}.jpg" for subject in ("panda", "fox") for size in ("1-1", "16-9", "9-16")
    ]
    known = made.rows(
        "SELECT images.sha256, images.bytes, images.width, images.height, tasks.cost, json_extract(task_ids, '$[0]'),"
        " submitted_at, ended_at, (SELECT at FROM events WHERE task = tasks.id AND events.new = 'stored')"
        " FROM tasks JOIN images ON images.task = tasks.id ORDER BY tasks.ordinal"
    )
    for row, (sha256, size, width, height, cost, task_id, *times) in zip(rows, known, strict=True):
        assert (row["sha256"], row["bytes"], row["task_id"]) == (sha256, str(size), task_id)
        assert (row["width"], row["height"], float(row["cost_usd"])) == (str(width), str(height), cost / 1e6)
        told = [datetime.fromisoformat(row[name]) for name in ("submitted_at", "ended_at", "stored_at")]
        assert told == [datetime.fromtimestamp(int(time), UTC) for time in times]
        assert (made.folder / "data" / row["path"]).read_bytes() == made.files()[row["path"][7:]].read_bytes()
    assert (rows[3]["subject.id"], rows[3]["prompt"]) == ("fox", "a fox in the snow, watercolour")
    assert (rows[1]["cell.size"], rows[1]["size"], rows[1]["resolution"]) == ("16:9", "16:9", "2K")
    assert (rows[0]["sample"], rows[0]["index"], rows[0]["format"]) == ("1", "1", "jpeg")


def test_lines_of_json_have_the_cell_nested(made, export, lines):
    export("jsonl")
    rows = lines(made.folder / "data" / "images.jsonl")
    assert rows[3]["cell"] == {"subject": {"id": "fox", "text": "a fox in the snow"}, "size": "1:1"}
    assert list(rows[0]) == ["cell", *COLUMNS[3:]]
    assert rows[0]["cost_usd"] == 0.035
    assert (made.folder / "data" / rows[5]["path"]).is_file()


def test_the_summary_for_machines(made, export):
    told = json.loads(export("jsonl", "--json", "--split", "train=0.5,test=0.5").out)
    assert told.pop("bytes") == sum(path.stat().st_size for path in made.files().values())
    counts = {
        name: len((made.folder / "data" / f"{name}.jsonl").read_text().splitlines()) for name in ("train", "test")
    }
    assert told == {
        "format": "jsonl", "to": str(made.folder / "data"), "images": 6, "not_stored": 0, "splits": counts,
        "left_out_of_the_choice": [],
    }  # fmt: skip
    assert sum(counts.values()) == 6


def test_what_is_not_stored_is_told_and_left_out(bench, serve, export):
    serve()
    bench.run("--limit", "4")
    done = export("csv")
    assert done.err == "exporting 4 of 6 images; 2 are not stored\n"
    assert len(table(bench)) == 4
    assert bench.run().code == 0
    (bench.out / "panda" / "1-1.jpg").write_bytes(b"mine")
    assert bench.call("verify").code == 3
    assert export("csv", "--replace", "--json").err == "exporting 5 of 6 images; 1 is not stored\n"
    assert "panda/1-1" not in {row["path"] for row in table(bench)}


def test_nothing_stored_is_an_error(bench, serve, export):
    assert "has not been run" in export("csv", code=2).err
    serve()
    bench.run("--limit", "1", "--submit-only")
    done = export("csv", code=2)
    assert "nothing to export: none of 6 images is stored" in done.err
    assert not (bench.folder / "data").exists()


def test_only_what_the_job_has_now(made, export):
    made.edit("size: [1:1, 16:9, 9:16]", "size: [9:16, 1:1, 4:3]")
    # No run in between: the file says what the job has, and in which order.
    assert export("csv").err == "exporting 4 of 6 images; 2 are not stored\n"
    assert [row["path"] for row in table(made)] == [
        f"images/{subject}/{size}.jpg" for subject in ("panda", "fox") for size in ("9-16", "1-1")
    ]


def test_files_that_wait_to_be_moved_have_the_names_of_the_job(made, export):
    made.edit('path: "{{ subject.id }}/{{ size }}"', 'path: "{{ size }} {{ subject.id }}"')
    export("csv")
    row = table(made)[0]
    assert row["path"] == "images/1-1 panda.jpg"
    assert (made.folder / "data" / row["path"]).read_bytes() == (made.out / "panda" / "1-1.jpg").read_bytes()


def test_some_of_them(made, export):
    export("csv", "--select", "subject=fox", "--select", "size=1:1,16:9")
    assert [row["path"] for row in table(made)] == ["images/fox/1-1.jpg", "images/fox/16-9.jpg"]
    done = export("csv", "--select", "subjct=fox", code=2)
    assert "did you mean `subject`?" in done.err


def test_several_images_of_a_task_share_its_cost(bench, serve, export, picture, lines):
    serve(price_usd=0.0333333)
    (bench.folder / "mug.png").write_bytes(picture(100, 100))
    bench.edit('watercolour"', 'watercolour"\n  image_urls: [mug.png]\n  n: 3')
    bench.edit("size: [1:1, 16:9, 9:16]", "size: [1:1]")
    assert bench.run().code == 0
    export("jsonl")
    rows = lines(bench.folder / "data" / "images.jsonl")
    assert [row["path"] for row in rows[:3]] == [f"images/panda/1-1-{index}.jpg" for index in (1, 2, 3)]
    assert [row["index"] for row in rows] == [1, 2, 3, 1, 2, 3]
    (spent,) = bench.rows("SELECT sum(cost) FROM tasks")[0]
    assert round(sum(row["cost_usd"] for row in rows) * 1e6) == spent


@pytest.mark.parametrize(("cost", "images"), [(100_000, 3), (35_000, 1), (1, 2), (0, 4)])
def test_shares_are_the_whole(cost, images):
    shares = [share(cost, images, index) for index in range(1, images + 1)]
    assert sum(shares) == cost
    assert max(shares) - min(shares) <= 1
    assert share(None, images, 1) is None


def test_a_cell_without_a_value_has_an_empty_one(bench, serve, export, lines):
    serve()
    bench.edit(
        "request:", "include:\n  - {subject: {id: wide, text: hills, tags: [a, b]}, size: 21:9, weight: 2.5}\nrequest:"
    )
    assert bench.run().code == 0
    export("csv")
    rows = table(bench)
    assert [row["weight"] for row in rows] == [""] * 6 + ["2.5"]
    assert [row["subject.tags"] for row in rows] == [""] * 6 + ['["a", "b"]']
    export("jsonl", to="lines")
    assert lines(bench.folder / "lines" / "images.jsonl")[6]["cell"]["subject"]["tags"] == ["a", "b"]


def test_two_columns_with_one_name_are_an_error(bench, serve, export):
    serve()
    bench.edit("{id: panda, text:", "{id: panda, a: {b: 1}, a.b: 2, text:")
    bench.run()
    assert "would share the column `subject.a.b`; rename a key of the axis `subject`" in export("csv", code=2).err
    export("jsonl")


def test_formulas_are_quoted(bench, serve, export):
    serve()
    bench.edit("{id: panda, text: a panda in a bamboo forest}", "{id: panda, text: '=cmd()', n: -5, '@k': '@x'}")
    assert bench.run().code == 0
    export("csv")
    row = table(bench)[0]
    assert (row["subject.text"], row["subject.n"], row["prompt"]) == ("'=cmd()", "-5", "'=cmd(), watercolour")
    assert row["subject.@k"] == "'@x"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_every_start_of_a_formula(start):
    assert harmless(f"{start}1") == f"'{start}1"
    assert harmless(f"1{start}") == f"1{start}"
    assert harmless(-1) == -1


def test_values_of_several_types_share_a_column(bench, serve, export):
    serve()
    bench.edit("{id: panda, text:", "{id: 7, whole: 1, yes: true, big: 99999999999999999999, text:")
    bench.edit("{id: fox, text:", "{id: fox, whole: 1.5, yes: true, big: 1, text:")
    assert bench.run().code == 0
    export("csv")
    first, last = table(bench)[0], table(bench)[-1]
    assert [row["subject.id"] for row in (first, last)] == ["7", "fox"]
    assert [row["subject.whole"] for row in (first, last)] == ["1.0", "1.5"]
    assert first["subject.yes"] == "true"
    assert first["subject.big"] == "99999999999999999999"


def test_conversions():
    assert converted(1, float) == 1.0
    assert converted(True, str) == "true"
    assert converted("1", str) == "1"
    assert converted(None, int) is None


def test_it_works_beside_a_run_and_asks_nothing(made, export, monkeypatch):
    before = made.requests()
    monkeypatch.delenv("APIMART_API_KEY")
    lock = FileLock(made.out / "manifest.lock")
    with lock:
        export("csv")
    assert made.requests() == before
    assert len(table(made)) == 6


@pytest.mark.thorough
def test_it_tells_one_moment_of_a_run_that_is_going(bench, serve, export, until):
    serve(task_seconds="uniform:0.1,1.5")
    with bench.start() as run:
        until(lambda: bench.files() and bench.rows("SELECT 1 FROM images WHERE state = 'stored'"))
        done = export("csv", "--json")
        assert run.wait(60) == 0, run.stderr.read()
    told = json.loads(done.out)
    assert told["images"] + told["not_stored"] == 6
    assert len(table(bench)) == told["images"]
    bench.check()


def test_the_emulated_images(bench, export):
    bench.edit("dir: out", "dir: pictures")
    assert bench.run("--emulate").code == 0
    assert "has not been run yet: " in export("csv", code=2).err
    export("csv", "--emulate")
    exported = bench.folder / "data" / "images" / "fox" / "1-1.jpg"
    assert exported.samefile(bench.folder / "pictures-emulated" / "fox" / "1-1.jpg")


def test_splits_of_a_job(made, export, lines):
    export("jsonl", "--split", "train=0.5,test=0.5", "--group-by", "subject.id")
    sides = {
        name: {row["cell"]["subject"]["id"] for row in lines(made.folder / "data" / f"{name}.jsonl")}
        for name in ("train", "test")
    }
    assert sides == {"train": {"fox"}, "test": {"panda"}}


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--split", "a=1", "--group-by", "subject.ld"), "did you mean `subject.id`?"),
        (("--split", "a=1", "--group-by", "nothing"), "available: subject, subject.id, subject.text, size"),
        (("--split", "a=0.5"), "must add up to 1, not 0.5"),
        (("--group-by", "subject.id"), "needs --split"),
        (("--images", "path"), "--images path works only with --format parquet"),
        (("--shard-size", "5"), "works only with --format webdataset"),
    ],
)
def test_what_makes_no_sense(made, export, args, told):
    assert told in " ".join(export("csv", *args, code=2).err.split())
    assert not (made.folder / "data").exists()


@pytest.mark.usefixtures("made")
def test_links_are_of_no_use_inside_of_other_files(export):
    assert "webdataset stores images inside" in export("webdataset", "--link", code=2).err
    assert "add --images path" in export("parquet", "--copy", code=2).err


def test_a_split_without_images_is_told(made, export):
    done = export("csv", "--split", "train=0.999,test=0.001", "--select", "subject=fox")
    assert "the split test is empty" in done.err
    assert table(made, name="test") == []
    assert len(table(made, name="train")) == 3


def test_splits_far_from_the_requested_ones_are_reported(made, export):
    for wanted in ("50%", "60%"):
        fraction = float(wanted.rstrip("%")) / 100
        done = export("csv", "--split", f"train={fraction},test={1 - fraction:.1f}", to=wanted.rstrip("%"))
        train = len(table(made, name="train", to=wanted.rstrip("%"))) / 6
        assert 0 < train < 1
        assert (f"few groups, so the splits are inexact: train {train:.0%}, not {wanted};" in done.err) == (
            abs(train - fraction) > 0.05
        )
    done = export("csv", "--split", "train=0.9,test=0.1", "--group-by", "subject.id", to="whole")
    assert ("is empty" in done.err) != ("inexact" in done.err)


def test_a_renamed_folder_is_reported(bench, serve, export):
    serve()
    bench.edit("text: a fox in the snow", "text: a train compartment")
    bench.edit('"{{ subject.id }}/{{ size }}"', '"{{ subject.text }}/{{ size }}"')
    assert bench.run().code == 0
    done = export("imagefolder", "--split", "train=1")
    assert (bench.folder / "data" / "train" / "a Train compartment").is_dir()
    assert "renamed a train compartment to a Train compartment" in " ".join(done.err.split())
    assert "renamed" not in export("csv", to="other").err
