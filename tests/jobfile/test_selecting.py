"""`--select`: which cells a text means, with values that have commas in them, and as they are printed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedream_batch.errors import UsageError
from seedream_batch.jobfile import load_job
from seedream_batch.model.cell import name_of
from seedream_batch.selection.cell_filter import chosen, parsed

LONG = "a heron that stands in the shallow water of a quiet lake at "


@pytest.fixture
def select(job_file):
    def cells(values, *texts):
        job = {"version": 1, "matrix": {"subject": values}, "request": {"prompt": "{{ subject }}"}}
        fits = chosen(texts, load_job(job_file(job)).job)
        return [value for value in values if fits({"subject": value})]

    return cells


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("subject=a fox, asleep", ["a fox, asleep"]),
        ('subject="a fox, asleep"', ["a fox, asleep"]),
        (r"subject=a fox\, asleep", ["a fox, asleep"]),
        ("subject=a fox, asleep, a hare", ["a fox, asleep", "a hare"]),
        ('subject=a hare,"a fox, asleep"', ["a fox, asleep", "a hare"]),
        ("subject=a hare,a hare", ["a hare"]),
        ('subject=the "old, wise" owl', ['the "old, wise" owl']),
        ('subject="the ""old, wise"" owl"', ['the "old, wise" owl']),
        (r'subject="the \"old, wise\" owl"', ['the "old, wise" owl']),
        (r"subject=C:\fox", [r"C:\fox"]),
        (f"subject={LONG}dawn", [LONG + "dawn"]),
        (f"subject={(LONG + 'dawn')[:-2]}…", [LONG + "dawn"]),
        ("subject=two words", ["two  words"]),
    ],
)
def test_a_value_is_found_as_it_is_written_and_as_it_is_printed(select, text, wanted):
    values = ["a fox, asleep", "a hare", 'the "old, wise" owl', r"C:\fox", LONG + "dawn", LONG + "dusk", "two  words"]
    assert select(values, text) == wanted


def test_a_mapping_is_found_by_the_name_that_plan_prints(select):
    values = [{"text": "a fox, asleep"}, {"name": "hare", "n": 1}, {"n": 2}]
    for value in values:
        assert select(values, f"subject={name_of(value)}") == [value]


@pytest.mark.parametrize(
    ("values", "text", "told"),
    [
        (["a fox, asleep"], "subject=a fox, awake", "no cell of the job has a fox (put a value with a comma in double"),
        (["a", "b"], "subject=a,c", "no cell of the job has c ("),
        ([{"sku": "00101"}, {"sku": "00102"}], "subject=00102", "has 00102 (did you mean subject.sku=00102?)"),
        ([{"sku": "00101"}], "subject=00102", "no cell of the job has 00102"),
        (["a", "b"], "subject=a,", "no cell of the job has an empty value"),
        (["a, b", "c", "a", "b, c"], "subject=a, b, c", "the commas are ambiguous"),
        ([LONG + "dawn", LONG + "dusk"], f"subject={LONG}…", "could mean a heron that stands"),
    ],
)
def test_what_may_mean_two_things_chooses_nothing(select, values, text, told):
    with pytest.raises(UsageError) as caught:
        select(values, text)
    assert told in str(caught.value)


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip), min_size=1, unique=True))
def test_any_value_can_be_chosen_in_quotes(values):

    written = ",".join('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values)
    (wanted,) = parsed([f"subject={written}"])
    assert wanted.values == tuple(values)
