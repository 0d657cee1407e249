"""What a submission's outcome is, for every way in which an exchange can end, over real sockets."""

import asyncio
import gzip
import json
import socket
import zlib

import pytest

from seedream_batch.client import connections as connections_module
from seedream_batch.client import service as service_module
from seedream_batch.client.secret import ApiKey
from seedream_batch.client.service import Service
from seedream_batch.model.outcome import Submitted

ACCEPTED = {"code": 200, "data": [{"status": "submitted", "task_id": "task_1"}]}
BIG = json.dumps({"prompt": "x" * 4_000_000})


def error(status, kind="", code=None, message="no"):
    return {"error": {"code": status if code is None else code, "message": message, "type": kind}}


IN_PROGRESS = error(409, code="idempotency_in_progress")
REUSED = error(409, code="idempotency_key_reused")
INDETERMINATE = error(409, code="idempotency_result_indeterminate")
UNAVAILABLE = error(503, code="idempotency_unavailable")
BUILD = error(500, "server_error", message="build_request_failed: n is too large")

# status, body, outcome
ANSWERS = [
    (200, ACCEPTED, Submitted.ACCEPTED),
    (202, ACCEPTED, Submitted.ACCEPTED),
    (200, {"request_id": "r", "data": {"object": "generation.task", "id": "task_1"}}, Submitted.ACCEPTED),
    (200, {"code": 200, "data": []}, Submitted.UNKNOWN),
    (200, {"code": 200, "data": [{"status": "submitted"}]}, Submitted.UNKNOWN),
    (200, {"error": {"code": 400, "message": "bad"}}, Submitted.REFUSED),
    (200, {"error": {"code": 500, "message": "bad"}}, Submitted.UNKNOWN),
    (200, {"code": 402, "msg": "Top up.", "data": None}, Submitted.UNPAID),
    (200, {"success": False, "code": "429", "message": "slow down"}, Submitted.RATE_LIMITED),
    (200, {"success": False, "message": "try later"}, Submitted.UNKNOWN),
    (200, {"error": {"type": "authentication_error", "message": "bad key"}}, Submitted.UNAUTHORIZED),
    (200, b"", Submitted.UNKNOWN),
    (200, b"\x00\xff\x1f\x8bgarbage", Submitted.UNKNOWN),
    (200, b"<html>hello</html>", Submitted.UNKNOWN),
    (204, b"", Submitted.UNKNOWN),
    (300, {}, Submitted.UNKNOWN),
    (304, b"", Submitted.UNKNOWN),
    (400, error(400, "invalid_request_error"), Submitted.REFUSED),
    (400, b"", Submitted.REFUSED),
    (401, error(401, "authentication_error"), Submitted.UNAUTHORIZED),
    (402, error(402, "payment_required"), Submitted.UNPAID),
    (403, error(403, "permission_error"), Submitted.UNAUTHORIZED),
    (404, error(404), Submitted.UNKNOWN),
    (403, b"<html>Attention Required!</html>", Submitted.BLOCKED),
    (403, error(403, "new_api_error", "insufficient_user_quota"), Submitted.UNPAID),
    (429, error(429, "insufficient_quota", message="You exceeded your current quota"), Submitted.UNPAID),
    (429, error(429, message="quota of 60 requests per minute exceeded"), Submitted.RATE_LIMITED),
    (405, error(405), Submitted.BLOCKED),
    (406, b"<html>Not Acceptable!</html>", Submitted.BLOCKED),
    (451, b"", Submitted.BLOCKED),
    (408, b"", Submitted.UNKNOWN),
    (409, IN_PROGRESS, Submitted.IN_PROGRESS),
    (409, {"error": "idempotency_in_progress"}, Submitted.IN_PROGRESS),
    (409, {"success": False, "code": "idempotency_in_progress", "message": "wait"}, Submitted.IN_PROGRESS),
    (409, REUSED, Submitted.INDETERMINATE),
    (409, INDETERMINATE, Submitted.INDETERMINATE),
    (409, b"", Submitted.INDETERMINATE),
    (413, error(413), Submitted.REFUSED),
    (413, b"<html>413 Request Entity Too Large</html>", Submitted.REFUSED),
    (422, error(422), Submitted.REFUSED),
    (422, b"<html>", Submitted.UNKNOWN),
    (429, error(429, "rate_limit_error"), Submitted.RATE_LIMITED),
    (429, b"<html>slow down</html>", Submitted.RATE_LIMITED),
    (500, error(500, "server_error"), Submitted.UNKNOWN),
    (500, BUILD, Submitted.REFUSED),
    (500, {"success": False, "message": "build_request_failed: no"}, Submitted.REFUSED),
    (500, error(500, message="it is said that build_request_failed: no"), Submitted.UNKNOWN),
    (502, b"<html>502 Bad Gateway</html>", Submitted.UNKNOWN),
    (503, error(503), Submitted.UNKNOWN),
    (503, b"<!DOCTYPE html>", Submitted.UNKNOWN),
    (503, error(503, "new_api_error", "model_not_found", "No available channel for model x"), Submitted.NO_MODEL),
    (503, error(503, code="model_not_found", message="No available channel (retry)"), Submitted.UNKNOWN),
    (503, UNAVAILABLE, Submitted.UNAVAILABLE),
    (503, {"error": {"code": 503, "type": "idempotency_unavailable"}}, Submitted.UNAVAILABLE),
    (500, UNAVAILABLE, Submitted.UNKNOWN),
    (504, b"", Submitted.UNKNOWN),
    (599, b"", Submitted.UNKNOWN),
]


