import pytest

from seedream_batch.validate.hints import bare, did_you_mean, flow, path_text, shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "nothing"),
        (True, "true"),
        (False, "false"),
        (3, "3"),
        (2.5, "2.5"),
        ("3", '"3"'),
        ('a "b" \\', '"a \\"b\\" \\\\"'),
        ("a\tb\r\n\x00\x9b", '"a\\tb\\r\\n\\u0000\\u009b"'),
        ("\U000e0001", '"\\U000e0001"'),
        ("\ud800", '"\\ud800"'),
        ("木", '"木"'),
        ("x" * 61, '"' + "x" * 57 + '..."'),
        ("x" * 60, '"' + "x" * 60 + '"'),
        ({"a": 1}, "a mapping"),
        ([1], "a list"),
        (10**70, "1" + "0" * 56 + "..."),
        (float("nan"), "nan"),
    ],
)
def test_shown(value, text):
    assert shown(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [("16:10", "16:10"), ("", '""'), (" a", '" a"'), ("a\n", '"a\\n"'), ("x" * 61, None), (3, "3")]
)
def test_bare(value, text):
    assert bare(value) == (text or shown(value))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("16:9", "16:9"),
        ("a: b", '"a: b"'),
        ("yes", '"yes"'),
        ("12", '"12"'),
        ("a, b", '"a, b"'),
        ({"file": "a/b.csv", "n": [1, None, True]}, "{file: a/b.csv, n: [1, null, true]}"),
    ],
)
def test_flow(value, text):
    assert flow(value) == text


def test_path_text():
    assert path_text(("matrix", "a\x1b", 2, "id")) == "matrix.a\\u001b[2].id"


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("max_in_fligt", "max_in_flight"),
        ("max-in-flight", "max_in_flight"),
        ("Max In Flight", "max_in_flight"),
        ("RATE", "rate"),
        ("steps", ""),
        ("", ""),
    ],
)
def test_did_you_mean(word, meant):
    assert did_you_mean(word, ("max_in_flight", "rate", "attempts")) == meant


def test_did_you_mean_prefers_the_first_of_equals():
    assert did_you_mean("SIZE", ("Size", "size")) == "Size"
    assert did_you_mean("size", ()) == ""
