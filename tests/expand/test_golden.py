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

from seedream_batch.jobfile import load_job

GOLDEN = Path(__file__).parent / "golden"
JOBS = ["everything", "default-paths", "plain"]


AS_READ_THEN = {'"text":"可爱的猫"': '"text":"可爱的猫\\t\x7f\u2028"', '"folder":"Con."': '"folder":"Con. "'}
"""Fields of `subjects.csv` that have signs around them which the first release took for a part of the text."""


def as_it_was(spec):
    """The task of the first release that this one is known to be."""
    cell = spec.cell
    for now, then in AS_READ_THEN.items():
        cell = cell.replace(now, then)
    body, fingerprint = spec.earlier[0] if spec.earlier else (spec.body, spec.fingerprint)
    return {**dataclasses.asdict(spec), "body": body, "fingerprint": fingerprint, "cell": cell}


@pytest.mark.parametrize("name", JOBS)
def test_every_task_is_what_it_always_was(name):
    lines = [json.dumps(as_it_was(spec)) for spec in load_job(GOLDEN / f"{name}.yaml").tasks()]
    pinned = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    assert [json.loads(line) for line in lines[::7]] == pinned["every_7th"]
    assert (len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()) == (pinned["tasks"], pinned["sha256"])