@pytest.mark.parametrize(("status", "body", "kind"), ANSWERS)
def test_each_answer_of_the_service(talk, status, body, kind):
    outcome = talk.submit(talk.answering(talk.http(status, body)))
    assert (outcome.kind, outcome.status) == (kind, status)
    assert outcome.task_ids == (("task_1",) if kind is Submitted.ACCEPTED else ())
    assert len(talk.server.requests) == 1


def test_what_is_sent(talk):
    talk.submit(talk.answering(talk.http(200, ACCEPTED)), body='{"prompt":"\u72d0"}')
    [request] = talk.server.requests
    assert (request.method, request.target) == ("POST", "/v1/images/generations")
    assert request.body == '{"prompt":"\u72d0"}'.encode()
    assert request.headers["idempotency-key"] == "key-1"
    assert request.headers["authorization"] == f"Bearer {talk.KEY}"
    assert request.headers["content-type"] == "application/json"
    assert "x-apimart-response-version" not in request.headers


def test_an_answer_from_a_replay_says_so(talk):
    replay = talk.http(200, ACCEPTED, headers=["Idempotency-Replayed: true"])
    assert talk.submit(talk.answering(replay)).replayed
    assert not talk.submit(talk.answering(talk.http(200, ACCEPTED))).replayed


@pytest.mark.parametrize(
    ("text", "wait"),
    [("7", 7.0), ("0", 0.0), ("-3", 0.0), ("31536000000", 600.0), ("soon", None), ("", None), ("1.5", 1.5)],
)
def test_retry_after(talk, text, wait):
    slow = talk.http(429, b"", headers=[f"Retry-After: {text}"])
    assert talk.submit(talk.answering(slow)).retry_after == wait


def raw_deflate(data):
    return zlib.compress(data, wbits=-15)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "none"])
@pytest.mark.parametrize(
    "compress",
    [
        gzip.compress,
        zlib.compress,
        raw_deflate,
        lambda data: gzip.compress(gzip.compress(data)),
        lambda data: gzip.compress(zlib.compress(data)),
        lambda data: gzip.compress(data[:20]) + gzip.compress(data[20:]),
        lambda data: gzip.compress(data) + b"\0\0",
        lambda data: data,
    ],
)
def test_a_compressed_answer_is_read_whatever_its_header_says(talk, compress, encoding):
    body = compress(json.dumps(ACCEPTED).encode())
    answer = talk.http(200, body, headers=[f"Content-Encoding: {encoding}"])
    assert talk.submit(talk.answering(answer)).task_ids == ("task_1",)


