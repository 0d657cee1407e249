"""A run that cron starts every minute, for a day, against a flaky service: it has to come to its end.

Each start may be killed at any call, cut off by its time limit, or find another one at work; the service refuses,
breaks off, fails tasks, forgets to answer, gives bad images, and is down for a while.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from conclusion import conclude
from shim import Blow, Strike
from world import TRUSTED, World

JOB = """\
version: 1
name: night
matrix:
  subject: [ant, bee, cat, dog, elk, fox, gnu, hen, ibis, jay, kite, lynx]
  mood: [calm, wild, sad]
  size: [1:1, 16:9]
request: {prompt: "{{ subject }}, {{ mood }}"}
output: {dir: out, path: "{{ subject }}/{{ mood }}-{{ size }}"}
budget: {max_cost_usd: 3}
run: {on_unknown: ON_UNKNOWN, attempts: 9, max_in_flight: IN_FLIGHT}
"""
TASKS = 72

FLAKY = [
    {"on": "any", "action": "reset_before", "probability": 0.04},
    {"on": "any", "action": "reset_after", "probability": 0.03},
    {"on": "submit", "action": "reset_after_bill", "probability": 0.08},
    {"on": "submit", "action": "status", "status": 502, "at": "after_bill", "body": "html", "probability": 0.05},
    {"on": "submit", "action": "status", "status": 500, "probability": 0.05},
    {"on": "submit", "action": "rate_limit", "retry_after": "0.05", "probability": 0.1},
    {"on": "submit", "action": "idempotency", "code": "unavailable", "retry_after": "0.05", "probability": 0.05},
    {"on": "submit", "action": "fail", "probability": 0.15},
    {"on": "poll", "action": "status", "status": 503, "body": "html", "probability": 0.1},
    {"on": "poll", "action": "garbage_body", "probability": 0.05},
    {"on": "poll", "action": "not_found", "probability": 0.05},
    {"on": "image", "action": "truncated_image", "probability": 0.1},
    {"on": "image", "action": "html_200", "probability": 0.05},
    {"on": "image", "action": "short_length", "probability": 0.05},
    {"on": "image", "action": "expired", "probability": 0.1},
]


def days(*, sample: bool) -> Iterator[tuple[int, int]]:
    """Minutes and seed of each day."""
    if sample:
        yield 60, 1
        return
    for seed in range(1, 5):
        yield 1440, seed


def run(minutes: int, seed: int, root: Path, port: int) -> tuple[int, list[str]]:
    """One day; starts that were made, and what is wrong."""
    dice = random.Random(seed)
    world = World(root / "world", port, TRUSTED, seed=seed, task_seconds="uniform:0.01,0.6")
    world.make(JOB)
    world.allowed = replace(world.allowed, cap=3_000_000)
    wrong: list[str] = []
    starts = 0
    try:
        world.service.set_faults(FLAKY)
        for minute in range(minutes):
            down = minute % 97 in range(20, 24)
            if down:
                world.service.stop()
            # The first part of the day is the worse one; later starts mostly find nothing to do.
            killed = dice.random() < (0.7 if minute < minutes // 3 else 0.05)
            blow = Blow(dice.randrange(1, 500), Strike.KILL) if killed else None
            child = world.start("run", "--quiet", "--max-duration", f"{dice.choice((0.1, 0.3, 1, 5))}s", blow=blow)
            starts += 1
            if dice.random() < 0.05:
                second = world.call("run", "--quiet")
                starts += 1
                if second.code not in {0, 3, 4, 7, 75} or "Traceback" in second.err:
                    wrong.append(f"minute {minute}: a second run left {second.code}: {second.err[-500:]}")
            ended = child.wait()
            if down:
                world.service.start()
                world.service.set_faults(FLAKY)
            if not ended.killed and (ended.code not in {0, 3, 4, 7, 75} or "Traceback" in ended.err):
                wrong.append(f"minute {minute}: a run left {ended.code}: {ended.err[-500:]}")
            if minute % 10 == 0:
                wrong += [f"minute {minute}: {one}" for one in world.violations()]
            if wrong:
                return starts, wrong
        states = world.manifest().states()
        if minutes >= 1440 and states["succeeded"] + states["lost"] != TASKS:
            wrong.append(f"at the end of the day the tasks are {dict(states)}")
        world.service.set_faults([])
        # A task that was not found again and again, and an image of which every download was spoilt, wait for a person.
        return starts, wrong + conclude(world, None, alone=False)
    finally:
        world.close()
