"""Runs the command line in one warmed-up process or in forked children of it: a start costs milliseconds at most.

A command that something is to strike has a child of its own: there a kill is a kill. Others need none.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import os
import pkgutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import shim
from shim import Blow

PATIENCE = 60.0
"""Seconds after which a command that should have ended is a violation."""

_WARM = (
    "httpx_aiohttp",
    "jsonschema",
    "jsonschema_rs",
    "PIL.JpegImagePlugin",
    "PIL.PngImagePlugin",
    "PIL.ImageDraw",
    "PIL.ImageFont",
)
"""What the command line imports late, beside its own modules."""

MARK = "/the-command-begins"
"""A file that is not there: a child that is traced tries to open it where its command begins and ends."""

FASTER = 0.05
"""Pauses are shortened to this part: what they are for does not depend on their length."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended; `code` is negative for the signal that killed it, `calls` is known unless one did."""

    code: int
    calls: int
    out: str
    err: str

    @property
    def killed(self) -> bool:
        """Whether the blow met it."""
        return self.code == -signal.SIGKILL


@dataclass(slots=True)
class Child:
    """A command at work in a process of its own."""

    pid: int
    pipe: int
    out: Path
    err: Path
    _ended: Ended | None = field(default=None)

    def wait(self, patience: float = PATIENCE) -> Ended:
        """How it ended. Raises `TimeoutError`, and ends it, when it does not."""
        if self._ended is None:
            deadline = time.monotonic() + patience
            while True:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    break
                if time.monotonic() > deadline:
                    self.kill()
                    raise TimeoutError(f"the command did not end within {patience:.0f} s")
                time.sleep(0.001)
            told = os.read(self.pipe, 64)
            os.close(self.pipe)
            self._ended = Ended(os.waitstatus_to_exitcode(status), int(told or b"-1"), _text(self.out), _text(self.err))
        return self._ended

    def signal(self, number: int) -> None:
        """Sends it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> Ended:
        """Ends it at once."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        return self.wait()


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def warm_up() -> None:
    """Imports what a command needs, once; the children have it."""
    package = importlib.import_module("seedream_batch")
    for module in pkgutil.walk_packages(package.__path__, "seedream_batch."):
        # No command of the campaign uses a database server or a bucket, whose libraries are extras.
        if not any(part in module.name for part in ("__main__", ".db.postgres", ".files.object_store")):
            importlib.import_module(module.name)
    for name in _WARM:
        importlib.import_module(name)
    _compile_schemas()
    _shorten_pauses()
    gc.collect()
    gc.freeze()


def _compile_schemas() -> None:
    """Has a job checked once: the compiled schemas and templates are kept, and every child has them."""
    main = importlib.import_module("seedream_batch.cli.app").main
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        job = Path(folder, "job.yaml")
        job.write_text(_JOB)
        _leave(lambda: main(["validate", str(job)]))


_JOB = """\
version: 1
matrix: {subject: [{id: fox, n: 1}]}
request: {prompt: "{{ subject.id }}", n: "{{ subject.n }}"}
output: {path: "{{ subject.id }}/picture"}
"""


