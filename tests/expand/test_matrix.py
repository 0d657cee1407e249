"""Axes, excludes and includes: which cells there are, and in what order."""

from __future__ import annotations

import itertools
import json
import math

import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from seedream_batch.expand.matrix import cells, count
from seedream_batch.jobfile import load_job
from seedream_batch.model.cell import label, matches, name_of


def found(specs):
    return [json.loads(spec.cell) for spec in specs]


def test_the_last_axis_turns_fastest_and_includes_come_last(tasks):
    specs = tasks("""
version: 1
matrix:
  subject: [panda, fox]
  size: [16:9, 1:1]
include:
  - {subject: wide, size: 21:9}
repeat: 2
request: {prompt: "{{ subject }}"}
""")
    assert [(cell["subject"], cell["size"], spec.sample) for cell, spec in zip(found(specs), specs, strict=True)] == [
        (subject, size, sample)
        for subject, size in [("panda", "16:9"), ("panda", "1:1"), ("fox", "16:9"), ("fox", "1:1"), ("wide", "21:9")]
        for sample in (1, 2)
    ]
    assert [spec.ordinal for spec in specs] == list(range(1, 11))


@settings(max_examples=examples(60))
@given(data=st.data())
def test_as_many_tasks_as_the_axes_multiply_to(data, job_file):
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    axes = {f"axis{number}": [f"v{number}-{index}" for index in range(size)] for number, size in enumerate(sizes)}
    patterns = data.draw(
        st.lists(
            st.dictionaries(st.sampled_from(sorted(axes)), st.integers(0, 3), min_size=1).map(
                lambda picked: {name: axes[name][index % len(axes[name])] for name, index in picked.items()}
            ),
            max_size=3,
        )
    )
    includes = [{"axis0": f"more-{index}"} for index in range(data.draw(st.integers(0, 3)))]
    repeat = data.draw(st.integers(1, 3))
    prompt = " ".join(f"{{{{ {name} }}}}" if name == "axis0" else f"{{{{ {name} | default('-') }}}}" for name in axes)
    job = {
        "version": 1,
        "matrix": axes,
        "exclude": patterns,
        "include": includes,
        "repeat": repeat,
        "request": {"prompt": prompt},
    }
    loaded = load_job(job_file(job))
    kept = [
        cell
        for values in itertools.product(*axes.values())
        for cell in [dict(zip(axes, values, strict=True))]
        if not any(all(cell[name] == value for name, value in pattern.items()) for pattern in patterns)
    ]
    specs = list(loaded.tasks())
    assert found(specs) == [cell for cell in [*kept, *includes] for _ in range(repeat)]
    assert loaded.check() == len(specs)
    assert count(loaded.job) == (math.prod(sizes) + len(includes)) * repeat
    assert len({spec.fingerprint for spec in specs}) == len(specs)
    assert len({spec.paths for spec in specs}) == len(specs)


PANDA = {"id": "panda", "text": "a panda", "meta": {"kind": "bear", "age": 3}}

MATCHES = [
    ("panda", "panda", True),
    ("panda", "Panda", False),
    ("panda", ["fox", "panda"], True),
    ("panda", ["fox"], False),
    ("panda", [], False),
    ("panda", {"id": "panda"}, False),
    (PANDA, "panda", True),
    (PANDA, "a panda", False),
    (PANDA, {"id": "panda"}, True),
    (PANDA, {"id": "panda", "text": "a fox"}, False),
    (PANDA, {"id": ["fox", "panda"]}, True),
    (PANDA, {"meta": {"kind": "bear"}}, True),
    (PANDA, {"meta": {"kind": "bear", "age": [1, 3]}}, True),
    (PANDA, {"meta": {"kind": "cat"}}, False),
    (PANDA, {"weight": 3}, False),
    (PANDA, [{"id": "fox"}, {"meta": {"kind": "bear"}}], True),
    (PANDA, [{"id": "fox"}, "panda"], True),
    (PANDA, {}, True),
    ({"text": "no id"}, "no id", False),
    (3, 3, True),
    (3, 3.0, True),
    (3, "3", False),
    (1, True, False),
    (True, 1, False),
    (True, True, True),
    (False, 0, False),
    (None, None, True),
    (None, "null", False),
    ("3", 3, True),
    (" 3", 3, True),
    ("3.5", 3.5, True),
    ("true", True, True),
    ("TRUE ", True, True),
    ("false", True, False),
    ("yes", True, False),
    (["a", "b"], ["a", "b"], True),
    (["a", "b"], [["a", "b"], "c"], True),
    (["a", "b"], "a", False),
    ([1], [True], False),
]


