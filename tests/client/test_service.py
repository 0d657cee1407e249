"""Polling, uploading and asking for the balance over real sockets, and where the client goes."""

import asyncio
import json

import pytest

from seedream_batch.client.proxies import bypasses, proxy_for
from seedream_batch.client.secret import ApiKey
from seedream_batch.client.service import Service, is_loopback, origin_of
from seedream_batch.emulator import Emulator, EmulatorConfig
from seedream_batch.errors import (
    AccessRefused,
    BalanceTooLow,
    CredentialsRefused,
    RequestRefused,
    ServiceError,
    UsageError,
)
from seedream_batch.model.outcome import Polled, Submitted

RUNNING = {"code": 200, "data": {"id": "task_1", "status": "processing", "progress": 40}}


async def reset_after_the_request(wire):
    await wire.request()
    wire.reset()


async def stay_silent(wire):
    await wire.request()
    await asyncio.sleep(60)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, RUNNING, Polled.RUNNING),
        (404, {"error": {"code": 404}}, Polled.NOT_FOUND),
        (401, b"", Polled.UNAUTHORIZED),
        (403, b"", Polled.UNAUTHORIZED),
        (429, b"", Polled.RATE_LIMITED),
        (500, b"", Polled.NO_ANSWER),
        (502, b"<html>", Polled.NO_ANSWER),
        (200, b"<html>", Polled.NO_ANSWER),
        (302, b"", Polled.NO_ANSWER),
    ],
)
def test_a_look_at_a_task(talk, status, body, kind):
    poll = talk.poll(talk.answering(talk.http(status, body, headers=["Location: http://127.0.0.1:1/"])))
    assert (poll.kind, poll.status) == (kind, status)
    [request] = talk.server.requests
    assert (request.method, request.target) == ("GET", "/v1/tasks/task_1?language=en")
    assert request.headers["authorization"] == f"Bearer {talk.KEY}"
    assert "idempotency-key" not in request.headers


@pytest.mark.parametrize("play", [reset_after_the_request, stay_silent])
def test_a_look_that_gets_no_answer(talk, monkeypatch, play):
    monkeypatch.setattr("seedream_batch.client.service.POLL_TIMEOUT", 0.1)
    poll = talk.poll(play)
    assert poll.kind is Polled.NO_ANSWER


def test_a_look_goes_on_over_a_connection_that_the_server_closed(talk):
    async def play(wire):
        await wire.request()
        await wire.send(talk.http(200, RUNNING))

    async def thrice(service):
        return [await service.poll("task_1") for _ in range(3)]

    assert [poll.kind for poll in talk.run(play, thrice)] == [Polled.RUNNING] * 3


@pytest.mark.parametrize(
    ("task_id", "target"),
    [
        ("task_01K8", "task_01K8"),
        ("a/b", "a%2Fb"),
        ("../balance", "..%2Fbalance"),
        ("a?b=c#d", "a%3Fb%3Dc%23d"),
        ("a b+c", "a%20b%2Bc"),
        ("%2e%2e", "%252e%252e"),
        ("t\u00e4sk", "t%C3%A4sk"),
        ("a:b@c;d,e", "a%3Ab%40c%3Bd%2Ce"),
    ],
)
def test_any_task_id_is_one_part_of_the_path(talk, task_id, target):
    talk.poll(talk.answering(talk.http(200, RUNNING)), task_id)
    [request] = talk.server.requests
    path, _, query = request.target.partition("?")
    assert query == "language=en"
    # Some characters may stand as they are: what counts is that the service reads the same id.
    from urllib.parse import unquote

    assert unquote(path) == f"/v1/tasks/{task_id}"
    assert path.count("/") == target.count("/") + 3


UPLOADED = {"url": "https://files.example.com/1.png", "filename": "reference.png", "bytes": 3, "created_at": 1}


def upload(media_type="image/png"):
    return lambda service: service.upload(b"\x89PNG", media_type)


def test_an_upload(talk):
    assert talk.run(talk.answering(talk.http(200, UPLOADED)), upload()) == UPLOADED["url"]
    [request] = talk.server.requests
    assert (request.method, request.target) == ("POST", "/v1/uploads/images")
    assert request.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert b'name="file"; filename="reference.png"' in request.body
    assert b"Content-Type: image/png\r\n\r\n\x89PNG\r\n" in request.body
    talk.run(talk.answering(talk.http(200, UPLOADED)), upload("image/jpeg"))
    assert b'filename="reference.jpg"' in talk.server.requests[0].body


