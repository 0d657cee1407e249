"""Runs an emulator: in a thread of its own for tests and demos, or in the foreground for the command line."""

import asyncio
import contextlib
import functools
import signal
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Self, TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from seedream_batch.emulator.config import EmulatorConfig
from seedream_batch.emulator.http.api_endpoints import ApiEndpoints
from seedream_batch.emulator.http.control_endpoints import control_routes
from seedream_batch.emulator.http.image_endpoints import ImageEndpoints
from seedream_batch.emulator.http.raw_responses import Finished, to_aiohttp
from seedream_batch.emulator.http.responses import error_response
from seedream_batch.emulator.http.state import EmulatorState

Result = TypeVar("Result")

_print = functools.partial(print, flush=True)


class Emulator:
    """An emulator in a thread with its own event loop; it serves from the start of its `with` block.

    Thread-safe.
    """

    def __init__(self, config: EmulatorConfig | None = None) -> None:
        self._config = config or EmulatorConfig()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._state: EmulatorState | None = None
        self._port: Future[int] = Future()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start to serve.

        Raises `LedgerError` for a state folder that can't be used; `FaultError` for invalid fault rules; `OSError` if
        the emulator can't listen on the address.
        """
        self._port = Future()
        self._thread = threading.Thread(target=self._run, name="seedream-emulator", daemon=True)
        self._thread.start()
        try:
            self._port.result()
        except BaseException:
            self._thread.join()
            raise

    def stop(self) -> None:
        """Stop, and release held requests."""
        if self._thread is None or self._loop is None or self._stop is None:
            return
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._thread = None

    @property
    def url(self) -> str:
        """The origin, such as http://127.0.0.1:8080, without /v1."""
        return f"http://{self._config.host}:{self.port}"

    @property
    def port(self) -> int:
        """The port that the emulator listens on."""
        return self._port.result()

    def ledger(self) -> list[dict[str, Any]]:
        """Return the entries of the ledger so far. Works after `stop`, too, like the other methods."""
        return self._call(lambda state: state.ledger_entries())

    def stats(self) -> dict[str, int]:
        """Return the number of requests by endpoint, and other counts."""
        return self._call(lambda state: dict(state.stats))

    def requests(self) -> list[dict[str, Any]]:
        """Return the latest requests, the oldest first."""
        return self._call(lambda state: [dict(each) for each in state.log])

    def configure(self, **changes: Any) -> None:
        """Change settings. Raises `ConfigError` for an invalid change; then nothing changes."""
        self._call(lambda state: state.configure(changes))

    def set_faults(self, rules: Iterable[Mapping[str, Any]]) -> None:
        """Replace the fault rules. Raises `FaultError` for invalid rules; then the old ones stay in force."""
        listed = list(rules)
        self._call(lambda state: state.set_faults(listed))

    def faults(self) -> list[dict[str, Any]]:
        """Return the rules in force, each with how many requests it matched (`met`) and how often it fired."""
        return self._call(lambda state: state.plan.as_json())

    def waiting(self) -> list[dict[str, Any]]:
        """Return the requests that a hang holds."""
        return self._call(lambda state: state.held.as_json())

    def release(self) -> int:
        """Release the held requests, and return how many there were."""
        return self._call(lambda state: state.held.release())

    def reset(self) -> None:
        """Forget everything except the settings."""
        self._call(lambda state: state.reset())

    def _call(self, function: Callable[[EmulatorState], Result]) -> Result:
        """Call a function in the thread of the event loop, which owns the state; in this thread after `stop`."""
        if self._loop is None or self._state is None:
            raise RuntimeError("the emulator was not started")
        state = self._state
        if self._thread is None:
            return function(state)
        result: Future[Result] = Future()

        def call() -> None:
            try:
                result.set_result(function(state))
            except Exception as error:  # noqa: BLE001 - raised again in the calling thread
                result.set_exception(error)

        self._loop.call_soon_threadsafe(call)
        return result.result()

    def _run(self) -> None:
        try:
            asyncio.run(_serve(self._config, self._started))
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that called `start`
            if not self._port.done():
                self._port.set_exception(error)

    def _started(self, state: EmulatorState, stop: asyncio.Event) -> None:
        self._loop, self._stop, self._state = asyncio.get_running_loop(), stop, state
        self._port.set_result(state.port)


def serve(config: EmulatorConfig, *, announce: Callable[[str], object] = _print) -> None:
    """Serve until SIGINT or SIGTERM; call `announce` with a line that names the URL and the ledger, once ready.

    Raises `LedgerError` for a state folder that can't be used; `FaultError` for invalid fault rules; `OSError` if the
    emulator can't listen on the address.
    """

    def started(state: EmulatorState, stop: asyncio.Event) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        url = f"http://{config.host}:{state.port}"
        announce(f"seedream emulator on {url} (ledger: {state.ledger.path or f'in memory, GET {url}/emulator/ledger'})")

    asyncio.run(_serve(config, started))


_ADVANCE_SECONDS = 0.2
"""Interval for adding the ends of tasks to the ledger, so that the file is complete even if nobody polls."""
_BACKLOG = 1024


async def _serve(config: EmulatorConfig, started: Callable[[EmulatorState, asyncio.Event], None]) -> None:
    """Serve until the event is set that `started` is called with. Raises `OSError` if the address can't be used."""
    state = EmulatorState(config)
    stop = asyncio.Event()
    # aiohttp must not limit the size of requests: the handlers do, and their limits can change at run time.
    app = web.Application(client_max_size=0, middlewares=[_error_middleware(state)])
    app.add_routes([*ApiEndpoints(state).routes(), *ImageEndpoints(state).routes(), *control_routes(state)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    try:
        await runner.setup()
        advancing = asyncio.create_task(_advance_forever(state))
        try:
            await web.TCPSite(runner, config.host, config.port, backlog=_BACKLOG).start()
            state.port = runner.addresses[0][1]
            started(state, stop)
            await stop.wait()
        finally:
            advancing.cancel()
            state.held.release()
            await state.webhooks.close()
            await runner.cleanup()
    finally:
        state.close()


async def _advance_forever(state: EmulatorState) -> None:
    while True:
        await asyncio.sleep(_ADVANCE_SECONDS)
        state.account.advance()


def _error_middleware(state: EmulatorState) -> Middleware:
    @web.middleware
    async def respond(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Finished as finished:
            return finished.response
        except web.HTTPException as error:
            state.stats["unknown_path"] += 1
            message = f"{request.method} {request.path}: {error.reason}"
            return to_aiohttp(error_response(error.status, message, oddities=state.config))

    return respond