def _shorten_pauses() -> None:
    """Pauses of this process and its children become short; set here, never in the code."""
    lifecycle = importlib.import_module("seedream_batch.lifecycle")
    lifecycle.BACKOFF_BASE = 1.0 * FASTER  # type: ignore[attr-defined]
    lifecycle.BACKOFF_CAP = 2.0 * FASTER  # type: ignore[attr-defined]
    lifecycle.NOT_FOUND_GRACE = 1.0 * FASTER  # type: ignore[attr-defined]
    lifecycle.POLL_PAUSE = 0.5 * FASTER  # type: ignore[attr-defined]
    lifecycle.CONFIRMED = 1.0 * FASTER  # type: ignore[attr-defined]
    lifecycle.WATCHED = 4.0 * FASTER  # type: ignore[attr-defined]
    lifecycle.WATCHED_OVERDUE = 2.0 * FASTER  # type: ignore[attr-defined]
    lifecycle.WATCHED_TOGETHER = 2.0 * FASTER  # type: ignore[attr-defined]
    collect = importlib.import_module("seedream_batch.engine.collector")
    collect.GRACE_AFTER_START = 4.0 * FASTER  # type: ignore[attr-defined]
    download = importlib.import_module("seedream_batch.engine.downloader")
    download.TRYING = 30.0 * FASTER  # type: ignore[attr-defined]
    download.SETTLING = 3.0 * FASTER  # type: ignore[attr-defined]
    health = importlib.import_module("seedream_batch.engine.service_health")
    health.PROBING = 2.0 * FASTER  # type: ignore[attr-defined]
    images = importlib.import_module("seedream_batch.client.images")
    images.RESUME_PAUSE = 1.0 * FASTER  # type: ignore[attr-defined]
    submitting = importlib.import_module("seedream_batch.pacing.rate_limiter")
    submitting.START = 8.0 / FASTER  # type: ignore[attr-defined]
    watch = importlib.import_module("seedream_batch.pacing").TaskPoller
    plain = watch.wait
    watch.wait = lambda self, age: plain(self, age) * FASTER


def here(arguments: Sequence[str], *, folder: Path, log: Path, environment: Mapping[str, str]) -> Ended:
    """Runs a command in this process. Raises `TimeoutError` when it does not end."""
    out, err = log.with_suffix(".out"), log.with_suffix(".err")
    main = importlib.import_module("seedream_batch.cli.app").main
    before, at = dict(os.environ), Path.cwd()
    streams = [os.dup(number) for number in (1, 2)]
    try:
        signal.signal(signal.SIGALRM, _too_long)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        os.chdir(folder)
        os.environ.update(environment)
        _print_to(out, err)
        code = _leave(lambda: main(list(arguments)))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout.flush()
        sys.stderr.flush()
        for number, stream in enumerate(streams, 1):
            os.dup2(stream, number)
            os.close(stream)
        os.environ.clear()
        os.environ.update(before)
        os.chdir(at)
    return Ended(code, -1, _text(out), _text(err))


def _too_long(*_: object) -> None:
    raise TimeoutError(f"the command did not end within {PATIENCE:.0f} s")


def _print_to(out: Path, err: Path) -> None:
    for number, path in ((1, out), (2, err)):
        handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        os.dup2(handle, number)
        os.close(handle)


def fork(
    arguments: Sequence[str],
    *,
    folder: Path,
    log: Path,
    environment: Mapping[str, str],
    blow: Blow | None = None,
    before: Callable[[], None] | None = None,
    attach: Callable[[int], None] | None = None,
) -> Child:
    """Starts the command line in a child that works in `folder`; `before` is called in it first.

    What it prints goes to files beside `log`. With `attach`, the child waits until that has returned, and opens `MARK`
    before its first and after its last call.
    """
    out, err = log.with_suffix(".out"), log.with_suffix(".err")
    reading, writing = os.pipe()
    waiting, going = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        os.close(waiting)
        child = Child(pid, reading, out, err)
        try:
            if attach is not None:
                attach(pid)
        except BaseException:
            child.kill()
            raise
        finally:
            os.close(going)
        return child
    code = 70
    try:
        os.close(reading)
        os.close(going)
        os.read(waiting, 1)
        os.close(waiting)
        os.setsid()
        os.chdir(folder)
        os.environ.update(environment)
        _print_to(out, err)
        if before is not None:
            before()
        main = importlib.import_module("seedream_batch.cli.app").main
        shim.arm(blow or Blow())
        if attach is not None:
            _mark()
        code = _leave(lambda: main(list(arguments)))
        counted = shim.counted()
        if attach is not None:
            _mark()
        os.write(writing, str(counted).encode())
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _mark() -> None:
    with contextlib.suppress(FileNotFoundError):
        os.close(os.open(MARK, os.O_RDONLY))


def _leave(main: Callable[[], None]) -> int:
    try:
        main()
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    return 70
