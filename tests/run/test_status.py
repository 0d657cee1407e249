"""What status shows and watches, beside real runs."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time

import pytest

from seedream_batch.cli.output.status_view import status_lines
from seedream_batch.manifest import Manifest
from seedream_batch.manifest.statistics import MOST_VALUES, FailureRow, Phase, StatisticsReader
from seedream_batch.model.task import TaskSpec, TaskState
from seedream_batch.report.failure_causes import ADVICE, MOST, OTHER, Kind, causes, kind_of
from seedream_batch.report.status import read_status
from seedream_batch.validate.schemas import validator

SENSITIVE = "OutputImageSensitiveContentDetected"


def told(bench, *args):
    """The status for machines, which is what its schema says."""
    value = json.loads(bench.call("status", "--json", *args).out)
    assert [error.message for error in validator("status").iter_errors(value)] == []
    return value


def table(shown):
    """The rows of the tables by axis: names to numbers."""
    return {
        row[1].strip(): row[2].split()
        for row in re.finditer(r"^ {2,4}(\S.{0,27}?) {2,}((?:\S+ *)+)$", shown, re.MULTILINE)
    }


@pytest.fixture
def mixed(bench, serve):
    """A job of which some is stored, some failed in two ways, one is in doubt and the rest is planned."""
    serve()
    bench.write(bench.job.read_text() + "run: {attempts: 1, max_in_flight: 1}\n")
    bench.emulator.set_faults(
        [
            {"on": "submit", "action": "fail", "code": SENSITIVE, "message": "no", "prompt": "panda", "count": 2},
            {"on": "submit", "action": "reset_after_bill", "prompt": "fox", "count": 1},
        ]
    )
    assert bench.run("--limit", "5").code == 4
    return bench


def test_the_table_by_axis(mixed):
    shown = mixed.call("status").out
    rows = table(shown)
    assert rows["subject"] == ["stored", "failed", "uncertain", "planned"]
    assert rows["panda"] == ["1", "2", "0", "0"]
    assert rows["fox"] == ["1", "0", "1", "1"]
    assert [sum(int(rows[size][place]) for size in ("1:1", "16:9", "9:16")) for place in range(4)] == [2, 2, 1, 1]
    assert all(len(line) <= 80 for line in shown.splitlines() if str(mixed.job) not in line)
    axes = told(mixed)["axes"]
    assert list(axes) == ["subject", "size"]
    assert axes["subject"] == {
        "values": [
            {"value": "panda", "stored": 1, "in_flight": 0, "failed": 2, "uncertain": 0, "planned": 0},
            {"value": "fox", "stored": 1, "in_flight": 0, "failed": 0, "uncertain": 1, "planned": 1},
        ],
        "more": 0,
        "cut": False,
    }


def test_what_is_all_at_one_point_has_no_table(bench, serve):
    serve()
    bench.run()
    shown = bench.call("status").out
    assert "  subject " not in shown
    assert [value["stored"] for value in told(bench)["axes"]["subject"]["values"]] == [3, 3]


def test_twelve_values_are_shown(bench, serve):
    serve()
    bench.edit("matrix:\n", f"matrix:\n  mood: [{', '.join(f'm{number}' for number in range(15))}]\n")
    bench.edit("{{ size }}", "{{ size }}-{{ mood }}")
    bench.edit("watercolour", "{{ mood }}")
    bench.run("--limit", "7")
    shown = bench.call("status").out
    assert table(shown)["m0"] == ["6", "0"]
    assert table(shown)["m1"] == ["1", "5"]
    assert "m11" in table(shown)
    assert "m12" not in table(shown)
    assert "    and 3 more\n" in shown
    assert len(told(bench)["axes"]["mood"]["values"]) == 15


def test_failures_are_grouped_with_what_to_do(mixed):
    shown = mixed.call("status").out
    assert (
        f"Failed or lost (2):\n  2 failed: {SENSITIVE}: no\n    first  panda/1-1\n"
        "    fix    edit the prompt: moderation would reject the same one again\n"
    ) in shown
    (cause,) = told(mixed)["causes"]
    assert (cause["count"], cause["kind"], cause["first"]) == (2, "moderation", "panda/1-1")
    assert cause["advice"] == ADVICE[Kind.MODERATION]


@pytest.mark.parametrize(
    ("state", "code", "reason", "kind"),
    [
        (TaskState.FAILED, SENSITIVE, "no", Kind.MODERATION),
        (TaskState.FAILED, "400", "HTTP 400: safety_violations=[sexual]", Kind.MODERATION),
        (TaskState.FAILED, "400", "HTTP 400: size is not supported", Kind.REFUSED),
        (TaskState.FAILED, "", "HTTP 413: too large", Kind.REFUSED),
        (TaskState.FAILED, "task_failed", "an upstream error", Kind.SERVICE),
        (TaskState.FAILED, "", "given up; before that: HTTP 400: x", Kind.GIVEN_UP),
        (TaskState.LOST, "", "not finished 1800 s after the service accepted it", Kind.LOST),
    ],
)
def test_what_lies_behind_a_failure(state, code, reason, kind):
    assert kind_of(state, code, reason) is kind
    assert ADVICE[kind]


def test_each_kind_of_real_failure_is_told_for_what_it_is(bench, serve):
    serve()
    bench.write(bench.job.read_text() + "run: {attempts: 1}\n")
    bench.emulator.set_faults(
        [
            {"on": "submit", "action": "status", "status": 400, "prompt": "panda"},
            {"on": "submit", "action": "fail", "prompt": "fox"},
        ]
    )
    assert bench.run().code == 3
    assert {(cause["kind"], cause["count"]) for cause in told(bench)["causes"]} == {("refused", 3), ("service", 3)}


def test_reasons_that_differ_in_ids_are_one():
    rows = [
        FailureRow(TaskState.LOST, "", f"not finished {1800 + number} s after the service accepted it", 1, f"p{number}")
        for number in range(5)
    ]
    rows += [FailureRow(TaskState.LOST, "", "no clear result 20 s after the service accepted it", 2, "r")]
    rows += [FailureRow(TaskState.FAILED, "x", f"failed, request id 2026abcd{n:08x}", 2, f"q{n}") for n in range(4)]
    assert [(one.reason, one.count, one.path) for one in causes(rows)] == [
        ("failed, request id …", 8, "q0"),
        ("not finished … s after the service accepted it", 5, "p0"),
        ("no clear result 20 s after the service accepted it", 2, "r"),
    ]


def test_many_causes_are_bounded():
    words = ("".join(chr(97 + number // 26**place % 26) for place in range(4)) for number in range(3 * MOST))
    found = causes(FailureRow(TaskState.FAILED, "", word, 1, word) for word in words)
    assert len(found) == MOST + 1
    assert (found[0].reason, found[0].count) == (OTHER, 2 * MOST)


@pytest.mark.thorough
def test_the_pace_and_what_is_left(bench, serve, until, end):
    serve(task_seconds="fixed:0.3")
    bench.edit("matrix:\n", "repeat: 20\nrun: {max_in_flight: 2}\nmatrix:\n")
    bench.edit("{{ size }}", "{{ size }}-{{ sample }}")
    process = bench.start()
    end(process)
    # A file has its name a moment before the manifest says so.
    until(lambda: bench.files() and told(bench)["images"].get("stored", 0) >= 3)
    during = told(bench)
    run = during["last_run"]
    assert during["running"]
    assert during["images_left"] == 120 - during["images"]["stored"]
    pace = during["pace"]
    assert 3 <= pace["images"] <= during["images"]["stored"]
    assert 0 < pace["seconds"] <= time.time() - run["started_at"]
    assert pace["images_per_minute"] == pytest.approx(pace["images"] * 60 / pace["seconds"], rel=0.01)
    assert during["seconds_left"] == pytest.approx(during["images_left"] * pace["seconds"] / pace["images"], rel=0.01)
    assert re.search(r"  pace       [\d.,]+ images a minute, about .+ left\n", bench.call("status").out)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    after = told(bench)
    assert after["seconds_left"] is None
    assert after["pace"]["images"] == after["images"]["stored"]
    assert re.search(r"  pace       [\d.,]+ images a minute\n", bench.call("status").out)


def test_the_pace_is_that_of_the_last_minutes_and_of_this_run_alone(bench, serve):
    serve()
    bench.run("--limit", "2")
    bench.run("--limit", "3")
    with StatisticsReader(bench.out / "manifest.db") as reader:
        run = reader.last_run()
        times = [at for (at,) in bench.rows("SELECT at FROM events WHERE new = 'stored' AND run = ?", run.id)]
        assert len(times) == 3
        pace = reader.pace(run, None, 300.0)
        assert (pace.images, pace.seconds) == (3, pytest.approx(max(times) - run.started_at))
        assert reader.pace(run, run.started_at + 400, 300.0) is None
        later = reader.pace(run, max(times) + 10, 10.0)
        assert (later.images, later.seconds) == (times.count(max(times)), pytest.approx(10.0))
        assert reader.pace(run, None, 0.0).images >= 1


def test_a_finished_run_that_stored_nothing_has_no_pace(bench, serve):
    serve()
    bench.run()
    bench.run()
    assert told(bench)["pace"] is None
    assert "pace" not in bench.call("status").out


def test_watching_without_a_terminal_is_a_line_each(bench, serve, until, end):
    serve(task_seconds="fixed:2")
    process = bench.start()
    end(process)
    until(lambda: bench.charges() != [])
    done = bench.call("status", "--watch", "0.2")
    assert done.code == 0
    assert process.wait(20) == 0
    lines = done.out.splitlines()
    assert len(lines) >= 2
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d test: \d of 6 images stored, ", line) for line in lines)
    assert "0 of 6 images stored" in lines[0]
    assert "6 of 6 images stored, 0 in flight, 0.21 USD" in lines[-1]
    assert "\x1b" not in done.out
    # Nothing is going any more: it is told once.
    assert len(bench.call("status", "--watch").out.splitlines()) == 1


@pytest.mark.thorough
def test_ctrl_c_ends_watching(bench, serve, until, end):
    serve(task_seconds="fixed:30")
    process = bench.start()
    end(process)
    until(lambda: bench.charges() != [])
    watching = subprocess.Popen(
        [sys.executable, "-m", "seedream_batch", "status", str(bench.job), "--watch=0.1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip
    end(watching)
    assert "images stored" in watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=20)
    assert (watching.returncode, err) == (0, "")


@pytest.mark.thorough
def test_on_a_terminal_it_is_drawn_over_itself(bench, serve, until, end):
    serve(task_seconds="fixed:2")
    process = bench.start()
    end(process)
    until(lambda: bench.charges() != [])
    ours, theirs = pty.openpty()
    watching = subprocess.Popen(
        [sys.executable, "-m", "seedream_batch", "status", str(bench.job), "--watch=0.2"],
        stdout=theirs, stderr=subprocess.PIPE, env={**os.environ, "COLUMNS": "80", "LINES": "4"},
    )  # fmt: skip
    end(watching)
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # how Linux says that the other side was closed
            break
        if not piece:
            break
        seen += piece
    os.close(ours)
    assert watching.wait(20) == 0, watching.stderr.read()
    screens = seen.decode().split("\x1b[H")[2:]
    assert len(screens) >= 2
    assert all(screen.endswith("\x1b[J") for screen in screens)
    # While it goes, what is longer than the screen is cut; the last one is whole.
    assert screens[0].count("\n") == 3
    assert "6 of 6 stored" in screens[-1]
    assert "..." not in screens[-1]


def test_wrong_ways_to_watch(bench, serve):
    serve()
    assert "not both" in bench.call("status", "--watch", "--json").err
    assert "put JOB first" in bench.call("status", "--watch", "soon").err
    assert "out of range: 0.1" in bench.call("status", "--watch", "0").err


def test_long_names_of_values_are_cut_to_the_width(bench, serve):
    serve()
    bench.edit("{id: fox, text: a fox in the snow}", '{id: "狐狸狐狸狐狸狐狸狐狸狐狸狐狸狐狸", text: a fox}')
    bench.edit("{{ subject.id }}", "{{ subject.text }}")
    bench.run("--limit", "4")
    shown = bench.call("status").out
    (row,) = [line for line in shown.splitlines() if "狐" in line]
    assert row.startswith("    狐狸狐狸狐狸狐狸狐狸狐")
    assert "…" in row
    assert row.split()[1:] == ["1", "2"]


@pytest.fixture
def large(tmp_path):
    """A manifest of more values than are told apart, none of them run."""
    path = tmp_path / "out" / "manifest.db"
    path.parent.mkdir()
    number = MOST_VALUES + 500
    manifest = Manifest(path)
    manifest.sync_job(
        (
            TaskSpec(
                fingerprint=f"{place:064x}", ordinal=place, sample=1, body='{"prompt": "x"}', images=1,
                paths=(f"x/{place}",), cell=json.dumps({"subject": {"id": f"s{place}"}, "size": "1:1"}),
                model="m", size="1:1", resolution="2K", price=35_000,
            )
            for place in range(number)
        ),
        1.0,
    )  # fmt: skip
    manifest.close()
    return path, number


@pytest.mark.thorough
def test_an_axis_of_many_values_is_counted_in_bounded_memory(large):
    path, number = large
    status = read_status(path, path.parent, axes=["subject", "size", "gone"], running=False, now=2.0)
    subject = status.axes["subject"]
    assert (len(subject.values), subject.more, subject.cut) == (1000, MOST_VALUES - 1000, True)
    assert [value.name for value in subject.values[:2]] == ["s0", "s1"]
    assert status.axes["size"].values[0].parts == {Phase.PLANNED: number}
    assert status.axes["gone"].values == []
    assert any("images" in line for line in status_lines(status, "job.yaml", emulated=False, now=2.0))


def test_the_schema_is_printed(capsys):
    from seedream_batch.cli import main

    with pytest.raises(SystemExit):
        main(["schema", "status"])
    assert json.loads(capsys.readouterr().out)["$id"] == "status.schema.json"
