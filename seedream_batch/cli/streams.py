"""The process of a command: standard streams that always exist, UTF-8 file names, no core dumps.

Standard streams only report on the work, so they must never end it, even if they are closed, full, or a pipe without a
reader.
"""

from __future__ import annotations

import codecs
import errno
import io
import locale
import os
import resource
import select
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_UTF8 = ["-X", "utf8"]
"""Python options for UTF-8 file names in every locale."""


PATIENCE = 2.0
"""Seconds that a run waits, once, for the reader of its output: paid images cannot wait."""

_PIECE = 4096
"""Bytes that a writable pipe accepts at once [PIPE_BUF in pipe(7)]."""


class Output(io.RawIOBase):
    """A file descriptor that accepts everything; `lost` is the first error that prevented a write.

    Later text is tried again: a full disk may have space again. With `waits` false, output that nobody reads in time is
    dropped, and a notice is written once it is read again.
    """

    def __init__(self, number: int, *, waits: bool = True) -> None:
        super().__init__()
        self._number = number
        self._waits = waits
        self._left_out = 0
        self.lost: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def write(self, data: ReadableBuffer, /) -> int:
        """Write all of the data, or as much as possible; always return its length in bytes."""
        left = memoryview(data).cast("B")
        length = len(left)
        try:
            if self._left_out and self._ready():
                notice = _notice(self._left_out, like=bytes(left[:1]))
                self._left_out = 0
                os.write(self._number, notice)
            while left:
                if not self._ready():
                    self._left_out += len(left)
                    break
                try:
                    left = left[os.write(self._number, left[:_PIECE]) :]
                except BlockingIOError:
                    # Another process has made this terminal non-blocking, and wrote first.
                    continue
        except OSError as error:
            self.lost = self.lost or error
        return length

    def _ready(self) -> bool:
        """Wait until data can be written, and return whether it can; waits at most `PATIENCE` unless `waits`."""
        poll = select.poll()
        poll.register(self._number, select.POLLOUT)
        limit = None if self._waits else 0 if self._left_out else PATIENCE * 1000
        return bool(poll.poll(limit))


def _notice(count: int, *, like: bytes) -> bytes:
    """Return a line about dropped output, in the format of the line that follows."""
    message = f"{count:,} bytes of output were dropped because nobody read them in time"
    return (f'{{"event": "warning", "text": "{message}"}}\n' if like == b"{" else f"warning: {message}\n").encode()


def prepare() -> None:
    """Set up this process for a command; call it once, before anything is opened.

    Restarts the interpreter if the locale encodes file names differently from UTF-8: the names of images must not
    depend on the user's locale. Exits with 2 if that does not help.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Otherwise the next file opened, perhaps the manifest, gets this number, and messages go into it.
            os.open(os.devnull, os.O_RDWR)
    again = sys.orig_argv[1:3] == _UTF8
    if codecs.lookup(sys.getfilesystemencoding()).name != "utf-8":
        _start_again(again=again)
    # Characters that the terminal cannot encode are escaped.
    sys.stdout = _text(sys.stdout, 1, again=again)
    sys.stderr = _text(sys.stderr, 2, again=again)
    if os.environ.get("APIMART_API_KEY") or os.environ.get("APIMART_API_KEY_FILE"):
        _disable_core_dumps()


def unwritten() -> str:
    """Return why standard output is incomplete; empty if it is complete or its reader went away."""
    lost = _first_error()
    return "" if lost is None or lost.errno == errno.EPIPE else lost.strerror or str(lost)


def abandoned() -> bool:
    """Return whether standard output goes nowhere."""
    return _first_error() is not None


def _first_error() -> OSError | None:
    """Return the first error on standard output; None also if it is not a stream of `prepare`."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.lost if isinstance(raw, Output) else None


def _disable_core_dumps() -> None:
    """Keep the memory of this process, and the API key in it, out of core dumps."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    if sys.platform == "linux":
        import ctypes

        # Core dump collectors ignore the limit, so clear PR_SET_DUMPABLE as well [prctl(2)].
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)


def _text(stream: TextIO | None, number: int, *, again: bool) -> TextIO:
    if again and "PYTHONIOENCODING" not in os.environ:
        encoding = locale.getencoding()
    else:
        encoding = "utf-8" if stream is None else stream.encoding
    output = Output(number, waits=sys.argv[1:2] != ["run"])
    return io.TextIOWrapper(
        io.BufferedWriter(output), encoding, "backslashreplace", line_buffering=number == 2 or output.isatty()
    )


def _start_again(*, again: bool) -> None:
    if not again and sys.executable:
        with suppress(OSError, UnicodeError):
            command = [os.fsencode(sys.executable), *map(os.fsencode, _UTF8), *_arguments()]
            os.execv(sys.executable, command)  # noqa: S606 - the same program, with the same arguments
    message = (
        f"seedream-batch: file names use {sys.getfilesystemencoding()}, not UTF-8; set PYTHONUTF8=1 and try again\n"
    )
    os.write(2, message.encode("ascii", "replace"))
    sys.exit(2)


def _arguments() -> list[bytes]:
    """Return this interpreter's arguments as the original bytes, which decoding may have changed."""
    try:
        with open("/proc/self/cmdline", "rb") as stream:  # noqa: PTH123 - nothing else needs pathlib here
            arguments = stream.read().split(b"\0")[1:-1]
    except OSError:
        arguments = []
    return (
        arguments
        if len(arguments) == len(sys.orig_argv) - 1
        else [os.fsencode(argument) for argument in sys.orig_argv[1:]]
    )
