"""A small storm: three workers that are killed and stopped, and a database that goes; see `tests/tools/chaos`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from postgres import why_not

CHAOS = Path(__file__).parents[1] / "tools" / "chaos"


@pytest.mark.parametrize("keys", [(), ("--without-keys",)], ids=["keys honoured", "keys not honoured"])
@pytest.mark.thorough
def test_workers_that_are_killed_pay_once_and_lose_nothing(tmp_path, keys):
    if reason := why_not():
        pytest.skip(reason)
    file = tmp_path / "found.json"
    size = ("--tasks", "120", "--workers", "3", "--rate", "20", "--every", "1.5", "--restarts", "1")
    done = subprocess.run(
        [sys.executable, str(CHAOS), *size, *keys, "--json", str(file)],
        cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text())
    assert found["violations"] == []
    assert found["figures"]["restarts"] == 1
    assert found["figures"]["kills"] + found["figures"]["stops"] > 0
