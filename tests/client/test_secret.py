"""The API key shows itself nowhere but in the header of a request."""

import asyncio
import base64
import copy
import html
import io
import json
import logging
import os
import pickle
import re
import traceback
from urllib.parse import quote, unquote

import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from seedream_batch.client.images import ImageClient
from seedream_batch.client.secret import ApiKey, known_secrets
from seedream_batch.client.service import Service
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
    with pytest.raises(TypeError, match="cannot be pickled"):
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


REALISTIC = "sk-Zm9v/YmFy+cXV4==0123"

WAYS = {
    "as it is": lambda key: key,
    "in capitals": str.upper,
    "with its end in stars": lambda key: key[:-4] + "****",
    "JSON": lambda key: "".join(f"\\u{ord(char):04x}" for char in key),
    "JSON in capitals": lambda key: "".join(f"\\u{ord(char):04X}" for char in key),
    "JSON, here and there": lambda key: key.replace("/", "\\/").replace("+", "\\u002B").replace("=", "\\u003d"),
    "JSON in JSON": lambda key: json.dumps("".join(f"\\u{ord(char):04x}" for char in key))[1:-1],
    "JavaScript": lambda key: "".join(f"\\x{ord(char):02x}" for char in key),
    "JavaScript in braces": lambda key: "".join(f"\\u{{{ord(char):x}}}" for char in key),
    "octal": lambda key: "".join(f"\\{ord(char):03o}" for char in key),
    "URL": lambda key: quote(key, safe=""),
    "URL, all of it": lambda key: "".join(f"%{ord(char):02x}" for char in key),
    "URL in URL": lambda key: quote(quote(key, safe=""), safe=""),
    "HTML": lambda key: "".join(f"&#{ord(char)};" for char in key),
    "HTML, hexadecimal": lambda key: "".join(f"&#x{ord(char):X};" for char in key),
    "HTML with names": lambda key: key.replace("+", "&plus;").replace("/", "&sol;").replace("=", "&equals;"),
    "HTML in HTML": lambda key: html.escape("".join(f"&#{ord(char)};" for char in key)),
    "URL in JSON": lambda key: "".join(f"\\u{ord(char):04x}" for char in quote(key, safe="")),
    "hexadecimal": lambda key: key.encode().hex(),
    "hexadecimal in capitals": lambda key: key.encode().hex().upper(),
    "hexadecimal without its end": lambda key: key.encode().hex()[:-4],
    "base64 without its ends": lambda key: base64.b64encode(key.encode()).decode()[3:-4],
    "broken into lines": lambda key: f"{key[:7]}\r\n\t{key[7:]}",
    "broken by what cannot be seen": "\u200b".join,
    **{
        f"base64 {form.__name__} {before}+{after}": lambda key, form=form, before=before, after=after: form(
            b"x" * before + key.encode() + b"y" * after
        ).decode()
        for form in (base64.b64encode, base64.urlsafe_b64encode)
        for before in range(3)
        for after in range(3)
    },
}


def meant(text):
    """Every text that this one may stand for, without what cannot be seen."""
    texts = {text}
    for _ in range(4):
        for one in list(texts):
            texts |= {
                unquote(one),
                html.unescape(one),
                re.sub(r"\\+u00([0-9a-fA-F]{2})", lambda f: chr(int(f[1], 16)), one),
            }
    return {"".join(one.split()).replace("\u200b", "").lower() for one in texts}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("key", [CANARY, REALISTIC])
def test_no_encoding_hides_a_key(key, way):
    text = f'{{"message": "before {WAYS[way](key)} behind"}}'
    masked = ApiKey(key).masked(text)
    assert "***" in masked
    # Also where nothing follows.
    assert "***" in ApiKey(key).masked(WAYS[way](key))
    assert masked.startswith('{"message": "before ')
    assert masked.endswith(' behind"}')
    assert not any(key[at : at + 12].lower() in one for one in meant(masked) for at in range(len(key) - 11))
    assert ApiKey(key).removed_from(b"\xff" + text.encode()) == b"\xff" + masked.encode()