# Ways in which no usable answer comes. Each gets the connection and plays it to its end.


async def reset_at_once(wire):
    wire.reset()


async def close_at_once(wire):
    wire.close()


def reset_after(size):
    async def play(wire):
        read = 0
        while read < size:
            read += len(await wire.read(min(65536, size - read)))
        wire.reset()

    return play


async def reset_after_all(wire):
    await wire.request()
    wire.reset()


async def close_after_all(wire):
    await wire.request()


def sending(*parts, reset=False):
    async def play(wire):
        await wire.request()
        await wire.send(*parts)
        if reset:
            wire.reset()

    return play


WHOLE = json.dumps(ACCEPTED).encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

UNANSWERED = {
    "reset at once": reset_at_once,
    "closed at once": close_at_once,
    "reset after 1 byte": reset_after(1),
    "reset within the headers": reset_after(60),
    "reset within the body": reset_after(1000),
    "reset late in the body": reset_after(1_000_000),
    "reset after the request": reset_after_all,
    "closed after the request": close_after_all,
    "one byte of a status line": sending(b"H"),
    "cut status line": sending(b"HTTP/1.1 20"),
    "cut status line, reset": sending(b"HTTP/1.1 20", reset=True),
    "no status line at all": sending(b"220 smtp.example.com ESMTP\r\n\r\n"),
    "cut headers": sending(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "headers and nothing more": sending(HEAD + b"Content-Length: 60\r\n\r\n"),
    "cut body": sending(HEAD + b"Content-Length: 60\r\n\r\n" + WHOLE[:30]),
    "cut body, reset": sending(HEAD + b"Content-Length: 60\r\n\r\n" + WHOLE[:30], reset=True),
    "cut chunk": sending(CHUNKED + b"40\r\n" + WHOLE[:30]),
    "cut between chunks": sending(CHUNKED + b"a\r\n" + WHOLE[:10] + b"\r\n"),
    "garbage as gzip": sending(HEAD + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd"),
    "endless headers": sending(HEAD + b"X: " + b"y" * 1_000_000 + b"\r\n\r\n" + WHOLE),
    "an endless body": sending(HEAD + b"\r\n", b" " * 500_001, WHOLE),
}


@pytest.mark.parametrize("body", ["{}", BIG], ids=["small", "large"])
@pytest.mark.parametrize("play", UNANSWERED.values(), ids=UNANSWERED)
def test_without_a_usable_answer_the_outcome_is_unknown(talk, monkeypatch, play, body):
    if body == "{}" and play in {UNANSWERED["reset late in the body"], UNANSWERED["reset within the body"]}:
        body = json.dumps({"prompt": "x" * 2000})
        play = reset_after(1000)
    monkeypatch.setattr(service_module, "MAX_ANSWER", 500_000)
    outcome = talk.submit(play, body)
    assert outcome.kind is Submitted.UNKNOWN
    assert outcome.message.isprintable()
    assert talk.server.connections == 1, "a submission was sent twice"


@pytest.mark.parametrize("cut", range(len(WHOLE)))
def test_a_body_that_is_cut_counts_from_the_end_of_its_task_id_on(talk, cut):
    outcome = talk.submit(sending(HEAD + b"Content-Length: 900\r\n\r\n" + WHOLE[:cut]))
    whole = cut >= WHOLE.index(b"task_1") + len(b'task_1"')
    assert outcome.kind is (Submitted.ACCEPTED if whole else Submitted.UNKNOWN)
    assert outcome.task_ids == (("task_1",) if whole else ())
    assert outcome.kept.body == WHOLE[:cut].decode()


@pytest.mark.parametrize(
    "parts",
    [
        [HEAD + b"Content-Length: 900\r\n\r\n" + WHOLE],
        [CHUNKED + f"{len(WHOLE):x}\r\n".encode() + WHOLE],
        [CHUNKED + f"{len(WHOLE):x}\r\n".encode() + WHOLE + b"\r\n"],
        [HEAD + b"\r\n" + WHOLE],
        [HEAD + b"\r\n" + WHOLE, b" " * 500_001],
        [HEAD + b'\r\n{"trace": "' + b"x" * 5_000_000 + b'", ' + WHOLE[1:]],
        [CHUNKED + b"zz\r\n" + WHOLE],
    ],
)
def test_a_task_id_that_came_whole_is_not_thrown_away(talk, monkeypatch, parts):
    if len(parts) > 1:
        monkeypatch.setattr(service_module, "MAX_ANSWER", 500_000)
    outcome = talk.submit(sending(*parts))
    assert (outcome.kind, outcome.task_ids) == (Submitted.ACCEPTED, ("task_1",))


@pytest.mark.parametrize("silent", ["before the request is read", "after it", "in the headers", "in the body"])
def test_silence_is_unknown(talk, monkeypatch, silent):
    monkeypatch.setattr(service_module, "SUBMIT_TIMEOUT", 0.15)

    async def play(wire):
        if silent != "before the request is read":
            await wire.request()
        if silent == "in the headers":
            await wire.send(b"HTTP/1.1 200 OK\r\n")
        if silent == "in the body":
            await wire.send(HEAD + b"Content-Length: 60\r\n\r\n" + WHOLE[:30])
        await asyncio.sleep(60)

    outcome = talk.submit(play)
    assert outcome.kind is Submitted.UNKNOWN


@pytest.mark.parametrize("silent", ["while the request is sent", "while the answer trickles"])
def test_an_exchange_that_trickles_ends(talk, monkeypatch, silent):
    monkeypatch.setattr(service_module, "SUBMIT_TIMEOUT", 0.1)
    monkeypatch.setattr(service_module, "TRICKLE", 0.2)
    monkeypatch.setattr(service_module, "SLOWEST_UPLOAD", 1e9)
    monkeypatch.setattr(service_module, "SLOWEST_UPLOAD", 1e9)

    async def play(wire):
        if silent == "while the request is sent":
            await wire.read()
            await asyncio.sleep(60)
        await wire.request()
        await wire.send(HEAD + b"\r\n")
        while True:
            await wire.send(b" ")
            await asyncio.sleep(0.01)

    assert talk.submit(play, BIG).kind is Submitted.UNKNOWN


# Not sent, and provably so.


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def test_a_refused_connection_is_not_sent(talk):
    outcome = talk.submit(close_at_once, origin=lambda _: f"http://127.0.0.1:{closed_port()}")
    assert outcome.kind is Submitted.UNREACHABLE
    assert "cannot connect to 127.0.0.1" in outcome.message


def test_a_name_without_an_address_is_not_sent(talk):
    outcome = talk.submit(close_at_once, origin=lambda _: "https://service.invalid")
    assert outcome.kind is Submitted.UNREACHABLE
    assert outcome.message == "cannot resolve the name service.invalid"


async def greet_as_plain_http(wire):
    await wire.read()
    await wire.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def read_and_reset(wire):
    await wire.read()
    wire.reset()


async def read_and_close(wire):
    await wire.read()


async def send_a_cut_greeting(wire):
    await wire.read()
    await wire.send(b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76")


async def read_and_stay_silent(wire):
    await wire.read()
    await asyncio.sleep(60)


HANDSHAKES = [
    greet_as_plain_http,
    read_and_reset,
    read_and_close,
    send_a_cut_greeting,
    reset_at_once,
    close_at_once,
    read_and_stay_silent,
]


@pytest.mark.parametrize("play", HANDSHAKES)
def test_a_failed_tls_handshake_is_not_sent(talk, monkeypatch, play):
    if play is read_and_stay_silent:
        monkeypatch.setattr(connections_module, "CONNECT_TIMEOUT", 0.15)
    outcome = talk.submit(play, BIG, origin=lambda server: f"https://127.0.0.1:{server.port}")
    assert outcome.kind is Submitted.UNREACHABLE
    assert talk.KEY.encode() not in talk.server.received
    assert b"POST" not in talk.server.received


def test_a_full_queue_of_connections_is_not_sent(monkeypatch):
    monkeypatch.setattr(connections_module, "CONNECT_TIMEOUT", 0.15)

    async def main():
        # A queue of one that nobody takes from: the kernel leaves the next ones unanswered.
        with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
            at = listener.getsockname()
            fillers = [socket.socket() for _ in range(4)]
            try:
                for filler in fillers:
                    filler.setblocking(False)
                    filler.connect_ex(at)
                async with Service(f"http://127.0.0.1:{at[1]}", ApiKey("k")) as service:
                    return await service.submit("{}", "key-1")
            finally:
                for filler in fillers:
                    filler.close()

    outcome = asyncio.run(main())
    assert (outcome.kind, outcome.message) == (Submitted.UNREACHABLE, "no connection within 0 s")


PROOF = {**UNANSWERED, **{f"handshake: {play.__name__}": play for play in HANDSHAKES}}


@pytest.mark.parametrize("name", PROOF)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_unreachable_only_where_no_byte_of_a_request_arrived(talk, monkeypatch, name, scheme):
    monkeypatch.setattr(connections_module, "CONNECT_TIMEOUT", 0.15)
    monkeypatch.setattr(service_module, "SUBMIT_TIMEOUT", 0.15)
    monkeypatch.setattr(service_module, "TRICKLE", 0.15)
    monkeypatch.setattr(service_module, "SLOWEST_UPLOAD", 1e9)
    monkeypatch.setattr(service_module, "MAX_ANSWER", 500_000)
    outcome = talk.submit(PROOF[name], BIG, origin=lambda server: f"{scheme}://127.0.0.1:{server.port}")
    if outcome.kind is Submitted.UNREACHABLE:
        assert talk.server.arrived == 0
    else:
        assert outcome.kind is Submitted.UNKNOWN or outcome.status == 400


# A connection that is kept, and closed by the server just when the next submission goes out.


@pytest.mark.parametrize("how", ["close", "reset", "close on the next request", "reset on the next request"])
@pytest.mark.parametrize("body", ["{}", BIG], ids=["small", "large"])
def test_a_submission_never_goes_out_on_a_connection_that_may_be_closing(talk, how, body):
    async def play(wire):
        while (request := await wire.request()) is not None:
            await wire.send(talk.http(200, ACCEPTED if request.method == "POST" else {"remain_balance": 1}))
            if how.endswith("next request"):
                await wire.read(1)
            if how.startswith("close"):
                wire.close()
            else:
                wire.reset()
            return

    async def calls(service):
        await service.balance()
        return [await service.submit(body, f"key-{number}") for number in range(3)]

    outcomes = talk.run(play, calls)
    assert [outcome.kind for outcome in outcomes] == [Submitted.ACCEPTED] * 3
    posts = [request for request in talk.server.requests if request.method == "POST"]
    assert [request.headers["idempotency-key"] for request in posts] == ["key-0", "key-1", "key-2"]
    assert talk.server.connections == 4


def test_idle_connections_count_for_the_limit(talk, monkeypatch):
    monkeypatch.setattr(service_module, "KEEP_ALIVE", 600.0)
    connections = set()

    async def main():
        submitted, polled = asyncio.Event(), asyncio.Barrier(4)

        async def play(wire):
            connections.add(wire)
            try:
                while (request := await wire.request()) is not None:
                    await (submitted if request.method == "POST" else polled).wait()
                    await wire.send(talk.http(200, ACCEPTED))
            finally:
                connections.discard(wire)

        async with talk.listening(play) as server, Service(server.origin, ApiKey("k"), connections=4) as service:
            await asyncio.gather(*(service.poll("task_1") for _ in range(4)))
            # From time to time aiohttp gathers the idle connections in a new place.
            service._transport.client.connector._cleanup()
            sending = [asyncio.ensure_future(service.submit("{}", f"key-{number}")) for number in range(4)]
            while len(server.requests) < 8 or len(connections) > 4:  # noqa: ASYNC110 - a time limit of the test ends it
                await asyncio.sleep(0.01)
            submitted.set()
            return await asyncio.gather(*sending)

    outcomes = asyncio.run(asyncio.wait_for(main(), 20))
    assert {outcome.kind for outcome in outcomes} == {Submitted.ACCEPTED}


def test_many_submissions_on_few_connections_are_each_sent_once(talk):
    async def many(service):
        return await asyncio.gather(*(service.submit("{}", f"key-{number}") for number in range(60)))

    outcomes = talk.run(talk.answering(talk.http(200, ACCEPTED)), many)
    assert {outcome.kind for outcome in outcomes} == {Submitted.ACCEPTED}
    assert sorted(request.headers["idempotency-key"] for request in talk.server.requests) == sorted(
        f"key-{number}" for number in range(60)
    )


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_carries_no_key(talk, status):
    async def main():
        async with talk.listening(talk.answering(talk.http(200, ACCEPTED))) as elsewhere:
            there = elsewhere.origin.replace("127.0.0.1", "localhost") + "/v1/images/generations"
            answer = talk.http(status, b"", headers=[f"Location: {there}"])
            async with (
                talk.listening(talk.answering(answer)) as server,
                Service(server.origin, ApiKey(talk.KEY)) as service,
            ):
                return await service.submit("{}", "key-1"), elsewhere

    outcome, elsewhere = asyncio.run(main())
    # See Other is an answer to a request that was executed; the others ask for it to be made elsewhere.
    kind = Submitted.UNKNOWN if status == 303 else Submitted.UNREACHABLE
    assert (outcome.kind, outcome.status) == (kind, status)
    assert status == 303 or f"set APIMART_BASE_URL=http://localhost:{elsewhere.port}" in outcome.message
    assert elsewhere.connections == 0


def test_a_cancelled_submission_raises(talk):
    async def call(_):
        sent = asyncio.Event()

        async def play(wire):
            await wire.request()
            sent.set()
            await asyncio.sleep(60)

        async with talk.listening(play) as server, Service(server.origin, ApiKey("k")) as other:
            sending = asyncio.create_task(other.submit("{}", "key-1"))
            await sent.wait()
            sending.cancel()
            await sending

    with pytest.raises(asyncio.CancelledError):
        talk.run(close_at_once, call)


def test_a_large_body_arrives_as_it_is(talk):
    body = json.dumps({"prompt": "".join(map(chr, range(0x20, 0x3000))) * 200}, ensure_ascii=False)
    outcome = talk.submit(talk.answering(talk.http(200, ACCEPTED)), body)
    [request] = talk.server.requests
    assert outcome.kind is Submitted.ACCEPTED
    assert request.body == body.encode()
    assert len(request.body) > 5_000_000
    assert "transfer-encoding" not in request.headers


def test_a_refusal_before_the_whole_body_was_read_counts(talk):
    async def play(wire):
        await wire.read()
        await wire.send(talk.http(413, b"", headers=["Connection: close"]))
        while await wire.read():
            pass

    assert talk.submit(play, BIG).kind is Submitted.REFUSED


LONG = f"Content-Security-Policy: img-src {' https://cdn.example.com' * 2600}\r\n".encode()
"""A header of more than 60 KB."""

LENGTH = b"Content-Length: %d\r\n" % len(WHOLE)

BROKEN_HTTP = {
    "both lengths": HEAD + LENGTH + CHUNKED[len(HEAD) :] + b"%x\r\n" % len(WHOLE) + WHOLE + b"\r\n0\r\n\r\n",
    "two lengths that differ": HEAD + LENGTH + b"Content-Length: 7\r\n\r\n" + WHOLE,
    "a length beyond all bounds": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n" + WHOLE,
    "a length that is no number": HEAD + b"Content-Length: x68\r\n\r\n" + WHOLE,
    "a long header": HEAD + LONG + LENGTH + b"\r\n" + WHOLE,
    "a header without a colon": HEAD + b"Oops\r\n" + LENGTH + b"\r\n" + WHOLE,
    "a control character in a header": HEAD + b"X-Odd: a\0b\r\n" + LENGTH + b"\r\n" + WHOLE,
    "a status line that is not UTF-8": b"HTTP/1.1 200 tr\xe8s bien\r\n" + LENGTH + b"\r\n" + WHOLE,
    "a name with a space": HEAD + b"X Odd : a\r\n" + LENGTH + b"\r\n" + WHOLE,
    "bare line feeds": (HEAD + LENGTH + b"\r\n").replace(b"\r\n", b"\n") + WHOLE,
    "no HTTP at all": WHOLE,
    "a version of its own": b"HTTP/2 200\r\n\r\n" + WHOLE,
    "said to be gzip": HEAD + b"Content-Encoding: gzip\r\n" + LENGTH + b"\r\n" + WHOLE,
    "in a coding that nobody knows": HEAD + b"Content-Encoding: aws-chunked\r\n" + LENGTH + b"\r\n" + WHOLE,
}


@pytest.mark.parametrize("how", BROKEN_HTTP)
@pytest.mark.parametrize("pieces", [1, 3, 40])
def test_a_task_id_in_broken_http_is_read(talk, how, pieces):
    data = BROKEN_HTTP[how]
    size = -(-len(data) // pieces)

    async def play(wire):
        await wire.request()
        for start in range(0, len(data), size):
            await wire.send(data[start : start + size])
            await asyncio.sleep(0)

    outcome = talk.submit(play)
    assert (outcome.kind, outcome.task_ids) == (Submitted.ACCEPTED, ("task_1",))


def test_a_task_id_in_a_large_answer_in_broken_http_is_read(talk):
    body = json.dumps({"data": [{"task_id": "task_1"}], "trace": "x" * 1_000_000}).encode()
    for line in (b"Content-Length: 7\r\n", b"X Odd: 1\r\n"):
        outcome = talk.submit(sending(HEAD + line + b"Content-Length: %d\r\n\r\n" % len(body) + body))
        assert (outcome.kind, outcome.task_ids) == (Submitted.ACCEPTED, ("task_1",))


def test_broken_http_on_a_connection_that_stays_open_is_read_at_once(talk):
    async def play(wire):
        while await wire.request() is not None:
            await wire.send(BROKEN_HTTP["both lengths"])

    async def twice(service):
        return [await service.submit("{}", f"key-{number}") for number in range(2)]

    assert {outcome.kind for outcome in talk.run(play, twice)} == {Submitted.ACCEPTED}


def test_refusals_in_broken_http_are_refusals(talk):
    body = json.dumps(error(402)).encode()
    head = b"HTTP/1.1 402 No\r\nContent-Length: %d\r\nContent-Length: 7\r\n\r\n" % len(body)
    assert talk.submit(sending(head + body)).kind is Submitted.UNPAID


@pytest.mark.parametrize("status", [400, 402, 403, 429])
@pytest.mark.parametrize("body", [b"quota exceeded", b'"quota exceeded"', b" Quota exceeded\n"])
def test_words_about_the_balance_count_in_plain_text(talk, status, body):
    outcome = talk.submit(sending(talk.http(status, body)))
    assert (outcome.kind, outcome.message.lower()) == (Submitted.UNPAID, "quota exceeded")
