"""What a run would do with each task, and why."""

from __future__ import annotations

import json

import pytest

from seedream_batch.model.task import KNOWN_FOR, PRUNED, ImageRecord, ImageState, TaskRecord, TaskSpec, TaskState
from seedream_batch.planning import WORK, Action, Decision, Plan, as_json, decide

NOW = 1_800_000_000.0

SPEC = TaskSpec(
    fingerprint="f" * 64,
    ordinal=1,
    sample=1,
    body='{"model":"m","prompt":"a panda"}',
    images=2,
    paths=("panda/1",),
    cell='{"subject":"panda"}',
    model="m",
    size="1:1",
    resolution="2K",
    price=35_000,
)


def record(state, **more):
    fields = {
        "id": 7,
        **{name: getattr(SPEC, name) for name in SPEC.__slots__},
        "state": state,
        "attempt": 0,
        "failures": 0,
        "not_before": 0.0,
        "task_ids": (),
        "submitted_at": None,
        "deadline": None,
        "cost": None,
        "code": "",
        "reason": "",
        "held": False,
        "updated_at": 0.0,
    }
    return TaskRecord(**{**fields, **more})


def image(index, state, path=None, reason=""):
    return ImageRecord(
        task=7,
        index=index,
        state=state,
        url="https://example.com/0.png",
        expires_at=None,
        path=path,
        target=None,
        bytes=None,
        sha256=None,
        width=None,
        height=None,
        format=None,
        tries=0,
        reason=reason,
    )


def decided(known, images=(), *, was=None, resend=False):
    return decide(SPEC, known, images, was=was, resend=resend, now=NOW)


AGAIN = "queued again by `retry`"
BUY = {"images": 2, "cost": 70_000}
STATES = [
    (TaskState.PLANNED, {}, False, Action.SUBMIT, "not generated yet"),
    (TaskState.PLANNED, {"attempt": 1}, False, Action.SUBMIT, "not executed in the last attempt"),
    (
        TaskState.PLANNED,
        {"attempt": 1, "reason": PRUNED},
        False,
        Action.SUBMIT,
        "generated before, but its images were pruned",
    ),
    (
        TaskState.PLANNED,
        {"attempt": 1, "reason": "queued again by `retry`"},
        False,
        Action.SUBMIT,
        "queued again by `retry`",
    ),
    (TaskState.PLANNED, {"attempt": 2, "failures": 2}, False, Action.SUBMIT, "failed 2 times, will be retried"),
    (
        TaskState.SUBMITTING,
        {},
        False,
        Action.HOLD,
        "uncertain, may have been charged; decide with `seedream-batch resolve`",
    ),
    (TaskState.SUBMITTING, {}, True, Action.RESEND, "uncertain; resent with the same Idempotency-Key"),
    (
        TaskState.UNCERTAIN,
        {},
        False,
        Action.HOLD,
        "uncertain, may have been charged; decide with `seedream-batch resolve`",
    ),
    (TaskState.UNCERTAIN, {}, True, Action.RESEND, "uncertain; resent with the same Idempotency-Key"),
    (
        TaskState.UNCERTAIN,
        {"held": True},
        True,
        Action.HOLD,
        "uncertain, may have been charged; decide with `seedream-batch resolve`",
    ),
    (TaskState.ACCEPTED, {}, False, Action.POLL, "submitted, in progress at the service"),
    (TaskState.FAILED, {"reason": "HTTP 400: no", "code": "c"}, False, Action.LEAVE, "failed: HTTP 400: no"),
    (TaskState.FAILED, {"code": "c"}, True, Action.LEAVE, "failed: c"),
    (TaskState.LOST, {"reason": "404"}, True, Action.LEAVE, "lost: 404"),
    (
        TaskState.LOST,
        {"reason": "404", "task_ids": ("t",), "submitted_at": NOW - KNOWN_FOR},
        True,
        Action.LEAVE,
        "lost: 404",
    ),
    (
        TaskState.LOST,
        {"reason": "404", "task_ids": ("t",), "submitted_at": NOW - KNOWN_FOR + 1},
        True,
        Action.POLL,
        "lost; polled again for free",
    ),
]


@pytest.mark.parametrize(("state", "more", "resend", "action", "why"), STATES)
def test_each_state_of_a_task(state, more, resend, action, why):
    bought = BUY if action is Action.SUBMIT else {}
    assert decided(record(state, **more), resend=resend) == Decision(action, why, **bought)


def test_every_state_is_in_the_table():
    assert {row[0] for row in STATES} | {TaskState.SUCCEEDED} == set(TaskState)


def test_a_task_that_is_new():
    assert decided(None) == Decision(Action.SUBMIT, "not generated yet", **BUY)


@pytest.mark.parametrize(
    ("body", "difference"),
    [
        ({"model": "m", "prompt": "a fox"}, "prompt"),
        ({"model": "m", "prompt": "a fox", "n": 2}, "n, prompt"),
        ({"model": "m", "prompt": "a panda", "size": "16:9"}, "size"),
        ({"model": "m", "prompt": "a panda"}, "another sample"),
    ],
)
def test_a_task_whose_request_changed_says_what(body, difference):
    was = record(TaskState.SUCCEEDED, body=json.dumps(body))
    assert decided(None, was=was) == Decision(Action.SUBMIT, f"the request changed ({difference})", **BUY)


