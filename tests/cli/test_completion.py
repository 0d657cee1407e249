"""Completion: what shells are told through click's protocol, and what bash makes of it."""

import os
import pty
import select
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from program import called

from seedream_batch.cli.help_text import COMMANDS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    """A user's folder with jobs, and a program where an installation has it."""
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs")
    program = tmp_path / ".bin" / "seedream-batch"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m seedream_batch "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    return tmp_path


@pytest.fixture
def environment(folder):
    return {
        "HOME": str(folder),
        "PATH": os.pathsep.join([str(folder / ".bin"), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
    }


@pytest.fixture
def ask(folder):
    """What bash would be offered behind this line, as pairs of a type and a value."""

    def ask(line):
        words = line.split(" ")
        variables = {
            "_SEEDREAM_BATCH_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        }
        done = called(cwd=folder, env=variables)
        assert (done.returncode, done.stderr) == (0, "")
        return [tuple(one.split(",", 1)) for one in done.stdout.splitlines() if one]

    return ask


def plain(*values):
    return [("plain", value) for value in values]


def test_verbs(ask):
    assert ask("seedream-batch ") == plain(*COMMANDS)
    assert ask("seedream-batch re") == plain("retry", "resolve", "report")
    assert ask("seedream-batch --v") == plain("--version")


@pytest.mark.parametrize("verb", COMMANDS)
def test_options_of_every_verb(ask, verb):
    assert ("plain", "--help") in ask(f"seedream-batch {verb} --")


def test_options_and_choices(ask):
    assert ask("seedream-batch run jobs/quickstart.yaml --max-") == plain("--max-duration", "--max-tasks")
    assert ask("seedream-batch run --log-format ") == plain("text", "json")
    assert ask("seedream-batch validate --format g") == plain("github")
    assert ask("seedream-batch schema ") == plain("job", "request", "summary", "status")
    assert ask("seedream-batch completion ") == plain("bash", "zsh", "fish")


def test_job_files(ask, folder):
    jobs = plain(*sorted(f"jobs/{path.name}" for path in (folder / "jobs").glob("*.yaml")))
    (folder / ".hidden.yaml").touch()
    (folder / "notes.txt").touch()
    for line in ("run ", "plan ", "validate jobs/dataset.yaml ", "status --json jo", "verify jobs/"):
        assert ask(f"seedream-batch {line}") == jobs, line
    assert ask("seedream-batch run jobs/q") == plain("jobs/quickstart.yaml")
    assert ask(f"seedream-batch run {folder}/jobs/q") == plain(f"{folder}/jobs/quickstart.yaml")
    assert ask("seedream-batch run .h") == plain(".hidden.yaml")
    assert ask("seedream-batch report jobs/quickstart.yaml --to o") == [("dir", "o")]


def test_what_the_shell_does_better_is_left_to_it(ask, folder):
    assert ask("seedream-batch run jobs/images/") == [("file", "jobs/images/")]
    assert ask("seedream-batch run nowhere/a") == [("file", "nowhere/a")]
    assert ask("seedream-batch run [") == [("file", "[")]
    (folder / "two words.yaml").touch()
    assert ask("seedream-batch run ") == [("file", "")]


def test_a_slip_of_the_pen_says_nothing_in_the_middle_of_a_line(ask):
    assert ask("seedream-batch rnu jobs/q") == []
    ask("seedream-batch run --nonsense jobs/q")


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("bash", "complete -o nosort -F _seedream_batch_completion seedream-batch"),
        ("zsh", "#compdef seedream-batch"),
        ("fish", "complete --no-files --command seedream-batch"),
    ],
)
def test_the_scripts_are_what_the_shells_take(folder, environment, shell, line):
    script = script_for(shell, folder, environment)
    assert line in script
    assert f"_SEEDREAM_BATCH_COMPLETE={shell}_complete" in script
    if shutil.which(shell):
        done = subprocess.run([shell, "-n"], input=script, env=environment, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def script_for(shell, folder, environment):
    command = ["seedream-batch", "completion", shell]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.thorough
@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash on this machine")
def test_bash_completes_what_is_typed(folder, environment):
    (folder / ".bashrc").write_text('PS1="$ "\neval "$(seedream-batch completion bash)"\n', encoding="utf-8")
    typed = "seedream-batch val\tjobs/qui\t--form\tjs\t > out.json\nexit\n"
    shown = type_into(["bash", "--rcfile", ".bashrc", "-i"], typed, folder, environment)
    assert (folder / "out.json").read_text(encoding="utf-8") == "[]\n", shown
    assert "seedream-batch validate jobs/quickstart.yaml --format json" in shown


def type_into(command, text, folder, environment):
    """Types this into a program on a terminal; what is on the screen when the program ends."""
    ours, its = pty.openpty()
    shell = subprocess.Popen(
        command, cwd=folder, env=environment, stdin=its, stdout=its, stderr=its, start_new_session=True
    )
    os.close(its)
    shown = b""
    try:
        os.write(ours, text.encode())
        while select.select([ours], [], [], 60)[0]:
            try:
                more = os.read(ours, 65536)
            except OSError:  # nobody has the other end any more
                break
            if not more:
                break
            shown += more
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)
    return shown.decode(errors="replace")
