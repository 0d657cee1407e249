"""Whatever a job has for values: what was exported is what is read back."""

import csv
import io
import itertools
import json
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from seedream_batch.export.columns import Learner, converted, leaf, leaves
from seedream_batch.export.csv_jsonl import Csv, JsonLines, harmless
from seedream_batch.export.imagefolder import ImageFolder
from seedream_batch.export.parquet import Parquet
from seedream_batch.export.split_layout import Layout
from seedream_batch.export.stored_images import Picture
from seedream_batch.export.webdataset import MIXED, WebDataset
from seedream_batch.export.writer import Plan
from seedream_batch.files.atomic import WholeFolder
from seedream_batch.files.integrity import ExpectedFile
from seedream_batch.files.local_folder import OutputFolder

HARD = [
    "", " ", "007", "1e5", "1.0", "-3", "2024-01-15", "2024-01-15T10:00:00Z", "16:9", "true", "NA", "null", "nan",
    "=1+1", "+1", "@x", "\uff1d1", "\uff0b1", "\uff0d1", "\uff20x", "\ufe661", " =1", "\u200b=1", "\ufeff=1",
    "\t1", "\r", "a\rb", "a\r\nb", "a\nb", "\n", "'", "''", "'=1", '"', '""', ",", ";", "a\x00b", "a\x0bb", "\x85",
    "\u2028", "👩\u200d👩\u200d👧", "\\", "\\n", "ü", "u\u0308", "红色",
]  # fmt: skip

