"""A person's choice, as the gallery exports it."""

import json

import pytest

from seedream_batch.errors import UsageError
from seedream_batch.selection.picks import Picked, parse_choice

ONE, OTHER = "1" * 64, "ab" * 32


def told(value):
    with pytest.raises(UsageError) as caught:
        parse_choice(value if isinstance(value, str | bytes) else json.dumps(value), "choice.json")
    return str(caught.value)


def choice(**parts):
    return {"seedream_batch_choice": 1, "job": "cats", **parts}


def test_a_choice_is_read():
    found = parse_choice(
        json.dumps(
            choice(
                keep=[{"fingerprint": ONE, "index": 1}, {"fingerprint": ONE, "index": 2, "sha256": OTHER}],
                reject=[{"fingerprint": OTHER, "index": 1}],
            )
        ),
        "choice.json",
    )
    assert found.job == "cats"
    assert found.keep == {Picked(ONE, 1), Picked(ONE, 2, OTHER)}
    assert found.reject == {Picked(OTHER, 1)}


def test_nothing_may_be_chosen():
    found = parse_choice(json.dumps(choice()).encode(), "choice.json")
    assert not found.keep
    assert not found.reject


@pytest.mark.parametrize("text", ["", "{", b"\xff\xfe\xfa", "[" * 100_000])
def test_what_is_no_json(text):
    assert told(text).startswith("choice.json is not JSON (")


@pytest.mark.parametrize("value", [None, [], {}, {"keep": []}, "text"])
def test_what_is_no_choice(value):
    assert "the key 'seedream_batch_choice' is missing" in told(json.dumps(value))


@pytest.mark.parametrize("version", [2, "1", None, True])
def test_another_version(version):
    assert "reads only 1" in told({"seedream_batch_choice": version, "job": "cats"})


def test_all_mistakes_are_told_at_once():
    lines = told(
        choice(
            job="",
            keep=[{"fingerprint": "xyz", "index": 1}, {"fingerprint": ONE, "index": 0}, 7],
            reject={"fingerprint": ONE},
            kepe=[],
        )
    ).splitlines()
    assert lines == [
        "choice.json: job: must be the name of a job",
        'choice.json: "kepe": unknown key; known: seedream_batch_choice, job, keep and reject',
        'choice.json: keep[0].fingerprint: must be 64 hexadecimal digits, got "xyz"',
        "choice.json: keep[1].index: must be a whole number from 1, got 0",
        'choice.json: keep[2]: must be {"fingerprint": ..., "index": ...}, got 7',
        'choice.json: reject: must be a list of {"fingerprint": ..., "index": ...}',
    ]


def test_an_image_is_not_kept_and_rejected():
    entry = {"fingerprint": ONE, "index": 1}
    assert told(choice(keep=[entry], reject=[{**entry, "sha256": OTHER}])) == (
        "choice.json: keep and reject both contain image 1 of 111111111111..."
    )


def test_many_mistakes_are_counted():
    lines = told(choice(keep=[{"fingerprint": "x" * 200, "index": True}] * 50)).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "choice.json: and 40 more"
    assert all(len(line) < 200 for line in lines)


def test_a_truth_value_is_no_index_and_no_hash():
    assert "keep[0].index" in told(choice(keep=[{"fingerprint": ONE, "index": True}]))
    assert "keep[0].sha256" in told(choice(keep=[{"fingerprint": ONE, "index": 1, "sha256": None}]))
