"""What has to be true right after a command that a fault struck."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

from bench import in_state
from faults import OFTEN_WORDS, Kind
from forge import Ended
from moments import Moment
from oracle import Manifest
from world import Variant

SMALL = 256
"""Pixels of a side that no image of the campaign's jobs is below."""


@dataclass(slots=True)
class Look:
    """What a command did under a fault."""

    fault: str
    kind: Kind | None
    """None where nothing reaches the service."""
    often: str
    moment: Moment
    variant: Variant
    ended: Ended
    fired: int
    before: Manifest
    after: Manifest
    posts: list[dict[str, Any]]
    """The submissions of the command, the first in front."""

    @property
    def settles(self) -> bool:
        """Whether the command sends what is in doubt again."""
        return self.moment.settles(self.variant)

    @property
    def in_doubt_before(self) -> set[int]:
        """Tasks of which nobody knew whether they were bought."""
        return in_state(self.before, "submitting", "uncertain")

    @property
    def flagged(self) -> bool:
        """Whether a result that is not what was requested came: another number of images, or smaller ones."""
        images = Counter(image["task"] for image in self.after.images)
        done = [task for task in self.after.tasks if task["state"] == "succeeded"]
        small = any((image["width"] or SMALL) < SMALL for image in self.after.images)
        return small or any(images[task["id"]] != task["images"] for task in done)

    def new(self, *states: str) -> set[int]:
        """The tasks that came into one of these states."""
        return in_state(self.after, *states) - in_state(self.before, *states)


def left_as_documented(look: Look, codes: set[int]) -> list[str]:
    ended = look.ended
    wrong = []
    if "Traceback" in ended.err:
        wrong.append(f"a traceback: {ended.err[-1500:]}")
    if ended.code not in codes:
        wrong.append(f"left {ended.code} instead of {sorted(codes)}: {ended.out[-700:]} {ended.err[-700:]}")
    return wrong


def right_codes(look: Look) -> set[int]:
    """The exit codes that are right."""
    usual, often = look.moment.code(look.variant), OFTEN_WORDS.index(look.often)
    # A task in doubt is what is told first.
    failed, left = (4, 4) if usual == 4 else (3, 7)
    resends = look.settles and (look.moment.doubts or look.moment.resends)
    # A resend is tried a few times only; after that the task waits for the next run.
    waits = {4} if resends else set()
    by_often: dict[Kind, tuple[set[int], set[int], set[int]]] = {
        Kind.NOT_EXECUTED: ({usual}, {usual} | waits, {7} | waits),
        Kind.REDIRECTED: ({7, left} | waits,) * 3,
        Kind.SILENT: ({usual}, {usual}, {7}),
        Kind.NO_UPLOAD: ({usual}, {usual}, {7}),
        # The same bad answer for all tasks is an outage: nothing changes, and the run ends.
        Kind.UNKNOWN_ID: ({usual}, {usual, failed}, {failed, left}),
        Kind.BROKEN: ({usual}, {usual}, {left}),
        # If no image at all can be had, none is given up.
        Kind.BAD: ({usual}, {usual}, {failed, left}),
        Kind.SPOILT: ({usual}, {usual}, {failed, left}),
        Kind.DEAD: ({usual}, {usual, left}, {left}),
        # The balance endpoint takes the key, so it is not the key.
        Kind.DENIED: ({usual}, {usual, 7}, {7} | waits),
    }
    if look.kind in by_often:
        return by_often[look.kind][often]
    match look.kind:
        case Kind.UNCLEAR if look.settles:
            return ({usual}, {usual, 4}, {4})[often]
        case Kind.RUNNING if look.fault.startswith("poll"):
            return ({usual}, {usual}, {failed})[often]
        case Kind.REFUSED:
            # "No" said of a resend says nothing of the first time.
            return {4} if look.moment.resends else {3, 4} if resends else {failed}
        case Kind.EMPTY:
            # The answer to a resend is the one to the first time. None for any task is an outage.
            return {failed, *({usual} if resends else ()), *({left} if often else ())}
        case Kind.ODD:
            return {9} if usual == 0 and look.flagged else {usual}
    always: dict[Kind | None, int] = {
        Kind.UNCLEAR: 4, Kind.INDETERMINATE: 4, Kind.NO_ACCESS: 6, Kind.NO_MONEY: 5,
        Kind.RUNNING: failed, Kind.EXPIRED: failed, Kind.LATE: left,
    }  # fmt: skip
    return {always.get(look.kind, usual)}


