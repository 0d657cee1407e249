"""Read responses that violate HTTP, since they may hold what was paid for.

aiohttp closes the connection at the first violation that its parser rejects, such as both a Content-Length and a
chunked body (RFC 9112 6.3 lets a client read that), and drops the body. Here the standard library's parser, which
accepts what browsers accept, is tried next; what it cannot read is returned as received, with status 0.
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
"""Most bytes of a header; gateways add policies of many KB."""

LONGEST_BODY = 2**40
"""Bytes to which a Content-Length is cut, which some programs fill with nonsense."""

GRACE = 1.0
"""Seconds without a further byte after which a response that is not HTTP has ended."""


_Fed = tuple[list[tuple[RawResponseMessage, StreamReader]], bool, bytes]


def read_anyway(connector: aiohttp.TCPConnector, most: int, *, incomplete: bool) -> None:
    """Make invalid HTTP responses on these connections readable, up to `most` bytes of each.

    With `incomplete`, also those whose body has no valid end.
    """
    handler = functools.partial(_Handler, loop=connector._loop, most=most, incomplete=incomplete)  # noqa: SLF001 - no other way
    connector._factory = cast("Any", handler)  # noqa: SLF001


class _Handler(ResponseHandler):
    """The protocol of one connection. aiohttp creates a parser for each response; that parser is wrapped here."""

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int, *, incomplete: bool) -> None:
        super().__init__(loop)
        self._most = most
        self._incomplete = incomplete

    def set_response_params(self, **settings: Any) -> None:
        # A proxy answers CONNECT: nothing is paid for there, and invalid HTTP has to fail at once.
        within = settings.get("max_field_size") == LONGEST_FIELD
        super().set_response_params(**settings)
        if within and self._parser is not None:
            self._parser = cast("Any", _Parser(self._parser, self, self._loop, self._most, incomplete=self._incomplete))

    def _on_read_timeout(self) -> None:
        parser: object = self._parser
        if not (isinstance(parser, _Parser) and parser.settle()):
            super()._on_read_timeout()


class _Parser:
    """Uses aiohttp's parser until it fails, then the standard library's."""

    def __init__(
        self, parser: Any, handler: _Handler, loop: asyncio.AbstractEventLoop, most: int, *, incomplete: bool
    ) -> None:
        self._most = most
        self._incomplete = incomplete
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
                # The reason phrase is irrelevant, and httpx fails if it is not UTF-8.
                return [(_without_reason(message), stream) for message, stream in messages], upgraded, rest
        message_and_stream = self._read(ended=len(self._received) > self._most)
        return ([] if message_and_stream is None else [message_and_stream]), False, b""

    def feed_eof(self) -> Any:
        if not self.settle():
            return self._parser.feed_eof()
        return None

    def settle(self) -> bool:
        """Deliver what was received of an invalid response, since no more will come; return whether there was any."""
        if not self._broken or self._begun:
            return False
        message_and_stream = self._read(ended=True)
        if message_and_stream is not None:
            self._handler.force_close()
            self._handler.feed_data(message_and_stream, 0)
        return message_and_stream is not None

    def _read(self, *, ended: bool) -> tuple[RawResponseMessage, StreamReader] | None:
        if self._timer is not None:
            self._timer.cancel()
        data = bytes(self._received[: self._most])
        status, headers, body = 0, [], data
        response = http.client.HTTPResponse(cast("Any", _Received(data)))
        try:
            if not ended and b"\r\n\r\n" not in data and b"\n\n" not in data:
                return None
            response.begin()
            status, headers = response.status, response.getheaders()
            lengths = [int(one) for one in response.msg.get_all("content-length", []) if one.strip().isdecimal()]
            if response.length is not None and lengths:
                response.length = min(max(lengths), LONGEST_BODY)
            if not ended and not response.chunked and response.length is None:
                return None  # it goes on to the end of the connection
            body = response.read()
        except http.client.IncompleteRead as error:
            if not ended or not self._incomplete:
                return None
            # If the chunks themselves are invalid, take all that follows the head.
            body = error.partial or re.split(rb"\r?\n\r?\n", data, maxsplit=1)[-1]
        except (http.client.HTTPException, ValueError):
            # Not HTTP at all.
            if not ended:
                self._timer = self._loop.call_later(GRACE, self.settle)
                return None
        finally:
            response.close()
        self._begun = True
        self._received.clear()
        return _message(status, headers), self._stream(body)

    def _stream(self, body: bytes) -> StreamReader:
        # With a lower limit the stream would pause aiohttp's parser, which reads no body here and fails.
        stream = StreamReader(self._handler, limit=len(body) + 1, loop=self._loop)
        stream.feed_data(body)
        stream.feed_eof()
        return stream


class _Received:
    """A stand-in for the socket that `http.client` reads."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        del mode
        return io.BytesIO(self._data)


def _without_reason(message: RawResponseMessage) -> RawResponseMessage:
    return RawResponseMessage(
        message.version,
        message.code,
        "",
        message.headers,
        message.raw_headers,
        message.should_close,
        message.compression,
        message.upgrade,
        message.chunked,
    )


def _message(status: int, headers: list[tuple[str, str]]) -> RawResponseMessage:
    raw = tuple((name.encode("utf-8", "replace"), value.encode("utf-8", "replace")) for name, value in headers)
    return RawResponseMessage(
        HttpVersion11, status, "", CIMultiDictProxy(CIMultiDict(headers)), raw, True, None, False, False
    )
