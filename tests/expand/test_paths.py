"""Output paths: what is replaced, what is refused, and that no two images share one."""

from __future__ import annotations

import json
import unicodedata

import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from seedream_batch.errors import InvalidJob
from seedream_batch.expand.output_path import BadPath, collision_key, safe_path
from seedream_batch.jobfile import load_job

SAFE = [
    ("panda/16:9-2K-1", "panda/16-9-2K-1"),
    ('a<b>c:d"e\\f|g?h*i', "a-b-c-d-e-f-g-h-i"),
    ("tab\tand\nline\r", "tab-and-line"),
    ("nul\0byte", "nul-byte"),
    ("\x1b[31mred\x7f\x85\x9f", "-[31mred---"),
    ("line\u2028para\u2029end", "line-para-end"),
    ("  spaced  / name ", "spaced/name"),
    ("trailing. . .", "trailing"),
    ("dots.../and. /more.", "dots/and/more"),
    ("non-breaking.\xa0.", "non-breaking"),
    ("v1.2/a.b.c", "v1.2/a.b.c"),
    ("con", "_con"),
    ("CON/Aux.txt/lpt1", "_CON/_Aux.txt/_lpt1"),
    ("com1 .x", "_com1 .x"),
    ("COM¹", "_COM¹"),
    ("conin$", "_conin$"),
    ("console/com10/auxiliary", "console/com10/auxiliary"),
    ("cafe\u0301", "café"),
    ("-rf/~", "-rf/~"),
    ("photo.png/2K", "photo-png/2K"),
    ("photo.JPEG/x.jpg/y", "photo-JPEG/x-jpg/y"),
    ("a/photo.png", "a/photo.png"),
    ("manifest.db/a", "_manifest.db/a"),
    ("Manifest.lock/a", "_Manifest.lock/a"),
    ("a/manifest.db/b", "a/manifest.db/b"),
    ("manifest/a", "manifest/a"),
    ("熊猫/🐼", "熊猫/🐼"),
    ("x" * 220, "x" * 220),
]


@pytest.mark.parametrize(("rendered", "path"), SAFE)
def test_what_is_replaced(rendered, path):
    assert safe_path(rendered) == path
    assert safe_path(path) == path


REFUSED = [
    ("", "is empty"),
    (" \n", "is empty"),
    ("/etc/passwd", "'/etc/passwd' is absolute; output paths are relative to output.dir"),
    ("//host/share", "is absolute"),
    ("C:/x", "is absolute"),
    ("c:\\x", "is absolute"),
    ("..", "'..' contains '..'; a path must not leave output.dir"),
    ("a/../b", "contains '..'"),
    ("a/..", "contains '..'"),
    ("a/ ../b", "contains an empty name"),
    ("a//b", "'a//b' contains an empty name"),
    ("a/", "contains an empty name"),
    ("./a", "contains an empty name"),
    ("a/./b", "contains an empty name"),
    ("a/ . /b", "contains an empty name"),
    ("...", "contains an empty name"),
    (".hidden", "'.hidden' contains a name that starts with a dot, which is reserved for seedream-batch"),
    ("a/.git/b", "contains a name that starts with a dot"),
    ("a/ .git", "contains a name that starts with a dot"),
    ("x" * 221, f"'{'x' * 60}...' contains a name longer than 220 bytes"),
    ("é" * 111, "contains a name longer than 220 bytes"),
    ("/".join(["x" * 200] * 5), "is longer than 1000 bytes"),
    ("half \ud83d of one", "is not valid Unicode"),
]


@pytest.mark.parametrize(("rendered", "why"), REFUSED)
def test_what_is_refused(rendered, why):
    with pytest.raises(BadPath) as caught:
        safe_path(rendered)
    assert why in str(caught.value)
    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()


def test_a_bad_path_stops_at_once_however_long():
    with pytest.raises(BadPath):
        safe_path(". " * 50_000 + "x")