def sent_right(look: Look, pause: float) -> list[str]:
    """What was POSTed: which tasks, how often, and with which bytes."""
    owners = {attempt["key"]: attempt["task"] for attempt in look.after.attempts}
    times: dict[str, list[float]] = defaultdict(list)
    bodies: dict[str, set[str]] = defaultdict(set)
    for post in look.posts:
        times[post["key"]].append(post["at"])
        if post["body_sha256"]:
            bodies[post["key"]].add(post["body_sha256"])
    wrong = [f"{key} was sent with {len(several)} bodies" for key, several in bodies.items() if len(several) > 1]
    known = in_state(look.before, "accepted", "succeeded")
    again = look.kind in {Kind.NOT_EXECUTED, Kind.DENIED, Kind.REDIRECTED} or (
        look.settles and look.kind in {Kind.UNCLEAR, None}
    )
    for key, several in times.items():
        task = owners.get(key)
        if task is None:
            wrong.append(f"{key} was sent and belongs to no attempt")
        if task in known:
            wrong.append(f"{key} was sent, and its task was bought before")
        if task in look.in_doubt_before and not look.settles:
            wrong.append(f"{key} was sent again, though nobody allowed that")
        if len(several) > 1 and not again and task not in look.in_doubt_before:
            wrong.append(f"{key} was sent {len(several)} times")
        if pause and any(later - earlier < 0.95 * pause for earlier, later in itertools.pairwise(several)):
            wrong.append(f"{key} was sent again too soon: {several}")
    tasks = Counter(owners.get(key) for key in times)
    wrong += [f"task {task} was sent under {number} keys" for task, number in tasks.items() if number > 1]
    return wrong


def reached_right(look: Look, on: str) -> list[str]:
    """The states that were reached."""
    doubts = look.new("uncertain") - look.in_doubt_before
    held = {task["id"] for task in look.after.tasks if task["state"] == "uncertain" and task["held"]}
    failed, lost = look.new("failed"), look.new("lost")
    expected: list[tuple[str, bool]] = []
    match look.kind:
        case Kind.UNCLEAR if not look.settles:
            expected = [(f"{len(doubts)} tasks are in doubt, {look.fired} were struck", len(doubts) == look.fired)]
        case Kind.UNCLEAR:
            left = in_state(look.after, "uncertain")
            expected = [(f"{len(left)} tasks are still in doubt", not left or look.often != "once")]
        case Kind.INDETERMINATE:
            expected = [(f"{len(held)} tasks are held, {look.fired} were struck", len(held) == look.fired)]
        case Kind.REFUSED:
            both = len(failed) + len(held)
            expected = [(f"{both} tasks failed or are held, {look.fired} were struck", both == look.fired)]
        case Kind.RUNNING | Kind.UNKNOWN_ID | Kind.EMPTY:
            counted = {a["task"] for a in look.after.attempts if a["outcome"] == "lost" and a["reserved"] > 0}
            expected = [("a lost task is not counted in the budget", lost <= counted)]
        case Kind.LATE:
            told = "as completed, then as failed" in look.ended.err
            expected = [("that it failed later is not told", told)]
        case _:
            pass
    if look.kind not in {Kind.UNCLEAR, Kind.INDETERMINATE}:
        expected.append((f"{len(doubts)} tasks came into doubt", not doubts))
    if look.kind is not Kind.REFUSED:
        expected.append((f"{len(failed)} tasks failed", not failed))
    if look.kind not in {Kind.RUNNING, Kind.UNKNOWN_ID, Kind.EMPTY}:
        expected.append((f"{len(lost)} tasks were lost", not lost))
    if look.kind in {Kind.NO_ACCESS, Kind.NO_MONEY}:
        open_images = [image for image in look.after.images if image["state"] == "announced"]
        collected = not in_state(look.after, "accepted") and not open_images
        expected.append(("what is paid for was not collected", collected))
        most = 4 * len(look.in_doubt_before) + (4 if on == "submit" else 0)
        expected.append((f"{len(look.posts)} submissions", look.often != "always" or len(look.posts) <= most))
    return [told for told, holds in expected if not holds]
