"""Tasks that are pinned, to the byte: nobody shall pay twice because a version changed a body.

Each job in `golden/` has a file beside it that tells of every task as the first release made it: the digest of all,
and every 7th in full. They are not to be made anew: a difference means that the fingerprint, the body or the place of
images that people have bought already has changed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from seedream_batch.load import load_job

GOLDEN = Path(__file__).parent / "golden"
JOBS = ["everything", "default-paths", "plain"]


@pytest.mark.parametrize("name", JOBS)
def test_every_task_is_what_it_always_was(name):
    lines = [json.dumps(dataclasses.asdict(spec)) for spec in load_job(GOLDEN / f"{name}.yaml").tasks()]
    pinned = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    assert [json.loads(line) for line in lines[::7]] == pinned["every_7th"]
    assert (len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()) == (pinned["tasks"], pinned["sha256"])
