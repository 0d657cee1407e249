"""Job files in an editor: what it completes, explains and marks, by the schema that their first line names."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from seedream_batch.validate.schemas import schema_text

pytestmark = [pytest.mark.editors, pytest.mark.timeout(300)]

JOBS = sorted(path.name for path in (Path(__file__).parents[2] / "jobs").glob("*.yaml"))
SCHEMA = json.loads(schema_text("job"))
DEFINITIONS = SCHEMA["$defs"]
RATIOS = DEFINITIONS["size"]["enum"]
HEAD = "# yaml-language-server: $schema=../schemas/job.schema.json\nversion: 1\n"


def sections():
    """Every key of a job file with the text that an editor is to show: its section (or none), and its description."""
    found = []
    for key, part in SCHEMA["properties"].items():
        found.append(("", key, part["description"]))
        found += [(key, name, described(field)) for name, field in part.get("properties", {}).items()]
    return found


def described(field):
    """What a field is, by the first form that it may have."""
    first = field["anyOf"][0] if "anyOf" in field else field
    return (DEFINITIONS[first["$ref"].removeprefix("#/$defs/")] if "$ref" in first else first)["description"]


def words(text):
    """The text without what Markdown and its escapes add."""
    return " ".join(re.sub(r"[\\`]", "", text).split())


@pytest.mark.parametrize("name", JOBS)
def test_nothing_is_marked_in_the_examples(editor, name):
    assert editor.diagnostics(f"jobs/{name}") == []


def test_the_first_line_is_what_does_it(editor):
    text = (editor.folder / "jobs" / "quickstart.yaml").read_text(encoding="utf-8").replace("[2K]", "[1K]")
    assert len(editor.diagnostics("jobs/wrong.yaml", text)) == 1
    assert editor.diagnostics("jobs/wrong.yaml", text.partition("\n")[2]) == []


def test_ratios_need_no_quotes(editor):
    ratios = ", ".join(RATIOS)
    text = f"{HEAD}matrix: {{size: [{ratios}]}}\nexclude: [{{size: 16:9}}, {{size: [1:1, 4:3]}}]\n"
    text += "include: [{size: 21:9}]\nrequest: {prompt: a fox, size: 9:16}\n"
    assert editor.diagnostics("jobs/ratios.yaml", text) == []


def test_keys_are_completed(editor):
    offered = editor.complete("jobs/keys.yaml", f"{HEAD}|\n")
    assert SCHEMA["properties"].keys() - {"version"} <= set(offered)
    assert "version" not in offered
    for section in ("request", "output", "budget", "run", "references"):
        offered = editor.complete("jobs/keys.yaml", f"{HEAD}{section}:\n  |\n")
        assert SCHEMA["properties"][section]["properties"].keys() <= set(offered), section


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("request:\n  size: |\n", RATIOS),
        ("request:\n  resolution: |\n", ["2K", "4K"]),
        ("request:\n  model: |\n", DEFINITIONS["model"]["enum"]),
        ("matrix:\n  size:\n    - |\n", RATIOS),
        ("matrix:\n  size: [1:1, |]\n", RATIOS),
        ("matrix:\n  resolution:\n    - |\n", ["2K", "4K"]),
        ("exclude:\n  - size: |\n", RATIOS),
        ("include:\n  - resolution: |\n", ["2K", "4K"]),
        ("run:\n  on_unknown: |\n", ["hold", "resend"]),
        ("references:\n  send: |\n", ["upload", "inline"]),
    ],
)
def test_values_are_completed(editor, text, values):
    assert set(values) <= set(editor.complete("jobs/values.yaml", HEAD + text))


@pytest.mark.parametrize(("section", "key", "description"), sections())
def test_every_key_is_explained(editor, section, key, description):
    text = f"{section}:\n  |{key}: 1\n" if section else f"|{key}: 1\n"
    head = HEAD.partition("version")[0] if key == "version" else HEAD
    assert words(description) in words(editor.hover("jobs/hover.yaml", head + text))


def test_an_axis_of_ones_own_is_explained(editor):
    shown = editor.hover("jobs/hover.yaml", f"{HEAD}matrix:\n  sub|ject: [fox]\n")
    assert words(DEFINITIONS["axis"]["description"]) in words(shown)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("matrix: {size: [1:1, 16:10]}\nrequest: {prompt: a fox}\n", (3, 'Valid values: "1:1"')),
        ("matrix: {a: [b]}\nrequest: {prompt: a fox, resolution: 1K}\n", (4, 'Valid values: "2K", "4K"')),
        ('matrix: {a: [b]}\nrequest: {prompt: a fox, n: "3"}\n', (4, 'Expected "integer"')),
        ("matrix: {a: [b]}\nrequest: {prompt: a fox}\nrepeat: 0\n", (5, "minimum of 1")),
        ("matrix: {a: [b]}\nrequest: {prompt: a fox}\nnmae: snow\n", (5, "nmae is not allowed")),
        ("matrix: {a: [b]}\n", (2, '"request"')),
    ],
)
def test_mistakes_are_marked(editor, text, told):
    line, part = told
    ((at, message),) = editor.diagnostics("jobs/wrong.yaml", HEAD + text)
    assert (at, part in message) == (line, True), message


def test_what_init_writes_is_at_home_in_an_editor(editor):
    command = [sys.executable, "-m", "seedream_batch", "init", "new/cards/job.yaml"]
    subprocess.run(command, cwd=editor.folder, check=True, capture_output=True)
    assert editor.diagnostics("new/cards/job.yaml") == []
    text = (editor.folder / "new/cards/job.yaml").read_text(encoding="utf-8")
    assert len(editor.diagnostics("new/cards/job.yaml", text.replace("[2K]", "[3K]"))) == 1
    offered = editor.complete("new/cards/job.yaml", text + "|\n")
    assert {"run", "repeat", "exclude"} <= set(offered)
    assert "matrix" not in offered
