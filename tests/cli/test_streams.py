"""Closed, full and broken standard streams, and locales that are not UTF-8: real processes, with every command."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import suppress
from itertools import product

import pytest
from examples import some

from seedream_batch.cli.streams import Output

JOB = """\
version: 1
matrix: {subject: [a fox \N{FOX FACE}, "\u5154\u5b50"]}
request: {prompt: "{{ subject }}"}
"""
PROGRAM = [sys.executable, "-m", "seedream_batch"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a job that was run, one that was not, and one that is wrong."""
    folder = write(tmp_path_factory.mktemp("made"))
    assert subprocess.run([*PROGRAM, "run", "job.yaml", "--emulate", "-q"], cwd=folder, check=False).returncode == 0
    return folder


@pytest.fixture
def folder(tmp_path):
    """A folder with jobs of which none was run."""
    return write(tmp_path)


def write(folder):
    (folder / "job.yaml").write_text(JOB, encoding="utf-8")
    (folder / "new.yaml").write_text(JOB, encoding="utf-8")
    (folder / "bad.yaml").write_text("version: 2\n", encoding="utf-8")
    return folder


def ended(arguments, folder, kind, numbers=(1, 2), **environment):
    """The exit code of a command with these streams closed, full, or pipes that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    full = os.open("/dev/full", os.O_WRONLY)
    number = {"broken": write, "full": full}.get(kind)
    streams = [subprocess.PIPE if at not in numbers else number for at in (1, 2)]
    closing = " ".join(f"{at}>&-" for at in numbers) if kind == "closed" else ""
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", f'"$@" {closing}', "sh", *PROGRAM, *arguments],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=streams[0], stderr=streams[1], check=False,
            env={**os.environ, **environment},
        )  # fmt: skip
    finally:
        os.close(write)
        os.close(full)
    assert b"Traceback" not in (done.stdout or b"") + (done.stderr or b"")
    return done


COMMANDS = {
    "help": (["--help"], 0),
    "plan --json": (["plan", "new.yaml", "--json", "--detailed-exitcode"], 10),
    "status": (["status", "job.yaml"], 0),
    "status of nothing": (["status", "new.yaml"], 2),
    "validate": (["validate", "job.yaml", "bad.yaml"], 2),
    "verify": (["verify", "job.yaml", "--emulate", "--json"], 0),
    "export": (["export", "job.yaml", "--emulate", "--format", "csv", "--to", "table", "--replace"], 0),
    "export --json": (["export", "job.yaml", "--emulate", "--format", "csv", "--to", "t2", "--replace", "--json"], 0),
    "report": (["report", "job.yaml", "--emulate", "--to", "page"], 0),
    "resolve": (["resolve", "job.yaml", "--emulate", "--accept"], 0),
    "retry": (["retry", "job.yaml", "--emulate"], 0),
    "schema": (["schema"], 0),
}


TRIED = [("help", "full"), ("plan --json", "broken"), ("status", "closed"), ("validate", "full")]
KINDS = ["closed", "full", "broken"]


@pytest.mark.parametrize(("name", "kind"), some(TRIED + sorted({*product(COMMANDS, KINDS)} - {*TRIED}), len(TRIED)))
def test_every_command_ends_as_documented(made, name, kind):
    arguments, code = COMMANDS[name]
    # What was asked for, and could not be written whole, is no success; where nobody wanted it, it is.
    logs = name in {"help", "export", "report", "resolve", "retry"}
    lost = kind == "full" and code == 0 and not logs
    assert ended(arguments, made, kind).returncode == (8 if lost else code)


@pytest.mark.parametrize(
    ("kind", "numbers", "options"),
    some(
        [
            ("closed", (1, 2), ["--summary", "s.json"]),
            ("closed", (2,), ["-q", "--summary", "s.json"]),
            ("full", (1, 2), ["--log-format", "json", "--summary", "s.json"]),
            ("broken", (1,), ["--summary", "s.json"]),
            ("broken", (1, 2), ["--log-format", "json", "--summary", "s.json"]),
        ],
        1,
    ),
)
def test_a_run_makes_its_images_whoever_reads(folder, kind, numbers, options):
    assert ended(["run", "new.yaml", "--emulate", *options], folder, kind, numbers).returncode == 0
    assert len(list((folder / "out" / "new-emulated").glob("*.jpg"))) == 2
    told = json.loads((folder / "s.json").read_text())
    assert (told["exit_code"], told["error"], told["run"]["stored"]) == (0, None, 2)
    # A manifest that got the number of a closed stream would have messages in it.
    with sqlite3.connect(folder / "out" / "new-emulated" / "manifest.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("kind", some(["full", "broken"], 1))
def test_the_exit_code_of_a_run_is_about_the_images(folder, serve, kind):
    serve([{"on": "submit", "action": "fail", "prompt": "fox", "code": "OutputImageSensitiveContentDetected"}])
    assert ended(["run", "new.yaml"], folder, kind).returncode == 3


@pytest.mark.thorough
def test_a_run_goes_on_though_its_reader_stands_still(folder):
    """A pager that is paused, or a logger that hangs: the pipe is full, and nobody takes anything out."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with suppress(BlockingIOError):
        while os.write(write, b"\n" * 65536):
            pass
    os.set_blocking(write, True)
    done = subprocess.run(
        [*PROGRAM, "run", "new.yaml", "--emulate", "--log-format", "json"], cwd=folder, stdout=write, stderr=write,
        check=False, timeout=100,
    )  # fmt: skip
    os.close(write)
    os.close(read)
    assert done.returncode == 0
    assert len(list((folder / "out" / "new-emulated").glob("*.jpg"))) == 2


