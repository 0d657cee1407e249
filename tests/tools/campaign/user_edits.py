"""Files and jobs that a person changes between two commands: moved, edited, deleted, replaced, restored.

Bytes of a person are never touched, nothing is bought that nobody authorised, and once the person has taken everything
of theirs away again, the job comes to its end with what was paid for.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from steps import Walk, take

_FILES = (
    "delete a picture",
    "take a picture away",
    "replace by another picture",
    "edit in place",
    "replace by a folder",
    "replace by a link",
    "put something where a picture goes",
    "copy a picture",
)
_JOBS = (
    "",
    "edit the path",
    "edit a prompt",
    "edit a label",
    "edit the order",
    "drop a subject",
    "add a subject",
    "write the job anew",
)
_COMMANDS = ("run", "verify", "retry", "retry what is missing", "prune")
_AFTER = ("", "bring a picture back", "take back what was put")


@dataclass(frozen=True, slots=True)
class Cell:
    """What is changed, in this order, and how often it is drawn anew."""

    file: str
    job: str
    command: str
    after: str
    seed: int

    @property
    def name(self) -> str:
        """The cell in words."""
        steps = [step for step in (self.file, self.job, self.command, self.after) if step]
        return f"{', '.join(steps)}, seed {self.seed}"


def cells() -> list[Cell]:
    """Every change of a file with every edit of the job, a command, and what is done after it."""
    return [
        Cell(*steps, seed)
        for seed, steps in enumerate(itertools.product(_FILES, _JOBS, _COMMANDS, _AFTER))
        # Taking something back needs something that was put there, and bringing something back what was taken.
        if (steps[3] == "bring a picture back") <= (steps[0] == "take a picture away")
        and (steps[3] == "take back what was put") <= (steps[0] not in {"delete a picture", "take a picture away"})
    ]


def run(cell: Cell, root: Path, port: int) -> list[str]:
    """Tries one cell; what is wrong."""
    walk = Walk(root, port)
    walk.calm = True
    walk.open()
    try:
        walk.command("run", "--quiet")
        for step in (cell.file, cell.job, cell.command, cell.after, "run"):
            if step and not walk.wrong:
                take(walk, step, cell.seed)
        if not walk.wrong:
            walk.end()
        return walk.wrong
    finally:
        walk.close()
