"""The shim that strikes at one call of a process: built, loaded, armed."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path


class Strike(IntEnum):
    """What happens at the call that is struck."""

    COUNT = -1
    """Nothing; calls are counted all the same."""
    KILL = 1
    """The process is killed right before the call."""
    FAIL_ONE = 2
    """The call fails."""
    FAIL_FROM = 3
    """The call fails, and every one after it."""


DISK, NET = 1, 2


@dataclass(frozen=True, slots=True)
class Blow:
    """Where and how a process is struck; `at` counts its calls from 1."""

    at: int = 0
    how: Strike = Strike.COUNT
    error: int = 0
    kinds: int = DISK | NET
    bursts: bool = False
    """Writes without another call between them count once."""


def build() -> Path:
    """The shim as a shared library, compiled once for its source and kept in the folder for temporary files."""
    source = Path(__file__).with_name("shim.c")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    target = Path(tempfile.gettempdir(), f"seedream-batch-shim-{os.getuid()}-{digest}.so")
    if not target.exists():
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise SystemExit("the campaign needs a C compiler (Debian: apt-get install gcc libc6-dev)")
        part = target.with_suffix(f".{os.getpid()}")
        subprocess.run([compiler, "-O2", "-Wall", "-shared", "-fPIC", "-o", str(part), str(source), "-ldl"], check=True)
        part.rename(target)
    return target


def preload(library: Path) -> None:
    """Has every process that is started from here on load the shim."""
    os.environ["LD_PRELOAD"] = str(library)


def arm(blow: Blow) -> None:
    """Starts to count the calls of this process, and to wait for the one to strike."""
    ctypes.CDLL(None).campaign_arm(ctypes.c_long(blow.at), int(blow.how), blow.error, blow.kinds, int(blow.bursts))


def counted() -> int:
    """Calls of this process since it was armed."""
    count = ctypes.CDLL(None).campaign_count
    count.restype = ctypes.c_long
    return int(count())
