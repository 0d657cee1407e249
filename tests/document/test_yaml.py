"""YAML: the values of its core schema, where they stand, and what is refused."""

from __future__ import annotations

import math
import time

import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seedream_batch.document.yaml_loader import parse_yaml
from seedream_batch.errors import InvalidJob
from seedream_batch.model.document import Position


def problems(text):
    with pytest.raises(InvalidJob) as caught:
        parse_yaml(text, "job.yaml")
    assert all(problem.position.file == "job.yaml" for problem in caught.value.problems)
    return caught.value.problems


def value(text):
    return parse_yaml(text, "job.yaml").value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *[(text, text) for text in ("16:9", "1:1", "21:9", "1:30:00", "no", "yes", "on", "off", "y", "1_000")],
        *[(text, text) for text in ("2024-01-01", "0b1", "0o8", "0xG", "1e", "e1", "+", ".", "1.2.3", "nan")],
        *[(text, None) for text in ("null", "Null", "NULL", "~")],
        *[(text, True) for text in ("true", "True", "TRUE")],
        *[(text, False) for text in ("false", "False", "FALSE")],
        ("tRUE", "tRUE"),
        ("12", 12),
        ("-012", -12),
        ("+7", 7),
        ("0o17", 15),
        ("0x1F", 31),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("-1.5E-2", -0.015),
        ("'12'", "12"),
        ('"true"', "true"),
        ("''", ""),
        ("!!str 12", "12"),
        ("!!int '12'", 12),
        ("!!float 3", 3.0),
        ("!!bool 'true'", True),
        ("!!null ''", None),
        ("!!seq [1]", [1]),
        ("!!map {a: 1}", {"a": 1}),
    ],
)  # fmt: skip
def test_values(text, expected):
    found = value(f"a: {text}\n")["a"]
    assert found == expected
    assert type(found) is type(expected)


def test_keys_are_the_text_written():
    assert value("2K: 1\n1: 2\non: 3\n~: 4\n0x1: 5\n'q': 6\n1.50: 7\n") == {
        "2K": 1, "1": 2, "on": 3, "~": 4, "0x1": 5, "q": 6, "1.50": 7,
    }  # fmt: skip


def test_blocks_are_text():
    assert value("a: |\n  1\n  {{ x }}\nb: >-\n  one\n  two\n") == {"a": "1\n{{ x }}\n", "b": "one two"}


def test_positions():
    document = parse_yaml("version: 1\nmatrix:\n  size: [1:1, 16:9]\n  subject:\n    - {id: a}\n", "job.yaml")
    assert document.position() == Position("job.yaml", 1, 1)
    assert document.position(("matrix", "size", 1)) == Position("job.yaml", 3, 15)
    assert document.position(("matrix", "size"), key=True) == Position("job.yaml", 3, 3)
    assert document.position(("matrix", "subject", 0, "id")) == Position("job.yaml", 5, 12)
    assert document.position(("matrix", "subject", 0, "text")) == Position("job.yaml", 5, 7)


def test_aliases_and_merge_keys():
    text = "a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc: {z: 5, <<: [*a, *b]}\nd:\n  <<: *a\n  x: 9\ne: *a\n'<<': 1\n"
    document = parse_yaml(text, "job.yaml")
    assert document.value["c"] == {"x": 1, "y": 2, "z": 5}
    assert document.value["d"] == {"x": 9, "y": 2}
    assert list(document.value["d"]) == ["x", "y"]
    assert document.value["e"] is document.value["a"]
    assert document.value["<<"] == 1
    assert document.position(("c", "x")) == Position("job.yaml", 1, 11)
    assert document.position(("c", "z"), key=True) == Position("job.yaml", 3, 5)
    assert document.position(("e", "y")) == Position("job.yaml", 1, 17)


def test_aliases_of_scalars_can_be_keys():
    assert value("a: &n 1\n*n : 2\n&k k: *k\n") == {"a": 1, "1": 2, "k": "k"}


def test_an_anchor_can_be_given_again():
    assert value("- &a 1\n- *a\n- &a 2\n- *a\n") == [1, 1, 2, 2]


