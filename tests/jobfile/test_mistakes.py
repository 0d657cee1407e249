"""Mistakes in job files: all of them at once, each once, each at its place."""

from __future__ import annotations

import time

import pytest

from seedream_batch.errors import InvalidJob, StorageError, UsageError
from seedream_batch.jobfile import load_job

SIZES = "1:1, 4:3, 3:4, 16:9, 9:16, 3:2, 2:3, 21:9, 9:21, auto"
RATE = "a number per second above 0, or a rate such as 5/s, 120/m or 1000/h"
TIME = "a time such as 90s, 30m or 1h30m, or a number of seconds above 0"

FIFTEEN = """\
version: 1
nmae: cards
matrix:
  subject: {file: subjetcs.csv}
  mood: [calm, wild]
  size: [1:1, 16:10]
  resolution: [1K, 2K]
exclude:
  - {mod: calm}
  - {mood: [wild, clam]}
  - {}
repeat: 0
request:
  prompt: "{{ subject.text }}, {{ moood }}"
  model: "{% if %}"
  n: "3"
  watermark: no
  watermark: true
run: {rate: 5 per second, task_timeout: forever, max_in_flight: 64}
budget: {max_cost_usd: "20"}
"""


def test_fifteen_mistakes_are_told_at_once(told):
    found = told(FIFTEEN, {"subjects.csv": "id,text\na,b\n"})
    assert [problem.replace("job.yaml:", "").partition(" /")[0] for problem in found] == [
        "2:1: nmae: unknown key (did you mean `name`?)",
        "4:19: matrix.subject.file: file subjetcs.csv not found in",
        f"6:15: matrix.size[1]: must be one of {SIZES}, got 16:10 (the nearest ratio is 3:2)",
        "7:16: matrix.resolution[0]: must be one of 2K, 4K, got 1K (1K is not available; the smallest is 2K)",
        "9:6: exclude[0].mod: no axis `mod` (did you mean `mood`?)",
        "10:19: exclude[1].mood[1]: no value of the axis `mood` is clam (did you mean calm?)",
        "11:5: exclude[2]: must name at least one axis (an empty entry would skip every cell)",
        "12:9: repeat: must be an integer from 1 to 10,000, got 0",
        "14:11: request.prompt: `moood` is not defined (did you mean `mood`?)",
        "15:10: request.model: expected an expression, got 'end of statement block'",
        '16:6: request.n: must be an integer from 1 to 15, got "3" (the API refuses a quoted number: write 3)',
        "18:3: request.watermark: repeated key, first given at line 17, column 3 (remove one of the two)",
        f'19:13: run.rate: must be {RATE}, got "5 per second"',
        f'19:41: run.task_timeout: must be {TIME}, got "forever"',
        '20:24: budget.max_cost_usd: must be a number of US dollars, 0 or more, got "20" (write 20 without quotes)',
    ]


BASE = """\
version: 1
vars: {style: ink}
matrix:
  subject: [{id: panda, text: a panda}, {id: fox, text: a fox}]
  size: [1:1, 16:9]
exclude:
  - {subject: fox, size: 16:9}
include:
  - {subject: {id: wide, text: w}, size: 21:9, mood: calm}
request:
  prompt: "{{ subject.text }}, {{ style }}{% if mood is defined %}, {{ mood }}{% endif %}"
  image_urls: [https://example.com/a.png]
  n: 2
  watermark: false
output:
  path: "{{ subject.id }}/{{ size }}"
budget: {max_images: 100}
run: {attempts: 2}
"""

