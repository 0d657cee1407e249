"""Groups failed tasks by cause, with advice for each. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from seedream_batch.manifest.statistics import FailureRow
from seedream_batch.model.service_messages import is_moderation
from seedream_batch.model.task import TaskState


class Kind(StrEnum):
    """The kind of cause behind a failure."""

    MODERATION = "moderation"
    BLOCKED = "blocked"
    REFUSED = "refused"
    SERVICE = "service"
    LOST = "lost"
    GIVEN_UP = "given up"


ADVICE = {
    Kind.MODERATION: "edit the prompt: moderation would reject the same one again",
    Kind.BLOCKED: "a firewall or an account rule blocked this request: change the prompt or contact the service, then"
    " `retry`",
    Kind.REFUSED: "the service refused this request: fix the fields it names in the job file, then `validate`",
    Kind.SERVICE: "the service failed, perhaps only for a while: `retry`",
    Kind.LOST: "each run polls it for 7 days, for free; `retry` polls it too, and queues it again only if the service"
    " does not have it. If tasks are slow, raise `run.task_timeout`",
    Kind.GIVEN_UP: "if you still want it: `retry` (may charge twice)",
}
"""What to do about each kind."""

_REFUSED = re.compile(r"HTTP 4\d\d\b")
_GIVEN_UP = "given up"
_BLOCKED = ("blocked: ", "turned away")  # the second by earlier versions


MOST = 1000
"""Most distinct causes: a service may answer with a different text for each task."""

OTHER = "other reasons"


@dataclass(frozen=True, slots=True)
class Cause:
    """Tasks that failed in the same way: their number, and the path of the first one in the job."""

    state: TaskState
    code: str
    reason: str
    count: int
    path: str
    kind: Kind


def kind_of(state: TaskState, code: str, reason: str) -> Kind:
    """Return the kind of cause of a failure, from its record in the manifest."""
    if state is TaskState.LOST:
        return Kind.LOST
    if reason.startswith(_GIVEN_UP):
        return Kind.GIVEN_UP
    if reason.startswith(_BLOCKED):
        return Kind.BLOCKED
    if is_moderation(code, reason):
        return Kind.MODERATION
    return Kind.REFUSED if _REFUSED.match(reason) else Kind.SERVICE


def causes(rows: Iterable[FailureRow]) -> list[Cause]:
    """Group the rows, which are in the job's order, by cause; the largest group comes first.

    Reasons that differ only in ids and seconds are grouped together, without these, and so are all those after the
    first `MOST`.
    """
    groups: dict[tuple[TaskState, str, str], Cause] = {}
    for row in rows:
        code, reason = row.code, _SECONDS.sub("… s", _ID.sub("…", row.reason))
        kind = kind_of(row.state, code, reason)
        if len(groups) >= MOST and (row.state, code, reason) not in groups:
            code, reason = "", OTHER
        known = groups.get((row.state, code, reason))
        if known is None:
            # A cause of its own keeps its ids and seconds.
            cause = Cause(row.state, code, OTHER if reason == OTHER else row.reason, row.count, row.path, kind)
        else:
            same = known.reason == row.reason
            cause = replace(known, count=known.count + row.count, reason=known.reason if same else reason)
        groups[row.state, code, reason] = cause
    return sorted(groups.values(), key=lambda cause: -cause.count)


_ID = re.compile(r"\b(?=[A-Za-z_-]*[0-9])[0-9A-Za-z_-]{12,}\b")
_SECONDS = re.compile(r"\b[0-9]+(\.[0-9]+)? s\b")