@given(
    st.lists(st.text() | st.sampled_from(["%", "&#", "\\", "\\u00", "=", "***"])).map("".join),
    st.lists(st.sampled_from(range(7)), min_size=len(REALISTIC), max_size=len(REALISTIC)),
    st.text(),
)
@settings(max_examples=examples(300))
def test_no_mixture_of_encodings_hides_a_key(before, forms, behind):
    ways = ("{0}", "\\u{1:04x}", "%{1:02X}", "&#{1};", "&#x{1:x};", "\\{0}", " {0}")
    # A backslash before a letter or a digit would mean something else.
    hidden = "".join(
        ways[0 if form == 5 and char.isalnum() else form].format(char, ord(char))
        for form, char in zip(forms, REALISTIC, strict=True)
    )
    masked = ApiKey(REALISTIC).masked(f"{before} <{hidden}> {behind}")
    assert f"<{hidden}>" not in masked
    assert "***" in masked


@given(st.text() | st.lists(st.sampled_from(["\\", "%", "&", "u0073", "25", "#x73;", "sk-", "a"])).map("".join))
@settings(max_examples=examples(300))
def test_other_text_stays_as_it_is(text):
    key = ApiKey("sk-1234567890abcdefghijk")
    assert key.masked(text) == text
    data = text.encode(errors="surrogatepass")
    assert key.removed_from(data) == data


def test_answers_that_repeat_the_key_have_it_masked(talk):
    hidden = "".join(f"\\u{ord(char):04x}" for char in REALISTIC)
    body = f'{{"error": {{"code": "bad", "message": "bad key {hidden}, {quote(REALISTIC, safe="")}"}}}}'.encode()

    async def main(answer):
        play = talk.answering(answer)
        async with talk.listening(play) as server, Service(server.origin, ApiKey(REALISTIC)) as service:
            return repr(await service.submit("{}", "key-1")) + repr(await service.poll("task_1"))

    for status in (200, 400, 401, 404, 500):
        told = asyncio.run(main(talk.http(status, body)))
        assert "***" in told
        assert not any(
            REALISTIC[at : at + 12].lower() in one for one in meant(told) for at in range(len(REALISTIC) - 11)
        )


def test_a_key_in_utf_16_is_found():
    assert CANARY.encode("utf-16-le") not in ApiKey(CANARY).removed_from(f"x {CANARY} y".encode("utf-16"))


def test_the_secrets_of_the_environment(tmp_path):
    (tmp_path / "key").write_text("sk-of-the-file-7f3a9b\n")
    environment = {
        "APIMART_API_KEY": CANARY, "APIMART_API_KEY_FILE": str(tmp_path / "key"), "PGPASSWORD": "pass word",
        "AWS_SECRET_ACCESS_KEY": "aws/secret+x", "https_proxy": "http://me:pr%40xy-word@proxy:8080", "HOME": "/root",
    }  # fmt: skip
    secrets = known_secrets(environment, ["of%20the%20url"])
    for value in (CANARY, "sk-of-the-file-7f3a9b", "pass word", "aws%2Fsecret%2Bx", "pr@xy-word", "of the url"):
        assert secrets.within(f"x{value}y"), value
        assert secrets.masked(f"x {value} y") == "x *** y"
    assert not secrets.within("/usr/bin:/bin http://proxy:8080 me password")
    assert not any(CANARY in text for text in shown(secrets))


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), os.mkfifo, lambda path: path.symlink_to(path)])
def test_a_file_of_the_key_that_is_none_has_no_secrets(tmp_path, make):
    make(tmp_path / "key")
    assert known_secrets({"APIMART_API_KEY_FILE": str(tmp_path / "key")}).masked(CANARY) == CANARY


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
                session = images._session(None)
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
