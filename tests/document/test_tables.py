"""Tables and JSON: their values, where these stand, and every problem of a file at once."""

from __future__ import annotations

import json
import time

import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from seedream_batch.document.tables import parse_table
from seedream_batch.errors import InvalidJob
from seedream_batch.model.document import Position
from seedream_batch.model.text import CONTROL, is_empty, normal


def problems(data, file):
    with pytest.raises(InvalidJob) as caught:
        parse_table(data if isinstance(data, bytes) else data.encode(), file)
    return caught.value.problems


def table(text, file):
    return parse_table(text.encode(), file)


def test_csv():
    found = table('\ufeffid, text\r\n1,"a ""big"" fox,\nasleep"\r\n\r\n2,no\r\n', "s.CSV")
    assert found.values == [{"id": "1", "text": 'a "big" fox,\nasleep'}, {"id": "2", "text": "no"}]
    assert found.positions == [(2, 1), (5, 1)]
    assert found.position(1) == Position("s.CSV", 5, 1)
    assert found.typed is False


def test_tsv():
    assert table("id\ttext\na\tb, c\n", "s.tsv").values == [{"id": "a", "text": "b, c"}]


def test_txt():
    found = table("a fox\n\n  a panda \r\n", "s.txt")
    assert (found.values, found.positions, found.typed) == (["a fox", "a panda"], [(1, 1), (3, 3)], False)


def test_jsonl():
    found = table('{"id": 1}\n\n  "x"\r\n', "s.jsonl")
    assert (found.values, found.positions, found.typed) == ([{"id": 1}, "x"], [(1, 1), (3, 3)], True)


def test_json():
    found = table('[1,\n  {"a": [0]}, "x"\n]\n', "s.json")
    assert (found.values, found.positions, found.typed) == ([1, {"a": [0]}, "x"], [(1, 2), (2, 3), (2, 15)], True)


def test_yaml():
    found = table("- 16:9\n- {id: a}\n", "s.yml")
    assert (found.values, found.positions, found.typed) == (["16:9", {"id": "a"}], [(1, 3), (2, 3)], True)


@pytest.mark.parametrize(
    ("data", "file", "line", "column", "message"),
    [
        ("a", "s.xlsx", 1, 1, "the suffix .xlsx"),
        ("a", "s", 1, 1, "without a suffix"),
        ("", "s.csv", 1, 1, "header row"),
        ("a,b\n", "s.csv", 1, 1, "no values"),
        ("a,,b\n1,2,3\n", "s.csv", 1, 1, "column 2 has no name"),
        ("a,b,a\n1,2,3\n", "s.csv", 1, 1, "'a' occurs 2 times"),
        ('a\n"open\n', "s.csv", 2, 1, "never closed"),
        ('a\n"x"y\n', "s.csv", 2, 1, "after a closing quote"),
        ("a\n" + "x" * 200_000 + "\n", "s.csv", 2, 1, "longer than"),
        ('"open\n', "s.csv", 1, 1, "never closed"),
        ("a\nb\0\n", "s.csv", 2, 2, "NUL"),
        ("a\nb\0\n", "s.txt", 2, 2, "NUL"),
        ("\n \n", "s.txt", 1, 1, "no values"),
        ("", "s.jsonl", 1, 1, "no values"),
        ('{"a": 1} 2\n', "s.jsonl", 1, 10, "unexpected text"),
        ('{"a": 1, "a": 2}\n', "s.jsonl", 1, 1, "'a' is given twice"),
        ("[]", "s.json", 1, 1, "no values"),
        ("{}", "s.json", 1, 1, "must contain a list"),
        ("[1,\n 2", "s.json", 2, 3, "comma or ]"),
        ("[1,\n]", "s.json", 2, 1, "not JSON"),
        ("[1] 2", "s.json", 1, 5, "unexpected text"),
        ("[1, NaN]", "s.json", 1, 5, "NaN"),
        ("[1, -Infinity]", "s.json", 1, 5, "-Infinity"),
        ("[1, 1e999]", "s.json", 1, 5, "1e999"),
        ("[1, " + "1" * 5000 + "]", "s.json", 1, 5, "5000 digits"),
        ('["\\ud800"]', "s.json", 1, 2, "surrogate"),
        ("[" * 100_000, "s.json", 1, 2, "deeper than 100"),
        ("[" * 150 + "]" * 150, "s.json", 1, 2, "deeper than 100"),
        ("a: 1\n", "s.yaml", 1, 1, "must contain a list"),
        ("- a\n- *b\n", "s.yaml", 2, 3, "no anchor"),
        (b"a\n\xff\n", "s.txt", 2, 1, "not UTF-8"),
        (b"\xff\xfea\0", "s.csv", 1, 1, "UTF-16"),
    ],
)  # fmt: skip
def test_says_what_is_wrong_and_where(data, file, line, column, message):
    (problem,) = problems(data, file)
    assert message in problem.message
    assert problem.position == Position(file, line, column)


