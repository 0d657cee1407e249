"""Downloads over real sockets: whole, gone, broken or refused, and nothing of ours goes along."""

import asyncio
import functools
import ipaddress
import re
import socket
from urllib.parse import parse_qsl

import pytest

from seedream_batch.client import images as images_module
from seedream_batch.client.images import MAX_REDIRECTS, Download, ImageClient, PublicResolver, is_public, read_url
from seedream_batch.client.secret import ApiKey
from seedream_batch.client.service import ForbiddenAddress, Service
from seedream_batch.emulator import Emulator, EmulatorConfig
from seedream_batch.model.outcome import Fetched, Polled

BYTES = bytes(range(256)) * 400
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def sending(*parts, reset=False):
    async def play(wire):
        await wire.request()
        await wire.send(*parts)
        if reset:
            wire.reset()

    return play


def chunk(data):
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


@pytest.mark.parametrize(
    "parts",
    [
        [HEAD + f"Content-Length: {len(BYTES)}\r\n\r\n".encode(), BYTES],
        [CHUNKED, chunk(BYTES[:1000]), chunk(BYTES[1000:]), b"0\r\n\r\n"],
        [HEAD + b"\r\n", BYTES],
    ],
    ids=["length", "chunked", "until the end"],
)
def test_a_whole_download(talk, parts):
    download, got = talk.fetch(sending(*parts))
    assert (download.kind, download.bytes, download.status) == (Fetched.WHOLE, len(BYTES), 200)
    assert got == BYTES


@pytest.mark.parametrize("status", [203, 206])
def test_a_whole_download_under_another_status(talk, status):
    download, got = talk.fetch(talk.answering(talk.http(status, BYTES)))
    assert (download.kind, download.status, got) == (Fetched.WHOLE, status, BYTES)


def test_what_is_sent(talk):
    talk.fetch(talk.answering(talk.http(200, BYTES)), "/a%20b/0.png?sig=a%2Fb%3D&x=1+2&y=3%2B4")
    [request] = talk.server.requests
    path, _, query = request.target.partition("?")
    assert (path, parse_qsl(query)) == ("/a%20b/0.png", [("sig", "a/b="), ("x", "1 2"), ("y", "3+4")])
    assert request.headers["accept-encoding"] == "identity"
    assert not {"authorization", "idempotency-key", "cookie"} & set(request.headers)


def test_html_is_whole_by_http(talk):
    download, got = talk.fetch(talk.answering(talk.http(200, b"<html>no image</html>")))
    assert (download.kind, got) == (Fetched.WHOLE, b"<html>no image</html>")


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_dead_link(talk, status):
    download, got = talk.fetch(talk.answering(talk.http(status, b"expired")))
    assert (download.kind, download.status, got) == (Fetched.GONE, status, b"")


@pytest.mark.parametrize("status", [201, 204, 206, 300, 304, 400, 401, 402, 405, 416, 429, 500, 502, 503, 504])
def test_another_status_is_broken(talk, status):
    download, got = talk.fetch(talk.answering(talk.http(status, b"", headers=["Content-Range: bytes 5-5/9"])))
    assert (download.kind, download.status, got) == (Fetched.BROKEN, status, b"")


