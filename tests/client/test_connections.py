"""Certificates, SOCKS proxies, and requests that wait for a connection when the run ends."""

import asyncio

import pytest

from seedream_batch.client.secret import ApiKey
from seedream_batch.client.service import Service
from seedream_batch.client.trust import distrusted, tls
from seedream_batch.errors import UsageError
from seedream_batch.model.outcome import Submitted


@pytest.mark.parametrize("content", [b"", b"no certificate", None])
def test_a_file_without_certificates_is_an_error(monkeypatch, tmp_path, content):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with pytest.raises(UsageError, match=r"SSL_CERT_FILE is .*ca\.pem"):
        tls()


def test_a_folder_of_certificates_that_is_none(monkeypatch, tmp_path):
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", f"{tmp_path}/a:{tmp_path}/b")
    with pytest.raises(UsageError, match="SSL_CERT_DIR"):
        tls()
    (tmp_path / "b").mkdir()
    tls()


def test_what_to_do_about_an_unknown_authority(monkeypatch):
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/company.pem")
    assert "set SSL_CERT_FILE" in distrusted("self-signed")
    assert "REQUESTS_CA_BUNDLE" in distrusted("self-signed")
    assert "clock" in distrusted("certificate has expired")
    assert "another host" in distrusted("Hostname mismatch, certificate is not valid for 'a.b'")


@pytest.fixture
def behind(monkeypatch):
    for name in ("https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return lambda scheme, port: monkeypatch.setenv("all_proxy", f"{scheme}://127.0.0.1:{port}")


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_a_socks_proxy_is_given_the_name(talk, behind, scheme):
    asked = bytearray()

    async def play(wire):
        await wire.read(3)
        await wire.send(b"\x05\x00")
        asked.extend(await wire.read())
        await wire.send(b"\x05\x05\x00\x01\0\0\0\0\0\0")

    def origin(server):
        behind(scheme, server.port)
        return "https://service.invalid"

    outcome = talk.submit(play, origin=origin)
    assert (outcome.kind, b"service.invalid" in asked) == (Submitted.UNREACHABLE, True)
    assert "all_proxy" in outcome.message
    assert "refused" in outcome.message


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
def test_who_waits_for_a_connection_need_not(talk, behind, scheme):
    async def main():
        came = asyncio.Event()

        async def stall(wire):
            await wire.read(1)
            came.set()
            await asyncio.Event().wait()

        async with talk.listening(stall) as server:
            behind(scheme, server.port)
            async with Service("https://service.invalid", ApiKey("k")) as service:
                waiting = asyncio.ensure_future(service.submit("{}", "key-1"))
                await came.wait()
                service.give_up_connecting()
                return await waiting

    assert asyncio.run(main()).kind is Submitted.UNREACHABLE


def test_who_has_a_connection_is_answered(talk):
    async def main():
        came, go = asyncio.Event(), asyncio.Event()

        async def play(wire):
            await wire.request()
            came.set()
            await go.wait()
            await wire.send(talk.http(200, {"data": [{"task_id": "task_1"}]}))

        async with talk.listening(play) as server, Service(server.origin, ApiKey("k")) as service:
            waiting = asyncio.ensure_future(service.submit("{}", "key-1"))
            await came.wait()
            service.give_up_connecting()
            go.set()
            return await waiting

    assert asyncio.run(main()).task_ids == ("task_1",)