# What is written for what, and the only problem of the job then.
ONE_MISTAKE = [
    ("version: 1", "version: 2", "1:10: version: must be 1, got 2"),
    ("version: 1\n", "", "1:1: version: is required"),
    ("vars: {style: ink}", "vars: [style]", "2:7: vars: must be a mapping, got a list"),
    ("vars: {style: ink}", "vras: {style: ink}", "2:1: vras: unknown key (did you mean `vars`?)"),
    ("vars: {style: ink}", "variables: {style: ink}", "2:1: variables: unknown key (known: version, name, vars"),
    (
        "vars: {style: ink}",
        "vars: {styel: ink}",
        "11:11: request.prompt: `style` is not defined (did you mean `styel`?)",
    ),
    ("vars: {style: ink}", "vars: {style: ink, size: 3}", "2:20: vars.size: `size` is already an axis"),
    (
        "vars: {style: ink}",
        "vars: {style: ink, sample: 3}",
        "2:20: vars.sample: `sample` is a built-in name",
    ),
    ("vars: {style: ink}", "vars: {style: ink, style: oil}", "2:20: vars.style: repeated key, first given at line 2"),
    ("matrix:", "metrix:", "3:1: metrix: unknown key (did you mean `matrix`?)"),
    ("matrix:", "matrix: {subject: [a]}\nmatrix:", "4:1: matrix: repeated key"),
    ("  size: [1:1, 16:9]", "  size: 1:1", '5:9: matrix.size: must be a list of values, or {file: path}, got "1:1"'),
    ("  size: [1:1, 16:9]", "  size: []", "5:9: matrix.size: must have at least one value"),
    ("  size: [1:1, 16:9]", "  size: [1:1, 16.9]", "5:15: matrix.size[1]: must be one of 1:1, 4:3"),
    ("  size: [1:1, 16:9]", "  size: {file: sizes.csv}", "5:16: matrix.size.file: file sizes.csv not found"),
    ("  size: [1:1, 16:9]", "  size: {file: empty.csv}", "empty.csv:1:1: the file is empty"),
    ("  size: [1:1, 16:9]", "  size: {file: bad.json}", "bad.json:1:2: not JSON"),
    ("  size: [1:1, 16:9]", "  size: {file: job.pdf}", "job.pdf:1:1: the suffix .pdf is not a supported table format"),
    ("  size: [1:1, 16:9]", "  size: {path: a.csv}", "5:9: matrix.size: must be a list of values, or {file: path}"),
    ("  size: [1:1, 16:9]", "  size: [1:1, 16:9]\n  index: [1]", "6:3: matrix.index: `index` is a built-in name"),
    ("  size: [1:1, 16:9]", "  size: [1:1, 16:9]\n  a b: [1]", "6:3: matrix.a b: a name must be letters"),
    ("{subject: fox, size: 16:9}", "{subjct: fox}", "7:6: exclude[0].subjct: no axis `subjct` (did you mean"),
    ("{subject: fox, size: 16:9}", "{mood: calm}", "7:6: exclude[0].mood: no axis `mood` (axes: subj"),
    ("{subject: fox, size: 16:9}", "{subject: cat}", "7:15: exclude[0].subject: no value of the axis `subject` is cat"),
    ("{subject: fox, size: 16:9}", "{size: 9:16}", "7:12: exclude[0].size: no value of the axis `size` is 9:16"),
    ("{subject: fox, size: 16:9}", "{size: 9:61}", "7:12: exclude[0].size: must be one of 1:1, 4:3"),
    ("{subject: fox, size: 16:9}", "{size: [1:1, 9:16]}", "7:18: exclude[0].size[1]: no value of the axis `size` is"),
    ("- {subject: fox, size: 16:9}", "fox", "7:3: exclude: must be a list, got"),
    ("{subject: fox, size: 16:9}", "{}\n  - {subject: fox}", "7:5: exclude[0]: must name at least one axis"),
    (
        "{subject: fox, size: 16:9}",
        "{}\n  - {subject: cat}",
        "2 PROBLEMS 8:15: exclude[1].subject: no value of the axis",
    ),
    ("size: 21:9, mood", "size: 21:10, mood", "9:42: include[0].size: must be one of"),
    ("size: 21:9, mood", "request: x, mood", "9:36: include[0].request: `request` is a built-in name"),
    ("size: 21:9, mood: calm}", "size: 21:9, mood: calm, n: 15}\n#", None),
    ("{{ style }}", "{{ stile }}", "11:11: request.prompt: `stile` is not defined (did you mean `style`?)"),
    ("{{ style }}", "{{ style }", "11:11: request.prompt: "),
    ("{{ style }}", "{{ style | uper }}", "11:11: request.prompt: unknown filter `uper` (did you mean `upper`?)"),
    (
        "{{ style }}",
        "{{ index }}",
        "11:11: request.prompt: `index` is not defined (`index` is only available in output.path)",
    ),
    ("{{ subject.text }}", "{{ subject.txt }}", "11:11: request.prompt: `subject` has no `txt` (did you mean `text`?"),
    ("  prompt:", "  promt:", "11:3: request.promt: unknown key (did you mean `prompt`?)"),
    ("  prompt:", "  prompt: ''\n  prompt:", "12:3: request.prompt: repeated key"),
    ("  prompt:", "  prompt: {file: 3}\n#", "11:18: request.prompt.file: must be the path of a file, got 3"),
    ("  prompt:", "  prompt: {}\n#", "11:11: request.prompt: must be non-empty text, or {file: path}"),
    ("request:", "reqest:", "10:1: reqest: unknown key (did you mean `request`?)"),
    ("request:", "request: {prompt: a}\nrequest:", "11:1: request: repeated key"),
    (
        "  n: 2",
        '  n: "2"',
        '13:6: request.n: must be an integer from 1 to 15, got "2" (the API refuses a quoted number',
    ),
    ("  n: 2", "  n: 15", "13:6: request.n: 1 reference + n 15 = 16, but the API accepts at most 15 together"),
    ("  n: 2", "  n: 1e999", "13:6: request.n: 1e999 is not a valid JSON number"),
    ("  n: 2", "  n: !!int two", '13:6: request.n: "two" is not a whole number (!!int)'),
    ("  n: 2", "  n: '{{ style }}'", "13:6: request.n: must give an integer, gave 'ink' [cell subject=panda size=1:1,"),
    (
        "  image_urls: [https",
        "  image_urls: [missing.png, https",
        "12:16: request.image_urls[0]: file miss",
    ),
    ("  image_urls: [https://example.com/a.png]\n", "", "12:6: request.n: several images (n 2) need at least one"),
    ("  watermark: false", "  watermark: 'no'", '14:14: request.watermark: must be true or false, got "no"'),
    (
        "  watermark: false",
        "  resolution: 1K",
        "14:15: request.resolution: must be one of 2K, 4K, got 1K (1K is not available",
    ),
    ("  watermark: false", "  steps: 20", "14:3: request.steps: unknown key"),
    (
        'path: "{{ subject.id }}/{{ size }}"',
        'path: "{{ subject.id }}"',
        "16:9: output.path: is the same path for two images",
    ),
    ('path: "{{ subject.id }}/{{ size }}"', 'path: "../{{ size }}"', "16:9: output.path: "),
    ('path: "{{ subject.id }}/', 'path: "{{ subjectt.id }}/', "16:9: output.path: `subjectt` is not defined"),
    ("  path:", "  pth:", "16:3: output.pth: unknown key (did you mean `path`?)"),
    ("{max_images: 100}", "{max_images: -1}", "17:22: budget.max_images: must be an integer, 0 or more, got -1"),
    (
        "{max_images: 100}",
        "{max_images: 1" + "0" * 400 + "}",
        "17:22: budget.max_images: must be at most 1,000,000,000",
    ),
    ("{max_images: 100}", "{max_cost_usd: 1e300}", "17:24: budget.max_cost_usd: must be at most 1,000,000,000"),
    ("{max_images: 100}", "{price_per_image_usd: 1e9}", "17:31: budget.price_per_image_usd: must be at most 1,000"),
    ("{max_images: 100}", "{price_per_image_usd: {4K: 1e9}}", "17:36: budget.price_per_image_usd.4K: must be at most"),
    ("{attempts: 2}", "{rate: 5/d}", "18:13: run.rate: must be a number per second above 0"),
    ("{attempts: 2}", "{rate: 1e-300}", "18:13: run.rate: must be from one per day to 1,000,000 per second"),
    ("{attempts: 2}", "{rate: 1" + "0" * 400 + "}", "18:13: run.rate: must be from one per day"),
    ("{attempts: 2}", "{rate: 1" + "0" * 400 + "/s}", "18:13: run.rate: must be from one per day"),
    ("{attempts: 2}", "{task_timeout: 1" + "0" * 400 + "}", "18:21: run.task_timeout: must be at most 365 days"),
    ("{attempts: 2}", "{task_timeout: 1h30}", "18:21: run.task_timeout: must be a time such as 90s"),
    ("{attempts: 2}", "{atempts: 2}", "18:7: run.atempts: unknown key (did you mean `attempts`?)"),
    ("{attempts: 2}", "{attempts: 2", "the mapping that { opens is not closed properly"),
    ("{attempts: 2}", "*nobody", "18:6: no anchor &nobody"),
    ("{attempts: 2}", "{{ style }}", "18:6: a template must be quoted in YAML"),
]


