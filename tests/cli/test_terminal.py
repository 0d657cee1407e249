"""What people see in a terminal of 80 columns: no line breaks in the middle of a word, and colours only there."""

import os
import re
import shlex
import subprocess
import sys

import pytest
from terminal import play

from seedream_batch.cli.app import COMMANDS
from seedream_batch.emulator import Emulator, EmulatorConfig

JOB = """\
version: 1
name: test
matrix:
  subject: [panda, fox]
  size: [1:1, 16:9, 9:16]
request: {prompt: "{{ subject }}"}
output: {dir: out}
"""
REFUSED = {"on": "submit", "action": "fail", "code": "OutputImageSensitiveContentDetected", "prompt": "fox", "count": 2}
UNCLEAR = {"on": "submit", "action": "reset_after_bill", "prompt": "panda", "count": 1}


@pytest.fixture
def service():
    with Emulator(EmulatorConfig(task_seconds="fixed:1.5", image_size="tiny")) as running:
        yield running


@pytest.fixture
def environment(service):
    return {**os.environ, "APIMART_BASE_URL": service.url, "APIMART_API_KEY": "any", "LANG": "C.UTF-8"}


@pytest.fixture
def seen(tmp_path, environment):
    """Gives a command on a job in a terminal of 80 columns."""
    (tmp_path / "job.yaml").write_text(JOB, encoding="utf-8")

    def give(line, **more):
        played = play(
            [sys.executable, "-m", "seedream_batch", *shlex.split(line)], cwd=tmp_path, env={**environment, **more},
            rows=40,
        )  # fmt: skip
        assert "Traceback" not in "\n".join(played.lines)
        return played

    return give


@pytest.mark.thorough
def test_the_bar_can_be_read_whatever_stands_beside_it(seen, service):
    service.set_faults([REFUSED, UNCLEAR])
    played = seen("run job.yaml")
    assert played.code == 4
    bars = [frame[-1] for frame in played.frames if frame and "uncertain" in frame[-1] and "|" in frame[-1]]
    assert bars
    # What has come since the bar was last measured may shorten it until the next second.
    assert max(len(bar.split("|")[1]) for bar in bars) >= 10
    assert played.lines[0] == "uncertain: panda/1-1: may have been charged: the connection was reset"
    assert "failed: fox/1-1: image generation failed (OutputImageSensitiveContentDetected)" in played.lines
    assert re.fullmatch(r"test: finished in .* s: 2 failed, 1 uncertain", played.lines[3])


@pytest.mark.parametrize("counts", [(0, 0), (3, 1), (1234, 12), (123456, 12345)])
def test_the_line_of_the_bar_fits_for_any_numbers(counts, monkeypatch, capsys):
    from seedream_batch.cli.output.progress import Bar
    from seedream_batch.engine.events import Stats

    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    bar = Bar()
    stats = Stats()
    stats.failed, stats.uncertain = counts
    bar.started(stats, 1_000_000, 500_000)
    bar.close()
    drawn = capsys.readouterr().err.replace("\r", "\n").split("\n")
    assert any("500,000/1,000,000" in line for line in drawn)
    assert all(len(line) <= 80 for line in drawn)


def test_the_bar_shows_more_images_than_wanted(monkeypatch, capsys):
    from seedream_batch.cli.output.progress import Bar
    from seedream_batch.engine.events import Event, EventKind, Stats

    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    bar = Bar()
    bar.started(Stats(), 1_000, 1_000)
    bar.event(Event(EventKind.STORED, "another one"))
    bar._redraw()  # as it is done each second
    bar.close()
    assert "1,001/1,000" in capsys.readouterr().err


def test_messages_break_between_words(seen, tmp_path):
    (tmp_path / "bad.yaml").write_text(
        JOB.replace("9:16", "9:10").replace("{{ subject }}", "{{ subjct }} on the ice"), encoding="utf-8"
    )
    assert seen("validate bad.yaml").lines == [
        "bad.yaml:5:21: matrix.size[2]: must be one of 1:1, 4:3, 3:4, 16:9, 9:16, 3:2,",
        "  2:3, 21:9, 9:21, auto, got 9:10 (the nearest ratio is 1:1)",
        "bad.yaml:6:19: request.prompt: `subjct` is not defined (did you mean `subject`?)",
        "bad.yaml: 2 problems",
    ]
    assert seen("run job.yaml", APIMART_API_KEY="").lines == [
        "seedream-batch: no API key. Set APIMART_API_KEY to the key, or",
        "  APIMART_API_KEY_FILE to the path of a file with the key (not needed with",
        "  --emulate)",
    ]
    named = " ".join(seen("rnu job.yaml").lines)
    assert all(f" {verb}" in named for verb in COMMANDS)


def test_only_a_terminal_with_colours_shows_them(seen, tmp_path, environment):
    (tmp_path / "bad.yaml").write_text(JOB.replace("{{ subject }}", "{{ subjct }}"), encoding="utf-8")
    assert not seen("validate bad.yaml").plain
    assert seen("validate bad.yaml", NO_COLOR="1").plain
    assert not seen("validate bad.yaml", NO_COLOR="").plain
    done = subprocess.run(
        [sys.executable, "-m", "seedream_batch", "validate", "bad.yaml"],
        cwd=tmp_path, env={**environment, "TERM": "xterm"}, capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, b"\x1b" in done.stdout + done.stderr) == (2, False)


@pytest.mark.thorough
def test_elsewhere_a_message_is_one_line(tmp_path, environment):
    (tmp_path / "job.yaml").write_text(JOB, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "seedream_batch", "run", "job.yaml"],
        cwd=tmp_path, env={**environment, "APIMART_API_KEY": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


@pytest.mark.thorough
def test_a_refused_key_is_told_without_parentheses_in_parentheses(seen):
    lines = seen("run job.yaml", APIMART_API_KEY="wrong-key").lines
    assert lines[0].startswith("stopping: the service rejected the API key (requesting the balance: HTTP 401:")
    assert re.match(r"test: stopped after [0-9.]+ s: the service rejected the API key", lines[2])
    assert "))" not in "".join(lines)


@pytest.mark.thorough
def test_what_to_do_next_can_be_pasted_and_is_about_the_same_images(seen, service, tmp_path):
    service.set_faults([REFUSED])
    (tmp_path / "job.yaml").rename(tmp_path / "my job.yaml")
    told = " ".join(seen("run 'my job.yaml'").lines)
    assert "Queue failed or lost tasks again: `seedream-batch retry 'my job.yaml'`" in told
    (tmp_path / "out").rename(tmp_path / "out-emulated")
    told = " ".join(seen("retry 'my job.yaml' --emulate").lines)
    assert "`seedream-batch run 'my job.yaml' --emulate` submits them." in told
    told = " ".join(line.strip() for line in seen("retry 'my job.yaml'").lines)
    why = "my job.yaml has not been run yet: out/manifest.db does not exist"
    assert told == f"seedream-batch: {why}. Start with `seedream-batch run 'my job.yaml'`"
