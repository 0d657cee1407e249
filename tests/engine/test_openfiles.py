"""The limit on open files: raised where the system permits it, and kept to where it does not."""

import resource

import pytest

from seedream_batch.engine import open_files as openfiles
from seedream_batch.engine.open_files import FEWEST, RESERVE, affordable
from seedream_batch.errors import UsageError

USED = 10


@pytest.fixture
def limits(monkeypatch):
    """Sets the soft and the hard limit; what the process made of them is in the list."""
    held = [0, 0]

    def setrlimit(_, wanted):
        if wanted[0] > held[1] >= 0:
            raise ValueError
        held[:] = wanted

    monkeypatch.setattr(openfiles, "_in_use", lambda: USED)
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(held))
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    return held


def test_a_low_limit_is_raised_as_far_as_needed(limits):
    limits[:] = [256, 4096]
    assert affordable(256) == 256
    assert limits == [USED + RESERVE + 256, 4096]
    assert affordable(256) == 256


def test_connections_fit_a_limit_that_cannot_be_raised(limits):
    limits[:] = [256, 256]
    assert affordable(256) == 256 - USED - RESERVE
    assert affordable(16) == 16


def test_without_a_limit(limits):
    limits[:] = [resource.RLIM_INFINITY, resource.RLIM_INFINITY]
    assert affordable(256) == 256


def test_too_few_files_are_an_error(limits):
    limits[:] = [64, 64]
    with pytest.raises(UsageError, match=f"a run needs {USED + RESERVE + FEWEST}"):
        affordable(16)
