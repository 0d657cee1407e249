"""The system calls of one command, as strace saw them, in the order in which they took effect."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import forge
from shim import Blow, Strike

CALLS = (
    "openat", "mkdir", "rmdir", "pwrite64", "write", "writev", "ftruncate", "fsync", "fdatasync", "rename", "renameat",
    "renameat2", "link", "linkat", "unlink", "unlinkat", "connect", "sendto", "sendmsg",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Call:
    """One call; `begun` is true where it was only begun and its effect is still to come."""

    name: str
    text: str
    result: str
    begun: bool

    @property
    def failed(self) -> bool:
        """Whether it had no effect, as far as is known: of one that was cut off by a kill it is not."""
        return self.result.startswith(("-1", "?"))


@dataclass(frozen=True, slots=True)
class Traced:
    """A traced command: its calls, its exit code, and how many the shim had counted."""

    calls: list[Call]
    code: int
    counted: int
    err: str


def strace() -> str:
    """The program; raises `SystemExit` where there is none."""
    found = shutil.which("strace")
    if found is None:
        raise SystemExit("the campaign needs strace (Debian: apt-get install strace)")
    return found


def traced(
    arguments: Sequence[str], folder: Path, log: Path, environment: Mapping[str, str], *, kill: int = 0
) -> Traced:
    """Runs a command under strace, from its first call on; killed before the call with that number."""
    tracers: list[subprocess.Popen[bytes]] = []

    def attach(pid: int) -> None:
        command = [strace(), "-f", "-yy", "-xx", "-s", "10000000", "-o", str(log), "-e", "trace=" + ",".join(CALLS)]
        tracers.append(subprocess.Popen([*command, "-p", str(pid)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE))
        deadline = time.monotonic() + forge.PATIENCE
        while "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text():
            if tracers[0].poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"strace did not attach to the command: {tracers[0].communicate()[1]!r}")
            time.sleep(0.001)

    blow = Blow(kill, Strike.KILL) if kill else Blow()
    child = forge.fork(arguments, folder=folder, log=log, environment=environment, blow=blow, attach=attach)
    ended = child.wait()
    tracers[0].communicate()
    calls = list(_marked(_calls(log.read_text(errors="replace").splitlines())))
    return Traced(calls, ended.code, ended.calls, ended.err)


_LINE = re.compile(r"^(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)$", re.DOTALL)


def _calls(lines: Sequence[str]) -> Iterator[Call]:
    open_calls: dict[str, str] = {}
    for line in lines:
        match = _LINE.match(line)
        if match is None:
            continue
        thread, resumed, name, rest = match.groups()
        if resumed:
            name, rest = resumed, open_calls.pop(thread, "") + rest
        elif rest.endswith("<unfinished ...>"):
            open_calls[thread] = rest.removesuffix("<unfinished ...>")
            yield Call(name, open_calls[thread], "", begun=True)
            continue
        else:
            yield Call(name, rest, "", begun=True)
        text, _, result = rest.rpartition(" = ")
        yield Call(name, text.rstrip(), result, begun=False)


def _marked(calls: Iterator[Call]) -> Iterator[Call]:
    """The calls between the two marks; between them the shim counted, too."""
    marks = 0
    coded = "".join(f"\\x{byte:02x}" for byte in forge.MARK.encode())
    for call in calls:
        if coded in call.text:
            marks += not call.begun
        elif marks == 1:
            yield call


def unquoted(text: str) -> bytes:
    r"""The bytes of a string as strace writes it with -xx: `"\x41..."`."""
    return bytes.fromhex(text.strip().strip('"').replace("\\x", ""))


def strings(text: str) -> list[bytes]:
    """Every string in the arguments of a call."""
    return [unquoted(found) for found in re.findall(r'"((?:\\x[0-9a-f]{2})*)"', text)]


def descriptor(text: str) -> tuple[int, str]:
    """The first argument, where it is a file: its number, and what strace says that it is."""
    match = re.match(r"(\d+)<((?:\\x[0-9a-f]{2}|[^>\\])*(?:->[^>]*)?)>", text)
    if match is None:
        return -1, ""
    told = match[2]
    return int(match[1]), unquoted(told).decode(errors="replace") if told.startswith("\\x") else told