@pytest.mark.parametrize(
    ("status", "body", "error", "said"),
    [
        (413, {"error": {"message": "too large"}}, RequestRefused, "HTTP 413: too large"),
        (400, {"error": {"message": "bad"}}, RequestRefused, "HTTP 400: bad"),
        (402, b"", BalanceTooLow, "HTTP 402"),
        (404, b"", ServiceError, "HTTP 404"),
        (429, b"", ServiceError, "HTTP 429"),
        (401, {"error": {"message": "bad key"}}, CredentialsRefused, "HTTP 401: bad key"),
        (403, b"", AccessRefused, "HTTP 403: an empty answer"),
        (200, {}, ServiceError, "HTTP 200: no URL in the answer"),
        (200, {"url": "ftp://x"}, ServiceError, "HTTP 200: no URL in the answer"),
        (200, b"<html>", ServiceError, "HTTP 200: a web page"),
        (500, b"\x00", ServiceError, "HTTP 500: an answer that is not a JSON"),
    ],
)
def test_an_upload_that_is_refused(talk, status, body, error, said):
    with pytest.raises(error, match=said) as told:
        talk.run(talk.answering(talk.http(status, body)), upload())
    assert type(told.value) is error


def test_an_upload_that_gets_no_answer(talk):
    with pytest.raises(ServiceError, match=r"^uploading a reference image: the connection was"):
        talk.run(reset_after_the_request, upload())


def test_the_balance(talk):
    answer = {"success": True, "remain_balance": 10.5, "used_balance": "1.25", "unlimited_quota": False}
    balance = talk.run(talk.answering(talk.http(200, answer)), Service.balance)
    assert (balance.remaining, balance.used) == (10_500_000, 1_250_000)


@pytest.mark.parametrize(
    ("status", "body", "error", "said"),
    [
        (401, b"", CredentialsRefused, "HTTP 401"),
        (200, {"success": True}, ServiceError, "HTTP 200: no balance in the answer"),
        (503, b"<html>", ServiceError, "HTTP 503: a web page"),
    ],
)
def test_a_balance_that_is_not_told(talk, status, body, error, said):
    with pytest.raises(error, match=said):
        talk.run(talk.answering(talk.http(status, body)), Service.balance)


@pytest.mark.parametrize("line", [b"", b"ICY 200 OK\r\n\r\n", b"HTTP/2 200\r\n\r\n"])
def test_a_balance_and_an_upload_that_are_no_http(talk, line):
    async def play(wire, body):
        await wire.request()
        await wire.send(line + json.dumps(body).encode())

    balance = {"success": True, "remain_balance": 3, "used_balance": 0}
    assert talk.run(lambda wire: play(wire, balance), Service.balance).remaining == 3_000_000
    assert talk.run(lambda wire: play(wire, UPLOADED), upload()) == UPLOADED["url"]
    with pytest.raises(ServiceError, match="balance: an answer that is not HTTP"):
        talk.run(lambda wire: play(wire, "no"), Service.balance)


def test_a_balance_without_a_service(talk):
    with pytest.raises(ServiceError, match=r"requesting the balance from http://127.0.0.1:\d+: the connection was"):
        talk.run(reset_after_the_request, Service.balance)


def test_against_the_emulator():
    async def main(origin):
        async with Service(origin, ApiKey("any")) as service:
            accepted = await service.submit('{"model":"doubao-seedance-4-5","prompt":"a fox"}', "key-1")
            again = await service.submit('{"model":"doubao-seedance-4-5","prompt":"a fox"}', "key-1")
            other = await service.submit('{"model":"doubao-seedance-4-5","prompt":"a hare"}', "key-1")
            refused = await service.submit('{"model":"doubao-seedance-4-5","prompt":""}', "key-2")
            unknown = await service.poll("task_none")
            return accepted, again, other, refused, unknown, (await service.balance()).remaining

    with Emulator(EmulatorConfig(task_seconds="fixed:0", image_size="tiny")) as emulator:
        accepted, again, other, refused, unknown, remaining = asyncio.run(main(emulator.url))
    assert accepted.kind is Submitted.ACCEPTED
    assert (again.task_ids, again.replayed) == (accepted.task_ids, True)
    assert other.kind is Submitted.INDETERMINATE
    assert refused.kind is Submitted.REFUSED
    assert unknown.kind is Polled.NOT_FOUND
    assert remaining == 99_965_000