@pytest.mark.parametrize(("old", "new", "problem"), ONE_MISTAKE)
def test_one_mistake_is_one_problem(told, job_file, old, new, problem):
    assert BASE.count(old) == 1
    job = BASE.replace(old, new)
    files = {"empty.csv": "", "bad.json": "[x]", "job.pdf": "%PDF"}
    if problem is None:
        load_job(job_file(job, files)).check()
        return
    found = told(job, files)
    number, _, text = problem.rpartition(" PROBLEMS ")
    assert len(found) == int(number or 1), found
    assert text in found[-1]


def test_the_job_without_a_mistake(job_file):
    assert load_job(job_file(BASE)).check() == 4


def test_cells_are_checked_beside_mistakes_that_leave_them_whole(told, picture):
    job = """
version: 1
matrix:
  subject: [{id: panda, ref: a.png}, {id: fox, ref: b.png}, {id: cat, ref: c.png}]
  size: [1:1, 16:10]
request: {prompt: "{{ subject.id }}", image_urls: ["{{ subject.ref }}"]}
run: {rate: soon}
"""
    found = told(job, {"a.png": picture(), "c.png": picture(99, 20)})
    assert [problem[:34] for problem in found] == [
        "job.yaml:5:15: matrix.size[1]: mus",
        "job.yaml:6:52: request.image_urls[",
        "job.yaml:6:52: request.image_urls[",
        "job.yaml:7:13: run.rate: must be a",
    ]
    assert [problem.rpartition("[")[2] for problem in found[1:3]] == [
        "cell subject=fox size=1:1]",
        "cell subject=cat size=1:1]",
    ]


