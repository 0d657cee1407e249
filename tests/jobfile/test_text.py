"""Text means the same whatever format, checkout and version it comes from, or is refused where it stands."""

# ruff: noqa: E501, RUF001 - rows of examples, and signs that are meant

from __future__ import annotations

import csv
import io
import json
from contextlib import closing

import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from seedream_batch.document.tables import parse_table
from seedream_batch.errors import InvalidJob
from seedream_batch.manifest import Manifest
from seedream_batch.manifest.sync_job import SyncResult, known_as
from seedream_batch.model.task import TaskSpec, TaskState
from seedream_batch.model.text import CONTROL, normal, plain_value

CONTROLS = [chr(code) for code in range(32) if CONTROL.match(chr(code))]
ANY = st.text(st.characters(codec="utf-8", exclude_characters=CONTROLS), max_size=12)
LINE = st.text(st.characters(codec="utf-8", exclude_characters=[*CONTROLS, "\n", "\r"]), max_size=12)
FAMILY = "👨\u200d👩\u200d👧 family"
FLAG = "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
MARKS = st.sampled_from(
    ["\u200b", "\ufeff", "\u00ad", "\u202e", "\u00a0", "\u3000", " ", "\t", "\u200d", "a", "狐", "#", '"', "\\"]
)
TEXTS = st.lists(st.one_of(LINE, st.lists(MARKS, max_size=8).map("".join)), min_size=1, max_size=6)
JOB = {"version": 1, "matrix": {"subject": {"file": ""}}, "request": {"prompt": "{{ subject.text }}, watercolour"}}


def csv_text(texts, **options):
    stream = io.StringIO()
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\n", **options)
    writer.writerows([["text"], *([text] for text in texts)])
    return stream.getvalue()