def test_what_was_left_out_is_said_in_the_form_of_the_log():
    read, write = os.pipe()
    output = Output(write, waits=False)
    text = b'{"event": "stored"}\n'
    while not output._left_out:
        output.write(text)
    assert output.write(text) == len(text)
    os.read(read, 1 << 20)
    output.write(text)
    lines = [json.loads(line) for line in os.read(read, 65536).decode().splitlines()]
    assert lines == [
        {"event": "warning", "text": f"{2 * len(text)} bytes of output were dropped because nobody read them in time"},
        {"event": "stored"},
    ]
    os.close(read)
    os.close(write)


@pytest.mark.thorough
def test_closed_standard_input_is_no_reason_to_fail(folder):
    done = subprocess.run(
        ["/bin/sh", "-c", '"$@" 0<&-', "sh", *PROGRAM, "run", "new.yaml", "--emulate", "-q"],
        cwd=folder, check=False, capture_output=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.thorough
def test_a_full_disk_under_the_output_is_told(folder):
    done = ended(["plan", "new.yaml", "--json"], folder, "full", (1,))
    assert done.returncode == 8
    assert b"cannot write to standard output: No space left on device" in done.stderr


@pytest.mark.thorough
def test_a_watch_that_nobody_reads_ends(folder, until):
    """`status --watch | head -1` while a run holds the job."""
    watched = subprocess.Popen(
        [*PROGRAM, "run", "new.yaml"], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "APIMART_BASE_URL": "http://127.0.0.1:9", "APIMART_API_KEY": "any"},
    )  # fmt: skip
    try:
        until((folder / "out" / "new" / "manifest.db").exists)
        until(lambda: ended(["status", "new.yaml"], folder, "broken", (2,)).returncode == 0)
        done = ended(["status", "new.yaml", "--watch=0.1"], folder, "broken", (1,))
        assert (done.returncode, watched.poll()) == (0, None)
    finally:
        watched.kill()
        watched.wait()


@pytest.fixture
def serve(monkeypatch):
    from seedream_batch.emulator import Emulator, EmulatorConfig

    with Emulator(EmulatorConfig(task_seconds="fixed:0.05", image_size="tiny")) as emulator:
        monkeypatch.setenv("APIMART_BASE_URL", emulator.url)
        monkeypatch.setenv("APIMART_API_KEY", "any")
        yield emulator.set_faults


