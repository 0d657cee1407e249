"""`init`: what a newcomer gets, taken at its word."""

import io
import json
import re
import shlex
from contextlib import redirect_stderr, redirect_stdout

import pytest
from examples import some

from seedream_batch.cli import main
from seedream_batch.jobfile import load_job
from seedream_batch.validate.schemas import schema_text

pytestmark = pytest.mark.usefixtures("in_haste")


@pytest.fixture
def call(tmp_path, monkeypatch):
    """A command in a folder of its own: its exit code, and what it printed."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        out = io.StringIO()
        with redirect_stdout(out), redirect_stderr(out), pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        return left.value.code, out.getvalue()

    return call


NAMES = ["job.yaml", "jobs/postcards.yml", "two words/it's: #1 %s {x}.yaml", 'q"uote\\.yaml', "Ü ber.yaml"]


@pytest.mark.parametrize("name", some([*NAMES], 2))
def test_its_commands_run_as_they_stand_in_its_comments(call, tmp_path, name):
    code, told = call("init", name)
    assert code == 0, told
    text = (tmp_path / name).read_text(encoding="utf-8")
    commands = [shlex.split(line[1:]) for line in text.splitlines() if line.startswith("#   seedream-batch ")]
    assert [command[1] for command in commands] == ["validate", "plan", "run", "run"]
    for command in commands[:3]:
        code, out = call(*command[1:])
        assert code == 0, out
    assert "4 images (4 new, " in out
    assert "next: " + shlex.join(commands[1]) in told
    job = load_job(tmp_path / name).job
    assert job.output_dir == (tmp_path / name).parent / "out" / (tmp_path / name).stem
    images = {path.relative_to(f"{job.output_dir}-emulated").as_posix() for path in tmp_path.rglob("*.jpg")}
    assert images == {f"{subject}/{size}-2K.jpg" for subject in ("panda", "fox") for size in ("1-1", "16-9")}
    assert "Nothing to do" in call("plan", name, "--emulate")[1]
    code, out = call(*commands[3][1:])
    assert (code, "APIMART_API_KEY" in out) == (2, True)


def test_its_first_line_leads_to_the_schema(call, tmp_path):
    call("init", "deep/down/job.yaml")
    first = (tmp_path / "deep/down/job.yaml").read_text(encoding="utf-8").splitlines()[0]
    relative = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)[1]
    assert (tmp_path / "deep/down" / relative).read_text(encoding="utf-8") == schema_text("job")


def test_its_comments_are_true(call, tmp_path):
    call("init")
    file = tmp_path / "job.yaml"
    text = file.read_text(encoding="utf-8")
    definitions = json.loads(schema_text("job"))["$defs"]
    for axis in ("size", "resolution"):
        listed = re.search(rf"^  {axis}: .*# ([^;\n]+)", text, re.MULTILINE)[1].split()
        assert listed == [value for value in definitions[axis]["enum"] if value != "auto"]
    (tmp_path / "subjects.csv").write_text("id,text\nowl,an owl\nelk,an elk\nbee,a bee\n", encoding="utf-8")
    table = re.search(r"^  #   (subject: .*)$", text, re.MULTILINE)[1]
    file.write_text(re.sub(r"^  subject:\n(    - .*\n)+", f"  {table}\n", text, flags=re.MULTILINE), encoding="utf-8")
    assert call("validate", "job.yaml") == (0, "job.yaml: valid, 6 tasks\n")


def test_it_never_overwrites(call, tmp_path):
    (tmp_path / "job.schema.json").write_text("mine", encoding="utf-8")
    code, told = call("init")
    assert (code, "from another version" in told) == (0, True)
    assert (tmp_path / "job.schema.json").read_text(encoding="utf-8") == "mine"
    before = (tmp_path / "job.yaml").read_bytes()
    code, told = call("init")
    assert (code, "already exists" in told) == (2, True)
    assert (tmp_path / "job.yaml").read_bytes() == before
    (tmp_path / "job.schema.json").unlink()
    call("init", "b.yaml")
    assert "wrote c.yaml, next to job.schema.json for your editor" in call("init", "c.yaml")[1]


@pytest.mark.parametrize("name", ["job.txt", "job", "a\nb.yaml"])
def test_names_that_are_refused(call, tmp_path, name):
    assert call("init", name)[0] == 2
    assert not list(tmp_path.iterdir())
