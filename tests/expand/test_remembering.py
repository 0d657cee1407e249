"""What is remembered between cells is what would be made anew: texts, errors, bounds, paths, names, whole tasks."""

from __future__ import annotations

import dataclasses
import json

import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from seedream_batch.errors import InvalidJob
from seedream_batch.expand.expansion import Expansion, HashSet
from seedream_batch.expand.output_path import BadPath, Places, _checked, is_harmless, safe_path
from seedream_batch.jobfile import load_job
from seedream_batch.model.cell import name_of
from seedream_batch.model.cell_names import CellNames
from seedream_batch.templates.engine import TemplateEngine, TemplateError
from seedream_batch.templates.render_cache import CachedTemplate

NAMES = ("a", "b", "c", "fixed", "fresh")
VALUES = ["x", "", "yy" * 40, {"id": "i", "n": 3}, {"id": None}, ["p", "q"], 3, True, None, 2.5]
PIECES = [
    *("text ", "}} %}", "\n", "long " * 30, "{{ a }}", "{{ b }}", "{{ c }}", "{{ fixed }}", "{{ fresh }}"),
    *("{{ a.id }}", "{{ b['id'] | upper }}", "{{ a ~ b }}", "{{ 'c' }}", "{{ a.nope }}", "{{ unknown }}"),
    *("{% if a %}A{{ b }}{% else %}-{% endif %}", "{% for i in range(c) %}{{ loop.index }}{{ a }}{% endfor %}"),
    *("{% if b is mapping %}{{ b.id }}{% endif %}\n", "{{ a if c is string else fixed }}", "{{ range(3) | join }}"),
    *("{{ a | default('d') }}", "{{ c / 0 }}", "{{ c * 2 }}", "{{ b | length }}", "{# a comment #}", "{{ a[0] }}"),
    *("{% set d = a %}", "{{ d is defined }}", "{% set a = 'shadowed' %}", "{% include 'hero' %}"),
    *("{% macro m(x) %}<{{ x }}{{ b }}>{% endmacro %}", "{{ m(a) if m is defined }}"),
    *("{% for a in [1, 2] %}{{ a }}{% endfor %}", "{% for x in b if x != c %}{{ x }}{% else %}none{% endfor %}"),
    *("{% for i in range(200) %}{{ a }}{% endfor %}", "{{ fixed * 30 }}", "{{ a * 9 }}"),
]
CONTEXTS = st.lists(st.tuples(*[st.sampled_from(VALUES)] * 3, st.sampled_from(["f", ["g"]])), min_size=1, max_size=30)


def told(render, context):
    try:
        return render(context)
    except TemplateError as error:
        return (error.message, error.line, error.hint)


@settings(max_examples=examples(400))
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=7), CONTEXTS, st.sampled_from([300, 2_000, 100_000]))
def test_a_template_that_remembers_says_what_it_would_say_anew(pieces, contexts, bound):
    engine = TemplateEngine(lambda _: "hero {{ a }}", max_output=max(bound, 1_000), max_steps=bound)
    try:
        template = engine.compile("".join(pieces))
    except TemplateError:
        return
    remembering = CachedTemplate(template, {"a", "b", "c", "fresh"}, {"fresh"})
    for a, b, c, fresh in [*contexts] * 3:
        # A value that is new each time, and a name that is not always there.
        context = {"a": a, "b": b, "fixed": "F", "fresh": [*fresh], **({} if c is None else {"c": c})}
        assert told(remembering.render, context) == told(template.render, context)


def test_a_template_is_taken_apart_when_it_has_been_asked_often():
    engine = TemplateEngine()
    template = engine.compile("{{ a.id }} and {{ a.n }}, {{ b }}{{ fixed }}")
    remembering = CachedTemplate(template, {"a", "b"})
    rows = [{"id": f"i{number}", "n": number} for number in range(40)]
    texts = {remembering.render({"a": row, "b": b, "fixed": "!"}) for row in rows for b in ("x", "y")}
    assert texts == {f"i{number} and {number}, {b}!" for number in range(40) for b in ("x", "y")}
    assert [name for _, name, _ in remembering._pieces._simple] == ["a", "b"]


