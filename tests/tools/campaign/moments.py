"""The states of a job in which a fault can strike, and how a job is brought into each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench import asked, wait_for
from world import Variant, World


@dataclass(frozen=True, slots=True)
class Moment:
    """A state of the job, the command that is given in it, and what it leaves with when nothing disturbs it."""

    name: str
    prepare: Callable[[World], None]
    asks: tuple[str, ...]
    """The endpoints that the command asks."""
    command: tuple[str, ...] = ("run",)
    doubts: bool = False
    """Whether tasks are in doubt before it, which only a service that knows keys can settle."""
    resends: bool = False
    """Whether the command sends tasks again under their keys in any case; for a service that honours keys only."""

    def code(self, variant: Variant) -> int:
        """What the command leaves with undisturbed."""
        return 4 if self.doubts and not self.settles(variant) else 0

    def settles(self, variant: Variant) -> bool:
        """Whether what is in doubt is sent again under its key."""
        return self.resends or variant.on_unknown == "resend"


def _nothing(world: World) -> None:
    del world


def _some_accepted(world: World) -> None:
    """Three tasks are at work at the service, two are not sent yet."""
    expect(world, {0, 7}, "run", "--submit-only", "--limit", "3")


def some_of_all(world: World) -> None:
    """Images of two tasks wait to be fetched, two tasks are at work, one is not sent yet."""
    world.service.set_faults([{"on": "image", "action": "status", "status": 403}])
    expect(world, {7}, "run", "--limit", "2")
    world.service.set_faults([])
    expect(world, {0, 7}, "run", "--submit-only", "--limit", "2")


def _killed_while_submitting(world: World) -> None:
    """One task was billed and its answer never read, one was sent and not billed, one is not sent yet."""
    world.service.set_faults(
        [
            {"on": "submit", "action": "hang", "at": "after_bill", "prompt": "fox"},
            {"on": "submit", "action": "hang", "at": "before_bill", "prompt": "hare"},
        ]
    )
    child = world.start("run", "--limit", "4")
    wait_for(lambda: len(world.service.ask("GET", "waiting")) == 2 and _stored(world) == 2)
    child.kill()
    wait_for(lambda: not world.service.ask("GET", "waiting"))
    world.service.set_faults([])


def _two_in_doubt(world: World) -> None:
    """One task in doubt was billed, the other was not; one is not sent yet."""
    world.service.set_faults(
        [
            {"on": "submit", "action": "reset_after_bill", "prompt": "fox"},
            {"on": "submit", "action": "status", "status": 500, "prompt": "hare"},
        ]
    )
    expect(world, {4}, "run", "--limit", "4")
    world.service.set_faults([])


def _two_retried(world: World) -> None:
    """Two tasks that failed are planned again."""
    world.service.set_faults([{"on": "submit", "action": "fail", "prompt": "fox|swans"}])
    expect(world, {3}, "run")
    world.service.set_faults([])
    expect(world, {0}, "retry")


def expect(world: World, codes: set[int], *command: str) -> None:
    ended = world.call(*command)
    if ended.code not in codes:
        raise RuntimeError(f"{' '.join(command)} left {ended.code}, not {codes}: {ended.out} {ended.err}")


def _stored(world: World) -> int:
    found = asked(world, "SELECT count(*) FROM images WHERE state = 'stored'")
    return int(found[0][0]) if found else 0


_ALL = ("balance", "submit", "poll", "image")
MOMENTS = {
    moment.name: moment
    for moment in (
        Moment("first run", _nothing, ("upload", *_ALL)),
        Moment("tasks at work", _some_accepted, _ALL),
        Moment("images to fetch and tasks at work", some_of_all, _ALL),
        Moment("killed while submitting", _killed_while_submitting, _ALL, doubts=True),
        Moment("tasks in doubt", _two_in_doubt, _ALL, doubts=True),
        Moment("resolve --resend", _two_in_doubt, ("submit", "poll", "image"), ("resolve", "--resend"), resends=True),
        Moment("run --collect", some_of_all, ("poll", "image"), ("run", "--collect")),
        Moment("failed tasks planned again", _two_retried, _ALL),
    )
}
