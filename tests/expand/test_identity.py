"""What a task is: which edits leave its fingerprint as it was, and which make another task of it."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import random

import pytest
from examples import examples, some
from hypothesis import given, settings
from hypothesis import strategies as st

from seedream_batch.expand.fingerprint import RequestTexts, canonical, dumps, fingerprint, normalise_numbers
from seedream_batch.validate.request_schema import RequestSchema

DEFAULTS = RequestSchema().defaults
URL = "https://example.com/a.png"

JOB = {
    "version": 1,
    "name": "postcards",
    "vars": {"style": "ink"},
    "matrix": {
        "subject": [{"id": "panda", "text": "a panda"}, {"id": "fox", "text": "a fox"}],
        "size": ["1:1", "16:9"],
        "resolution": ["2K", "4K"],
    },
    "repeat": 2,
    "request": {"prompt": "{{ subject.text }}, {{ style }}", "image_urls": ["ref.png"]},
}


@pytest.fixture
def prints(tasks, picture):
    def of(job, files=None):
        return {spec.fingerprint for spec in tasks(job, files or {"ref.png": picture()})}

    return of


def edited(**changes):
    job = copy.deepcopy(JOB)
    for path, value in changes.items():
        *parents, last = path.split("__")
        at = job
        for step in parents:
            at = at.setdefault(step, {})
        if value is None:
            del at[last]
        else:
            at[last] = value
    return job


SAME = {
    "another name": edited(name="cards"),
    "no name": edited(name=None),
    "labels": edited(
        matrix__subject=[{"id": "P", "text": "a panda", "note": "cute"}, {"id": "F", "name": "F", "text": "a fox"}]
    ),
    "the order of the values": edited(matrix__subject=JOB["matrix"]["subject"][::-1], matrix__size=["16:9", "1:1"]),
    "the order of the axes": edited(matrix=dict(reversed(JOB["matrix"].items()))),
    "the output": edited(
        output={"dir": "elsewhere", "path": "{{ subject.id }}-{{ size }}-{{ resolution }}-{{ sample }}"}
    ),
    "settings": edited(run={"attempts": 1}, budget={"max_images": 3}, references={"send": "inline"}),
    "defaults given": edited(
        request__model="doubao-seedance-4-5",
        request__n=1,
        request__watermark=False,
        request__sequential_image_generation="disabled",
        request__optimize_prompt_options={"mode": "standard"},
    ),
    "defaults from templates": edited(request__n="{{ 1 }}", request__watermark="{{ false }}"),
    "empty options": edited(request__optimize_prompt_options={}),
    "1.0": edited(request__n=1.0, repeat=2.0),
    "the same text in other words": edited(request__prompt=" {{ subject['text'] ~ ', ' ~ style }}\n"),
    "a constant for a variable": edited(request__prompt="{{ subject.text }}, ink", vars=None),
    "a field for an axis": edited(matrix__shape=JOB["matrix"]["size"], matrix__size=None, request__size="{{ shape }}"),
    "an include for an axis value": edited(
        matrix__subject=JOB["matrix"]["subject"][:1],
        include=[
            {"subject": JOB["matrix"]["subject"][1], "size": size, "resolution": resolution}
            for size in ("1:1", "16:9")
            for resolution in ("2K", "4K")
        ],
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_edits_that_cost_nothing(prints, name):
    assert prints(SAME[name]) == prints(JOB)


def test_comments_and_layout_cost_nothing(prints):
    text = """\
# what they are for
version: 1
vars: {style: "ink"}   # or oil
matrix:
  subject:
    - id: panda
      text: >-
        a panda
    - {text: a fox, id: fox}
  size: [1:1, 16:9]
  resolution: ['2K', "4K"]
repeat: 0x2
request:
  image_urls:
    - ref.png
  prompt: '{{ subject.text }}, {{ style }}'
