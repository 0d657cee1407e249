"""Standard streams that are closed, full or broken: the exit code describes the images, and no image is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from settle import settle
from world import KEY, VARIANTS, World

_SOON = 60.0

SHELLS = {
    "stdout closed": "{} >&-",
    "stderr closed": "{} 2>&-",
    "stdin closed": "{} <&-",
    "all closed": "{} <&- >&- 2>&-",
    "stdout full": "{} > /dev/full",
    "stderr full": "{} 2> /dev/full",
    "both full": "{} > /dev/full 2>&1",
    "nobody reads": "{} | true",
    "nobody reads both": "{} 2>&1 | true",
    "one line is read": "{} | head -1 > /dev/null",
    "one line of both is read": "{} 2>&1 | head -1 > /dev/null",
    "stdout is read-only": "{} 1< /dev/null",
    "ASCII only": "LC_ALL=C PYTHONUTF8=0 PYTHONIOENCODING=ascii {}",
}
"""What a shell does with the command; `pipefail` keeps its exit code."""

COMMANDS: dict[str, tuple[str, ...]] = {
    "run": ("run",),
    "run, JSON log": ("run", "--log-format", "json"),
    "run, quiet": ("run", "--quiet"),
    "run, one fails": ("run",),
    "plan": ("plan",),
    "plan, JSON": ("plan", "--json"),
    "validate": ("validate",),
    "status": ("status",),
    "status, JSON": ("status", "--json"),
    "verify": ("verify",),
    "verify, JSON": ("verify", "--json"),
    "retry": ("retry",),
    "resolve": ("resolve", "--resend"),
    "prune": ("prune",),
    "report": ("report",),
    "export": ("export", "--format", "csv", "--to", "table"),
    "an unknown option": ("run", "--no-such-option"),
    "help": ("run", "--help"),
    "schema": ("schema", "job"),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """A command and its streams."""

    command: str
    streams: str

    @property
    def name(self) -> str:
        """The cell in words."""
        return f"{self.command}, {self.streams}"


def cells() -> list[Cell]:
    """Every command with all streams."""
    return [Cell(command, streams) for streams in SHELLS for command in COMMANDS]


def run(cell: Cell, root: Path, port: int) -> list[str]:
    """Tries one cell; what is wrong."""
    world = World(root / "world", port, VARIANTS["trusted"])
    world.make()
    try:
        if not cell.command.startswith(("run", "plan", "validate")):
            world.call("run")
        expected = _code(cell, world)
        code, told = _shell(cell, world)
        wrong = [] if code in expected else [f"exit {code} instead of {sorted(expected)}: {told[-700:]}"]
        wrong += [f"a traceback: {told[-1500:]}"] if "Traceback" in told or "Exception ignored" in told else []
        world.service.set_faults([])
        return wrong + world.violations() + settle(world)
    except TimeoutError as error:
        return [str(error)]
    finally:
        world.close()


def _code(cell: Cell, world: World) -> set[int]:
    """The documented code: that of the same command when its streams are well."""
    if cell.command == "run, one fails":
        world.service.set_faults([{"on": "submit", "action": "fail", "prompt": "fox"}])
        return {3}
    if cell.command == "an unknown option":
        return {2}
    # Where the output is what was asked for and cannot be written, a command may say so.
    data = cell.command.endswith("JSON") or cell.command in {
        "schema",
        "help",
        "plan",
        "status",
        "validate",
        "verify",
        "prune",
    }
    unwritten = data and any(word in cell.streams for word in ("full", "closed", "read-only"))
    return {0, 8} if unwritten else {0}


def _shell(cell: Cell, world: World) -> tuple[int, str]:
    """The exit code, and everything that could be read of what the command said."""
    verb, *options = COMMANDS[cell.command]
    words = [sys.executable, "-m", "seedream_batch", verb, *options]
    words += [] if verb == "schema" else [str(world.job)]
    line = SHELLS[cell.streams].format('"$@"')
    environment = {**os.environ, "APIMART_API_KEY": KEY, "APIMART_BASE_URL": world.service.url}
    environment.pop("LD_PRELOAD", None)
    if "LC_ALL" in line:
        line = f"env {line}"
    command = ["bash", "-o", "pipefail", "-c", line, "bash", *words]
    try:
        done = subprocess.run(
            command, cwd=world.folder, env=environment, capture_output=True, timeout=_SOON, check=False
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"the command did not end within {_SOON:.0f} s") from None
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")