def test_references_of_all_cells_are_checked_whatever_else_is_wrong(told):
    job = """
version: 1
matrix: {subject: [panda]}
request: {prompt: "{{ nobody }}", image_urls: [missing.png, "{{ subject }}.png", https://example.com/a.png]}
"""
    assert [problem.partition(" in /")[0] for problem in told(job)] == [
        "job.yaml:4:19: request.prompt: `nobody` is not defined (available: sample, subject)",
        "job.yaml:4:48: request.image_urls[0]: file missing.png not found",
    ]


def test_a_problem_of_many_cells_is_one_with_a_count(told):
    job = {
        "version": 1,
        "matrix": {"subject": [f"s{index}" for index in range(500)], "n": [1, 2, 3]},
        "repeat": 3,
        "request": {"prompt": "{{ subject }}"},
    }
    found = told(job)
    assert [problem.partition(": matrix.n: ")[2] for problem in found] == [
        f"several images (n {n}) need at least one reference image in image_urls "
        "(for several images of one prompt without references, use `repeat` in the job) "
        f"[cell subject=s0 n={n} sample=1, and 499 more cells]"
        for n in (2, 3)
    ]
    assert [problem.partition(": matrix")[0][-3:] for problem in found] == ["908", "911"] or found[0] < found[1]


def test_a_problem_of_an_included_cell_is_told_there(told):
    job = """
version: 1
matrix: {subject: [panda]}
include:
  - {subject: fox}
  - {subject: cat,
     n: 3}
request: {prompt: "{{ subject }}"}
"""
    (problem,) = told(job)
    assert problem.startswith("job.yaml:7:9: include[1].n: several images (n 3) need at least one reference image")


def test_nobody_reads_more_than_a_hundred_causes(told):
    rows = "".join(f"{index}\n" for index in range(100, 1000))
    job = {
        "version": 1,
        "matrix": {"n": {"file": "n.txt"}},
        "request": {"prompt": "a", "image_urls": ["https://x.org/a"]},
    }
    found = told(job, {"n.txt": rows})
    assert len(found) == 100
    assert found[-1].startswith("n.txt:100:1: matrix.n: must be an integer from 1 to 15, got 199")


def test_problems_of_a_table_point_into_it(told):
    job = {"version": 1, "matrix": {"subject": {"file": "data/s.csv"}}, "request": {"prompt": "{{ subject.id }}"}}
    assert told(job, {"data/s.csv": "id,text\na,b,c\nd,e\nf\n"}) == [
        "data/s.csv:2:1: the row has 3 fields, but the header has 2 (quote fields that contain the separator)",
        "data/s.csv:4:1: the row has 1 fields, but the header has 2",
    ]


def test_too_many_tasks_are_refused_at_once_with_the_count(told):
    axis = list(range(1000))
    job = {"version": 1, "matrix": {"a": axis, "b": axis, "c": axis}, "repeat": 1000, "request": {"prompt": "{{ a }}"}}
    start = time.monotonic()
    (problem,) = told(job)
    assert time.monotonic() - start < 5
    assert problem.endswith(
        ": matrix: expands to 1,000,000,000,000 tasks; at most 1,000,000 are allowed "
        "(if you want that many, raise --max-tasks)"
    )
    assert len(told({**job, "request": {"prompt": "{{ d }}"}, "run": {"rate": 0}})) == 3
    assert "1,000,000,000,000 tasks before `exclude`;" in told({**job, "exclude": [{"a": axis[1:]}]})[0]