PIECES = st.sampled_from(
    [
        *[
            "..",
            ".",
            "/",
            "\\",
            ":",
            "con",
            "nul",
            "COM1",
            " ",
            "\xa0",
            "\0",
            "\n",
            "*",
            "a",
            "Z",
            "é",
            "e\u0301",
            "ß",
            "🐼",
        ],
        *[".png", "manifest.", "\u212b", "\u2028", "\u200b", "~", "$", "\u0338"],
    ]
)


@settings(max_examples=examples(500))
@given(st.one_of(st.text(max_size=30), st.lists(PIECES, max_size=10).map("".join)))
def test_a_safe_path_never_escapes(rendered):
    try:
        path = safe_path(rendered)
    except BadPath:
        return
    names = path.split("/")
    assert not path.startswith("/")
    assert unicodedata.is_normalized("NFC", path)
    assert len(path.encode()) <= 1000
    for name in names:
        assert name == name.strip()
        assert name
        assert not name.startswith(".")
        assert not name.endswith(".")
        assert len(name.encode()) <= 220
        assert not set(name) & set('<>:"\\|?*')
        assert not any(unicodedata.category(char) in {"Cc", "Zl", "Zp", "Cs"} for char in name)
        assert name.partition(".")[0].strip(" ").casefold() not in {"con", "nul", "aux", "prn", "com1", "conin$"}
    assert not any(name.lower().endswith((".png", ".jpg", ".jpeg")) for name in names[:-1])
    assert safe_path(path) == path


@settings(max_examples=examples(200))
@given(st.text(max_size=20))
def test_letter_case_and_unicode_form_do_not_tell_paths_apart(text):
    for form in ("NFC", "NFD"):
        assert collision_key(unicodedata.normalize(form, text)) == collision_key(text)
    if text.isascii():
        assert collision_key(text.upper()) == collision_key(text.lower()) == collision_key(text)


def job(values, path="{{ v }}", request=None, **more):
    return {
        "version": 1,
        "matrix": {"v": values},
        "request": {"prompt": "{{ v }} {{ sample }}", **(request or {})},
        "output": {"path": path},
        **more,
    }


COLLISIONS = [
    (["16:9", "16?9"], "'16-9' of v=16:9, and '16-9' of v=16?9"),
    (["Fox", "fOX"], "'Fox' of v=Fox, and 'fOX' of v=fOX"),
    (["Stra\u00dfe", "STRASSE"], "'Straße' of v=Straße, and 'STRASSE' of v=STRASSE"),
    (["caf\u00e9", "cafe\u0301"], "'café' of v=café, and 'café' of v=cafe\u0301"),
    (["a.", "a"], "'a' of v=a., and 'a' of v=a"),
]


@pytest.mark.parametrize(("values", "both"), COLLISIONS)
def test_two_cells_with_one_path(told, values, both):
    (problem,) = told(job(["first", *values, "last"]))
    start, _, rest = problem.partition("output.path: is the same path for two images: ")
    assert start.startswith("job.yaml:1:")
    assert rest.startswith(f"{both} (use every axis in output.path")


def test_two_samples_with_one_path(told):
    found = told(job(["a"], repeat=3))
    assert ["'a' of v=a sample=1, and 'a' of v=a sample=2" in found[0], "sample=3" in found[1]] == [True, True]


REFERENCES = {"image_urls": ["https://example.com/a.png"], "n": 2}


def test_several_images_are_numbered(tasks, told):
    (spec,) = tasks(job(["a"], request=REFERENCES))
    assert (spec.images, spec.paths) == (2, ("a",))
    # `a` of two images is a-1 and a-2
    mixed = {
        "version": 1,
        "matrix": {"v": [{"id": "a", "n": 2}, {"id": "a-2", "n": 1}]},
        "request": {"prompt": "{{ v.id }}", "image_urls": REFERENCES["image_urls"], "n": "{{ v.n }}"},
        "output": {"path": "{{ v.id }}"},
    }
    (problem,) = told(mixed)
    assert "is the same path for two images: 'a-2' of v=a image=2, and 'a-2' of v=a-2 (" in problem


