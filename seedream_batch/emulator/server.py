"""Runs an emulator: in a thread of its own for tests and demos, or in the foreground for the command line."""

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

from seedream_batch.emulator.config import EmulatorConfig
from seedream_batch.emulator.http.app import serving
from seedream_batch.emulator.http.state import EmulatorState

Result = TypeVar("Result")


class Emulator:
    """An emulator in a thread with an event loop of its own; ready to serve when its `with` block begins.

    Every method can be called from any thread.
    """

    def __init__(self, config: EmulatorConfig | None = None) -> None:
        self._config = config or EmulatorConfig()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._state: EmulatorState | None = None
        self._started: Future[int] = Future()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to serve.

        Raises:
            LedgerError: for a state folder that can't be used.
            FaultError: for fault rules that make no sense.
            OSError: when the address can't be listened on.
        """
        self._started = Future()
        self._thread = threading.Thread(target=self._run, name="seedream-emulator", daemon=True)
        self._thread.start()
        try:
            self._started.result()
        except BaseException:
            self._thread.join()
            raise

    def stop(self) -> None:
        """End it; requests that are still held are let go."""
        if self._thread is None or self._loop is None or self._stop is None:
            return
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._thread = None

    @property
    def url(self) -> str:
        """The origin, such as http://127.0.0.1:8080, without /v1."""
        return f"http://{self._config.host}:{self._started.result()}"

    @property
    def port(self) -> int:
        """The port."""
        return self._started.result()

    def ledger(self) -> list[dict[str, Any]]:
        """The entries of the ledger so far; also after the end."""
        return self._call(lambda state: state.ledger_entries())

    def stats(self) -> dict[str, int]:
        """Requests by endpoint, and some counts more."""
        return self._call(lambda state: dict(state.stats))

    def requests(self) -> list[dict[str, Any]]:
        """The latest requests, the oldest first."""
        return self._call(lambda state: [dict(each) for each in state.log])

    def configure(self, **changes: Any) -> None:
        """Change settings.

        Raises:
            ConfigError: for changes that make no sense; then none is made.
        """
        self._call(lambda state: state.configure(changes))

    def set_faults(self, rules: Iterable[Mapping[str, Any]]) -> None:
        """Replace the fault rules.

        Raises:
            FaultError: for rules that make no sense; then the old ones stay.
        """
        listed = list(rules)
        self._call(lambda state: state.set_faults(listed))

    def faults(self) -> list[dict[str, Any]]:
        """The rules in force and how often each met a request and fired."""
        return self._call(lambda state: state.plan.as_json())

    def waiting(self) -> list[dict[str, Any]]:
        """The requests that a hang holds."""
        return self._call(lambda state: state.held.as_json())

    def release(self) -> int:
        """Let them go on; how many there were."""
        return self._call(lambda state: state.held.release())

    def reset(self) -> None:
        """Forget everything but the settings."""
        self._call(lambda state: state.reset())

    def _call(self, function: Callable[[EmulatorState], Result]) -> Result:
        """Have a function called in the loop's thread, where the state belongs; here, once that thread has ended."""
        if self._loop is None or self._state is None:
            raise RuntimeError("the emulator was not started")
        state = self._state
        if self._thread is None:
            return function(state)
        result: Future[Result] = Future()

        def call() -> None:
            try:
                result.set_result(function(state))
            except Exception as error:  # noqa: BLE001 - raised again in the thread that asked
                result.set_exception(error)

        self._loop.call_soon_threadsafe(call)
        return result.result()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that started this one
            if not self._started.done():
                self._started.set_exception(error)

    async def _serve(self) -> None:
        state = EmulatorState(self._config)
        try:
            async with serving(state) as port:
                self._loop, self._stop, self._state = asyncio.get_running_loop(), asyncio.Event(), state
                self._started.set_result(port)
                await self._stop.wait()
        finally:
            state.close()


def serve(config: EmulatorConfig, *, announce: Callable[[str], object] | None = None) -> None:
    """Serve until SIGINT or SIGTERM, after telling the URL and where the ledger is in one line.

    Args:
        config: The settings.
        announce: Takes the line; writes it to standard output by default.

    Raises:
        LedgerError: for a state folder that can't be used.
        FaultError: for fault rules that make no sense.
        OSError: when the address can't be listened on.
    """
    asyncio.run(_foreground(config, announce or _say))


async def _foreground(config: EmulatorConfig, announce: Callable[[str], object]) -> None:
    state = EmulatorState(config)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        async with serving(state) as port:
            where = state.ledger.path or f"in memory, GET http://{config.host}:{port}/emulator/ledger"
            announce(f"seedream emulator on http://{config.host}:{port} (ledger: {where})")
            await stop.wait()
    finally:
        state.close()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
