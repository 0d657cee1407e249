"""Lines on which nothing arrives: services that cannot be reached, so that nothing is ever sent."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moments import MOMENTS
from world import World


@dataclass(frozen=True, slots=True)
class Line:
    """A service that cannot be reached, so that nothing is ever sent."""

    name: str
    open: Callable[[World], contextlib.AbstractContextManager[str]]
    """Gives the address for the command."""
    moments: tuple[str, ...] = tuple(MOMENTS)
    limits: Mapping[str, Any] = field(default_factory=dict)
    comes_back: bool = False
    """Whether the service is back before the command has ended."""
    elsewhere: bool = False
    """Whether the address is not on this machine, so that the job cannot be finished here."""


@contextlib.contextmanager
def service_down(world: World) -> Iterator[str]:
    world.service.stop()
    try:
        yield world.service.url
    finally:
        world.service.start()


@contextlib.contextmanager
def _no_such_name(world: World) -> Iterator[str]:
    del world
    yield "https://service-of-the-campaign.invalid"


def _listener(
    serve: Callable[[socket.socket, World], None],
) -> Callable[[World], contextlib.AbstractContextManager[str]]:
    """A process that listens on a port of its own and does with each connection what it is told."""

    @contextlib.contextmanager
    def opened(world: World) -> Iterator[str]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"https://127.0.0.1:{server.getsockname()[1]}"
            pid = os.fork()
            if not pid:
                _serve_for_ever(server, serve, world)
        try:
            yield address
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    return opened


def _serve_for_ever(server: socket.socket, serve: Callable[[socket.socket, World], None], world: World) -> None:
    held = []
    try:
        while True:
            connection, _ = server.accept()
            held.append(connection)
            with contextlib.suppress(OSError):
                serve(connection, world)
    finally:
        os._exit(0)


def _in_plain(connection: socket.socket, _: World) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    connection.close()


def _closed(connection: socket.socket, _: World) -> None:
    connection.recv(4096)
    connection.close()


def _without_a_word(connection: socket.socket, _: World) -> None:
    del connection


def _unknown_certificate(connection: socket.socket, world: World) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_certificate(world.root / "certificate.pem"))
    context.wrap_socket(connection, server_side=True).close()


def _certificate(path: Path) -> Path:
    """A key and a certificate that nobody has signed; made where it is not there yet."""
    if not path.exists():
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-days", "1", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
        made = subprocess.run([*command, "-keyout", "-", "-out", "-"], check=True, capture_output=True).stdout
        path.write_bytes(made)
    return path


# A first run has to upload something first, and gives up soon where it cannot.
_SENDING = tuple(name for name, moment in MOMENTS.items() if moment.command == ("run",) and name != "first run")
LINES = {
    line.name: line
    for line in (
        Line("line: the service is down", service_down),
        Line("line: the service is down and comes back", service_down, _SENDING, comes_back=True),
        Line("line: no TLS", _listener(_in_plain)),
        Line("line: TLS ends in the handshake", _listener(_closed)),
        Line(
            "line: TLS without a word", _listener(_without_a_word),
            limits={"seedream_batch.client.connections.CONNECT_TIMEOUT": 0.2},
        ),
        Line("line: TLS with an unknown certificate", _listener(_unknown_certificate)),
        # A manifest of a service on this machine is for no other one, so only a first run can meet this.
        Line("line: a name that is not known", _no_such_name, ("first run",), elsewhere=True),
    )
}  # fmt: skip

IMPATIENT = {
    "seedream_batch.engine.service_health.OUTAGE_LIMIT": 0.5,
    "seedream_batch.engine.service_health.LIMITED_LIMIT": 0.5,
    "seedream_batch.engine.service_health.DEAD_END_LIMIT": 0.2,
}
"""Time limits for services that never give a usable answer."""