BROKEN = {
    "closed at once": sending(),
    "reset": sending(reset=True),
    "cut headers": sending(HEAD),
    "no body": sending(HEAD + b"Content-Length: 100\r\n\r\n"),
    "too few bytes": sending(HEAD + f"Content-Length: {len(BYTES) + 1}\r\n\r\n".encode(), BYTES),
    "too few bytes, reset": sending(HEAD + f"Content-Length: {len(BYTES) + 1}\r\n\r\n".encode(), BYTES, reset=True),
    "cut chunk": sending(CHUNKED, b"ffff\r\n", BYTES[:100]),
    "cut between chunks": sending(CHUNKED, chunk(BYTES[:100])),
    "cut before the last chunk's end": sending(CHUNKED, chunk(BYTES[:100]), b"0\r\n"),
    "garbage between chunks": sending(CHUNKED, chunk(BYTES[:100]), b"garbage\r\n"),
    "garbage": sending(b"\x00\x01\x02\r\n\r\n"),
    "a redirect to nowhere": sending(b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\nContent-Length: 0\r\n\r\n"),
    "a redirect without a target": sending(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"),
}


@pytest.mark.parametrize("play", BROKEN.values(), ids=BROKEN)
def test_a_broken_download(talk, play):
    download, _ = talk.fetch(play)
    assert download.kind is Fetched.BROKEN
    assert download.message.isprintable()


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", b"Content-Length: many\r\n\r\nabcd",
        b"Content-Length: -4\r\n\r\nabcd", b"X Odd: 1\r\nContent-Length: 3\r\n\r\nabc",
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ],
)  # fmt: skip
def test_a_response_that_violates_http_is_read(talk, head):
    download, got = talk.fetch(sending(HEAD + head))
    assert (got[:3], download.kind in {Fetched.WHOLE, Fetched.BROKEN}) == (b"abc", True)


def test_a_large_image_in_a_response_that_violates_http_is_read(talk):
    data = bytes(range(256)) * 40_000
    head = f"Content-Length: {len(data)}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    download, got = talk.fetch(sending(HEAD + head, chunk(data), b"0\r\n\r\n"))
    assert (download.kind, got == data) == (Fetched.WHOLE, True), (download, len(got))


@pytest.mark.parametrize("total", [len(BYTES), "*"])
def test_a_whole_image_as_a_range_that_was_not_asked_for(talk, total):
    headers = [f"Content-Range: bytes 0-{len(BYTES) - 1}/{total}"]
    download, got = talk.fetch(talk.answering(talk.http(206, BYTES, headers=headers)))
    assert (download.kind, got) == (Fetched.WHOLE, BYTES)


def test_the_first_part_of_an_image_that_was_not_asked_for_is_not_the_whole(talk):
    headers = [f"Content-Range: bytes 0-{len(BYTES) - 1}/{2 * len(BYTES)}"]
    download, got = talk.fetch(talk.answering(talk.http(206, BYTES, headers=headers)))
    assert (download.kind, got) == (Fetched.BROKEN, BYTES)


def test_cookies_of_a_redirect_go_to_the_host_that_set_them(talk):
    first = talk.http(302, b"", headers=["Location: /0.png", 'Set-Cookie: seen="1"; Path=/; HttpOnly'])
    download, got = talk.fetch(talk.answering(first, talk.http(200, BYTES)))
    assert (download.kind, got) == (Fetched.WHOLE, BYTES)
    assert [request.headers.get("cookie") for request in talk.server.requests] == [None, 'seen="1"']


def test_too_short_a_length_gives_what_it_says(talk):
    # More than Content-Length is the next answer by the rules of HTTP; that the picture is cut shows in its bytes.
    download, got = talk.fetch(sending(HEAD + b"Content-Length: 100\r\n\r\n", BYTES))
    assert download.kind in {Fetched.WHOLE, Fetched.BROKEN}
    assert got in {BYTES[:100], b""}


@pytest.mark.parametrize("name", ["Identity", "", "aws-chunked", "gzip", "br", "x, y;z"])
def test_the_bytes_come_as_they_are_whatever_encoding_is_named(talk, name):
    download, got = talk.fetch(talk.answering(talk.http(200, BYTES, headers=[f"Content-Encoding: {name}"])))
    assert (download.kind, got) == (Fetched.WHOLE, BYTES)


def test_long_headers_are_read(talk):
    headers = [f"X-Policy: {'p' * 60_000}", f"Set-Cookie: {'c' * 60_000}"]
    download, got = talk.fetch(talk.answering(talk.http(200, BYTES, headers=headers)))
    assert (download.kind, got) == (Fetched.WHOLE, BYTES)