def test_the_limit_is_the_callers(job_file):
    job = job_file(
        {"version": 1, "matrix": {"a": [1, 2, 3]}, "include": [{"a": 4}], "repeat": 2, "request": {"prompt": "{{ a }}"}}
    )
    assert load_job(job, max_tasks=8).check() == 8
    with pytest.raises(InvalidJob, match="expands to 8 tasks; at most 7 are allowed"):
        load_job(job, max_tasks=7)


def test_files_that_are_no_job(tmp_path):
    def refusal(name):
        with pytest.raises((StorageError, UsageError, InvalidJob)) as caught:
            load_job(tmp_path / name)
        return type(caught.value).__name__, str(caught.value).replace(f"{tmp_path}/", "")

    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "other.yml").write_text("")
    (tmp_path / ".tool.yaml").write_text("")
    assert refusal("folder.yaml") == ("UsageError", "folder.yaml is a folder; name the job file in it")
    assert refusal("missing") == ("UsageError", "job file missing not found; job files in : other.yml")
    assert refusal("folder.yaml/x") == ("UsageError", "job file folder.yaml/x not found")
    for name, data, problem in [
        ("empty.yaml", b"", "empty.yaml:1:1: the file is empty"),
        ("comment.yaml", b"# only\n", "comment.yaml:1:1: the file is empty"),
        ("null.yaml", b"~", None),
        ("list.yaml", b"- a", None),
        ("text.yaml", b"hello", None),
        ("binary.yaml", bytes(range(256)), None),
        ("picture.yaml", b"\x89PNG\r\n\x1a\n\0\0", None),
        (
            "utf16.yaml",
            "version: 1".encode("utf-16"),
            "utf16.yaml:1:1: the file is UTF-16, not UTF-8 (save it as UTF-8)",
        ),
        ("latin1.yaml", "version: 1\nname: caf\xe9".encode("latin-1"), None),
        ("two.yaml", b"version: 1\n---\nversion: 1\n", None),
    ]:
        (tmp_path / name).write_bytes(data)
        kind, text = refusal(name)
        assert (kind, "\n" in text) == ("InvalidJob", False), text
        assert text.startswith(f"{name}:")
        assert problem in (None, text)
    (tmp_path / "file").write_text("x")
    assert refusal("file/job.yaml")[0] == "UsageError"
    assert refusal("a\0b.yaml")[0] == "UsageError"
    assert refusal("x" * 300)[0] == "UsageError"
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    assert refusal("loop.yaml")[0] == "UsageError"
    locked = tmp_path / "folder.yaml" / "big.yaml"
    with locked.open("wb") as file:
        file.truncate(64 * 1024 * 1024 + 1)
    assert refusal("folder.yaml/big.yaml") == ("StorageError", "folder.yaml/big.yaml is larger than 67,108,864 bytes")


def test_names_cannot_break_a_line_nor_steer_a_terminal(told):
    job = """
version: 1
"a\\nb": 1
"a\\nb": 2
matrix: {s: {file: "no\\e[31m\\n.csv"}}
request: {prompt: {file: "\\x07\\u2028.txt"}}
"""
    texts = told(job)
    assert all(text.isprintable() for text in texts)
    assert any("a\\nb: repeated key" in text for text in texts)
    assert any("file no\\x1b[31m\\n.csv not found in" in text for text in texts)


def test_names_that_nobody_can_read_are_cut(told):
    (text,) = told(f"version: 1\nmatrix: {{a: {{file: {'n' * 100_000}}}}}\nrequest: {{prompt: '{{{{ a }}}}'}}\n")
    assert "nnn…nnn" in text
    assert text.endswith(": File name too long")
    assert len(text) < 1100


def test_thousands_of_slips_in_excludes_take_no_time(told):
    values = ", ".join(f"{{id: a{number}}}" for number in range(2_000))
    slips = ", ".join(f"{{s: b{number}}}" for number in range(2_000))
    started = time.process_time()
    texts = told(f"version: 1\nmatrix: {{s: [{values}]}}\nexclude: [{slips}]\nrequest: {{prompt: '{{{{ s.id }}}}'}}\n")
    assert len(texts) == 100
    assert time.process_time() - started < 10


def test_mistakes_are_told_for_the_path_that_was_given(job_file, monkeypatch):
    file = job_file("version: 2")
    monkeypatch.chdir(file.parent.parent)
    with pytest.raises(InvalidJob) as caught:
        load_job(f"{file.parent.name}/job.yaml")
    assert str(caught.value.problems[0]).startswith(f"{file.parent.name}/job.yaml:1:")
