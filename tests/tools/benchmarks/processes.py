"""Commands that are timed: on the clock, by the processor, and at their peak of memory.

The service gets the first core and its clients the others, where there are several and a benchmark asks for that.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
RUNNER = (sys.executable, "-m", "seedream_batch")

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Finished:
    """A process that has ended well; seconds and bytes."""

    seconds: float
    cpu: float
    """Of the processor, its children included."""
    peak: int
    output: str


def cores() -> tuple[set[int], set[int]]:
    """The cores of the service and those of its clients; the same ones where there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return ({usable[0]}, set(usable[1:])) if len(usable) > 1 else (set(usable), set(usable))


def start(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None, on: set[int] | None = None
) -> tuple[subprocess.Popen[bytes], Path]:
    """A process that was started, on these cores if given, and the file that takes what it prints."""
    handle, name = tempfile.mkstemp(prefix="benchmark-")
    with os.fdopen(handle, "wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}, cwd=cwd
        )
    if on is not None:
        # Right after its start, so before it has threads.
        os.sched_setaffinity(process.pid, on)
    return process, Path(name)


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    on: set[int] | None = None,
    codes: Sequence[int] = (0,),
) -> Finished:
    """Runs a command to its end. Raises `RuntimeError` where it fails: leaves with another code than these."""
    begin = time.perf_counter()
    process, printed = start(command, env=env, cwd=cwd, on=on)
    return wait(process, printed, begin, codes)


def wait(process: subprocess.Popen[bytes], printed: Path, begin: float, codes: Sequence[int] = (0,)) -> Finished:
    """Waits for the end of a process that began at this time of `time.perf_counter`. Raises `RuntimeError`."""
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    output = printed.read_text(encoding="utf-8", errors="replace")
    printed.unlink()
    if process.returncode not in codes:
        raise RuntimeError(f"{process.args!r} ended with {process.returncode}:\n{output[-2000:]}")
    return Finished(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, output)


def cpu_of(pid: int) -> float:
    """Seconds of the processor that a running process has taken."""
    # The name of the command, in brackets, may hold spaces.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident(pid: int) -> int:
    """Bytes of memory that a running process holds; 0 once it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:")), 0)
