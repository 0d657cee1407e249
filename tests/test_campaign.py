"""What the campaign's parts are built from: changes of answers, and walks that can be repeated."""

import json
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "tools" / "campaign"))

import answers
import steps
import walk

TASK = "task_01ABCDEFGH"
DOCUMENTS = {
    "submit": {"code": 200, "data": [{"status": "submitted", "task_id": TASK}]},
    "poll": {
        "code": 200,
        "data": {
            "id": TASK,
            "status": "completed",
            "created": 1.0,
            "result": {"images": [{"url": ["http://127.0.0.1:1/results/a/0.jpg"], "expires_at": 2}]},
        },
    },
    "balance": {"success": True, "remain_balance": 5},
    "upload": {"url": "http://127.0.0.1:1/uploads/a.png"},
}


def reply(endpoint):
    if endpoint == "image":
        return answers.Reply(200, [("Content-Type", "image/jpeg")], steps._picture("teal"))
    return answers.Reply(200, [("Content-Type", "application/json")], json.dumps(DOCUMENTS[endpoint]).encode())


@pytest.mark.parametrize("endpoint", answers.ALL)
def test_every_change_makes_an_answer_that_can_be_sent(endpoint):
    for name in answers.of(endpoint):
        changed = reply(endpoint)
        about = answers.About(endpoint, TASK, "task_01OTHER000", "http://127.0.0.1:1", random.Random(1))
        answers.altered(changed, [name], about)
        sent, _ = changed.wire()
        assert b"HTTP/1.1 " in sent, name


def test_recipes_of_the_same_seed_are_the_same():
    assert [answers.mixture(seed) for seed in range(50)] == [answers.mixture(seed) for seed in range(50)]
    assert len({answers.mixture(seed).name for seed in range(50)}) > 40


def test_a_gateway_never_denies_what_was_billed():
    for recipe in (answers.mixture(seed) for seed in range(2000)):
        assert not (recipe.late and any(answers._refuses(name) for name in recipe.changes)), recipe.name


def test_walks_have_as_many_steps_as_asked_for_and_repeat():
    cells = walk.cells(120)
    assert sum(cell.steps for cell in cells) == 120
    assert steps.drawn(7, 30) == steps.drawn(7, 30) != steps.drawn(8, 30)
    assert {name for name, _ in steps.drawn(1, 2000)} == set(steps.STEPS)