def test_an_unknown_suffix_lists_the_known_ones():
    assert problems("", "s.xml")[0].hint == "known: .csv, .tsv, .txt, .jsonl, .json, .yaml, .yml"


def test_every_bad_row_is_told():
    found = problems('a,b\n1\n1,2\n1,2,3\n"x"y,2\n1,2,3,4\n', "s.csv")
    assert [problem.position.line for problem in found] == [2, 4, 5, 6]
    found = problems('1\n{"a"}\n[1,]\nNaN\n', "s.jsonl")
    assert [problem.position.line for problem in found] == [2, 3, 4]


def test_a_mistake_in_json_is_told_with_its_place():
    [problem] = problems('[{"a": 1,\n  b: 2}]', "s.json")
    assert (problem.position.line, problem.position.column) == (2, 3)
    assert problem.message.startswith("not JSON: ")
    assert "unexpected text after the list" in problems("[1] 2", "s.json")[0].message
    assert "unexpected text after the value of this line" in problems("1 2", "s.jsonl")[0].message


CONTROLS = [chr(code) for code in range(32) if CONTROL.match(chr(code))]
TEXT = st.text(st.characters(codec="utf-8", exclude_characters=CONTROLS))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXT),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(TEXT, inner)),
    max_leaves=10,
)


def test_a_json_file_that_is_one_long_line():
    started = time.process_time()
    found = table(json.dumps(["x" * 96] * 40_000), "s.json")
    assert time.process_time() - started < 1
    assert found.positions[:3] == [(1, 2), (1, 102), (1, 202)]
    assert found.positions[-1] == (1, 3_999_902)


@settings(max_examples=examples(50))
@given(st.lists(JSON, min_size=1), st.sampled_from([None, 2]), st.booleans())
def test_what_json_writes_is_read_back(values, indent, ascii_only):
    plain = [value for value in map(normal, values) if not is_empty(value)]
    text = json.dumps([*values, 0], indent=indent, ensure_ascii=ascii_only)
    assert list(table(text, "x.json").values) == [*plain, 0]
    lines = "\n".join(json.dumps(item, ensure_ascii=ascii_only) for item in [*values, 0])
    assert list(table(lines, "x.jsonl").values) == [*plain, 0]


@settings(max_examples=examples(1_000))
@given(
    st.one_of(
        st.binary(max_size=40),
        st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.lists(st.sampled_from([*'[]{},:"\\\r\n\t\0 a1-', "NaN", "1e999", "true", "\\ud800", '"a"', "é"])).map(
            lambda pieces: "".join(pieces).encode()
        ),
    ),
    st.sampled_from([".csv", ".tsv", ".txt", ".jsonl", ".json", ".yaml"]),
)
def test_no_input_brings_anything_but_problems(data, suffix):
    try:
        found = parse_table(data, "x" + suffix)
    except InvalidJob as caught:
        for problem in caught.problems:
            assert problem.message
            assert problem.position.line >= 1
            assert problem.position.column >= 1
    else:
        assert len(found.values) == len(found.positions) > 0