TEXT = st.one_of(st.sampled_from(HARD), st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
VALUES = st.recursive(
    st.one_of(
        TEXT,
        st.booleans(),
        st.none(),
        st.integers(),
        st.sampled_from([2**53 + 1, 2**63, 0.5]),
        st.lists(TEXT, max_size=2),
    ),
    lambda inner: st.dictionaries(st.sampled_from(["id", "ID", "text", "a b", "=k", "x_file_name"]), inner, max_size=3),
    max_leaves=4,
)
CELLS = st.lists(
    st.dictionaries(st.sampled_from(["subject", "Subject", "size", "Path", "mood", "cell"]), VALUES, max_size=3),
    min_size=1,
    max_size=6,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An output folder with a picture."""
    root = tmp_path_factory.mktemp("out")
    Image.new("RGB", (16, 16), "teal").save(root / "one.jpg")
    return OutputFolder(root)


_NUMBERS = itertools.count()


def pictures(folder, cells, endings=(".jpg",)):
    data = folder.read("one.jpg", 10**6)
    recorded = ExpectedFile("one.jpg", len(data), folder.sha256("one.jpg"), 16, 16)
    for number, (cell, ending) in enumerate(zip(cells, itertools.cycle(endings), strict=False)):
        texts = [value for _, value in leaves(cell) if isinstance(value, str)]
        prompt = texts[0] if texts else "p"
        about = {
            "prompt": prompt, "size": "1:1", "resolution": "2K", "width": 16, "height": 16, "format": "jpeg",
            "task_id": "007", "sample": 1, "index": 1, "cost_usd": None if number % 2 else 0.035,
            "sha256": recorded.sha256, "bytes": recorded.bytes, "submitted_at": "2001-09-09T01:46:40Z",
            "ended_at": None, "stored_at": "2001-09-09T01:46:40Z",
        }  # fmt: skip
        yield Picture(recorded, f"p{number}{ending}", cell, prompt, 1, about)


def write(writer, folder, found, *, flat=True, ending=".jpg"):
    """Exports these pictures; the folder and the columns."""
    learner = Learner()
    for picture in found:
        learner.learn(picture)
    columns = learner.columns(flat=flat)
    to = folder.root.parent / f"data-{next(_NUMBERS)}"
    with WholeFolder(to, ".marker", replace=False) as target:
        plan = Plan("job", target, folder, True, columns, Layout.PLAIN, ("",), False, 10**9, ending)
        with writer(plan) as export:
            for picture in found:
                export.add(picture, "")
        target.keep({})
    return to, columns


def text_of(value):
    """A value as csv has it."""
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


@pytest.fixture(scope="module")
def long_fields():
    """The limit of the `csv` module is that of the whole process, and of the parser of axis files, too."""
    before = csv.field_size_limit(10**6)
    yield
    csv.field_size_limit(before)


@pytest.mark.usefixtures("long_fields")
@given(CELLS)
def test_csv(folder, cells):
    found = list(pictures(folder, cells))
    to, columns = write(Csv, folder, found)
    data = (to / "images.csv").read_bytes()
    names, *rows = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    assert [free(name) for name in names] == list(columns.types)
    assert len({name.casefold() for name in names}) == len(names)
    for row, picture in zip(rows, found, strict=True):
        wanted = columns.row(picture, f"images/{picture.path}").values()
        for text, value, kind in zip(row, wanted, columns.types.values(), strict=True):
            assert (free(text) if kind is str else text) == text_of(value)


def free(text):
    """The way back that the README gives."""
    return text.removeprefix("'")


def test_csv_tells_an_empty_text_from_no_value(folder):
    to, _ = write(Csv, folder, list(pictures(folder, [{"a": ""}, {"a": None}, {"a": "x"}])))
    lines = (to / "images.csv").read_bytes().split(b"\n")
    assert [line.partition(b",")[0] for line in lines[1:4]] == [b'""', b"", b"x"]


@pytest.mark.parametrize("sign", list("=+-@\uff1d\uff0b\uff0d\uff20\ufe66"))
@pytest.mark.parametrize("before", ["", " ", "\u3000", "\t", "\r", "\n", "\u200b", "\ufeff", "\u202e", "\x00"])
def test_no_formula_is_left(sign, before):
    assert harmless(f"{before}{sign}1") == f"'{before}{sign}1"


@given(TEXT)
def test_the_guard_can_be_taken_away(text):
    assert free(harmless(text)) == text


@given(CELLS)
def test_json_lines(folder, cells):
    found = list(pictures(folder, cells))
    to, _ = write(JsonLines, folder, found, flat=False)
    lines = (to / "images.jsonl").read_text(encoding="utf-8").split("\n")
    assert [json.loads(line)["cell"] for line in lines[:-1]] == [picture.cell for picture in found]


@given(CELLS)
def test_parquet(folder, cells):
    parquet = pytest.importorskip("pyarrow.parquet")
    found = list(pictures(folder, cells))
    to, columns = write(Parquet, folder, found)
    rows = parquet.read_table(to / "images.parquet").to_pylist()
    assert rows == [columns.row(picture, f"images/{picture.path}") for picture in found]
    for row, picture in zip(rows, found, strict=True):
        for way, value in leaves(picture.cell):
            name = columns.names[way]
            assert row[name] == converted(leaf(value), columns.types[name])
            # No number is rounded.
            assert type(value) is not int or int(row[name]) == value


def shape(value):
    """The keys and types of a value."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        (kind,) = {type(one) for one in value}
        return [kind]
    return type(value)


@given(CELLS)
def test_samples_of_a_webdataset_have_one_shape(folder, cells):
    found = list(pictures(folder, cells, endings=(".jpg", ".png", ".webp")))
    to, columns = write(WebDataset, folder, found, flat=False, ending=MIXED)
    with tarfile.open(to / "job-train-000000.tar") as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
    assert {name.partition(".")[2] for name in members} == {"jpg", "json"}
    rows = [json.loads(data) for name, data in members.items() if name.endswith(".json")]
    assert all(shape(row) == shape(rows[0]) for row in rows)
    assert type(None) not in map(type, (value for row in rows for _, value in leaves(row)))
    uniform = len({json.dumps(shape_of_job(cell)) for cell in cells}) == 1 and not columns.gappy & {
        *columns.names.values()
    }
    if uniform and not columns.shapeless:
        for row, cell in zip(rows, cells, strict=True):
            plain = {way: value for way, value in leaves(cell) if not isinstance(value, list | dict)}
            kept = dict(leaves(row["cell"]))
            assert all(str(kept[way]) == str(converted(value, type(kept[way]))) for way, value in plain.items())


def shape_of_job(value):
    if isinstance(value, dict):
        return {key: shape_of_job(inner) for key, inner in value.items()}
    return type(value).__name__


ODD = [
    {"subject": {"id": "007", "day": "2024-01-15", "note": "\n"}, "Subject": "x", "level": 1},
    {"subject": {"id": "008", "day": "2024-01-16", "note": ""}, "Subject": "=x", "level": 2},
] * 3
"""More than the five samples by which readers infer types."""
LATE = [
    {"subject": {"id": "owl", "tags": ["a"], "day": "2024-01-17"}, "Subject": "y", "level": 1.5, "extra": "only here"}
]


@pytest.fixture
def load(tmp_path):
    datasets = pytest.importorskip("datasets")
    return lambda form, **where: datasets.load_dataset(form, cache_dir=str(tmp_path / "cache"), **where)["train"]


def test_texts_like_dates_in_an_image_folder(folder, load):
    found = list(pictures(folder, ODD + LATE))
    to, columns = write(ImageFolder, folder, found)
    assert not (to / "metadata.jsonl").exists()
    rows = load("imagefolder", data_dir=str(to))
    assert rows["subject.day"] == [picture.cell["subject"]["day"] for picture in found]
    assert rows["subject.id"][:2] == ["007", "008"]
    assert rows["Subject"][:2] == ["x", "=x"]
    assert rows["level"][-1] == 1.5
    assert rows["extra"][-1] == "only here"
    assert rows["submitted_at"][0] == "2001-09-09T01:46:40Z"
    assert columns.dated


def test_samples_that_come_late_in_a_webdataset_lose_nothing(folder, load):
    found = list(pictures(folder, ODD + LATE, endings=(".png", ".jpg")))
    to, _ = write(WebDataset, folder, found, flat=False, ending=MIXED)
    rows = load("webdataset", data_files=str(to / "*.tar"))
    cells = [row["json"]["cell"] for row in rows]
    assert [cell["subject"]["day"] for cell in cells] == [picture.cell["subject"]["day"] for picture in found]
    assert (cells[-1]["level"], cells[-1]["extra"], cells[-1]["subject"]["tags"]) == (1.5, "only here", '["a"]')
    assert rows[0]["jpg"].size == (16, 16)


def test_a_csv_in_datasets_and_pandas(folder, load):
    pandas = pytest.importorskip("pandas")
    texts = [*HARD, "x" * 200_000]
    found = list(pictures(folder, [{"a": text} for text in texts]))
    to, _ = write(Csv, folder, found)
    read = pandas.read_csv(to / "images.csv", dtype=str, keep_default_na=False)
    assert next(iter(read.columns)) == "a"
    assert [free(text) for text in read["a"]] == texts
    rows = load("csv", data_files=str(to / "images.csv"), keep_default_na=False)
    assert [free(text) for text in rows["a"]] == texts