@pytest.mark.parametrize(
    ("status", "after", "wait", "lasting"),
    [(429, "45", 45.0, False), (503, "7", 7.0, False), (500, None, None, False), (401, None, None, True)],
)
def test_how_long_a_host_asks_to_wait(talk, status, after, wait, lasting):
    headers = [] if after is None else [f"Retry-After: {after}"]
    download, _ = talk.fetch(talk.answering(talk.http(status, b"", headers=headers)))
    assert (download.kind, download.retry_after, download.lasting) == (Fetched.BROKEN, wait, lasting)


@pytest.mark.parametrize(
    ("url", "data"),
    [
        ("data:image/png;base64,aGVsbG8=", b"hello"),
        ("DATA:image/png;BASE64,aGVs%62G8", b"hello"),
        ("data:,hello%21", b"hello!"),
        ("data:image/png;base64;aGVsbG8=", None),
        ("data:image/png;base64,a", None),
        ("data:,\udc86", None),
    ],
)
def test_an_image_in_its_url(talk, url, data):
    download, got = talk.fetch(talk.answering(b""), lambda _: url)
    assert (download.kind, got) == ((Fetched.REFUSED, b"") if data is None else (Fetched.WHOLE, data))
    assert talk.server.connections == 0


# Downloads that are cut off, and resumed


class Cutting:
    """Sends some bytes at a time and cuts; `ranges` says whether it knows ranges, `tags` names each version."""

    def __init__(self, talk, *, pieces=4, ranges=True, header="ETag", tags=('"1"',), lie=0):
        self._talk = talk
        self._size = -(-len(BYTES) // pieces)
        self._ranges = ranges
        self._header = header
        self._tags = list(tags)
        self._lie = lie
        self.asked = []

    async def __call__(self, wire):
        request = await wire.request()
        if request is None:
            return
        tag = self._tags.pop(0) if len(self._tags) > 1 else self._tags[0]
        self.asked.append((request.headers.get("range"), request.headers.get("if-range")))
        start, head = 0, "HTTP/1.1 200 OK"
        if self._ranges and request.headers.get("if-range") == tag:
            start = int(request.headers["range"].removeprefix("bytes=").removesuffix("-"))
            head = f"HTTP/1.1 206 Partial\r\nContent-Range: bytes {start + self._lie}-{len(BYTES) - 1}/{len(BYTES)}"
        named = f"{self._header}: {tag}\r\n" if tag else ""
        await wire.send(f"{head}\r\n{named}Content-Length: {len(BYTES) - start}\r\n\r\n".encode())
        end = start + self._size if self._ranges else start + self._size * len(self.asked)
        await wire.send(BYTES[start:end])


@pytest.fixture
def no_pauses(monkeypatch):
    monkeypatch.setattr(images_module, "RESUME_PAUSE", 0.001)


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize(("header", "tag"), [("ETag", '"1"'), ("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")])
def test_a_download_that_is_cut_off_goes_on(talk, ranges, header, tag):
    play = Cutting(talk, ranges=ranges, header=header, tags=[tag])
    download, got = talk.fetch(play)
    assert (download.kind, download.bytes, got) == (Fetched.WHOLE, len(BYTES), BYTES)
    assert play.asked == [(None, None), *((f"bytes={25_600 * n}-", tag) for n in (1, 2, 3))]


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize(
    "server",
    [{"tags": ['"1"', '"2"']}, {"tags": [""]}, {"tags": ['W/"1"']}, {"lie": 7}],
    ids=["another version", "no version", "a weak version", "another range"],
)
def test_two_halves_of_what_may_be_two_images_are_not_put_together(talk, server):
    play = Cutting(talk, **server)
    download, got = talk.fetch(play)
    assert download.kind is Fetched.BROKEN
    assert got == BYTES[:25_600]


@pytest.mark.usefixtures("no_pauses")
def test_a_download_that_does_not_go_on_ends(talk):
    async def play(wire):
        await wire.request()
        await wire.send(HEAD + f'ETag: "1"\r\nContent-Length: {len(BYTES)}\r\n\r\n'.encode(), BYTES[:100])

    download, got = talk.fetch(play)
    assert (download.kind, got) == (Fetched.BROKEN, BYTES[:100])
    assert len(talk.server.requests) == 1 + images_module.MOST_PAUSES


@pytest.mark.parametrize("announced", [True, False])
def test_more_than_an_image_has(talk, monkeypatch, announced):
    monkeypatch.setattr(images_module, "MAX_IMAGE", 50_000)
    length = f"Content-Length: {len(BYTES)}\r\n".encode() if announced else b""
    download, got = talk.fetch(sending(HEAD + length + b"\r\n", BYTES))
    assert download.kind is Fetched.BROKEN
    assert "more than 50,000 bytes" in download.message
    assert len(got) <= 50_000


def test_silence_and_a_trickle_end(talk, monkeypatch):
    async def stay_silent(wire):
        await wire.request()
        await asyncio.sleep(60)

    async def trickle(wire):
        await wire.request()
        await wire.send(HEAD + b"\r\n")
        while True:
            await wire.send(b"x")
            await asyncio.sleep(0.01)

    monkeypatch.setattr(images_module, "READ_TIMEOUT", 0.1)
    assert talk.fetch(stay_silent)[0].kind is Fetched.BROKEN
    monkeypatch.setattr(images_module, "SLOW_WINDOW", 0.2)
    assert re.fullmatch(r"only [0-9]+ bytes received in 0 s", talk.fetch(trickle)[0].message)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), TimeoutError("disk"), ValueError("x")])
