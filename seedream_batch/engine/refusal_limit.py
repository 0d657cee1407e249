"""Refusals in the light of what else the run has seen: the fault of one task, or of something that all share."""

from __future__ import annotations

import re

MOST_REFUSED = 20
"""Refusals for the same reason, and nothing accepted, after which something else than the tasks must be wrong."""

MOST_BLOCKED = 5
"""The same for requests that something in front of the service turned away."""

WITH_SUCCESS = 5
"""How many times as many it takes in a run in which others were accepted."""

_VARYING = re.compile(r"\"[^\"]*\"|'[^']*'|`[^`]*`|[\w.-]*\d[\w.-]*")


class Refusals:
    """Counts refusals in a row for one reason. Those for their content are not told to it: they never stop a run."""

    def __init__(self) -> None:
        self.count = 0
        self._reason = ""
        self.successes = 0

    def accepted(self) -> None:
        """The service took a task."""
        self.successes += 1
        self.count = 0

    def refused(self, reason: str, *, blocked: bool) -> bool:
        """One more refusal; whether so many mean that all would be refused."""
        masked = _VARYING.sub("…", reason)
        self.count = self.count + 1 if masked == self._reason else 1
        self._reason = masked
        most = MOST_BLOCKED if blocked else MOST_REFUSED
        return self.count >= most * (WITH_SUCCESS if self.successes else 1)