def test_index_gives_each_image_a_path(tasks, told):
    (spec,) = tasks(job(["a"], "{{ index }}/{{ v }}", request=REFERENCES))
    assert spec.paths == ("1/a", "2/a")
    (spec,) = tasks(job(["a"], "{{ v }}{% if index %}{% endif %}", request={}))
    assert spec.paths == ("a",)
    (problem,) = told(job(["a"], "{{ v }}{{ index * 0 }}", request=REFERENCES))
    assert "is the same path for two images: 'a0' of v=a image=1, and 'a0' of v=a image=2 (" in problem


def test_a_path_sees_the_request_and_what_is_default_in_it(tasks):
    path = "{{ size }}/{{ resolution }}/{{ request.prompt }}/{{ request.model }}"
    (spec,) = tasks(job(["a"], path))
    assert spec.paths == ("1-1/2K/a 1/doubao-seedance-4-5",)


def test_many_collisions_are_one_problem(told):
    (problem,) = told(job([f"v{index:03}" for index in range(200)], "same"))
    assert "'same' of v=v000, and 'same' of v=v001, and 198 more times (" in problem


def test_bad_paths_of_cells_are_told_with_the_cell(told):
    found = told(job(["../up", "ok", ".hidden", "/abs"]))
    assert [problem.partition("output.path: ")[2] for problem in found] == [
        "'../up' contains '..'; a path must not leave output.dir [cell v=../up]",
        "'.hidden' contains a name that starts with a dot, which is reserved for seedream-batch [cell v=.hidden]",
        "'/abs' is absolute; output paths are relative to output.dir [cell v=/abs]",
    ]


def test_one_cause_is_told_once_however_many_cells_have_it(told):
    (problem,) = told(job([f"v{index}" for index in range(300)], "../{{ v }}"))
    assert problem.endswith(
        "output.path: '../v0' contains '..'; a path must not leave output.dir [cell v=v0, and 299 more cells]"
    )


def test_two_cells_with_one_request(told):
    unused = {
        "version": 1,
        "matrix": {"subject": ["panda", "fox"], "mood": ["calm", "wild"]},
        "request": {"prompt": "{{ subject }}"},
    }
    hint = (
        "only one image would be generated; use the axis in the prompt, remove one of the cells, "
        "or use repeat for several samples of one prompt"
    )
    assert [problem.partition("request: ")[2] for problem in told(unused)] == [
        f"is the same request in two cells: subject={name} mood=calm, and subject={name} mood=wild ({hint})"
        for name in ("panda", "fox")
    ]
    unused["repeat"] = 2
    assert "subject=panda mood=calm sample=2, and subject=panda mood=wild sample=2" in told(unused)[1]


def test_an_axis_that_the_prompt_forgets_is_one_problem(told):
    forgotten = {
        "version": 1,
        "matrix": {"subject": [f"s{index}" for index in range(100)], "mood": ["calm", "wild", "sad"]},
        "request": {"prompt": "{{ subject }}"},
    }
    (problem,) = told(forgotten)
    assert "in two cells: subject=s0 mood=calm, and subject=s0 mood=wild, and 199 more times (" in problem


def test_twins_hidden_by_references_and_includes(told, picture):
    same = {
        "version": 1,
        "matrix": {"ref": ["a.png", "b.png"]},
        "include": [{"ref": "a.png"}],
        "request": {"prompt": "a panda", "image_urls": ["{{ ref }}"]},
    }
    found = told(same, {"a.png": picture(), "b.png": picture()})
    assert ["ref=a.png, and ref=b.png" in found[0], "ref=a.png, and ref=a.png" in found[1]] == [True, True]


def default_paths(specs):
    return [spec.paths[0] for spec in specs]


