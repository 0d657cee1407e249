"""What has to hold after a storm, whatever happened in it."""

from __future__ import annotations

import bisect
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from storm import Aftermath

WINDOW = 10.0
"""Seconds over which a rate is taken."""

TOLERANCE = 1.05
"""How many times the rate that the job asks for may go out in any such time."""


@dataclass
class Verdict:
    """What was found; `figures` for people, `violations` for what should not be."""

    figures: dict[str, Any] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        for name, figure in self.figures.items():
            yield f"{name:<28}{figure}"
        yield f"{'violations':<28}{len(self.violations)}"
        yield from (f"  {one}" for one in self.violations)

    def as_json(self) -> dict[str, Any]:
        return {"figures": self.figures, "violations": self.violations}


def judge(after: Aftermath) -> Verdict:
    found = Verdict()
    figures = found.figures
    keys = Counter(charge["key"] for charge in after.charges)
    attempts = {key: (task, outcome, ids) for key, task, outcome, ids in after.asked(
        "SELECT key, task, outcome, task_ids FROM attempts"
    )}  # fmt: skip
    states = dict(after.asked("SELECT state, count(*) FROM tasks GROUP BY state"))
    figures.update(
        tasks=after.tasks, seconds=round(after.seconds, 1), kills=after.kills, stops=after.stops,
        restarts=after.restarts, bills=len(after.charges), ended=states, exit_codes=after.ends,
    )  # fmt: skip

    _check(found, all(count == 1 for count in keys.values()), f"{keys.most_common(3)} were billed more than once")
    _check(found, keys.keys() <= attempts.keys(), "there are bills without an attempt")
    billed = Counter(attempts[key][0] for key in keys if key in attempts)
    twice = [task for task, count in billed.items() if count > 1]
    _check(found, not twice, f"tasks were billed twice: {twice[:5]}")
    unknown = [
        charge["key"]
        for charge in after.charges
        if charge["key"] in attempts
        and charge["task_id"] not in (attempts[charge["key"]][2] or "")
        and attempts[charge["key"]][1] not in {"uncertain", "open"}
    ]
    _check(found, not unknown, f"task ids were lost: {unknown[:5]}")
    uncertain = states.get("uncertain", 0)
    if after.honour_keys:
        _check(found, len(after.charges) == after.tasks, f"there are {len(after.charges)} bills")
        _check(found, states == {"succeeded": after.tasks}, f"the tasks ended as {states}")
    else:
        _check(found, states.keys() <= {"succeeded", "uncertain"}, f"the tasks ended as {states}")
        _check(found, len(after.charges) <= after.tasks, f"there are {len(after.charges)} bills")
    figures["uncertain"] = uncertain

    _check(found, after.most_images <= after.tasks, f"{after.most_images} images were paid or held at once")
    [sums] = after.asked(
        "SELECT sum(reserved_images)::int, sum(reserved)::int, sum(images)::int, sum(cost)::int FROM attempts"
    )
    [totals] = after.asked("SELECT reserved_images, reserved, images, cost FROM totals")
    _check(found, sums == totals, f"the totals {totals} are not the sums of the attempts {sums}")
    _check(found, after.asked("SELECT count(*) FROM workers") == [(0,)], "there are workers left")

    fastest = _fastest(sorted(charge["at"] for charge in after.charges))
    figures["most a second"] = round(fastest / WINDOW, 1)
    told = f"{fastest} tasks were taken within {WINDOW:.0f} s at a rate of {after.rate:g} a second"
    _check(found, fastest <= TOLERANCE * after.rate * WINDOW, told)
    _check_files(found, after)
    _check(found, not after.errors, f"workers told of bugs: {after.errors[:2]}")
    return found


def _check(found: Verdict, holds: bool, told: str) -> None:  # noqa: FBT001 - reads as an assertion
    if not holds:
        found.violations.append(told)


def _fastest(times: list[float]) -> int:
    """The most submissions within any window."""
    return max((bisect.bisect_left(times, at + WINDOW) - place for place, at in enumerate(times)), default=0)


def _check_files(found: Verdict, after: Aftermath) -> None:
    rows = after.asked("SELECT path, sha256 FROM images WHERE state = 'stored'")
    wrong = [path for path, sha256 in rows if _sha256(after.output / path) != sha256]
    _check(found, not wrong, f"files are not what was stored: {wrong[:5]}")
    known = {path for path, _ in rows}
    extra = [
        path.relative_to(after.output).as_posix()
        for path in after.output.rglob("*")
        if path.suffix in {".jpg", ".png"} and path.relative_to(after.output).as_posix() not in known
    ]
    _check(found, not extra, f"files nobody knows of: {extra[:5]}")
    parts = [path.name for path in after.output.rglob("*.part")]
    _check(found, not parts, f"unfinished files are left: {parts[:5]}")
    rescued = [path.name for path in after.output.glob("*.rescue")]
    _check(found, not rescued, f"task ids wait in {rescued}")
    found.figures["files"] = len(rows)


def _sha256(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""
