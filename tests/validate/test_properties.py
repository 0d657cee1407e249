from examples import examples
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seedream_batch.model.document import Document, Mark
from seedream_batch.validate.job_file import job_problems
from seedream_batch.validate.request_schema import RequestSchema
from seedream_batch.validate.schemas import validator

SCHEMA = RequestSchema()
URL = "https://example.com/a.jpg"
OPTIONS = "sequential_image_generation_options"

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-1, 17),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["1:1", "16:10", "auto", "2K", "1K", "3", "true", "30m", "5/s", "{{ x }}", "hold", URL, "a\n"]),
)
keys = st.one_of(
    st.text(max_size=10),
    st.sampled_from(["file", "size", "n", "mode", "max_images", "prompt", "a", "2K", "send", "properties", "$ref"]),
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=3), max_leaves=6
)

REQUEST_FIELDS = [*(path[0] for path in SCHEMA.field_types if len(path) == 1), "quality"]
JOB_FIELDS = [
    "version", "name", "vars", "matrix", "exclude", "include", "repeat", "request", "references", "output", "budget",
    "run", "notify", "prompt",
]  # fmt: skip

requests = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from(["doubao-seedance-4-5", "doubao-seedream-4.5", "other"]),
        "prompt": st.sampled_from(["a panda", "x", " ", ""]),
        "size": st.sampled_from(["1:1", "9:21", "auto", "16:10"]),
        "resolution": st.sampled_from(["2K", "4K", "1K"]),
        "n": st.integers(0, 16) | st.sampled_from([1.0, 2.0, 1.5, True, "3"]),
        "image_urls": st.lists(st.just(URL), max_size=16) | st.just([]),
        "sequential_image_generation": st.sampled_from(["auto", "disabled"]),
        OPTIONS: st.fixed_dictionaries({}, optional={"max_images": st.integers(0, 16)}),
        "watermark": st.booleans(),
    },
)
bodies = st.one_of(values, requests, st.dictionaries(st.sampled_from(REQUEST_FIELDS), values, max_size=5))


def check_request(body):
    problems = SCHEMA.problems(body)
    assert SCHEMA.is_valid(body) is (not problems)
    assert SCHEMA.is_valid(body) is validator("request").is_valid(body)
    for problem in problems:
        assert problem.message.isprintable()
        assert problem.hint.isprintable()


def check_job(value):
    problems = job_problems(Document("j.yaml", value, Mark(1, 1)))
    assert validator("job").is_valid(value) is (not problems)
    for problem in problems:
        assert str(problem).isprintable()
        assert "valid under" not in problem.message
        assert "something else" not in problem.message


@settings(max_examples=examples(500))
@given(bodies)
@example({"image_urls": True, "sequential_image_generation_options": None})
@example({"model": "doubao-seedance-4-5", "prompt": "x", "image_urls": {}, "n": 2})
def test_any_request_is_judged_and_explained(body):
    check_request(body)


def put(value, path, new):
    """A copy of `value` with the part at `path` replaced."""
    if not path:
        return new
    step, *rest = path
    if isinstance(value, list):
        return [put(item, rest, new) if index == step else item for index, item in enumerate(value)]
    return {key: put(item, rest, new) if key == step else item for key, item in value.items()}


def paths(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, item in items:
        yield from paths(item, (*path, step))


WHOLE = {
    "version": 1,
    "name": "a",
    "vars": {"style": "x"},
    "matrix": {
        "subject": [{"id": "a"}],
        "other": {"file": "a.csv"},
        "size": ["1:1"],
        "resolution": ["2K"],
        "n": [1],
        "watermark": [True],
        "model": ["doubao-seedance-4-5"],
        "sequential_image_generation": ["auto"],
    },
    "exclude": [{"size": ["1:1"], "n": 1, "subject": {"id": "a"}}],
    "include": [{"size": "1:1", "subject": "b"}],
    "repeat": 1,
    "request": {
        "model": "doubao-seedance-4-5",
        "prompt": {"file": "a.j2"},
        "size": "{{ size }}",
        "resolution": "2K",
        "n": 1,
        "image_urls": ["a.jpg"],
        "optimize_prompt_options": {"mode": "fast"},
        "sequential_image_generation": "auto",
        OPTIONS: {"max_images": 1},
        "watermark": True,
    },
    "references": {"send": "upload"},
    "output": {"dir": "a", "path": "b"},
    "budget": {"max_images": 1, "max_cost_usd": 1, "price_per_image_usd": {"2K": 1}},
    "run": {"max_in_flight": 1, "rate": "5/s", "attempts": 1, "task_timeout": "30m", "on_unknown": "hold"},
}


def test_the_whole_job_is_valid():
    assert job_problems(Document("j.yaml", WHOLE, Mark(1, 1))) == []


@settings(max_examples=examples(500))
@given(
    st.one_of(
        values,
        st.dictionaries(st.sampled_from(JOB_FIELDS), values, max_size=5),
        st.builds(put, st.just(WHOLE), st.sampled_from(list(paths(WHOLE))), values),
    )
)
def test_any_job_is_judged_and_explained(value):
    check_job(value)
