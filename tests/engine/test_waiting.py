"""Waiting in a run: for a time, for what happens, and never past its end."""

import asyncio

import pytest

from seedream_batch.engine.events import StopReason
from seedream_batch.engine.stop_control import RunStopped, Signal, StopControl

SOON, NEVER = 0.01, 3600.0


def control():
    return StopControl(emit=lambda _: None, give_up=lambda: None)


async def settled():
    """Lets everything that is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_wait_ends_with_its_time():
    asyncio.run(control().until(None, SOON))


@pytest.mark.parametrize("seconds", [NEVER, None])
def test_a_wait_ends_with_what_it_waits_for(seconds):
    async def wait():
        happening = Signal()
        waiting = [asyncio.ensure_future(control().until(happening, seconds)) for _ in range(3)]
        await settled()
        assert not any(one.done() for one in waiting)
        happening.set()
        await asyncio.gather(*waiting)
        assert not happening.waiting

    asyncio.run(wait())


def test_what_has_happened_is_not_waited_for_until_it_is_cleared():
    async def wait():
        waits, happening = control(), Signal()
        happening.set()
        await waits.until(happening)
        happening.clear()
        waiting = asyncio.ensure_future(waits.until(happening))
        await settled()
        assert not waiting.done()
        happening.set()
        await waiting

    asyncio.run(wait())


@pytest.mark.parametrize("seconds", [NEVER, None])
def test_the_end_of_the_run_ends_every_wait(seconds):
    async def wait():
        waits, happening = control(), Signal()
        asked = [waits.until(None, NEVER), waits.until(happening, seconds)]
        waiting = [asyncio.ensure_future(one) for one in asked]
        await settled()
        waits.end(StopReason.TIME, "over")
        for one in waiting:
            with pytest.raises(RunStopped):
                await one
        happening.set()
        for one in (None, happening):
            with pytest.raises(RunStopped):
                await waits.until(one, 0)
        with pytest.raises(RunStopped):
            waits.check()

    asyncio.run(wait())


def test_who_is_cancelled_waits_no_more_and_harms_nobody():
    async def wait():
        waits, happening = control(), Signal()
        gone, other = (asyncio.ensure_future(waits.until(happening, NEVER)) for _ in range(2))
        await settled()
        gone.cancel()
        await settled()
        assert gone.cancelled()
        assert len(happening.waiting) == 1
        happening.set()
        await other

    asyncio.run(wait())