def test_a_template_with_the_word_from_in_it_is_taken_apart_as_well():
    template = TemplateEngine().compile("{{ a }} seen from {{ b }}")
    assert not template.includes
    assert len(template.pieces({"a", "b"}.__contains__)) == 2


@pytest.mark.parametrize(
    ("source", "small", "large"),
    [
        ("{% for i in range(a) %}{% endfor %}{% for i in range(b) %}{% endfor %}", 0, 700),
        ("{{ a * 60 }} {{ b * 60 }}", "", "x" * 10),
    ],
)
def test_pieces_that_are_within_bounds_alone_and_not_together_are_refused(source, small, large):
    engine = TemplateEngine(max_output=1_000, max_steps=1_000)
    remembering = CachedTemplate(engine.compile(source), {"a", "b"})
    for _ in range(20):
        remembering.render({"a": small, "b": small})
    assert remembering._pieces
    for _ in range(3):
        remembering.render({"a": large, "b": small})
        remembering.render({"a": small, "b": large})
        with pytest.raises(TemplateError, match=r"too many steps|more than 1,000 characters"):
            remembering.render({"a": large, "b": large})
        remembering.render({"a": small, "b": small})
    assert remembering._pieces is None


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr("seedream_batch.templates.render_cache._PIECE", 50)
    monkeypatch.setattr("seedream_batch.templates.render_cache._CHARACTERS", 400)
    remembering = CachedTemplate(TemplateEngine().compile("{{ a }}, {{ b }}"), {"a", "b"})
    for number in range(1000):
        assert remembering.render({"a": str(number), "b": "x" * (number % 90)}) == f"{number}, {'x' * (number % 90)}"
        for _, _, texts in remembering._pieces._simple if remembering._pieces else ():
            assert len(texts) <= 50
            assert sum(map(len, texts.values())) <= 400


@pytest.mark.parametrize("axis", ["range", "dict", "namespace"])
def test_an_axis_may_have_the_name_of_a_function_of_templates(tasks, axis):
    specs = tasks({"version": 1, "matrix": {axis: ["a", "b"]}, "request": {"prompt": f"{{{{ {axis} }}}}"}})
    assert [json.loads(spec.body)["prompt"] for spec in specs] == ["a", "b"]


PATH_CHARACTERS = st.sampled_from(
    [*"aZ0_=+- .:/\\*?é\u0301\n\x7f~", "con", "COM1", "nul.", "manifest.", ".png", "x" * 90]
)


@settings(max_examples=examples(1500))
@given(st.lists(PATH_CHARACTERS, max_size=12).map("".join))
def test_a_path_that_needs_no_looking_into_is_what_looking_into_it_gives(path):
    def outcome(check):
        try:
            return check(path)
        except BadPath as error:
            return str(error), error.cause

    assert outcome(safe_path) == outcome(_checked)


@pytest.mark.parametrize("path", ["a/b_c/1-1 x.y", "x", "s000001/16-9_2K", "Fox + Panda/1"])
def test_usual_paths_need_no_looking_into(path):
    assert is_harmless(path)


AXIS_VALUES = st.one_of(
    st.text(max_size=12),
    st.integers(-3, 3),
    st.booleans(),
    st.none(),
    st.floats(0, 3),
    st.dictionaries(
        st.sampled_from(["id", "name", 'q"', "é"]), st.one_of(st.text(max_size=5), st.just([1, "}"])), max_size=3
    ),
    st.lists(st.text(max_size=3), max_size=2),
)


@settings(max_examples=examples(300))
@given(
    st.lists(
        st.dictionaries(st.sampled_from(["a", "b", "subject", "n"]), AXIS_VALUES, max_size=3), min_size=1, max_size=8
    ),
    st.booleans(),
)
def test_the_names_of_cells_are_those_of_their_values(cells, spaced):
    names = CellNames()
    separators = (", ", ": ") if spaced else (",", ":")
    for cell in cells * 3:
        found = names.of(json.dumps(cell, ensure_ascii=False, separators=separators))
        assert list(found.items()) == [(axis, name_of(value)) for axis, value in cell.items()]


