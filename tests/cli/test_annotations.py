"""`validate --format github`: annotations as the runner of GitHub Actions reads them back."""

import re

import pytest

from seedream_batch.cli import main

JOB = """\
version: 1
matrix: {subject: [fox], size: [1:1], resolution: [2K]}
request: {prompt: "a {{ subject }}"}
"""

COMMAND = re.compile(r"::error (?P<properties>[^\r\n]*?)::(?P<data>[^\r\n]*)")


@pytest.fixture
def annotated(tmp_path, monkeypatch, capsys):
    """Writes job files; what the runner understands of what `validate` says about them."""
    monkeypatch.chdir(tmp_path)

    def annotate(files):
        for name, text in files.items() if isinstance(files, dict) else ():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text, encoding="utf-8")
        with pytest.raises(SystemExit) as left:
            main(["validate", "--format", "github", *files])
        return left.value.code, [understood(line) for line in capsys.readouterr().out.split("\n")[:-1]]

    return annotate


def understood(line):
    """The properties and the message of a workflow command."""
    match = COMMAND.fullmatch(line)
    assert match, line
    pairs = [pair.split("=", 1) for pair in match["properties"].split(",")]
    return {name: plain(value, ":,\r\n") for name, value in pairs}, plain(match["data"], "\r\n")


def plain(text, escaped):
    """The text without the escapes of these characters; the one of % is undone last."""
    for char in escaped:
        text = text.replace(f"%{ord(char):02X}", char)
    return text.replace("%25", "%")


def test_valid_jobs_say_nothing(annotated):
    assert annotated({"jobs/a.yaml": JOB}) == (0, [])


def test_each_mistake_has_its_place(annotated):
    text = JOB.replace("1:1", "16:10").replace("2K", "1K")
    code, found = annotated({"jobs/a.yaml": text, "jobs/b.yaml": JOB})
    assert code == 2
    places = [properties for properties, _ in found]
    assert places == [
        {"file": "jobs/a.yaml", "line": "2", "col": "33"},
        {"file": "jobs/a.yaml", "line": "2", "col": "54"},
    ]
    assert found[1][1] == (
        "matrix.resolution[0]: must be one of 2K, 4K, got 1K (1K is not available; the smallest is 2K)"
    )  # fmt: skip


def test_names_and_messages_survive_the_escapes(annotated):
    name = "jobs/50%, a:b %0A %2C\nand\rmore.yaml"
    _, found = annotated({name: JOB.replace("a {{", "100% %0A, %3A {{ nobody }} {{")})
    ((properties, message),) = found
    assert properties["file"] == name
    assert message.startswith("request.prompt: `nobody` is not defined")
    _, found = annotated({name: JOB.replace("2K", '"50%: 1,5 %2C"')})
    ((_, message),) = found
    assert message.endswith('got "50%: 1,5 %2C"')


def test_the_cell_to_blame_is_named(annotated):
    _, found = annotated({"a.yaml": JOB.replace("a {{ subject }}", "{{ subject.id }}").replace("[fox]", "[fox, elk]")})
    ((properties, message),) = found
    assert properties["line"] == "3"
    assert "[cell subject=fox" in message
    assert "1 more cell" in message


def test_a_file_that_cannot_be_read_is_annotated_as_a_whole(annotated, tmp_path):
    (tmp_path / "folder, 1.yaml" / "jobs").mkdir(parents=True)
    code, found = annotated(["folder, 1.yaml", "nowhere.yaml"])
    assert code == 2
    assert [properties for properties, _ in found] == [{"file": "folder, 1.yaml"}, {"file": "nowhere.yaml"}]
    assert "is a folder" in found[0][1]