@pytest.fixture(params=some(["ascii", "zh_CN.GBK", "en_US.ISO-8859-1"], 1))
def locale(request, tmp_path):
    """The environment of a locale that is not UTF-8, and its encoding."""
    if request.param == "ascii":
        return {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, "ascii"
    if not shutil.which("localedef"):
        pytest.skip("no localedef on this machine")
    name, encoding = request.param.split(".", 1)
    path = tmp_path / "locales" / request.param
    path.parent.mkdir()
    made = subprocess.run(["localedef", "-i", name, "-f", encoding, str(path)], check=False, capture_output=True)
    if not path.exists():
        pytest.skip(f"localedef: {made.stderr}")
    return {"LC_ALL": request.param, "LOCPATH": str(path.parent)}, encoding


@pytest.mark.thorough
def test_names_of_files_and_data_are_the_same_in_every_locale(made, folder, locale):
    environment, encoding = locale
    done = called(["run", "job.yaml", "--emulate"], folder, environment)
    assert done.returncode == 0, done
    done.stdout.decode(encoding)
    one, other = (at / "out" / "job-emulated" for at in (made, folder))
    assert names(one) == names(other)
    shown = called(["plan", "new.yaml"], folder, environment).stdout.decode(encoding)
    # What the terminal cannot show is replaced; what programs read is not.
    assert r"a fox \U0001f98a" in shown
    assert ("\u5154\u5b50" if encoding == "GBK" else r"\u5154\u5b50") in shown
    plan = json.loads(called(["plan", "new.yaml", "--json"], folder, environment).stdout)
    assert list(plan["groups"][0]["axes"]["subject"]) == ["a fox \N{FOX FACE}", "\u5154\u5b50"]


def names(folder):
    return sorted(bytes(path)[len(bytes(folder)) :] for path in folder.rglob("*.jpg"))


def called(arguments, folder, environment):
    return subprocess.run(
        [*PROGRAM, *arguments], cwd=folder, env={**os.environ, **environment}, capture_output=True, check=False
    )


def test_the_arguments_survive_the_change_of_the_locale(tmp_path, locale):
    environment, _ = locale
    name = os.fsdecode(b"caf\xe9 \xd6\xd0 \xff.yaml")
    (tmp_path / name).write_text("version: 2\n", encoding="utf-8")
    done = called(["validate", name, "", "--format", "json"], tmp_path, environment)
    assert done.returncode == 2, done
    jobs = [problem["job"] for problem in json.loads(done.stdout)]
    assert set(jobs) == {name, ""}


def test_where_the_locale_cannot_be_changed_nothing_is_bought(folder):
    code = "import sys; sys.orig_argv[1:1] = ['-X', 'utf8']; from seedream_batch.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "new.yaml", "--emulate"], cwd=folder, capture_output=True, check=False,
        env={**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"set PYTHONUTF8=1" in done.stderr
    assert not (folder / "out" / "new-emulated").exists()


@pytest.mark.thorough
def test_a_python_program_in_such_a_locale_buys_nothing(folder):
    code = "from seedream_batch import load_job, run; run(load_job('new.yaml'), key='sk-canary-7f3a9b2c51')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    )  # fmt: skip
    assert "UsageError: file names use ascii, not UTF-8; start Python with -X utf8" in done.stderr
    assert not (folder / "out").exists()


def test_a_process_with_a_key_leaves_no_core_dump():
    code = (
        "import resource; from seedream_batch.cli.streams import prepare; prepare();"
        "print(resource.getrlimit(resource.RLIMIT_CORE)[0]);"
        "import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    )
    command = ["/bin/sh", "-c", 'ulimit -c $(ulimit -H -c); exec "$@"', "sh", sys.executable, "-c", code]
    done = subprocess.run(
        command,
        env={**os.environ, "APIMART_API_KEY": "sk-canary-7f3a9b2c51"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["0", "0" if sys.platform == "linux" else "1"]