"""
    assert prints(text) == prints(JOB)


ANOTHER = {
    "the prompt": edited(request__prompt="{{ subject.text }}, {{ style }}."),
    "a variable": edited(vars__style="oil"),
    "the case of the prompt": edited(vars__style="Ink"),
    "the model": edited(request__model="doubao-seedream-4-5"),
    "the number": edited(request__n=2),
    "the watermark": edited(request__watermark=True),
    "the mode": edited(request__optimize_prompt_options={"mode": "fast"}),
    "a series": edited(request__sequential_image_generation="auto"),
    "its length": edited(
        request__sequential_image_generation="auto", request__sequential_image_generation_options={"max_images": 2}
    ),
    "one more reference": edited(request__image_urls=["ref.png", URL]),
    "no reference": edited(request__image_urls=[]),
    "a URL": edited(request__image_urls=[URL]),
}


@pytest.mark.parametrize("name", some([*ANOTHER], 6))
def test_edits_that_make_other_tasks(prints, name):
    found = prints(ANOTHER[name])
    assert len(found) == len(prints(JOB))
    assert not found & prints(JOB)
    assert all(not found & prints(other) for other_name, other in ANOTHER.items() if other_name != name)


def test_one_cell_edited_is_one_task(prints):
    job = edited(include=[{"subject": {"text": "a cat"}, "size": "1:1"}], repeat=1)
    other = edited(include=[{"subject": {"text": "a dog"}, "size": "1:1"}], repeat=1)
    assert len(prints(job) ^ prints(other)) == 2


def test_more_samples_keep_those_that_are_there(prints):
    few, many = prints(edited(repeat=2)), prints(edited(repeat=5))
    assert few < many
    assert len(many) == 40


def test_references_count_by_their_bytes(prints, picture):
    before = prints(JOB)
    assert prints(edited(request__image_urls=["moved/b.jpeg"]), {"moved/b.jpeg": picture()}) == before
    uri = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"
    assert prints(edited(request__image_urls=[uri])) == before
    other = prints(JOB, {"ref.png": picture(color="blue")})
    assert len(other) == len(before)
    assert not other & before


def test_the_fingerprint_is_what_it_is_said_to_be(tasks):
    # These very digits are in the manifests of people: a change here buys every picture again.
    (spec,) = tasks('{"version": 1, "matrix": {"a": ["x"]}, "request": {"prompt": "a pandä", "size": "1:1", "n": 1.0}}')
    assert spec.body == '{"model":"doubao-seedance-4-5","n":1,"prompt":"a pandä","size":"1:1"}'
    assert spec.fingerprint == hashlib.sha256('{"request":{"prompt":"a pandä"},"sample":1}'.encode()).hexdigest()
    (spec,) = tasks('{"version": 1, "matrix": {"size": ["16:9"]}, "request": {"watermark": true, "prompt": "a"}}')
    expected = b'{"request":{"prompt":"a","size":"16:9","watermark":true},"sample":1}'
    assert spec.fingerprint == hashlib.sha256(expected).hexdigest()


BODIES = st.fixed_dictionaries(
    {"prompt": st.text(min_size=1, max_size=20)},
    optional={
        "model": st.sampled_from(["doubao-seedance-4-5", "doubao-seedream-4-5"]),
        "size": st.sampled_from(["1:1", "16:9", "auto"]),
        "resolution": st.sampled_from(["2K", "4K"]),
        "n": st.sampled_from([1, 2, 15, 1.0, 2.0]),
        "watermark": st.booleans(),
        "image_urls": st.lists(st.sampled_from([URL, "sha256:" + "0" * 64, "\ue000the prompt\ue000"]), max_size=3),
        "sequential_image_generation": st.sampled_from(["disabled", "auto"]),
        "sequential_image_generation_options": st.sampled_from([{}, {"max_images": 1}, {"max_images": 3}]),
        "optimize_prompt_options": st.sampled_from([{}, {"mode": "standard"}, {"mode": "fast"}]),
    },
)


def meaning(body):
    """What the service makes of a request, told apart from the code under test."""
    plain = normalise_numbers(body)
    return {
        "model": plain.get("model", "doubao-seedance-4-5"),
        "prompt": plain["prompt"],
        "size": plain.get("size", "1:1"),
        "resolution": plain.get("resolution", "2K"),
        "n": plain.get("n", 1),
        "watermark": plain.get("watermark", False),
        "references": plain.get("image_urls", []),
        "series": plain.get("sequential_image_generation", "disabled"),
        "options": plain.get("sequential_image_generation_options", {}),
        "mode": plain.get("optimize_prompt_options", {}).get("mode", "standard"),
    }


@settings(max_examples=examples(300))
@given(one=BODIES, other=BODIES, samples=st.tuples(st.integers(1, 3), st.integers(1, 3)))
def test_the_same_meaning_is_the_same_fingerprint(one, other, samples):
    same = meaning(one) == meaning(other) and samples[0] == samples[1]
    prints = [
        fingerprint(normalise_numbers(body), sample, DEFAULTS)
        for body, sample in zip((one, other), samples, strict=True)
    ]
    assert (prints[0] == prints[1]) is same


@settings(max_examples=examples(120))
@given(body=BODIES, sample=st.integers(1, 9), seed=st.integers())
def test_the_order_of_fields_and_defaults_given_do_not_count(body, sample, seed):
    body = normalise_numbers(body)
    expected = fingerprint(body, sample, DEFAULTS)
    fields = list(body.items())
    random.Random(seed).shuffle(fields)
    assert fingerprint(dict(fields), sample, DEFAULTS) == expected
    filled = dict(fields)
    for (name, *rest), value in DEFAULTS.items():
        if rest:
            filled[name] = {rest[0]: value, **filled.get(name, {})}
        else:
            filled.setdefault(name, value)
    assert fingerprint(filled, sample, DEFAULTS) == expected
    assert canonical(canonical(body, DEFAULTS), DEFAULTS) == canonical(body, DEFAULTS)
    assert json.loads(dumps(body)) == body


@settings(max_examples=examples(120))
@given(bodies=st.lists(BODIES, min_size=1, max_size=5), prompts=st.lists(st.text(max_size=9), min_size=1, max_size=5))
def test_remembered_texts_are_the_texts(bodies, prompts):
    texts = RequestTexts(DEFAULTS)
    for body in map(normalise_numbers, bodies):
        for prompt in [body["prompt"], *prompts]:
            one = {**body, "prompt": prompt}
            assert texts.of(one, 2) == (dumps(one), fingerprint(one, 2, DEFAULTS))
