"""The benchmarks work: cheap rows at their smallest, by the real command. How fast anything is, no test says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent / "tools" / "benchmarks"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def measured(tmp_path, rows):
    """The rows of the JSON that the command writes, by name."""
    file = tmp_path / "figures.json"
    command = [sys.executable, BENCHMARKS, "--small", "--rounds", "1", "--only", ",".join(rows), "--json", file]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found = {row["name"]: row for row in json.loads(file.read_text())["rows"]}
    assert sorted(found) == sorted(rows)
    assert all(name in ended.stdout for name in rows)
    return found


@pytest.mark.thorough
def test_rows_have_figures_and_those_with_a_target_are_judged(tmp_path):
    rows = measured(tmp_path, ["downloads-decoded", "memory"])
    for row in rows.values():
        assert row["figure"] > 0, row
        assert len(row["runs"]) == 1
        assert row["notes"]
    assert rows["memory"]["target"] == "<= 1.05 x"
    assert rows["memory"]["met"] in {True, False}
    assert rows["downloads-decoded"]["target"] == ""
    assert rows["downloads-decoded"]["met"] is None


@pytest.mark.thorough
def test_the_runner_is_charged_once_for_each_image(tmp_path):
    rows = measured(tmp_path, ["charges-faults-runner", "charges-kill-runner", "charges-kill-script"])
    assert rows["charges-faults-runner"]["figure"] == rows["charges-kill-runner"]["figure"] == 12
    assert rows["charges-kill-script"]["figure"] is None or rows["charges-kill-script"]["figure"] >= 12


def test_a_row_that_is_not_known_is_an_error(tmp_path):
    command = [sys.executable, BENCHMARKS, "--small", "--only", "speed"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "no row is called speed" in ended.stderr
