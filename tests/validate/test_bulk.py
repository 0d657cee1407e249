"""The fast reader of the request schema may say yes only where `jsonschema` does; on plain JSON they say the same."""

from __future__ import annotations

import json
import re

import pytest
from examples import examples
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seedream_batch.validate.request_schema import RequestSchema
from seedream_batch.validate.schemas import accepts, schema, simple, spelt_out, text_test, validator, validator_of

ACCEPTS = accepts("request")
VALIDATOR = validator("request")
URL = "https://example.com/a.png"
DATA = "data:image/png;base64,iVBORw0KGgo="
# What counts as a space differs between Python, ECMAScript and Unicode.
SPACES = [*"\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u180e\u2000\u200a\u200b\u2028\u2029\u202f\u205f\u3000\ufeff"]

numbers = st.one_of(
    st.integers(-2, 17),
    st.integers(),
    st.sampled_from([2**53, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**40, 1e300, 1.0, 15.0, 1.5, -0.0, 5e-324]),
    st.floats(),
    st.booleans(),
)
texts = st.one_of(
    st.text(max_size=6),
    st.text(st.sampled_from([*SPACES, "x", "é", "\0"]), max_size=4),
    st.sampled_from(["2K", "4K", "1K", "1:1", "16:9", "auto", "disabled", "fast", "doubao-seedance-4-5", "\ud800"]),
)
urls = st.one_of(
    st.sampled_from([URL, "http://a", "https://", "https:///x", "ftp://a/b", DATA, DATA + "\n", URL + "\n", "cup.png"]),
    st.builds("{}{}{}".format, st.sampled_from(["https://", "http://a", DATA]), st.sampled_from(SPACES), texts),
    st.builds("https://{}".format, texts),
    texts,
)
odd = st.recursive(
    st.one_of(st.none(), numbers, texts),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.tuples(inner),
        st.dictionaries(st.one_of(st.text(max_size=2), st.integers(0, 1)), inner, max_size=2),
    ),
    max_leaves=3,
)
lists = st.one_of(st.lists(urls, max_size=16), st.lists(st.just(URL), max_size=15), st.tuples(urls))
FIELDS = {
    "model": st.sampled_from(schema("request")["properties"]["model"]["enum"]),
    "prompt": texts,
    "size": st.sampled_from(["1:1", "16:9", "auto"]),
    "resolution": st.sampled_from(["2K", "4K"]),
    "n": numbers,
    "image_urls": lists,
    "optimize_prompt_options": st.dictionaries(st.sampled_from(["mode", "x"]), st.sampled_from(["fast", "slow", 1])),
    "sequential_image_generation": st.sampled_from(["auto", "disabled"]),
    "sequential_image_generation_options": st.dictionaries(st.sampled_from(["max_images"]), numbers),
    "watermark": st.booleans(),
}
usual = st.fixed_dictionaries({name: FIELDS.pop(name) for name in ("model", "prompt")}, optional=FIELDS)
anything = st.dictionaries(st.sampled_from([*schema("request")["properties"], "y"]), odd, max_size=3)
bodies = st.one_of(usual, st.builds(lambda body, more: {**body, **more}, usual, anything), anything, odd)


@settings(max_examples=examples(3000))
@given(bodies)
@example({"model": "doubao-seedance-4-5", "prompt": "x", "image_urls": (URL,)})
@example({"model": "doubao-seedance-4-5", "prompt": "x", "image_urls": [URL, "https://a\x1cb"]})
@example({"model": "doubao-seedance-4-5", "prompt": "x", "n": True})
@example({"model": "doubao-seedance-4-5", "prompt": "x", 1: 2})
def test_both_readers_of_the_schema_agree(body):
    slow = VALIDATOR.is_valid(body)
    if simple(body) and encodable(body):
        assert ACCEPTS(body) is slow
    else:
        assert not ACCEPTS(body)
    assert RequestSchema().is_valid(body) == slow