def test_the_default_path_is_readable(tasks):
    def paths(matrix, **more):
        prompt = "".join(f"{{{{ {name}{'.id' * isinstance(values[0], dict)} }}}} " for name, values in matrix.items())
        return default_paths(
            tasks({"version": 1, "matrix": matrix, "request": {"prompt": prompt + "{{ sample }}"}, **more})
        )

    subjects = [{"id": "panda", "text": "a panda"}, {"id": "red_fox", "text": "a fox"}]
    assert paths({"subject": subjects, "size": ["1:1", "16:9"], "resolution": ["4K"]}) == [
        "panda/1-1_4K",
        "panda/16-9_4K",
        "red-fox/1-1_4K",
        "red-fox/16-9_4K",
    ]
    assert paths({"subject": ["panda", "a big fox"]}) == ["panda", "a-big-fox"]
    assert paths({"subject": ["panda"]}, repeat=2) == ["panda/1", "panda/2"]
    assert paths({"subject": subjects[:1], "size": ["1:1"]}, repeat=2) == ["panda/1-1_1", "panda/1-1_2"]
    assert paths({"x": ["../../etc", "con", "CON.txt", ".x"]}) == ["-..-etc", "_con", "_CON.txt", "x"]


def test_the_default_path_of_included_cells(tasks):
    specs = tasks("""
version: 1
matrix: {subject: [{id: panda, text: p}], size: [1:1]}
include:
  - {size: 21:9, subject: {id: panda, text: p}}
  - {size: 21:9, subject: {id: wide, text: w}}
  - {subject: {id: tall, text: t}}
  - {subject: {id: wild, text: t}, size: 1:1, mood: [a, b]}
request: {prompt: "{{ subject.id }}"}
""")
    assert default_paths(specs) == [
        "panda/1-1",
        "panda/21-9",
        "wide/21-9",
        "subject=tall",
        "subject=wild/size=1-1_mood=[-a-,--b-]",
    ]


TEXTS = st.sampled_from(
    [
        *[
            "a",
            "b",
            "A",
            "a-b",
            "b-c",
            "a_b",
            "a b",
            "a/b",
            "a:b",
            "a?b",
            "..",
            ".a",
            "a.",
            "con",
            "é",
            "e\u0301",
            "x" * 50,
        ],
        *[
            "x" * 49 + "y",
            "1",
            1,
            True,
            "true",
            None,
            1.5,
            {"id": "a"},
            {"id": "a", "text": "b"},
            ["a"],
            [],
            {},
            "🐼" * 60,
        ],
    ]
)


@settings(max_examples=examples(80))
@given(data=st.data())
def test_the_default_path_is_unique_and_keeps_when_values_are_reordered(data, job_file):
    def distinct(values):
        return list({json.dumps(value): value for value in values}.values())

    axes = {
        name: distinct(data.draw(st.lists(TEXTS, min_size=1, max_size=5)))
        for name in data.draw(st.lists(st.sampled_from("uvwxyz"), min_size=1, max_size=4, unique=True))
    }
    names = [*axes, "more", "m"]
    include = data.draw(st.lists(st.dictionaries(st.sampled_from(names), TEXTS, min_size=1), max_size=3))
    job = {"version": 1, "matrix": axes, "include": include, "request": {"prompt": "the same for all"}}

    def paths(job):
        found = {}
        for spec in Lenient(job_file(job)):
            found.setdefault(json.dumps(json.loads(spec.cell), sort_keys=True), spec.paths)
        return found

    first = paths(job)
    assert len({collision_key(path) for (path,) in first.values()}) == len(first)
    assert all(safe_path(path) == path for (path,) in first.values())
    shuffled = {name: data.draw(st.permutations(values)) for name, values in axes.items()}
    assert paths({**job, "matrix": shuffled, "include": data.draw(st.permutations(include))}) == first


class Lenient:
    """The tasks of a job; that two cells are the same is no matter here."""

    def __init__(self, file):
        self._loaded = load_job(file)

    def __iter__(self):
        specs = iter(self._loaded.tasks())
        while True:
            try:
                yield next(specs)
            except StopIteration:
                return
            except InvalidJob as error:
                if not all("is the same request" in problem.message for problem in error.problems):
                    raise
                return