def test_a_key_that_the_service_repeats_goes_no_further(talk):
    told = f"invalid key {talk.KEY}, sorry"
    outcome = talk.submit(talk.answering(talk.http(401, {"error": {"code": talk.KEY, "message": told}})))
    assert (outcome.message, outcome.code) == ("invalid key ***, sorry", "***")
    document = {"data": {"id": "task_1", "status": "failed", "error": told}}
    assert talk.KEY not in repr(talk.poll(talk.answering(talk.http(200, document))))
    with pytest.raises(RequestRefused) as refused:
        talk.run(talk.answering(talk.http(400, {"message": told})), upload())
    assert talk.KEY not in str(refused.value)


def test_a_key_for_the_emulator_changes_no_task_id(talk):
    async def main():
        answer = talk.http(200, {"data": [{"task_id": "task_any_1"}]})
        async with talk.listening(talk.answering(answer)) as server, Service(server.origin, ApiKey("any")) as service:
            return await service.submit("{}", "key-1")

    assert asyncio.run(main()).task_ids == ("task_any_1",)


# Where the client goes


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://api.apimart.ai", "https://api.apimart.ai"),
        (" https://api.apimart.ai/v1/ ", "https://api.apimart.ai"),
        ("https://gate.example.com:8443/apimart/v1", "https://gate.example.com:8443/apimart"),
        ("http://127.0.0.1:8089", "http://127.0.0.1:8089"),
        ("http://localhost:8089/v1", "http://localhost:8089"),
        ("http://[::1]:8089", "http://[::1]:8089"),
    ],
)
def test_base_urls(text, origin):
    assert origin_of(text) == origin


@pytest.mark.parametrize(
    "text",
    [
        "",
        "api.apimart.ai",
        "ftp://api.apimart.ai",
        "https://",
        "https://[::1",
        "https://host:port",
        "https://host:99999",
        "https://exa mple.com",
        "https://example.com/\x00",
        "https://example.com?key=1",
        "https://example.com#v1",
        "https://user:word@example.com",
        "https://:word@example.com",
        "http://api.apimart.ai",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "http://2130706433",
        "http://0.0.0.0:80",
        "http://192.168.0.1",
    ],
)
def test_what_is_no_base_url(text):
    with pytest.raises(UsageError) as told:
        origin_of(text)
    assert "word@" not in str(told.value)


def test_loopback():
    assert all(map(is_loopback, ["localhost", "127.0.0.1", "127.9.9.9", "::1"]))
    assert not any(map(is_loopback, ["", "localhost.", "0.0.0.0", "10.0.0.1", "example.com", "::"]))