def yaml_text(text):
    """The text in double quotes; YAML folds its own line breaks there unless they are escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x85", "\\N").replace("\u2028", "\\L").replace("\u2029", "\\P")


@settings(max_examples=examples(300))
@given(TEXTS)
def test_the_same_texts_are_the_same_values_in_every_format(texts):
    wanted = [text for text in map(plain_value, texts) if text]
    files = {
        "x.csv": csv_text(texts),
        "x.json": json.dumps(texts),
        "x.jsonl": "\n".join(json.dumps(text) for text in texts),
        "x.yaml": "\n".join(f"- {yaml_text(text)}" for text in texts),
        # A # at the start of a line of a txt file has to be told from a comment.
        "x.txt": "\n".join("\\" + plain_value(text) if _starts_with_a_hash(text) else text for text in texts),
    }
    if not any("\t" in text for text in texts):
        files["x.tsv"] = csv_text(texts, delimiter="\t")
    for name, text in files.items():
        if not wanted:
            with pytest.raises(InvalidJob, match="no values"):
                parse_table(text.encode(), name)
            continue
        values = parse_table(text.encode(), name).values
        assert [value["text"] if isinstance(value, dict) else value for value in values] == wanted, name


def _starts_with_a_hash(text):
    return plain_value(text).lstrip("\\").startswith("#")


@settings(max_examples=examples(60))
@given(st.lists(ANY.filter(lambda text: plain_value(text) != ""), min_size=1, max_size=4, unique_by=plain_value))
def test_other_line_ends_are_the_same_tasks(tasks, texts):
    job = {**JOB, "matrix": {"subject": {"file": "s.csv"}}, "request": {"prompt": {"file": "p.j2"}}, "repeat": 1}
    table, prompt = csv_text(texts), "{{ subject.text }},\nwater\n\ncolour\n"
    made = []
    for ends in ("\n", "\r\n", "\r"):
        files = {"s.csv": table.replace("\r\n", "\n").replace("\n", ends), "p.j2": prompt.replace("\n", ends)}
        made.append([(spec.fingerprint, spec.body) for spec in tasks(job, files)])
    assert made[0] == made[1] == made[2]


def test_a_job_with_other_line_ends_is_the_same(tasks):
    job = (
        "version: 1\nmatrix:\n  a: [x]\n  b: {file: b.txt}\nrequest:\n  prompt: |\n    one {{ a }}\n\n    two {{ b }}\n"
    )
    files = {"b.txt": "fox\nhare\n"}
    plain = [spec.fingerprint for spec in tasks(job, files)]
    assert [spec.fingerprint for spec in tasks(job.replace("\n", "\r\n"), {"b.txt": "\ufefffox\r\nhare"})] == plain


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("s.csv", "id,text\r\nfox,a fox\r\n,\r\n , \r\n,,,\r\n", [{"id": "fox", "text": "a fox"}]),
        ("s.csv", "id,text\nfox,\n", [{"id": "fox", "text": ""}]),
        ("s.tsv", "id\ttext\nfox\ta fox\n\t\n", [{"id": "fox", "text": "a fox"}]),
        ("s.jsonl", '"fox"\n""\nnull\n{"id": "", "text": " "}\n0\nfalse\n', ["fox", 0, False]),
        ("s.json", '["fox", "\\u200b", {}, {"a": [""]}]', ["fox"]),
        ("s.yaml", "- fox\n- ''\n- ~\n- {id: '', text: }\n", ["fox"]),
        ("s.txt", "# animals, CC0\na fox\n#\n## more\n# a wolf\n\\#1 fan\n\\\\# two\n", ["a fox", "#1 fan", "\\# two"]),
        ("s.csv", "id;text\r\nfox;a fox, asleep\r\n", [{"id": "fox", "text": "a fox, asleep"}]),
        ("s.csv", '"id";"text"\n1;"a; b"\n', [{"id": "1", "text": "a; b"}]),
        ("s.csv", "sep=;\r\nid;text\r\nfox;a fox\r\n", [{"id": "fox", "text": "a fox"}]),
        ("s.csv", "SEP=|\nid|text\nfox|a, fox\n", [{"id": "fox", "text": "a, fox"}]),
        ("s.csv", "id\ttext\nfox\ta fox\n", [{"id": "fox", "text": "a fox"}]),
        ("s.csv", '\ufeff\ufeffid,text\n"# one",a\n#ff0000,b\n', [{"id": "# one", "text": "a"}, {"id": "#ff0000", "text": "b"}]),
        (
            "s.tsv",
            'id\ttext\na\t"Open sign over a door\nb\ta fox\nc\tletters that say Bar"\nd\t"a ""big"" fox, asleep"\n',
            [
                {"id": "a", "text": '"Open sign over a door'},
                {"id": "b", "text": "a fox"},
                {"id": "c", "text": 'letters that say Bar"'},
                {"id": "d", "text": 'a "big" fox, asleep'},
            ],
        ),
        ("s.txt", FAMILY + "\nab\u200ccd\n" + FLAG, [FAMILY, "ab\u200ccd", FLAG]),
        ("s.txt", "a\u200b fox\u00a0\n\u3000狐狸，一\n", ["a fox", "狐狸，一"]),
    ],
)  # fmt: skip
def test_what_is_read(name, text, values):
    assert parse_table(text.encode(), name).values == values


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("s.txt", "a fox\n#a wolf\n", "s.txt:2:1: a comment or a value?"),
        ("s.csv", "id,text\n# a wolf,off\n", "s.csv:2:1: this row starts with #"),
        ("s.tsv", "id\ttext\n# a wolf\toff\n", "s.tsv:2:1: this row starts with #"),
        ("s.csv", "id，text\n1，fox\n", "s.csv:1:3: the columns are separated by ， (U+FF0C)"),
        ("s.csv", "id|text\n1|fox\n", "s.csv:1:3: the columns are separated by | (U+007C)"),
        ("s.tsv", "id,text\n1,fox\n", "s.tsv:1:1: the columns are separated by ,"),
        ("s.csv", "id,text\n1，fox\n", "is ， (U+FF0C) meant as a separator?"),
        ("s.csv", "sep=x\nidxtext\n", "s.csv:1:1: 'x' is not a supported separator"),
        ("s.tsv", 'id\ttext\n1\t"one\ntwo"\n', "s.tsv:3:1: the row has 1 fields, but the header has 2"),
        ("s.csv", 'id,text\n1,a\n2,"open\n3,b\n', "s.csv:3:3: a quote is never closed"),
        ("s.csv", 'id,text\n1,"open\n2,"b"\n', "s.csv:2:3: there is text after a closing quote"),
        ("s.csv", 'id,text\n1,"' + "x" * 200_000 + "\n", "s.csv:2:3: a field that starts here is longer than 131,072"),
        ("s.txt", "a fox\na\x07b\n", "s.txt:2:2: the control character U+0007 is not allowed"),
        ("s.jsonl", '"a\\u001bb"', "s.jsonl:1:1: the control character U+001B is not allowed"),
        ("s.yaml", '- fox\n- "a\\ab"', "s.yaml:2:3: the control character U+0007 is not allowed"),
        ("s.txt", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS pointer"),
        ("s.csv", "a\n<<<<<<< HEAD\nb\n=======\nc\n>>>>>>> x\n", "s.csv:2:1: unresolved merge conflict"),
        ("s.csv", "<!DOCTYPE html>\n<html>", "the file is a web page"),
        ("s.csv", "PK\x03\x04", "the file is a workbook"),
        ("s.csv", ",".join(f"c{number}" for number in range(1001)), "has 1,001 columns"),
        ("s.txt", "b\n" * 5_000_001, "may contain more than 5,000,000 values"),
    ],
)  # fmt: skip
def test_what_is_refused_and_where(name, text, told):
    with pytest.raises(InvalidJob) as caught:
        parse_table(text.encode(), name)
    assert told in str(caught.value)


def test_no_file_has_more_problems_than_anybody_reads():
    for name, text in [("s.csv", "a,b\n" + "1\n" * 5000), ("s.jsonl", "x\n" * 5000), ("s.txt", "\x07\n" * 5000), ("s.yaml", "- {a: 1, a: 2}\n" * 5000)]:  # fmt: skip
        with pytest.raises(InvalidJob) as caught:
            parse_table(text.encode(), name)
        assert 100 <= len(caught.value.problems) <= 101


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ("matrix: {a: [3.9, 3.10]}\nrequest: {prompt: 'v{{ a }}'}", "2:19: matrix.a: 3.10 is a number, which the prompt shows as 3.1"),
        ("matrix: {a: [{n: 007}]}\nrequest: {prompt: 'v{{ a.n }}'}", "007 is a number, which the prompt shows as 7"),
        ("matrix: {a: [x]}\nvars: {n: 0x1F}\nrequest: {prompt: '{{ a }} {{ n }}'}", "vars.n: 0x1F is a number, which the prompt shows as 31"),
        ("matrix: {a: [x]}\ninclude: [{a: 1e3}]\nrequest: {prompt: 'v{{ a }}'}", "1e3 is a number, which the prompt shows as 1000.0"),
        ("matrix: {a: {file: n.jsonl}}\nrequest: {prompt: 'v{{ a }}'}", "n.jsonl:2:1: matrix.a: 1.50 is a number, which the prompt shows as 1.5"),
        ("matrix: {a: ['at night ', x]}\nrequest: {prompt: 'a fox {{ a }}by'}", "a value of `a` has white space around it"),
        ("matrix:\n  a: [“fox”]\nrequest: {prompt: '{{ a }}'}", '3:7: matrix.a[0]: “ (U+201C) is not a " in YAML'),
        ("matrix:\n  a: [狐，兔]\nrequest: {prompt: '{{ a }}'}", "3:8: matrix.a[0]: ， (U+FF0C) is not a , in YAML"),
        ("matrix：\n  a: [fox]\nrequest: {prompt: '{{ a }}'}", "2:7: not YAML: ： (U+FF1A) is not a : in YAML"),
        ("matrix:\n\u3000 a: [fox]\nrequest: {prompt: fox}", "3:1: the key contains the invisible character U+3000"),
        ("matrix: {a: [fox]}\nrequest:\n  prompt：fox", 'request: must be a mapping, got "prompt：fox" (：'),
        ('matrix: {a: [fox]}\nrequest: {prompt: "{{ a }}\\a"}', "the prompt has the control character U+0007"),
        ("matrix: {a: {file: twice.txt}}\nrequest: {prompt: '{{ a }}'}", "a=a fox (twice.txt:1), and a=a fox (twice.txt:3)"),
    ],
)  # fmt: skip
def test_what_a_job_says_that_cannot_be_meant(told, job, said):
    files = {"n.jsonl": "1.5\n1.50\n", "twice.txt": "a fox\na hare\na fox\n"}
    assert any(said in problem for problem in told("version: 1\n" + job, files)), told("version: 1\n" + job, files)


@pytest.mark.parametrize(
    "job",
    [
        "matrix: {a: [3.10, 007]}\nrequest: {prompt: 'a fox{% if a > 5 %} again{% endif %}', n: 1}",
        "matrix: {a: [007, 8]}\nrequest: {prompt: \"{{ '%03d' % a }}\"}",
        "matrix: {a: ['3.10', 1.5, 2]}\nrequest: {prompt: '{{ a }}'}",
        "matrix: {a: [x, y]}\nvars: {n: 1.50}\nrequest: {prompt: '{{ a }}'}",
        "matrix: {a: ['“fox”', '狐，兔', {text: 一只熊猫，水彩}]}\nrequest: {prompt: '{{ a.text if a is mapping else a }}'}",
        "matrix: {a: ['fox ', '  hare']}\nrequest: {prompt: '{{ a }}, by the sea'}",
    ],
)  # fmt: skip
def test_what_may_be_meant_is_no_mistake(tasks, job):
    assert tasks("version: 1\n" + job)


OLD = ["a fox \u200b", "a hare\u00a0", "a wolf\u2028asleep", "an owl,\r\nawake"]


def earlier(spec):
    """The task as the version made it that sent texts as they stood."""
    (body, fingerprint) = spec.earlier[-1]
    fields = {name: getattr(spec, name) for name in TaskSpec.__slots__}
    return TaskSpec(**{**fields, "body": body, "fingerprint": fingerprint})


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_what_an_earlier_version_bought_is_known_again_and_stays_known(tmp_path, tasks, ends):
    job = {**JOB, "matrix": {"subject": {"file": "s.csv"}}}
    specs = tasks(job, {"s.csv": csv_text(OLD).replace("\r\n", "\n").replace("\n", ends)})
    bought = [json.loads(earlier(spec).body)["prompt"] for spec in specs]
    assert bought == [f"{text}, watercolour" for text in OLD], "as the earlier version sent it"
    with closing(Manifest(tmp_path / "manifest.db")) as manifest:
        assert manifest.sync_job([earlier(spec) for spec in specs], 1.0) == SyncResult(new=4)
        assert manifest.sync_job(specs, 2.0) == SyncResult(known=4)
        clean = tasks(job, {"s.csv": csv_text([normal(text) for text in OLD])})
        assert manifest.sync_job(clean, 3.0) == SyncResult(known=4), "also when the file is tidied up"


def test_a_plan_and_an_export_know_it_before_the_next_run(tmp_path, tasks):
    specs = tasks({**JOB, "matrix": {"subject": {"file": "s.csv"}}}, {"s.csv": csv_text(OLD)})
    with closing(Manifest(tmp_path / "manifest.db")) as manifest:
        manifest.sync_job([earlier(spec) for spec in specs], 1.0)
        there = {earlier(spec).fingerprint for spec in specs}
        looked_up = known_as(specs, there.intersection)
        assert {spec.fingerprint for spec in looked_up} == there
        assert [spec.earlier for spec in looked_up] == [()] * 4
        assert manifest.sync_job(specs, 2.0) == SyncResult(known=4)
        # Nothing was sent for them: so they are sent as they are read now.
        assert [task.body for task in manifest.tasks.in_state(TaskState.PLANNED)] == [spec.body for spec in specs]


def test_ordinary_text_has_one_reading(tasks):
    specs = tasks(
        {**JOB, "matrix": {"subject": {"file": "s.csv"}}}, {"s.csv": "text\na fox\nein Füchslein\n狐狸，夜\n"}
    )
    assert [spec.earlier for spec in specs] == [(), (), ()]