WHOLE_JOB = {
    "version": 1,
    "name": "a.job_1",
    "matrix": {"subject": [{"id": "fox", "text": "a fox"}, "panda"], "size": ["1:1", "16:9"], "n": [1, 2]},
    "exclude": [{"subject": "panda", "size": ["16:9"]}],
    "include": [{"subject": {"id": "cat"}, "size": "1:1", "n": 1}],
    "vars": {"style": "ink"},
    "repeat": 2,
    "request": {
        "prompt": "{{ subject.text }}, {{ style }}",
        "image_urls": ["cup.png", URL],
        "optimize_prompt_options": {"mode": "fast"},
        "sequential_image_generation": "auto",
        "sequential_image_generation_options": {"max_images": 3},
        "watermark": False,
    },
    "output": {"dir": "out", "path": "{{ subject }}/{{ size }}"},
    "run": {"rate": "50/s", "max_in_flight": 8, "attempts": 3, "task_timeout": "1h30m"},
    "budget": {"max_cost_usd": 1.5, "max_images": 40, "price_per_image_usd": {"2K": 0.035}},
}
telling = st.sampled_from(
    ["0/s", "1.5/h", "5/s\n", "5 /s", "10m", "0s", "1h\n", "{{ x }}", "{%", "a b", "a", "_a", "9", "", *SPACES]
)


def replaced(value, path, new):
    """A copy of a value in which what lies at the path is another."""
    if not path:
        return new
    if isinstance(value, dict):
        names = list(value)
        at = names[path[0] % len(names)] if names else None
        return {name: replaced(inner, path[1:], new) if name == at else inner for name, inner in value.items()}
    if isinstance(value, list) and value:
        at = path[0] % len(value)
        return [replaced(inner, path[1:], new) if index == at else inner for index, inner in enumerate(value)]
    return new


@settings(max_examples=examples(1000))
@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 12), min_size=1, max_size=4), st.one_of(telling, texts, odd, numbers, urls)),
        max_size=2,
    )
)
def test_both_readers_of_the_schema_agree_on_jobs(changes):
    job = WHOLE_JOB
    for path, new in changes:
        job = replaced(job, path, new)
    slow = validator("job").is_valid(job)
    assert slow or changes
    if simple(job) and encodable(job):
        assert accepts("job")(job) is slow
    else:
        # Half a character is met only where a rule looks at the text.
        assert not accepts("job")(job) or (slow and simple(job))


def encodable(body):
    try:
        json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("text", ["https://a{}b", "https://{}b", "https://a/{}", "https://a/b{}c", DATA + "{}"])
def test_both_know_the_same_spaces(space, text):
    body = {"model": "doubao-seedance-4-5", "prompt": "x", "image_urls": [text.format(space)]}
    assert ACCEPTS(body) is VALIDATOR.is_valid(body)


@settings(max_examples=examples(500))
@given(st.one_of(texts, st.text(), odd))
def test_the_prompt_alone_is_judged_as_in_a_request(prompt):
    field = schema("request")["properties"]["prompt"]
    assert text_test(field)
    assert RequestSchema().takes_prompt(prompt) is text_test(field)(prompt) is validator_of(field).is_valid(prompt)
    body = {"model": "doubao-seedance-4-5", "prompt": prompt}
    assert VALIDATOR.is_valid(body) is text_test(field)(prompt)


@pytest.mark.parametrize(
    "part",
    [{"type": "string"}, {"type": "string", "pattern": "a", "minLength": 2}, {"type": ["string"], "pattern": "a"}, {}],
)
def test_only_a_schema_of_a_pattern_is_judged_by_it_alone(part):
    assert text_test(part) is None


def test_spaces_are_spelt_out_in_and_outside_of_classes():
    for pattern in (r"^\s*[^\s/?#]+\S$", r"[\]\s]x", r"\\s", r"\S\S"):
        plainer = spelt_out(pattern)
        for space in [*SPACES, "x", "s", "\\", "]", "["]:
            for text in (space, f"{space}x", f"{space}{space}", f"a{space}b", f"\\{space}"):
                assert bool(re.search(pattern, text)) == bool(re.search(plainer, text)), (pattern, text)
    with pytest.raises(ValueError, match="spell out"):
        spelt_out(r"[\Sx]")


def test_all_patterns_can_be_spelt_out():
    found = [
        pattern
        for name in ("request", "job")
        for pattern in re.findall(r'"pattern": ("(?:[^"\\]|\\.)*")', json.dumps(schema(name)))
    ]
    assert len(found) > 10
    for pattern in found:
        assert not re.search(r"(?<!\\)\\[sSwWdDbB]", spelt_out(json.loads(pattern)))
