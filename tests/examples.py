"""How many examples a property is tried with: a tenth in the quick suite, all of them with THOROUGH=1 around it."""

import os

THOROUGH = os.environ.get("THOROUGH") == "1"
FEWEST = 50


def examples(count):
    return count if THOROUGH else min(count, max(FEWEST, count // 10))