def test_what_take_raises_is_the_callers(talk, error):
    async def take(_):
        raise error

    with pytest.raises(type(error)) as told:
        talk.fetch(talk.answering(talk.http(200, BYTES)), take=take)
    assert told.value is error


# Redirects


def redirect(location, status=302):
    return f"HTTP/1.1 {status} Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["/there.png", "there.png", "?there.png", "//{host}/there.png"])
def test_a_redirect_is_followed(talk, status, location):
    async def play(wire):
        while (request := await wire.request()) is not None:
            if "there" in request.target:
                await wire.send(talk.http(200, BYTES))
            else:
                await wire.send(redirect(location.format(host=request.headers["host"]), status))

    download, got = talk.fetch(play, "/folder/0.png")
    assert (download.kind, got) == (Fetched.WHOLE, BYTES)
    assert [request.method for request in talk.server.requests] == ["GET", "GET"]


def test_redirects_in_a_circle_end(talk):
    download, _ = talk.fetch(talk.answering(redirect("/0.png")))
    assert (download.kind, download.message) == (Fetched.BROKEN, f"more than {MAX_REDIRECTS} redirects")
    assert len(talk.server.requests) == MAX_REDIRECTS + 1


def test_a_redirect_to_another_host_carries_nothing_along(talk):
    async def main():
        async with talk.listening(talk.answering(talk.http(200, BYTES))) as elsewhere:
            there = elsewhere.origin.replace("127.0.0.1", "localhost") + "/0.png"
            first = talk.http(302, b"", headers=[f"Location: {there}", "Set-Cookie: a=b"])
            async with talk.listening(talk.answering(first)) as server, ImageClient(server.origin) as images:
                got = bytearray()
                download = await images.fetch(server.origin + "/0.png", talk.into(got))
                return download, bytes(got), elsewhere.requests

    download, got, [request] = asyncio.run(main())
    assert (download.kind, got) == (Fetched.WHOLE, BYTES)
    assert set(request.headers) == {"host", "user-agent", "accept-encoding", "accept", "connection"} & set(
        request.headers
    )