def test_passwords_of_netrc_stay_where_they_are(talk, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("default login me password from-netrc\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    outcome = talk.submit(talk.answering(talk.http(200, RUNNING)), origin=lambda _: "https://service.invalid")
    assert outcome.kind is Submitted.UNREACHABLE, outcome.message
    talk.submit(talk.answering(talk.http(200, RUNNING)))
    assert talk.server.requests[0].headers["authorization"] == f"Bearer {talk.KEY}"


@pytest.fixture
def clean_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


def test_which_proxy(clean_proxies):
    assert proxy_for("https://api.apimart.ai") is None
    clean_proxies.setenv("https_proxy", "proxy.example.com:3128")
    clean_proxies.setenv("no_proxy", "intern.example.com, .local")
    assert proxy_for("https://api.apimart.ai").url == "http://proxy.example.com:3128"
    assert proxy_for("https://intern.example.com/x") is None
    assert proxy_for("https://a.local/x") is None
    assert proxy_for("http://127.0.0.1") is None
    clean_proxies.setenv("https_proxy", "http://me:secret-word@proxy.example.com:3128")
    proxy = proxy_for("https://api.apimart.ai")
    assert proxy.headers["Proxy-Authorization"] == "Basic bWU6c2VjcmV0LXdvcmQ="
    assert "secret-word" not in repr(proxy)


@pytest.mark.parametrize(
    "address",
    [
        "socks://x", "http://[::1", "ftp://me:secret-word@proxy", "http://", "http://a:99999", "socks6://x",
        "http:/proxy:3128", "http//proxy:3128", "http://proxy:3128/proxy.pac", "http://proxy:3128?x", "http://proxy#x",
    ],
)  # fmt: skip
def test_a_proxy_that_cannot_be_used(clean_proxies, address):
    clean_proxies.setenv("https_proxy", address)
    with pytest.raises(UsageError, match="https_proxy") as told:
        proxy_for("https://api.apimart.ai")
    assert "secret-word" not in str(told.value)


def test_the_other_names_of_a_proxy(clean_proxies):
    clean_proxies.setenv("ALL_PROXY", "socks5h://me:word@127.0.0.1:1080")
    proxy = proxy_for("https://api.apimart.ai")
    assert (proxy.variable, proxy.url, proxy.user, proxy.password) == (
        "ALL_PROXY", "socks5h://127.0.0.1:1080", "me", "word"
    )  # fmt: skip
    clean_proxies.setenv("HTTPS_PROXY", "http://other:3128")
    assert proxy_for("https://api.apimart.ai").url == "http://other:3128"
    # An empty variable switches it off.
    clean_proxies.setenv("https_proxy", "")
    assert proxy_for("https://api.apimart.ai") is None


@pytest.mark.parametrize(
    ("no_proxy", "host", "bypassed"),
    [
        ("*", "api.apimart.ai", True),
        ("apimart.ai", "api.apimart.ai", True),
        (".apimart.ai", "api.apimart.ai", True),
        ("*.apimart.ai", "API.apimart.ai.", True),
        ("partapimart.ai", "apimart.ai", False),
        ("apimart.ai", "partapimart.ai", False),
        ("a.b, apimart.ai:443", "apimart.ai", True),
        ("apimart.ai:8443", "apimart.ai", False),
        ("10.0.0.0/8 192.168.0.0/16", "192.168.3.4", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.0.0.1", "10.0.0.1", True),
        ("[fd00::1]:443", "fd00::1", True),
        ("fd00::/8", "fd00::7", True),
        ("fd00::1", "fd00::2", False),
        ("a.b;apimart.ai|c.d", "api.apimart.ai", True),
        ("https://apimart.ai/", "api.apimart.ai", True),
        ("https://10.0.0.1:443", "10.0.0.1", True),
        ("10.*", "10.0.0.1", True),
        ("*mart.ai", "api.apimart.ai", True),
        ("192.168.*", "10.0.0.1", False),
        ("10.0.0.0/99,,:, /,[", "10.0.0.1", False),
        ("", "apimart.ai", False),
    ],
)
def test_what_no_proxy_names(no_proxy, host, bypassed):
    assert bypasses(no_proxy, host, 443) is bypassed


def test_a_socks_proxy_without_the_extra(clean_proxies):
    clean_proxies.setenv("all_proxy", "socks5://127.0.0.1:1080")
    clean_proxies.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"seedream-batch\[socks\]"):
        proxy_for("https://api.apimart.ai")


async def refuse_to_connect(wire):
    await wire.request()
    await wire.send(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")


async def pretend_to_connect(wire):
    await wire.request()
    await wire.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
    await wire.read()
    await wire.send(b"no TLS at all")


async def close_without_a_word(wire):
    await wire.request()


async def reset_without_a_word(wire):
    await wire.request()
    wire.reset()


async def answer_garbage(wire):
    await wire.request()
    await wire.send(b"\x05\x00\r\n\r\n")


async def close_in_the_handshake(wire):
    await wire.request()
    await wire.send(b"HTTP/1.1 200 Connection established\r\n\r\n")


@pytest.mark.parametrize(
    "play",
    [
        refuse_to_connect, pretend_to_connect, stay_silent, close_without_a_word, reset_without_a_word, answer_garbage,
        close_in_the_handshake,
    ],
)  # fmt: skip
def test_a_proxy_that_does_not_connect_gets_nothing(talk, clean_proxies, play):
    clean_proxies.setattr("seedream_batch.client.connections.CONNECT_TIMEOUT", 0.2)
    clean_proxies.setattr("seedream_batch.client.service.SUBMIT_TIMEOUT", 0.2)
    clean_proxies.setattr("seedream_batch.client.service.TRICKLE", 0.2)
    clean_proxies.setattr("seedream_batch.client.service.SLOWEST_UPLOAD", 1e9)

    def origin(server):
        clean_proxies.setenv("https_proxy", f"http://me:secret-word@127.0.0.1:{server.port}")
        return "https://service.invalid"

    outcome = talk.submit(play, origin=origin)
    assert outcome.kind is Submitted.UNREACHABLE
    assert "https_proxy" in outcome.message
    assert talk.server.requests[0].method == "CONNECT"
    assert talk.server.requests[0].headers["proxy-authorization"].startswith("Basic ")
    assert talk.KEY.encode() not in talk.server.received
    assert "secret-word" not in repr(outcome)


def test_a_service_on_this_machine_is_reached_without_a_proxy(talk, clean_proxies):
    clean_proxies.setenv("http_proxy", "http://proxy.invalid:3128")
    clean_proxies.setenv("https_proxy", "http://proxy.invalid:3128")
    assert talk.submit(talk.answering(talk.http(200, json.dumps(RUNNING).encode()))).status == 200