def test_the_names_of_cells_are_forgotten_before_they_fill_the_memory():
    names = CellNames()
    for number in range(10_000):
        assert names.of(f'{{"a":1,"b":"{number}"}}') == {"a": "1", "b": str(number)}
    assert len(names._rests) <= 4096
    assert len(names._names) <= 4096


@given(st.lists(st.sampled_from([*"abcdefgh", "é", ""]), max_size=12))
def test_what_is_seen_twice(texts):
    seen = HashSet()
    for text in texts:
        seen.add(text)
    assert seen.twice() == {hash(text) for text in texts if texts.count(text) > 1}


SUBJECTS = ["x", "y/z", "", "{{", {"id": "i"}, {"id": "j", "p": 2}, "con", "A", "a"]
PROMPTS = [
    *("{{ s }}", "{{ s.id if s is mapping else s }}!", "{{ s.p }}", "{{ s }}{{ range }}{{ sample }}", " ", "k"),
    "{{ s.id or s }} in {{ size }}, {{ look }} {{ range is callable }}",
]
INCLUDED = [{"s": "inc"}, {"s": "x", "size": "4:3"}, {"size": "1:1"}, {"s": "t", "look": "L"}]
EXCLUDED = [{"s": "x"}, {"s": ["A", "i"]}, {"size": "auto", "s": "j"}, {"s": {"p": 2}}]
PLACES = [
    *("{{ s }}/{{ size }}-{{ sample }}", "{{ look }}{{ s.id or s }}{{ index }}"),
    "{{ request.prompt }}{{ resolution }}{{ size }}",
]


def some(values, least=1, most=4):
    return st.lists(st.sampled_from(values), min_size=least, max_size=most, unique_by=str)


JOBS = st.fixed_dictionaries(
    {
        "version": st.just(1),
        "matrix": st.fixed_dictionaries(
            {"s": some(SUBJECTS)},
            optional={
                "size": some(["1:1", "16:9", "auto", "bad"]),
                "n": some([1, 2, 1.0, 16], most=2),
                "range": some(["q", "r"]),
            },
        ),
        "request": st.fixed_dictionaries(
            {"prompt": st.sampled_from(PROMPTS)},
            optional={
                "image_urls": st.sampled_from([[], ["https://a.b/c"], ["https://a.b/{{ sample }}"], ["{{ s }}"]]),
                "resolution": st.sampled_from(["2K", "{{ '4K' if s == 'x' else '2K' }}", "{{ s }}"]),
                "watermark": st.sampled_from([False, "{{ sample == 1 }}"]),
            },
        ),
    },
    optional={
        "include": some(INCLUDED, 0),
        "exclude": some(EXCLUDED, 0, 2),
        "repeat": st.sampled_from([1, 2, 3]),
        "vars": st.just({"look": "V"}),
        "output": st.fixed_dictionaries({"path": st.sampled_from(PLACES)}),
    },
)


def outcome(file):
    """The tasks of a job, and the problems."""
    specs = []
    try:
        specs += load_job(file).tasks()
    except InvalidJob as error:
        return specs, [dataclasses.astuple(problem) for problem in error.problems]
    return specs, []


@settings(max_examples=examples(300))
@given(JOBS)
def test_a_job_whose_cells_are_remembered_is_the_job_whose_cells_are_made_anew(job_file, job):
    file = job_file(job)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seedream_batch.templates.render_cache._TRIAL", 1)
        found = outcome(file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Expansion, "_expand_cached", lambda *_: None)
        patch.setattr(CachedTemplate, "render", lambda self, context: self._template.render(context))
        patch.setattr(Places, "of", careful_places(Places.of))
        assert found == outcome(file)


def careful_places(of):
    def places(self, *args):
        self._default._harmless = []
        return of(self, *args)

    return places
