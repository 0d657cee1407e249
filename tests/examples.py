"""How many examples and parameters a test is tried with: few in the quick suite, all of them in `.ci/run`.

A property is tried with a twentieth of its examples, and with all of them where THOROUGH=1 is set.
"""

import os

import pytest

THOROUGH = os.environ.get("THOROUGH") == "1"
FEWEST = 10


def examples(count):
    return count if THOROUGH else min(count, max(FEWEST, count // 20))


def some(values, number):
    """Parameters of which only the first ones are tried by the quick suite."""
    rest = (value if isinstance(value, tuple) else (value,) for value in values[number:])
    return [*values[:number], *(pytest.param(*value, marks=pytest.mark.thorough) for value in rest)]
