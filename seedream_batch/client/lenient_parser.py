"""Responses that break the rules of HTTP, read all the same: what they hold may be paid for.

aiohttp drops a connection at the first thing that its parser does not take, such as both a Content-Length and a chunked
body (RFC 9112 6.3 lets a client read that), and the body with it. Here the parser of the standard library, which takes
what browsers take, gets a try; what that cannot read either is given as it came, with the status 0.
"""

from __future__ import annotations

import asyncio
import functools
import http.client
import io
import re
from typing import Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpVersion11, RawResponseMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader
from multidict import CIMultiDict, CIMultiDictProxy

LONGEST_FIELD = 256 * 1024
"""Bytes of a header that are read; gateways send policies of many KB along."""

GRACE = 1.0
"""Seconds without a further byte after which what is no HTTP at all has ended."""

MOST_KEPT = 4 * 1024 * 1024
"""Bytes of a response that is read in this way."""


_Fed = tuple[list[tuple[RawResponseMessage, StreamReader]], bool, bytes]


def read_anyway(connector: aiohttp.TCPConnector) -> None:
    """Makes the responses on these connections readable even where they are no good HTTP."""
    connector._factory = cast("Any", functools.partial(_Handler, loop=connector._loop))  # noqa: SLF001 - no other way


class _Handler(ResponseHandler):
    """The protocol of one connection. aiohttp sets its parser for each response; that parser is wrapped here."""

    def set_response_params(self, **settings: Any) -> None:
        # CONNECT is answered by a proxy: nothing is paid for there, and what is no HTTP must fail at once.
        within = settings.get("max_field_size") == LONGEST_FIELD
        super().set_response_params(**settings)
        if within and self._parser is not None:
            self._parser = cast("Any", _Parser(self._parser, self, self._loop))

    def _on_read_timeout(self) -> None:
        parser: object = self._parser
        if not (isinstance(parser, _Parser) and parser.settle()):
            super()._on_read_timeout()


class _Parser:
    """aiohttp's parser until that fails, then the one of the standard library."""

    def __init__(self, parser: Any, handler: _Handler, loop: asyncio.AbstractEventLoop) -> None:
        self._parser = parser
        self._handler = handler
        self._loop = loop
        self._received = bytearray()
        self._begun = False
        """Whether aiohttp's parser has read the head of the response."""
        self._broken = False
        self._timer: asyncio.TimerHandle | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)

    def feed_data(self, data: bytes) -> _Fed:
        if self._begun:
            return cast("_Fed", self._parser.feed_data(data))
        self._received += data
        if not self._broken:
            try:
                messages, upgraded, rest = self._parser.feed_data(data)
            except HttpProcessingError:
                self._broken = True
            else:
                if messages:
                    self._begun = True
                    self._received.clear()
                # The words of the status line mean nothing, and httpx fails for those that are not UTF-8.
                return [(_without_reason(message), stream) for message, stream in messages], upgraded, rest
        one = self._read(ended=len(self._received) > MOST_KEPT)
        return ([] if one is None else [one]), False, b""

    def feed_eof(self) -> Any:
        if not self.settle():
            return self._parser.feed_eof()
        return None

    def settle(self) -> bool:
        """Gives what came of a broken response, since nothing more will come; whether there was one."""
        if not self._broken or self._begun:
            return False
        one = self._read(ended=True)
        if one is not None:
            self._handler.force_close()
            self._handler.feed_data(one, 0)
        return one is not None

    def _read(self, *, ended: bool) -> tuple[RawResponseMessage, StreamReader] | None:
        if self._timer is not None:
            self._timer.cancel()
        data = bytes(self._received[:MOST_KEPT])
        status, headers, body = 0, [], data
        response = http.client.HTTPResponse(cast("Any", _Received(data)))
        try:
            if not ended and b"\r\n\r\n" not in data and b"\n\n" not in data:
                return None
            response.begin()
            status, headers = response.status, response.getheaders()
            if not ended and not response.chunked and response.length is None:
                return None  # it goes on to the end of the connection
            body = response.read()
        except http.client.IncompleteRead as error:
            if not ended:
                return None
            # Where the chunks themselves are wrong, all that follows the head.
            body = error.partial or re.split(rb"\r?\n\r?\n", data, maxsplit=1)[-1]
        except (http.client.HTTPException, ValueError):
            # No HTTP at all.
            if not ended:
                self._timer = self._loop.call_later(GRACE, self.settle)
                return None
        finally:
            response.close()
        self._begun = True
        self._received.clear()
        return _message(status, headers), self._stream(body)

    def _stream(self, body: bytes) -> StreamReader:
        stream = StreamReader(self._handler, limit=2**16, loop=self._loop)
        stream.feed_data(body)
        stream.feed_eof()
        return stream


class _Received:
    """What `http.client` takes for a socket."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        del mode
        return io.BytesIO(self._data)


def _without_reason(one: RawResponseMessage) -> RawResponseMessage:
    return RawResponseMessage(
        one.version,
        one.code,
        "",
        one.headers,
        one.raw_headers,
        one.should_close,
        one.compression,
        one.upgrade,
        one.chunked,
    )


def _message(status: int, headers: list[tuple[str, str]]) -> RawResponseMessage:
    raw = tuple((name.encode("utf-8", "replace"), value.encode("utf-8", "replace")) for name, value in headers)
    return RawResponseMessage(
        HttpVersion11, status, "", CIMultiDictProxy(CIMultiDict(headers)), raw, True, None, False, False
    )