def test_tells_every_repeated_key_at_once():
    found = problems("a: 1\nb:\n  c: 1\n  c: 2\n  - x\n".replace("  - x\n", "") + "a: 2\nl: [{d: 1, d: 1}]\ne: .inf\n")
    assert [(problem.path, problem.position.line) for problem in found] == [
        ("b.c", 4),
        ("a", 5),
        ("l[0].d", 6),
        ("e", 7),
    ]
    assert "first given at line 3, column 3" in found[0].message


@pytest.mark.parametrize(
    ("text", "line", "column", "message", "hint"),
    [
        ("", 1, 1, "empty", ""),
        ("# only a comment\n", 1, 1, "empty", ""),
        ("---\n", 1, 1, "empty", ""),
        ("a: 1\n---\nb: 2\n", 2, 1, "second document", "remove"),
        ("a:\n\tb: 1\n", 2, 1, "a tab cannot indent", "spaces"),
        ("a: 'it\nb: 1\n", 1, 4, "never closed", ""),
        ("a:1\nb: 2\n", 1, 2, "missing space after the colon", "`a: value`"),
        ("a: b: c\n", 1, 5, "colon is not allowed", "quote"),
        ("a: {{ x }}\n", 1, 4, "must be quoted", '"{{ ... }}"'),
        ("a: {{ x }} and more\n", 1, 4, "must be quoted", '"{{ ... }}"'),
        ("- {{ x }}-{{ y }}\n", 1, 3, "must be quoted", '"{{ ... }}"'),
        ("a: {% if x %}\n", 1, 4, "must be quoted", "quote the template"),
        ("a: [1, 2\nb: 3\n", 2, 2, "[", ""),
        ("a: @x\n", 1, 4, "cannot start with @", "quote"),
        ('a: "\\q"\n', 1, 5, "escape", ""),
        ("a: *x\n", 1, 4, "no anchor &x", ""),
        ("a: &x [*x]\n", 1, 8, "inside the value", ""),
        ("a: &x {<<: *x}\n", 1, 12, "inside the value", ""),
        ("<<: 1\n", 1, 5, "`<<` takes a mapping", ""),
        ("? [a]\n: b\n", 1, 3, "a key must be text", ""),
        ("a: !!int x\n", 1, 4, "not a whole number", ""),
        ("a: !!bool yes\n", 1, 4, "not a boolean", "true or false"),
        ("a: !!set {x}\n", 1, 4, "does not match", "!!map"),
        ("a: !mine x\n", 1, 4, "does not match", ""),
        ("a: .nan\n", 1, 4, "not a valid JSON number", ""),
        ("a: -.INF\n", 1, 4, "not a valid JSON number", ""),
        ("a: 1e999\n", 1, 4, "not a valid JSON number", ""),
        ("a: " + "1" * 5000, 1, 4, "5000 digits", ""),
        ("a: 0x" + "1" * 5000, 1, 4, "5000 digits", ""),
        ("a: b\x01\n", 1, 5, "U+0001", "remove"),
        ("a: \ud800\n", 1, 4, "surrogate", ""),
        (b"a: b\nc: \xe4\n", 2, 4, "not UTF-8", "UTF-8"),
        ("a: ü".encode("utf-16"), 1, 1, "UTF-16", "UTF-8"),
        ("a: b".encode("utf-16-be"), 1, 1, "UTF-16", "UTF-8"),
        ("[" * 300, 1, 101, "deeper than 100", ""),
        ("{a: " * 300, 1, 401, "deeper than 100", ""),
        ("- " * 300, 1, 201, "deeper than 100", ""),
        ("\n".join(" " * depth + "a:" for depth in range(300)), 101, 101, "deeper than 100", ""),
    ],
)
def test_says_what_is_wrong_and_where(text, line, column, message, hint):
    started = time.process_time()
    (problem,) = problems(text)
    assert message in problem.message
    assert hint in problem.hint
    assert problem.position == Position("job.yaml", line, column)
    assert time.process_time() - started < 1


@pytest.mark.parametrize("text", ["[" * 20_000, "{a: " * 20_000, "- " * 20_000])
def test_depth_has_a_bound_whoever_meets_it(text):
    (problem,) = problems(text)
    assert "deeper than 100" in problem.message


