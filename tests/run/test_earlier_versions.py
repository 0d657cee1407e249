"""A manifest that version 1 of its format left half finished, after a kill, is opened and completed.

`version-1/` is what that program wrote: its manifest as SQL, and the ledger of the emulator that it talked to. One task
is stored, and one each is failed, lost, uncertain, in flight and planned.
"""

import re
import shutil
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from seedream_batch.emulator import Emulator, EmulatorConfig
from seedream_batch.manifest.db.sqlite_schema import APPLICATION_ID, MIGRATIONS

DATA = Path(__file__).parent / "version-1"
WRITTEN_AT = 1796037030


def moved(text):
    """The text with its times shifted, as if it had been written a moment ago."""
    shift = time.time() - WRITTEN_AT
    return re.sub(r"\b1796\d{6}(\.\d+)?\b", lambda match: repr(float(match[0]) + shift), text)


@pytest.fixture
def left_behind(bench, tmp_path_factory):
    state = tmp_path_factory.mktemp("state")
    (state / "ledger.jsonl").write_text(moved((DATA / "ledger.jsonl").read_text()))
    shutil.copy(DATA / "job.yaml", bench.job)
    with Emulator(EmulatorConfig(state_dir=state, task_seconds="fixed:0.05")) as emulator:
        bench.serve(emulator)
        bench.out.mkdir()
        script = moved((DATA / "manifest.sql").read_text())
        with closing(sqlite3.connect(bench.out / "manifest.db")) as connection:
            connection.executescript(script.replace("FOLDER", str(bench.folder)).replace("SERVICE", emulator.url))
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute("PRAGMA user_version = 1")
        yield bench


def bills(bench):
    charges = [entry for entry in bench.emulator.ledger() if entry["event"] == "charge"]
    return Counter(entry["request"]["prompt"].split()[0] for entry in charges)


def states(bench):
    return dict(bench.rows("SELECT json_extract(cell, '$.subject'), state FROM tasks"))


def test_reading_commands_open_it(left_behind):
    before = bills(left_behind)
    for command in ("status", "plan"):
        done = left_behind.call(command)
        assert done.code == 0, done
        assert "lost" in done.out, done
    assert bills(left_behind) == before


def test_it_is_completed_and_nothing_is_paid_twice(left_behind):
    bench = left_behind
    assert bills(bench) == dict.fromkeys(["panda", "fox", "owl", "lynx", "crane"], 1)
    assert bench.run().code == 4
    # The lost one is found by a free poll; what is uncertain waits for a person, what was refused for another prompt.
    assert states(bench) == {
        "panda": "succeeded", "fox": "failed", "owl": "succeeded",
        "lynx": "uncertain", "crane": "succeeded", "otter": "succeeded",
    }  # fmt: skip
    assert bench.call("verify").code == 0
    lynx = next(entry["task_id"] for entry in bench.emulator.ledger() if "lynx" in str(entry.get("request")))
    assert bench.call("resolve", "--select", "subject=lynx", "--task-id", lynx).code == 0
    assert bench.run().code == 3
    assert {path.stem for path in bench.out.glob("*.jpg")} == {"panda", "owl", "lynx", "crane", "otter"}
    assert bills(bench) == dict.fromkeys(["panda", "fox", "owl", "lynx", "crane", "otter"], 1)


def test_the_tables_of_version_1_are_made_as_they_were():
    """SQLite keeps the text of each statement: a manifest looks the same, whichever program made it."""

    def made(script):
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.executescript(script)
            return dict(connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL"))

    assert made(MIGRATIONS[0]) == made((DATA / "manifest.sql").read_text())
