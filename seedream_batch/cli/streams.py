"""The process that a command runs in: streams that are always there, UTF-8 names of files, no core dumps.

The standard streams carry words about the work, so they must never end it: they may be closed, full, or a pipe that
nobody reads any more.
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
"""Options of Python that make it use UTF-8 for the names of files in every locale."""


PATIENCE = 2.0
"""Seconds that a run waits for whoever reads its output, once: images that are paid for cannot wait."""

_PIECE = 4096
"""Bytes that a pipe takes at once when it takes any [PIPE_BUF in pipe(7)]."""


class Output(io.RawIOBase):
    """A file descriptor that takes everything it is given; `lost` is the first error that kept it from being written.

    Later text is tried again: a full disk has room again at some time. With `waits` false, what nobody reads in time is
    left out, and that is said once somebody reads again.
    """

    def __init__(self, number: int, *, waits: bool = True) -> None:
        super().__init__()
        self._number = number
        self._waits = waits
        self._left_out = 0
        self.lost: OSError | None = None

    def writable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """The file descriptor."""
        return self._number

    def isatty(self) -> bool:
        """Whether a person may be looking."""
        return os.isatty(self._number)

    def write(self, data: ReadableBuffer, /) -> int:
        """Writes all of the data, or as much as can be written; always the number of bytes in it."""
        left = memoryview(data).cast("B")
        whole = len(left)
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
                    # Somebody else has made this terminal non-blocking, and was quicker.
                    continue
        except OSError as error:
            self.lost = self.lost or error
        return whole

    def _ready(self) -> bool:
        """Whether something can be written now; waits for that, for ever or for as long as it may."""
        poll = select.poll()
        poll.register(self._number, select.POLLOUT)
        limit = None if self._waits else 0 if self._left_out else PATIENCE * 1000
        return bool(poll.poll(limit))


def _notice(count: int, *, like: bytes) -> bytes:
    """A line that says what was left out, in the form of the line that it comes before."""
    told = f"{count:,} bytes of output were not read in time, and are left out"
    return (f'{{"event": "warning", "text": "{told}"}}\n' if like == b"{" else f"warning: {told}\n").encode()


def prepare() -> None:
    """Makes this process fit for a command; to be called once, before anything is opened.

    Starts the interpreter again where the locale has file names in another encoding than UTF-8: the names of images
    must not depend on the locale of whoever runs the job. Leaves with 2 where that is of no use.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Else the next file that is opened, the manifest perhaps, gets this number, and messages are written to it.
            os.open(os.devnull, os.O_RDWR)
    again = sys.orig_argv[1:3] == _UTF8
    if codecs.lookup(sys.getfilesystemencoding()).name != "utf-8":
        _start_again(again=again)
    # What a terminal cannot show is written as an escape.
    sys.stdout = _text(sys.stdout, 1, again=again)
    sys.stderr = _text(sys.stderr, 2, again=again)
    if os.environ.get("APIMART_API_KEY") or os.environ.get("APIMART_API_KEY_FILE"):
        _keep_memory()


def unwritten() -> str:
    """Why what was printed on standard output is not complete; empty if it is, or if its reader went away."""
    lost = _lost()
    return "" if lost is None or lost.errno == errno.EPIPE else lost.strerror or str(lost)


def abandoned() -> bool:
    """Whether nothing that is printed on standard output arrives anywhere."""
    return _lost() is not None


def _lost() -> OSError | None:
    """The first error on standard output; None also where that is not a stream of `prepare`."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.lost if isinstance(raw, Output) else None


def _keep_memory() -> None:
    """Keeps the memory of this process, and the key in it, out of core dumps."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    if sys.platform == "linux":
        import ctypes

        # Programs that collect core dumps get one whatever the limit is. PR_SET_DUMPABLE [prctl(2)].
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)


def _text(found: TextIO | None, number: int, *, again: bool) -> TextIO:
    if again and "PYTHONIOENCODING" not in os.environ:
        encoding = locale.getencoding()
    else:
        encoding = "utf-8" if found is None else found.encoding
    output = Output(number, waits=sys.argv[1:2] != ["run"])
    return io.TextIOWrapper(
        io.BufferedWriter(output), encoding, "backslashreplace", line_buffering=number == 2 or output.isatty()
    )


def _start_again(*, again: bool) -> None:
    if not again and sys.executable:
        with suppress(OSError, UnicodeError):
            command = [os.fsencode(sys.executable), *map(os.fsencode, _UTF8), *_arguments()]
            os.execv(sys.executable, command)  # noqa: S606 - the same program, with the same arguments
    message = f"seedream-batch: file names are in {sys.getfilesystemencoding()} here; set PYTHONUTF8=1 and try again\n"
    os.write(2, message.encode("ascii", "replace"))
    sys.exit(2)


def _arguments() -> list[bytes]:
    """What this interpreter was started with, as the bytes that they were: decoding them may have lost some."""
    try:
        with open("/proc/self/cmdline", "rb") as stream:  # noqa: PTH123 - nothing else needs pathlib here
            found = stream.read().split(b"\0")[1:-1]
    except OSError:
        found = []
    return found if len(found) == len(sys.orig_argv) - 1 else [os.fsencode(one) for one in sys.orig_argv[1:]]
