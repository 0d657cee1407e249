"""The API key shows itself nowhere but in the header of a request."""

import asyncio
import copy
import io
import json
import logging
import pickle
import traceback

import pytest

from seedream_batch.api.images import ImageClient
from seedream_batch.api.secret import ApiKey
from seedream_batch.api.service import Service
from seedream_batch.errors import SeedreamBatchError, UsageError

CANARY = "sk-canary-7f3a9b2c51"


def shown(thing):
    return [
        repr(thing),
        str(thing),
        f"{thing}",
        f"{thing!r:>40}",
        format(thing),
        "%s %r" % (thing, thing),  # noqa: UP031 - what logging does
        ascii(thing),
        repr([thing]),
        repr({"key": thing}),
    ]


def test_no_way_of_showing_a_key_shows_it():
    key = ApiKey(CANARY)
    assert key.header() == f"Bearer {CANARY}"
    assert not any(CANARY in text for text in shown(key))
    assert not hasattr(key, "__dict__")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_key_is_not_pickled(protocol):
    with pytest.raises(TypeError, match="not to be pickled"):
        pickle.dumps(ApiKey(CANARY), protocol)


@pytest.mark.parametrize("do", [copy.copy, copy.deepcopy, json.dumps])
def test_a_key_is_not_copied_into_something_else(do):
    with pytest.raises(TypeError) as told:
        do(ApiKey(CANARY))
    assert CANARY not in str(told.value)


def test_a_log_line_has_no_key():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("seedream_batch.test_secret")
    logger.addHandler(handler)
    logger.error("a %s b %r", ApiKey(CANARY), {"key": ApiKey(CANARY)})
    logger.removeHandler(handler)
    assert "ApiKey(***)" in stream.getvalue()
    assert CANARY not in stream.getvalue()


NO_KEYS = ["", "  \n", "two words", "tab\there", "line\nbreak", "caf\u00e9", "quo\u201dte", "a\x00b"]


@pytest.mark.parametrize("value", NO_KEYS)
def test_what_is_no_key_is_refused_and_not_repeated(value):
    with pytest.raises(UsageError) as told:
        ApiKey(value)
    assert not value.strip() or value.strip() not in str(told.value)


def test_space_around_a_key_is_no_part_of_it():
    assert ApiKey(f" {CANARY}\n").header() == f"Bearer {CANARY}"


def test_clients_and_requests_show_no_key(talk):
    requests = []

    async def main():
        async with talk.listening(talk.answering(talk.http(200, {"data": {"status": "processing"}}))) as server:
            service, images = Service(server.origin, ApiKey(CANARY)), ImageClient(server.origin)

            exchange = service._transport.handle_async_request

            async def keep(request):
                requests.append(request)
                return await exchange(request)

            service._transport.handle_async_request = keep
            async with service, images:
                await service.poll("task_1")
                session = images._session(proxied=False)
                return [
                    *shown(service),
                    *shown(images),
                    *shown(service._transport),
                    *shown(session),
                    repr(session.headers),
                ]

    texts = asyncio.run(main())
    [request] = requests
    assert request.headers["authorization"] == f"Bearer {CANARY}", "the request does carry it"
    texts += [*shown(request), repr(request.headers), str(request.headers)]
    assert not any(CANARY in text for text in texts)


async def reset(wire):
    await wire.request()
    wire.reset()


def test_errors_show_no_key(talk):
    async def main(play):
        async with talk.listening(play) as server, Service(server.origin, ApiKey(CANARY)) as service:
            texts = [repr(await service.submit("{}", "key-1")), repr(await service.poll("task_1"))]
            for call in (service.balance, lambda: service.upload(b"x", "image/png")):
                with pytest.raises(SeedreamBatchError) as told:
                    await call()
                texts.append("".join(traceback.format_exception(told.value)))
                cause = told.value
                while cause is not None:
                    texts += [repr(cause), str(cause), repr(cause.__dict__)]
                    cause = cause.__cause__ or cause.__context__
            return texts

    for play in (reset, talk.answering(talk.http(401, b"")), talk.answering(b"garbage\r\n\r\n")):
        texts = asyncio.run(main(play))
        assert not any(CANARY in text for text in texts)
