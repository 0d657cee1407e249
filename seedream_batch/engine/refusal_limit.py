"""Tell whether refusals are the fault of single tasks, or of something that all tasks share."""

from __future__ import annotations

import re

MOST_REFUSED = 20
"""Refusals for the same reason, with nothing accepted, after which the tasks are not to blame."""

MOST_BLOCKED = 5
"""The same for requests blocked in front of the service (a firewall, a gateway)."""

WITH_SUCCESS = 5
"""Factor on both limits once the run had a task accepted."""

_VARYING = re.compile(r"\"[^\"]*\"|'[^']*'|`[^`]*`|[\w.-]*\d[\w.-]*")


class Refusals:
    """Counts consecutive refusals for one reason. Refusals for content are not reported here: they never stop a run."""

    def __init__(self) -> None:
        self.count = 0
        self._reason = ""
        self.successes = 0

    def accepted(self) -> None:
        """Record an accepted task."""
        self.successes += 1
        self.count = 0

    def refused(self, reason: str, *, blocked: bool) -> bool:
        """Record a refusal; return whether there are so many that all tasks would be refused."""
        masked = _VARYING.sub("…", reason)
        self.count = self.count + 1 if masked == self._reason else 1
        self._reason = masked
        most = MOST_BLOCKED if blocked else MOST_REFUSED
        return self.count >= most * (WITH_SUCCESS if self.successes else 1)
