"""URLs of images and redirects, fuzzed: none may raise, and none may lead where no image is."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from http.cookies import SimpleCookie
from typing import ClassVar

from fuzz_claims import CORPUS, claim

ORIGINS = ("https://api.example.com", "http://127.0.0.1:8089")


class UrlTarget:
    """The URLs of a task's images, or a URL and where it redirects to, in lines of their own."""

    def __init__(self, _folder):
        import aiohttp

        from seedream_batch.client import images
        from seedream_batch.model.outcome import Fetched

        self._images = images
        self._fetched = Fetched
        self._asked = []
        self._locations = []
        self._loop = asyncio.new_event_loop()
        self._clients = [images.ImageClient(origin) for origin in ORIGINS]
        target = self

        class Session:
            """Notes what would be asked, after all that the HTTP library itself does with a URL."""

            async def get(self, url, **settings):
                del settings
                target._asked.append(url)
                if target._locations:
                    return Redirect(target._locations.pop(0))
                raise aiohttp.ClientConnectionError("nobody is there")

        class Redirect:
            status = 302
            cookies: ClassVar = SimpleCookie("session=1")

            def __init__(self, location):
                self.headers = {"location": location}

            def close(self):
                """Nothing is open."""

        for client in self._clients:
            client._session = lambda _: Session()

    def __call__(self, data):
        url, *locations = data.decode("utf-8", "surrogateescape").split("\n")
        for client in self._clients:
            self._asked.clear()
            self._locations[:] = locations[:8]
            got = bytearray()

            async def take(piece, got=got):
                got.extend(piece)

            download = self._loop.run_until_complete(client.fetch(url, take))
            claim(download.message.isprintable(), "what is told is one clean line", download.message)
            claim(bool(got) <= (download.kind is self._fetched.WHOLE), "bytes come from a whole image alone")
            for asked in self._asked:
                self._may_be_asked(client, asked)
        self._images.host_of(url)

    @staticmethod
    def _may_be_asked(client, url):
        claim(str(url).isascii(), "a URL is written in ASCII", str(url))
        claim(url.port is not None and 0 < url.port < 65536, "a port is a port", str(url))
        host = url.raw_host
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            claim(client.local is (host == "localhost"), "a name is none of this machine", str(url))
            last = host.rstrip(".").rpartition(".")[2]
            claim(not re.fullmatch(r"[0-9]+|0x[0-9a-f]*", last), "a number is no name", str(url))
        else:
            claim(client.local is address.is_loopback, "an address of this machine is for its own service", str(url))
            claim(client.local or address.is_global, "an address is a public one", str(url))
        claim(client.local or url.scheme == "https", "images come over https", str(url))


def url_seeds():
    yield from (CORPUS / "urls.txt").read_bytes().split(b"\n%%%\n")


def heavy_urls():
    yield b"https://" + b"a." * 50_000 + b"example.com/"
    yield b"https://example.com/" + b"%41" * 50_000
    yield b"data:image/png;base64," + b"QUJD" * 500_000
    yield b"https://example.com:" + b"9" * 50_000
    yield b"https://" + "\u3002".encode() * 20_000 + b"/"


URL_WORDS = """
    http:// https:// data: data:image/png;base64, file:/// // /// @ : :80 :443 :0 :65536 :99999 [::1] [fe80::1%25eth0]
    [::ffff:127.0.0.1] [64:ff9b::7f00:1] [64:ff9b:1::] 127.0.0.1 0x7f000001 2130706433 0177.0.0.1 198.18.0.1 localhost
    .localhost example.com xn-- %2f %00 %5c ? # ../ .. \\ \u3002 \uff0e \u00ad [v1.a] & + =
"""
