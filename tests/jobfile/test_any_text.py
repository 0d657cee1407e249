"""Whatever stands in a job file: a job, or problems; never anything else."""

from __future__ import annotations

import itertools
import json
import random

import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from seedream_batch.errors import InvalidJob, StorageError
from seedream_batch.jobfile import load_job

VALID = [
    """\
version: 1
name: cards
vars: {style: &style ink, count: 2}
matrix:
  subject: {file: s.csv}
  size: [1:1, 16:9]
  resolution: [2K]
exclude:
  - {subject: {id: a}, size: [16:9]}
include:
  - {subject: {id: wide, text: *style}, size: 21:9, resolution: 4K}
repeat: 2
request:
  prompt: "{{ subject.text | upper }}, {{ style }}{% if sample > 1 %} again{% endif %}"
  image_urls: [a.png, "https://example.com/{{ subject.id }}.png"]
  n: "{{ count }}"
  watermark: false
  optimize_prompt_options: {mode: fast}
references: {send: upload}
output: {dir: out, path: "{{ subject.id }}/{{ size }}-{{ resolution }}-{{ sample }}-{{ index }}"}
budget: {max_images: 500, max_cost_usd: 20, price_per_image_usd: {2K: 0.035}}
run: {max_in_flight: 64, rate: 5/s, attempts: 3, task_timeout: 30m, on_unknown: hold}
""",
    """\
version: 1
matrix:
  n: {file: n.txt}
  image_urls: [[a.png], [a.png, a.png]]
  sequential_image_generation: [disabled, auto]
request: {prompt: {file: hero.j2}}
""",
]
FILES = {
    "s.csv": "id,text\na,one\nb,two\n",
    "n.txt": "1\n2\n",
    "hero.j2": "{{ n }} {% include 's.csv' %} {{ image_urls | length }}",
}
SCRAPS = [
    *["{{ ", " }}", "{% if %}", "{% include 'hero.j2' %}", "{{ range(9) }}", "{{ 1/0 }}", "{{ style.x.y }}", "{# "],
    *[
        "[",
        "]",
        "{",
        "}",
        ": ",
        "- ",
        ", ",
        "\n",
        "\n  ",
        "'",
        '"',
        "#",
        "&a ",
        "*a",
        "*style",
        "<<: ",
        "!!int ",
        "? ",
        "|\n",
    ],
    *["~", "null", "true", "0", "-1", "1e999", "1" * 500, "0x1F", "3.5", ".nan", "16:9", "1K", "4K", "auto", "x" * 300],
    *["subject", "size", "n", "sample", "index", "request", "file", "matrix", "prompt", "s.csv", "..", "/", "\\u0000"],
    *[
        "\x00",
        "\x1b",
        "\u2028",
        "\ufeff",
        "é",
        "e\u0301",
        "🐼",
        "data:image/png;base64,",
        "http://",
        "{file: s.csv}",
        "{}",
    ],
]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory, picture):
    folder = tmp_path_factory.mktemp("any")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    (folder / "a.png").write_bytes(picture())
    file = folder / "job.yaml"

    def of(data):
        file.write_bytes(data)
        try:
            return load_job(file, max_tasks=1000).check()
        except StorageError:
            return None
        except InvalidJob as error:
            problems = error.problems
        assert problems
        for problem in problems:
            assert problem.position is not None
            assert problem.position.line >= 1
            assert problem.position.column >= 1
            assert "\n" not in problem.message
            assert len(str(problem)) < 3000
        texts = [str(problem) for problem in problems]
        assert len(set(texts)) == len(texts)
        return None

    return of


def test_the_jobs_that_are_broken_next(outcome):
    assert [outcome(text.encode()) for text in VALID] == [8, 8]


@settings(max_examples=examples(500))
@given(
    job=st.sampled_from(VALID),
    seed=st.integers(),
    edits=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(SCRAPS)), min_size=1, max_size=4),
)
def test_a_broken_job_gives_problems_and_nothing_else(outcome, job, seed, edits):
    chance = random.Random(seed)
    for kind, scrap in edits:
        lines = job.split("\n")
        where = chance.randrange(len(lines))
        at = chance.randrange(len(job) + 1)
        if kind == 0:
            job = job[:at] + scrap + job[at:]
        elif kind == 1:
            lines[where] = lines[where].partition(":")[0] + ": " + scrap
            job = "\n".join(lines)
        else:
            other = chance.randrange(len(lines))
            lines[where], lines[other] = lines[other], lines[where]
            job = "\n".join(lines)
    outcome(job.encode())


KEYS = [
    "version",
    "name",
    "vars",
    "matrix",
    "exclude",
    "include",
    "repeat",
    "request",
    "references",
    "output",
    "budget",
    "run",
    "notify",
]
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.sampled_from(SCRAPS).filter(lambda text: "\x00" not in text),
        st.sampled_from(["1:1", "2K", "{{ a }}", "a.png", "s.csv", "5/s", "30m", "https://[::1", "${A}"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["a", "size", "n", "file", "prompt", "image_urls", "path", "id", "b c", "url", "on"]), inner
        ),
    ),
    max_leaves=8,
)


@settings(max_examples=examples(80))
@given(st.dictionaries(st.sampled_from(KEYS), VALUES), st.booleans())
def test_any_values_give_problems_and_nothing_else(outcome, job, filled):
    if filled:
        job = {"matrix": {"a": ["x", "y"]}, "request": {"prompt": "{{ a }}"}, **job, "version": 1}
    outcome(json.dumps(job).encode())


@settings(max_examples=examples(200))
@given(st.binary(max_size=60))
def test_any_bytes_give_problems_and_nothing_else(outcome, data):
    outcome(data)


def test_every_cut_of_a_job_gives_problems_and_nothing_else(outcome):
    for job in VALID:
        for end in itertools.islice(range(len(job)), 0, None, 7):
            outcome(job[:end].encode())
