"""What is printed: exactly the data for programs; for people nothing that steers a terminal or commands a CI system."""

import json
import re
import unicodedata

import pytest
from examples import examples
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seedream_batch.cli.output.console import as_json, inert, wrapped

COMMANDS = [
    "::error file=a.yaml,line=1::boo",
    "::add-mask::e",
    " \t::stop-commands::x",
    "##[error]boo",
    "words before ##[add-path]/tmp",
    "##vso[task.setvariable variable=x]y",
    "words before ##vso[task.complete result=Failed]",
    "##teamcity[buildStatus text='x']",
    "###[error]boo",
    "--- a group",
    "+++ an open group",
    "~~~ a quiet group",
    "^^^ +++",
    "section_start:1700000000:x\r\x1b[0Kheader",
    "Section_End:1700000000:x",
    "travis_fold:start:x",
    "@@@STEP_FAILURE@@@",
    "<0>to everybody's terminal",
    "<14>",
]

# As the runners themselves look for them: at the beginning of a line, whatever space is before it, or anywhere.
GITHUB = re.compile(r"^\s*::")
ANYWHERE = re.compile(r"##\w*\[", re.IGNORECASE)
BEGINNING = re.compile(r"^\s*(---|\+\+\+|~~~|\^\^\^|@@@|<\d+>|section_(start|end):|travis_)", re.IGNORECASE)


def commanding(text):
    """The lines of a text that some CI system, or the journal, takes for a command."""
    lines = re.split(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]", text)
    return [line for line in lines if GITHUB.search(line) or ANYWHERE.search(line) or BEGINNING.search(line)]


def steering(text):
    return {char for char in text if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"}} - set(
        "\n\u200c\u200d"
    )


# Of the lone surrogates those that stand for bytes in names of files: JSON has no others.
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF))
HOSTILE = st.lists(ANY_TEXT | st.sampled_from(["\n", " ", "\x1b[2J", "\u202e", "\u2028", "\x9b", *COMMANDS])).map(
    "".join
)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_line_is_a_command_to_a_ci_system(command):
    assert commanding(command), "or the test knows less than the program"
    for text in (command, f"a value: {command}", f"first\n{command}", f"first\r{command}", f"first\u2028{command}"):
        assert commanding(inert(text)) == []
    # Also where a line is broken right before it.
    broken = inert(wrapped(f"{'word ' * 15}{command} {command} {'word ' * 15}{command}", hanging="    "))
    assert commanding(broken) == []


@given(HOSTILE)
@settings(max_examples=examples(300))
def test_no_text_steers_or_commands(text):
    for shown in (inert(text), inert(wrapped(text, indent="  "))):
        assert commanding(shown) == []
        assert steering(shown) == set()
        assert inert(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "a fox", "16:9", "std::vector", "a -- b", "--select", "#1", "a ## b", "\N{WOMAN}\u200d\N{EAR OF RICE}",
        "\u0645\u06cc\u200c\u062e",
    ],
)  # fmt: skip
def test_plain_text_stays_as_it_is(text):
    assert inert(text) == text


VALUES = st.recursive(
    ANY_TEXT | HOSTILE | st.integers() | st.booleans() | st.none() | st.text(st.characters(categories=["Cf", "Cc"])),
    lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT | HOSTILE, inner),
    max_leaves=8,
)


@given(VALUES, st.sampled_from([None, 2]))
@example("##[error] \udcff \u200d \u202e \x9b \x7f \u2028 \U000e0001 ###[", 2)
@settings(max_examples=examples(300))
def test_json_is_exactly_the_data_and_steers_nothing(value, indent):
    text = as_json(value, indent=indent)
    assert json.loads(text) == value
    text.encode()
    assert commanding(text) == []
    assert steering(text) - set("\u200c\u200d") == set()
    assert "\u200d" not in text
    assert text.encode("ascii", "backslashreplace").decode().count("\ufffd") == 0