def test_a_byte_order_mark_is_no_text():
    assert value(b"\xef\xbb\xbfa: 1") == {"a": 1}
    assert value("\ufeffa: 1") == {"a": 1}


def test_an_alias_bomb_is_refused_at_once():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    (problem,) = problems("\n".join(lines))
    assert "more than 5,000,000 values" in problem.message


def test_a_bomb_of_long_texts_is_refused_too():
    lines = [f"a0: &a0 {'x' * 50_000}", "b0: &b0 ['" + "x" * 50_000 + "']"]
    lines += [f"{n}{i}: &{n}{i} [{', '.join([f'*{n}{i - 1}'] * 10)}]" for n in "ab" for i in range(1, 5)]
    for name in "ab":
        text = "\n".join(line for line in lines if line.startswith(name))
        assert value(text.rpartition("\n")[0])
        (problem,) = problems(text)
        assert "aliases add more than 67,108,864 characters" in problem.message
        assert problem.position.line == 5


def test_a_merge_bomb_is_refused_too():
    wide = "{" + ", ".join(f"k{i}: 1" for i in range(5000)) + "}"
    (problem,) = problems(f"a: &a {wide}\nb:\n" + "  - {<<: *a}\n" * 110)
    assert "merge keys add more than 500,000 keys" in problem.message


def test_depth_counts_through_aliases():
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 200)]
    (problem,) = problems("\n".join(lines))
    assert "deeper than 100" in problem.message


def test_too_large_a_file_is_refused():
    (problem,) = problems(b" " * (64 * 1024**2 + 1))
    assert "64 MB" in problem.message


def test_a_large_file_takes_no_time():
    rows = "".join(f"    - {{id: s{i}, text: a fox number {i} in the snow, weight: {i}}}\n" for i in range(20_000))
    started = time.process_time()
    document = parse_yaml(f"matrix:\n  subject:\n{rows}", "job.yaml")
    assert time.process_time() - started < 3
    assert document.value["matrix"]["subject"][19_999]["weight"] == 19_999


def test_the_slow_parser_gives_the_same(monkeypatch):
    import yaml

    from seedream_batch.document import yaml_loader as yamltext

    text = "a: [1:1, *x]\nb: 'q'\n".replace("*x", "no") + "c: &c {d: ~}\ne: {<<: *c}\n"
    fast = parse_yaml(text, "job.yaml")
    monkeypatch.setattr(yamltext, "_Loader", yaml.SafeLoader)
    slow = parse_yaml(text, "job.yaml")
    assert slow == fast
    assert "never closed" in problems("a: 'x")[0].message
    assert "surrogate" in problems('a: "\\ud800"')[0].message


def walk(found, mark):
    assert mark.line >= 1
    assert mark.column >= 1
    assert not isinstance(found, float) or math.isfinite(found)
    if isinstance(found, dict):
        assert list(mark.items) == list(found)
        assert set(mark.keys) == set(found)
        for key in found:
            walk(found[key], mark.items[key])
    elif isinstance(found, list):
        assert len(mark.items) == len(found)
        for item, inner in zip(found, mark.items, strict=True):
            walk(item, inner)


PIECES = st.sampled_from([
    "a", "b: ", "- ", "? ", ": ", "\n", "\n  ", "\n    ", "[", "]", "{", "}", ", ", "&a ", "*a", "<<: ", "!!int ",
    "!x ", "'", '"', "|", ">", "#", "%", "@", "\t", "1", "1:1", "~", "true", ".inf", "---", "...", "\\", "{{ x }}",
    "\u2028", "\x85", "\r", "\0", "\ud800", "é", "!!map ", "!!str ", "%YAML 1.1\n", "\ufeff", "9" * 20, "1e400",
])  # fmt: skip


@settings(max_examples=examples(2_000), suppress_health_check=list(HealthCheck))
@given(st.one_of(st.lists(PIECES, max_size=20).map("".join), st.text(max_size=40), st.binary(max_size=40)))
def test_no_input_brings_anything_but_problems(text):
    try:
        document = parse_yaml(text, "job.yaml")
    except InvalidJob as caught:
        for problem in caught.problems:
            assert problem.message
            assert problem.position.line >= 1
            assert problem.position.column >= 1
    else:
        walk(document.value, document.mark)
