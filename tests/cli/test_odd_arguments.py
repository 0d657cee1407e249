"""Arguments, files and machines that are odd: one sentence and a documented exit code, and nothing is bought."""

import json
import os
import resource
import subprocess
import sys

import pytest
from examples import some

from seedream_batch.cli import main

JOB = """\
version: 1
matrix: {subject: [fox, hare]}
request: {prompt: "{{ subject }}"}
"""
PROGRAM = [sys.executable, "-m", "seedream_batch"]
LONG = "x" * 300
DEEP = "x/" * 3000

pytestmark = pytest.mark.usefixtures("in_haste")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APIMART_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("APIMART_API_KEY", "any")
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


def ended(capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err + shown.out
    assert shown.err.strip()
    return left.value.code, shown.err


@pytest.mark.parametrize(
    "path", ["fifo", "loop", "loop/job.yaml", LONG, DEEP, "/dev/zero", "\udcff.yaml", "job.yaml/x", "."]
)
@pytest.mark.parametrize("verb", ["validate", "run", "status"])
@pytest.mark.usefixtures("folder")
def test_a_job_file_that_is_none(capsys, verb, path):
    code, told = ended(capsys, verb, path)
    assert code == 2
    assert len(told.splitlines()) <= 2


@pytest.mark.parametrize("where", ["loop", "loop/x", LONG, DEEP, "a\0b"])
@pytest.mark.parametrize("verb", ["validate", "plan", "run"])
def test_an_output_folder_that_no_system_has(folder, capsys, verb, where):
    job = {"version": 1, "matrix": {"a": ["x"]}, "request": {"prompt": "{{ a }}"}, "output": {"dir": where}}
    (folder / "job.yaml").write_text(json.dumps(job))
    code, told = ended(capsys, verb, "job.yaml")
    assert (code, "output.dir: " in told) == (2, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "job.yaml", "--limit", "9" * 25],
        ["run", "job.yaml", "--limit", str(2**63)],
        ["run", "job.yaml", "--max-duration", "inf"],
        ["run", "job.yaml", "--max-duration", "9" * 400],
        ["run", "job.yaml", "--max-duration", "1e308"],
        ["run", "job.yaml", "--summary", "loop"],
        ["run", "job.yaml", "--metrics", "loop/x"],
        ["run", "job.yaml", "--summary", "fifo"],
        ["init", f"{LONG}.yaml"],
        ["init", f"{DEEP}a.yaml"],
        ["init", "loop/x.yaml"],
        ["init", "\udcff.yaml"],
        ["emulator", "--port", "99999"],
        ["emulator", "--port", "-1"],
        ["emulator", "--host", LONG],
        ["emulator", "--max-body-bytes", "9" * 400],
        ["emulator", "--webhook-retry", "inf"],
        ["manifest", "copy", "fifo", "x.db"],
        ["manifest", "copy", ".", "x.db"],
        ["export", "job.yaml", "--format", "csv", "--to", "loop"],
        ["plan", "job.yaml", "--\x1b[31m"],
        ["\udcff"],
    ],
    ids=lambda arguments: ascii(" ".join(arguments))[:60],
)
@pytest.mark.usefixtures("folder")
def test_an_argument_that_makes_no_sense(capsys, arguments):
    code, told = ended(capsys, *arguments)
    assert code == 2
    assert "\x1b" not in told


@pytest.mark.parametrize(
    "arguments", [["run", "job.yaml", "--summary", LONG], ["report", "job.yaml", "--emulate", "--to", "loop"]]
)
@pytest.mark.usefixtures("folder")
def test_a_file_that_cannot_be_made_there(capsys, arguments):
    with pytest.raises(SystemExit):
        main(["run", "job.yaml", "--emulate", "-q"])
    assert ended(capsys, *arguments)[0] in {2, 8}


def test_a_folder_whose_name_is_not_utf_8(folder, capsys, monkeypatch):
    odd = folder / os.fsdecode(b"d\xff \xe2\x80\xae")
    odd.mkdir()
    (odd / "job.yaml").write_text(JOB)
    monkeypatch.chdir(odd)
    for arguments in (["run", "--summary", "s.json"], ["run"], ["verify", "--json"], ["status", "--json"], ["report"]):
        with pytest.raises(SystemExit) as left:
            main([arguments[0], "job.yaml", "--emulate", *arguments[1:]])
        assert left.value.code == 0, capsys.readouterr()
    # The paths in it lead to the files, and no character turns a terminal around.
    told = (odd / "s.json").read_text(encoding="utf-8")
    assert json.loads(told)["folder"] == str(odd / "out" / "job-emulated")
    assert "\u202e" not in told
    assert "\u202e" not in capsys.readouterr().out


def test_a_job_file_whose_name_is_not_utf_8_needs_a_name(folder, capsys):
    (folder / os.fsdecode(b"caf\xe9.yaml")).write_text(JOB)
    code, told = ended(capsys, "run", os.fsdecode(b"caf\xe9.yaml"), "--emulate")
    assert (code, "name: is required, because the name of the job file is not valid UTF-8" in told) == (2, True)
    (folder / os.fsdecode(b"caf\xe9.yaml")).write_text(f"name: cafe\n{JOB}")
    with pytest.raises(SystemExit) as left:
        main(["run", os.fsdecode(b"caf\xe9.yaml"), "--emulate"])
    assert left.value.code == 0


@pytest.mark.parametrize("columns", some(["1", "-5", "x", "9" * 30], 2))
@pytest.mark.usefixtures("folder")
def test_any_width_of_the_terminal(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    for arguments in (["run", "job.yaml", "--emulate"], ["status", "job.yaml", "--emulate"], ["plan", "job.yaml"]):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code == 0


@pytest.mark.thorough
def test_a_current_folder_that_was_deleted(folder, tmp_path_factory):
    gone = tmp_path_factory.mktemp("gone")
    done = subprocess.run(
        ["/bin/sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh", *PROGRAM, "run", str(folder / "job.yaml"), "--emulate"],
        cwd=gone, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, "(2 new, " in done.stdout) == (0, True), done


@pytest.mark.parametrize(
    "arguments",
    some(
        [
            ["run", "job.yaml"],
            ["run", "JOB", "--emulate", "--summary", "s.json"],
            ["run", "../job.yaml", "--summary", "s.json"],
            ["plan", "../job.yaml"],
            ["export", "JOB", "--emulate", "--format", "csv", "--to", "set"],
            ["report", "JOB", "--emulate", "--to", "gallery"],
            ["init", "new.yaml"],
            ["manifest", "copy", "a.db", "b.db"],
        ],
        2,
    ),
)
def test_a_path_from_a_current_folder_that_was_deleted(folder, tmp_path, capsys, monkeypatch, arguments):
    with pytest.raises(SystemExit):
        main(["run", str(folder / "job.yaml"), "--emulate", "--quiet"])
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    code, told = ended(capsys, *(argument.replace("JOB", str(folder / "job.yaml")) for argument in arguments))
    assert code in {2, 8}
    assert len(told.splitlines()) <= 3


@pytest.mark.thorough
@pytest.mark.parametrize("files", [12, 24])
def test_few_open_files(folder, files):
    """Told before anything is bought."""
    done = subprocess.run(
        [*PROGRAM, "run", "job.yaml", "--emulate"], cwd=folder, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files)),
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.returncode in {2, 8}, done
