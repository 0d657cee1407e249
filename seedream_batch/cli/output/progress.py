"""The progress of a run: a bar on a terminal, plain lines or JSON elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from seedream_batch.cli.output.console import coloured, give, inert, number, say, tell, usd, wrapped
from seedream_batch.engine.events import Event, EventKind, Stats, StopReason

if TYPE_CHECKING:
    from tqdm import tqdm

LINE_EVERY = 15.0
"""Seconds between progress lines without a terminal."""

_FORMS = (
    "{percentage:3.0f}% |{bar}| {n:,}/TOTAL [{elapsed}<{remaining}{postfix}]",
    "{n:,}/TOTAL |{bar}| {elapsed}<{remaining}{postfix}",
    "{n:,}/TOTAL, {remaining} left{postfix}{bar:0}",
    "{n:,}/TOTAL{postfix}{bar:0}",
)
"""Formats of the bar's line, longest first. The last two have a bar of no length, which is cut.

tqdm drops a total that is exceeded, for example by images that the service added, so it is inserted for `TOTAL`."""

_SHORTEST = 10
"""Columns of the shortest useful bar."""

_COUNTED = {EventKind.SUBMITTED, EventKind.STORED, EventKind.MOVED, EventKind.SLOWED}
"""Events that only affect the counts; the others are shown immediately."""


class _Ticker:
    """Calls a function periodically from its own thread, also while nothing happens."""

    def __init__(self, seconds: float, tick: Callable[[], object]) -> None:
        self._seconds = seconds
        self._tick = tick
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, name="progress", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._end.wait(self._seconds):
            self._tick()


class Bar:
    """A progress bar with counts and cost, on standard error."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._ticker: _Ticker | None = None
        self._stats = Stats()
        self._forms: list[str] = []

    def started(self, stats: Stats, wanted: int, stored: int) -> None:
        from tqdm import tqdm

        self._stats = stats
        self._forms = [form.replace("TOTAL", f"{wanted:,}") for form in _FORMS]
        self._bar = tqdm(
            total=wanted, initial=stored, unit="img", dynamic_ncols=True, file=sys.stderr, smoothing=0.1, leave=False,
            bar_format=self._forms[0],
        )  # fmt: skip
        self._redraw()
        # Tasks take a minute; a clock that stands still looks like a hung program.
        self._ticker = _Ticker(1.0, self._redraw)

    def event(self, event: Event) -> None:
        """Update the bar; print important events above it."""
        bar = self._bar
        if bar is None:
            return
        if event.kind not in _COUNTED:
            bar.write(coloured(inert(wrapped(_line(event), hanging="  ")), err=True), file=sys.stderr)
        self._postfix()
        if event.kind is EventKind.STORED:
            bar.update()

    def close(self) -> None:
        if self._ticker is not None:
            self._ticker.stop()
        if self._bar is not None:
            self._bar.close()

    def _redraw(self) -> None:
        self._postfix()
        bar = self._bar
        if bar is not None:
            bar.bar_format = next((form for form in self._forms if _fits(bar, form)), self._forms[-1])
            bar.refresh()

    def _postfix(self) -> None:
        stats = self._stats
        parts = [usd(stats.cost), f"{stats.in_flight:,} in flight"]
        parts += [f"{stats.checked:,} checked"] if stats.checked else []
        parts += [
            f"{count:,} {word}" for count, word in ((stats.failed, "failed"), (stats.uncertain, "uncertain")) if count
        ]
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(parts), refresh=False)


def _fits(bar: tqdm[Any], form: str) -> bool:
    """Return whether the format leaves enough room for the bar itself."""
    now = bar.format_dict
    rest = bar.format_meter(**{**now, "bar_format": form.replace("{bar}", "")})
    return len(rest) + _SHORTEST <= (now["ncols"] or 80)


class Lines:
    """Important events, and periodic lines of progress, on standard error."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._ticker: _Ticker | None = None
        self._stats = Stats()
        self._wanted = 0
        self._before = 0

    def started(self, stats: Stats, wanted: int, stored: int) -> None:
        self._stats = stats
        self._wanted = wanted
        self._before = stored
        if not self._quiet:
            self._ticker = _Ticker(LINE_EVERY, self._progress)

    def event(self, event: Event) -> None:
        """Print an important event; if quiet, only final failures."""
        passing = event.kind in {EventKind.RETRY, EventKind.WARNING} or event.fields.get("reason") == StopReason.TIME
        if event.kind not in _COUNTED and not (self._quiet and passing):
            say(_line(event), err=True)

    def close(self) -> None:
        if self._ticker is not None:
            self._ticker.stop()

    def _progress(self) -> None:
        stats = self._stats
        done = f"{stats.checked:,} checked, " if stats.checked else ""
        done += f"{self._before + stats.stored:,} of {number(self._wanted, 'image')} stored"
        say(f"{done}, {stats.in_flight:,} in flight or downloading, {usd(stats.cost)} charged in this run", err=True)


class JsonLines:
    """Every event as a line of JSON on standard error."""

    def started(self, stats: Stats, wanted: int, stored: int) -> None:
        """Print a line with the size of the job."""
        del stats
        self._print("started", "", {"images_wanted": wanted, "images_stored": stored})

    def event(self, event: Event) -> None:
        self._print(str(event.kind), event.text, event.fields)

    def close(self) -> None:
        """Do nothing."""

    def _print(self, kind: str, text: str, fields: dict[str, object]) -> None:
        line = {"at": round(time.time(), 3), "event": kind, **({"text": text} if text else {}), **fields}
        give(line, err=True, indent=None)


def display(*, quiet: bool, log_format: str) -> Bar | Lines | JsonLines:
    """Return the display to use, to be started and closed: JSON if asked for, a bar on a terminal, else lines."""
    if log_format == "json":
        return JsonLines()
    if sys.stderr.isatty() and not quiet:
        return Bar()
    return Lines(quiet=quiet)


def warn(text: str, *, log_format: str) -> None:
    """Report a problem after a run, in the format of its log; also if quiet."""
    if log_format == "json":
        JsonLines().event(Event(EventKind.WARNING, text))
    else:
        tell(text)


def _line(event: Event) -> str:
    code = str(event.fields.get("code") or "")
    more = f" ({code})" if code and code not in event.text else ""
    return " ".join(f"{event.kind}: {event.text}{more}".split())
