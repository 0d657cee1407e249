"""Splits: decided by the group alone, whatever else there is."""

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedream_batch.errors import UsageError
from seedream_batch.export.splits import group_of, parsed

VALUES = st.one_of(st.text(max_size=5), st.integers(), st.booleans(), st.none())
CELLS = st.fixed_dictionaries(
    {"subject": st.fixed_dictionaries({"id": st.integers(0, 5), "text": VALUES}), "view": VALUES}
)


@st.composite
def split_texts(draw):
    """A valid `--split`: whole hundredths that are 1 together."""
    parts = draw(st.lists(st.integers(1, 40), min_size=1, max_size=5))
    rest = 100 - sum(parts)
    if rest < 0:
        parts, rest = [60], 40
    return ",".join(f"s{number}={part / 100:g}" for number, part in enumerate([*parts, *([rest] if rest else [])]))


@given(split_texts(), st.lists(CELLS, max_size=30))
def test_a_group_is_on_one_side_only(text, cells):
    splits = parsed(text, ("subject", "id"))
    sides = {}
    for cell in cells:
        side = splits.of(cell)
        assert side in splits.names
        assert sides.setdefault(cell["subject"]["id"], side) == side


@given(split_texts(), CELLS, st.permutations(["subject", "view"]))
def test_without_a_group_the_cell_is_one_whatever_the_order_of_its_axes(text, cell, order):
    splits = parsed(text)
    assert splits.of(cell) == splits.of({name: cell[name] for name in order})


def test_what_falls_where_is_for_ever():
    # Data sets that are out there were split so: another hash would move images from training to test.
    splits = parsed("train=0.5,test=0.5", ("subject",))
    assert [splits.of({"subject": name}) for name in ("panda", "fox", "hare", "heron", "owl", "wolf")] == [
        "test", "train", "train", "train", "test", "train",
    ]  # fmt: skip


def test_the_fractions_are_met():
    splits = parsed("train=0.8,validation=0.15,test=0.05", ("subject",))
    found = [splits.of({"subject": number}) for number in range(20_000)]
    for name, fraction in (("train", 0.8), ("validation", 0.15), ("test", 0.05)):
        assert abs(found.count(name) / len(found) - fraction) < 0.01, name


def test_a_smaller_training_part_moves_groups_out_of_it_and_none_into_it():
    larger, smaller = parsed("train=0.9,test=0.1"), parsed("train=0.7,test=0.3")
    for number in range(1000):
        if larger.of({"n": number}) == "test":
            assert smaller.of({"n": number}) == "test"


def test_a_cell_without_the_value_is_a_group_of_its_own():
    assert group_of({"place": "sea"}, ("subject", "id")) == '{"place":"sea"}'
    assert group_of({"subject": "fox"}, ("subject", "id")) == '{"subject":"fox"}'
    assert group_of({"subject": {"id": 1}}, ("subject", "id")) == "1"
    assert json.loads(group_of({"subject": {"b": 1, "a": 2}}, ("subject",))) == {"a": 2, "b": 1}


def test_thirds_may_be_written_short():
    splits = parsed("a=0.333,b=0.333,c=0.333")
    assert splits.ends == (Fraction(1, 3), Fraction(2, 3), 1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("train", "write NAME=FRACTION"),
        ("=1", "write NAME=FRACTION"),
        ("../x=1", "write NAME=FRACTION"),
        ("train=0.9,test=0.2", "must add up to 1, not 1.1"),
        ("train=0.9", "not 0.9"),
        ("train=0.5,Train=0.5", "`Train` is given twice"),
        ("train=1,test=0", "`0` is not a fraction"),
        ("train=x", "`x` is not a fraction"),
        ("train=-1", "`-1` is not a fraction"),
        ("train=1e0", "`1e0` is not a fraction"),
        ("train=.", "`.` is not a fraction"),
        ("train=", "`` is not a fraction"),
        ("train=0.5,,test=0.5", "write NAME=FRACTION"),
    ],
)
def test_what_is_no_split(text, told):
    with pytest.raises(UsageError) as caught:
        parsed(text)
    assert told in str(caught.value)


def test_the_fractions_are_as_requested():
    splits = parsed("train=0.8,validation=0.15,test=0.05")
    assert splits.fractions == {"train": Fraction(4, 5), "validation": Fraction(3, 20), "test": Fraction(1, 20)}