@pytest.mark.parametrize(
    "location", ["http://192.168.0.1/", "http://169.254.169.254/latest/meta-data/", "file:///etc/passwd", "ftp://x/"]
)
def test_a_redirect_to_where_no_image_is(talk, location):
    download, got = talk.fetch(talk.answering(redirect(location)))
    assert (download.kind, got) == (Fetched.REFUSED, b"")
    assert len(talk.server.requests) == 1


# Where images may come from

PUBLIC = "https://api.apimart.ai"
LOCAL = "http://127.0.0.1:8089"


client = functools.cache(ImageClient)


def refusal(url, origin=PUBLIC):
    """Why a URL is not asked, empty if it is."""
    asked = read_url(url)
    return "the URL cannot be read" if asked is None else client(origin).refusal(asked)


@pytest.mark.parametrize(
    "url",
    [
        "https://img.example.com/0.png",
        "HTTPS://IMG.EXAMPLE.COM/0.png",
        "https://img.example.com:8443/0.png",
        "https://img.example.com./0.png",
        "https://img_1.example.com/0.png",
        "https://b\u00fccher.example/0.png",
        "https://xn--bcher-kva.example/0.png",
        "https://3.example.com/0.png",
        "https://127.0.0.1.example.com/0.png",
        "https://localhost.example.com/0.png",
        "https://8.8.8.8/0.png",
        "https://[2606:4700::1111]/0.png",
        "https://[::ffff:8.8.8.8]/0.png",
        "https://[64:ff9b::8.8.8.8]/0.png",
    ],
)
def test_public_urls(url):
    assert refusal(url) == ""


FORBIDDEN_HOSTS = [
    *("localhost", "LOCALHOST", "localhost.", "images.localhost", "127.0.0.1", "127.1.2.3", "0.0.0.0"),
    *("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "169.254.169.254", "192.0.2.1"),
    *("198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
    *("[::1]", "[::]", "[fe80::1]", "[fc00::1]", "[fd00:ec2::254]", "[ff02::1]", "[2001:db8::1]", "[fec0::1]"),
    *("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:169.254.169.254]", "[::127.0.0.1]", "[64:ff9b::127.0.0.1]"),
    *("[64:ff9b:1::7f00:1]", "[64:ff9b:1::8.8.8.8]", "[::ffff:0:127.0.0.1]", "[5f00::1]", "192.88.99.1", "198.19.0.1"),
    *("[2002:7f00:1::]", "[2002:a9fe:a9fe::]", "[2001:0:4136:e378:8000:63bf:80ff:fffe]"),
    # The same in disguise.
    *("2130706433", "017700000001", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "127.1", "127.0.1", "127.0.0.1."),
    *(
        "127.0.0.0x1",
        "127\u30020\u30020\u30021",
        "\uff11\uff12\uff17.0.0.1",
        "\u2460\u2461\u2466.0.0.1",
        "%31%32%37.0.0.1",
    ),
    *("1", "0", "0x", "example.1", "example.0x1", "256.256.256.256", "8.8.8.8.8"),
    *("user@127.0.0.1", "example.com@127.0.0.1", "user:pass@[::1]", "example.com\\@127.0.0.1"),
]


@pytest.mark.parametrize("host", FORBIDDEN_HOSTS)
def test_hosts_that_no_image_lives_at(host):
    assert refusal(f"https://{host}/0.png") != ""
    assert refusal(f"https://{host}:8443/0.png") != ""


@pytest.mark.parametrize(
    "url",
    [
        "ftp://img.example.com/0.png",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "//img.example.com/0.png",
        "/0.png",
        "0.png",
        "",
        "https://",
        "https:///0.png",
        "https://[::1",
        "https://[v1.x]/",
        "https://exa mple.com/",
        "https://example.com\x00.evil/",
        "https://example.com:port/",
        "https://" + "x" * 70_000 + ".com/",
        "https://exam\nple.com/",
        "https://example.com:0/",
        "https://example.com:65536/",
        "https://example.com:99999/a.png",
        "http:////..fe80::1%25e",
        "http:////[v1.a]1e3+&@",
        "https://[fe80::1%25eth0]/",
        "https://\ud800/",
        "https://\u00ad/",
    ],
)
def test_what_is_no_url_of_an_image(talk, url):
    assert refusal(url) != ""

    async def never(wire):
        await wire.read()

    for where in (PUBLIC, None):
        download, _ = talk.fetch(never, lambda _: url, origin=where)
        assert download.kind is (Fetched.WHOLE if url.startswith("data:") else Fetched.REFUSED)
        assert download.message.isprintable()


@pytest.mark.parametrize("location", ["http://127.0.0.1:99999/a.png", "http:////[v1.a]1e3+&@", "http://[::1%25e]:1/"])
def test_a_redirect_to_what_cannot_be_asked(talk, location):
    download, got = talk.fetch(talk.answering(redirect(location)))
    assert download.kind in {Fetched.REFUSED, Fetched.BROKEN}
    assert got == b""


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("http://img.example.com/0.png?a=b", "https://img.example.com/0.png?a=b"),
        ("http://img.example.com:80/0.png", "https://img.example.com/0.png"),
        ("http://img.example.com:8080/a:80", "https://img.example.com:8080/a:80"),
    ],
)
def test_what_is_asked_for_over_http_is_asked_for_over_https(monkeypatch, url, asked):
    seen = []

    async def note(_, url, __):
        seen.append(str(url))
        return Download(Fetched.GONE)

    async def take(_):
        raise AssertionError

    monkeypatch.setattr(ImageClient, "_get", note)
    asyncio.run(ImageClient(PUBLIC).fetch(url, take))
    assert seen == [asked]