STORED = [image(1, ImageState.STORED, "panda/1-1.png"), image(2, ImageState.STORED, "panda/1-2.jpg")]
ELSEWHERE = image(1, ImageState.STORED, "fox/1-1.png")
IMAGES = [
    (STORED, Action.KEEP, "stored"),
    (STORED[:1], Action.KEEP, "stored"),
    ([STORED[0], image(2, ImageState.ANNOUNCED)], Action.FETCH, "generated and paid for, not downloaded yet"),
    (
        [image(1, ImageState.EXPIRED), image(2, ImageState.ANNOUNCED)],
        Action.FETCH,
        "generated and paid for, not downloaded yet",
    ),
    ([ELSEWHERE, image(2, ImageState.ANNOUNCED)], Action.FETCH, "generated and paid for, not downloaded yet"),
    ([ELSEWHERE, STORED[1]], Action.MOVE, "stored under another path"),
    ([ELSEWHERE, image(2, ImageState.REJECTED)], Action.MOVE, "stored under another path"),
    ([STORED[0], image(2, ImageState.REJECTED, reason="too small")], Action.LEAVE, "image rejected: too small"),
    ([STORED[0], image(2, ImageState.EXPIRED)], Action.LEAVE, "image expired"),
    ([STORED[0], image(2, ImageState.MISSING, "panda/1-2.jpg", "gone")], Action.LEAVE, "image missing: gone"),
    ([image(1, ImageState.MISSING, "fox/1-1.png"), STORED[1]], Action.LEAVE, "image missing"),
    (
        [image(1, ImageState.MISSING), image(2, ImageState.REJECTED, reason="too small")],
        Action.LEAVE,
        "image rejected: too small",
    ),
]


@pytest.mark.parametrize(("images", "action", "why"), IMAGES)
def test_each_state_of_the_images(images, action, why):
    assert decided(record(TaskState.SUCCEEDED), images, resend=True) == Decision(action, why)


def test_what_is_to_be_made_anew_says_so():
    images = [STORED[0], image(2, ImageState.MISSING, "panda/1-2.jpg", "gone")]
    told = Decision(Action.SUBMIT, "queued again: image missing", **BUY)
    assert decided(record(TaskState.PLANNED, attempt=1), images) == told
    assert decided(record(TaskState.PLANNED, attempt=2, failures=1), images) == told


def test_what_was_not_chosen_is_counted_apart():
    plan = Plan()
    plan.leave_out(SPEC)
    assert (plan.tasks, plan.images, plan.left_out, plan.work, plan.to_buy) == (1, 2, 1, False, (0, 0))


def test_a_plan_in_numbers_and_as_json():
    plan = Plan()
    assert (plan.work, plan.to_buy, plan.ordered()) == (False, (0, 0), [])
    keep = Decision(Action.KEEP, "stored")
    plan.add(SPEC, keep, {"subject": "panda", "size": "1:1"})
    assert not plan.work
    submit = Decision(Action.SUBMIT, "not generated yet", **BUY)
    for size in ("1:1", "16:9"):
        plan.add(SPEC, submit, {"subject": "fox", "size": size})
    plan.add(SPEC, Decision(Action.POLL, "at work"), {"subject": "fox"})
    plan.add(SPEC, Decision(Action.SUBMIT, "again", 1, 42_000), {"subject": "fox"})
    assert plan.work
    assert (plan.tasks, plan.images, plan.to_buy) == (5, 10, (5, 182_000))
    assert [(group.action, group.why, group.tasks) for group in plan.ordered()] == [
        (Action.POLL, "at work", 1),
        (Action.SUBMIT, "not generated yet", 2),
        (Action.SUBMIT, "again", 1),
        (Action.KEEP, "stored", 1),
    ]
    assert plan.count([Action.SUBMIT, Action.POLL]) == 4
    found = json.loads(json.dumps(as_json(plan)))
    assert {name: value for name, value in found.items() if name != "groups"} == {
        "tasks": 5,
        "images": 10,
        "work": True,
        "to_buy": {"images": 5, "cost_usd": 0.182},
        "dropped": 0,
        "left_out": 0,
    }
    assert found["groups"][1] == {
        "action": "submit",
        "why": "not generated yet",
        "tasks": 2,
        "images": 4,
        "cost_usd": 0.14,
        "axes": {"subject": {"fox": 2}, "size": {"1:1": 1, "16:9": 1}},
    }


@pytest.mark.parametrize("action", Action)
def test_what_counts_as_work(action):
    plan = Plan()
    plan.add(SPEC, Decision(action, "why"), {})
    assert plan.work is (action in WORK)
    assert (action in WORK) is (action not in {Action.HOLD, Action.LEAVE, Action.KEEP})


def test_what_is_paid_for_is_collected_though_the_job_dropped_it():
    assert Plan(collect=1).work
    assert not Plan(dropped=3).work