@pytest.mark.parametrize(("value", "wanted", "fits"), MATCHES)
def test_what_an_exclude_matches(value, wanted, fits):
    assert matches(value, wanted) is fits


def test_an_exclude_needs_all_of_its_axes(tasks):
    specs = tasks("""
version: 1
matrix:
  subject: [{id: panda, text: P}, {id: fox, text: F}, {id: cat, text: C}]
  size: [1:1, 16:9, 9:16]
  resolution: [2K, 4K]
exclude:
  - {size: 9:16, resolution: 4K}
  - {subject: {id: fox}, size: [16:9, 9:16]}
  - {subject: [cat, {text: P}], size: 1:1, resolution: 2K}
request: {prompt: "{{ subject.text }}"}
""")
    left = {(cell["subject"]["id"], cell["size"], cell["resolution"]) for cell in found(specs)}
    whole = set(itertools.product(["panda", "fox", "cat"], ["1:1", "16:9", "9:16"], ["2K", "4K"]))
    assert whole - left == {
        *((subject, "9:16", "4K") for subject in ("panda", "fox", "cat")),
        *(("fox", size, resolution) for size in ("16:9", "9:16") for resolution in ("2K", "4K")),
        ("cat", "1:1", "2K"),
        ("panda", "1:1", "2K"),
    }


def test_an_include_is_not_excluded_and_may_bring_names_and_fields_of_its_own(tasks):
    specs = tasks("""
version: 1
vars: {mood: calm}
matrix: {subject: [panda, fox]}
exclude: [{subject: fox}]
include:
  - {subject: fox, mood: wild, resolution: 4K}
request: {prompt: "{{ subject }}, {{ mood }}"}
""")
    assert [(json.loads(spec.body)["prompt"], spec.resolution) for spec in specs] == [
        ("panda, calm", "2K"),
        ("fox, wild", "4K"),
    ]
    assert "resolution" not in json.loads(specs[0].body)


def test_a_name_that_only_some_cells_have(told):
    job = """
version: 1
matrix: {subject: [panda]}
include: [{subject: fox, mood: wild}]
request: {prompt: "{{ subject }} {{ mood }}"}
"""
    assert told(job) == [
        "job.yaml:5:19: request.prompt: `mood` is not defined (available: subject, sample) [cell subject=panda]"
    ]


def test_cells_are_made_one_after_the_other(job_file):
    axes = {f"a{number}": [f"v{index}" for index in range(100)] for number in range(3)}
    job = {"version": 1, "matrix": axes, "request": {"prompt": "{{ a0 }}"}}
    loaded = load_job(job_file(job))
    assert next(cells(loaded.job)) == {"a0": "v0", "a1": "v0", "a2": "v0"}
    assert next(iter(loaded.tasks())).ordinal == 1


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("panda", "panda"),
        ({"text": "T", "id": "I"}, "I"),
        ({"text": "T", "name": "N"}, "N"),
        ({"id": ["x"], "text": "T"}, "T"),
        ({"other": 1}, '{"other": 1}'),
        (["a", 1], '["a", 1]'),
        (None, "null"),
        (True, "true"),
        (1.5, "1.5"),
        ("two\n words", "two words"),
        ("x" * 41, "x" * 39 + "…"),
        ("x" * 40, "x" * 40),
    ],
)
def test_names_for_people(value, name):
    assert name_of(value) == name
    assert label({"axis": value}, 2) == f"axis={name} sample=2"


def test_the_name_of_a_value_that_aliases_make_large():
    value = [1, "a"]
    for _ in range(30):
        value = [value, {"k": value}]
    assert name_of(value) == "[" * 31 + '1, "a"],…'