def test_a_service_on_this_machine_gives_images_of_this_machine():
    assert refusal("http://127.0.0.1:9/0.png", LOCAL) == ""
    assert refusal("http://localhost:9/0.png", LOCAL) == ""
    assert refusal("http://[::1]:9/0.png", LOCAL) == ""
    for url in (
        "http://example.com/",
        "https://example.com/",
        "http://10.0.0.1/",
        "http://169.254.169.254/",
        "ftp://127.0.0.1/",
    ):
        assert refusal(url, LOCAL) != ""


@pytest.mark.parametrize("host", FORBIDDEN_HOSTS)
def test_nothing_is_asked_of_a_forbidden_host(talk, host):
    async def never(wire):
        await wire.read()

    download, _ = talk.fetch(never, lambda server: f"https://{host}:{server.port}/0.png", origin=PUBLIC)
    assert download.kind is Fetched.REFUSED
    assert talk.server.connections == 0


def test_the_resolver_gives_no_private_address():
    async def main():
        resolver = PublicResolver()
        try:
            return await resolver.resolve("localhost", 443)
        finally:
            await resolver.close()

    with pytest.raises(ForbiddenAddress, match=r"localhost resolves to .*, which is not public"):
        asyncio.run(main())


@pytest.mark.parametrize(
    ("addresses", "given"),
    [
        (["198.18.0.7"], ["198.18.0.7"]),
        (["198.19.255.255", "fc00::1"], ["198.19.255.255"]),
        (["10.0.0.1", "8.8.8.8"], ["8.8.8.8"]),
        (["10.0.0.1", "::1"], None),
        ([], None),
    ],
)
def test_names_that_a_proxy_of_this_machine_answers_itself(monkeypatch, addresses, given):
    def getaddrinfo(_, port, **__):
        kinds = [socket.AF_INET6 if ":" in one else socket.AF_INET for one in addresses]
        return [(kind, socket.SOCK_STREAM, 6, "", (one, port)) for kind, one in zip(kinds, addresses, strict=True)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    looked_up = PublicResolver().resolve("img.example.com", 443)
    if given is None:
        with pytest.raises(ForbiddenAddress, match="not public"):
            asyncio.run(looked_up)
    else:
        assert [one["host"] for one in asyncio.run(looked_up)] == given


def test_a_name_that_leads_to_this_machine_is_not_asked(talk, monkeypatch):
    # The check of the URL alone would let it pass; so would a name in anybody's DNS.
    monkeypatch.setattr(ImageClient, "refusal", lambda _, __: "")

    async def never(wire):
        await wire.read()

    download, _ = talk.fetch(never, lambda server: f"https://localhost:{server.port}/0.png", origin=PUBLIC)
    assert download.kind is Fetched.BROKEN
    assert download.message.startswith("localhost resolves to")
    assert "which is not public" in download.message
    assert talk.server.connections == 0


def test_public_addresses():
    for text in ("8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "2002:808:808::", "64:ff9b::808:808"):
        assert is_public(ipaddress.ip_address(text)), text
    for host in FORBIDDEN_HOSTS[:6]:
        if host[0].isdigit():
            assert not is_public(ipaddress.ip_address(host)), host


def test_no_proxy_does_not_open_the_inside(talk, monkeypatch):
    # A host that no_proxy names is asked directly, and then it must be a public one.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "localhost")
    monkeypatch.setattr(ImageClient, "refusal", lambda _, __: "")

    async def never(wire):
        await wire.read()

    download, _ = talk.fetch(never, lambda server: f"https://localhost:{server.port}/0.png", origin=PUBLIC)
    assert download.message.startswith("localhost resolves to")
    assert "which is not public" in download.message
    assert talk.server.connections == 0


def test_a_proxy_is_asked_for_public_images(talk, monkeypatch):
    async def refuse(wire):
        await wire.request()
        await wire.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    async def main():
        async with talk.listening(refuse) as server:
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.port}")
            monkeypatch.delenv("no_proxy", raising=False)
            async with ImageClient(PUBLIC) as images:
                return await images.fetch("https://img.example.com/0.png", talk.into(bytearray())), server.requests

    download, [request] = asyncio.run(main())
    assert download.kind is Fetched.BROKEN
    assert (request.method, request.target) == ("CONNECT", "img.example.com:443")


def test_passwords_of_netrc_go_to_no_image_host(talk, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("default login me password from-netrc\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    talk.fetch(talk.answering(talk.http(200, BYTES)))
    assert "authorization" not in talk.server.requests[0].headers


# The emulator as a second witness


def test_images_of_the_emulator(talk):
    async def main(emulator):
        async with Service(emulator.url, ApiKey("any")) as service, ImageClient(emulator.url) as images:
            accepted = await service.submit('{"model":"doubao-seedance-4-5","prompt":"a fox"}', "key-1")
            while (poll := await service.poll(accepted.task_ids[0])).kind is not Polled.COMPLETED:
                pass
            url = poll.images[0].url
            kinds = {}
            for action in ("long_length", "cut_chunked", "gzip", "redirect_loop", "expired", "html_200", "wrong_type"):
                emulator.set_faults([{"on": "image", "action": action}])
                kinds[action] = (await images.fetch(url, talk.into(bytearray()))).kind
            emulator.set_faults([])
            got = bytearray()
            return kinds, (await images.fetch(url, talk.into(got))).kind, bytes(got[:3])

    with Emulator(EmulatorConfig(task_seconds="fixed:0", image_size="tiny")) as emulator:
        kinds, kind, start = asyncio.run(main(emulator))
        assert emulator.stats()["leaked_credentials"] == 0
    assert kinds == {
        "long_length": Fetched.BROKEN,
        "cut_chunked": Fetched.BROKEN,
        "gzip": Fetched.WHOLE,
        "redirect_loop": Fetched.BROKEN,
        "expired": Fetched.GONE,
        "html_200": Fetched.WHOLE,
        "wrong_type": Fetched.WHOLE,
    }
    assert (kind, start) == (Fetched.WHOLE, b"\xff\xd8\xff")
