"""Find the image in a body that a proxy or host compressed or wrapped, whatever its headers say."""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS


_IMAGE = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n|RIFF....WEBP|GIF8[79]a", re.DOTALL)
_BASE64 = re.compile(rb"(?:data:image/[\w.+-]+;base64,\s*)?(?=/9j/|iVBORw|UklGR|R0lGOD)([A-Za-z0-9+/=\s]+)")
_WRAPPER = 2048
"""Bytes in front of an image that are skipped: line breaks, the head of a part."""


def unwrapped(data: bytes, most: int) -> Iterator[bytes]:
    """Yield what may be the image in a body that is none itself: compressed, in base64, or behind other bytes."""
    plain = uncompressed(data, most)
    if plain is not None:
        yield plain
    if text := _BASE64.fullmatch(data.strip(b"\"' \t\r\n")):
        with suppress(ValueError):
            yield base64.b64decode(text[1] + b"==")
    start = _IMAGE.search(data, 0, _WRAPPER)
    # Within an image, another one is its preview.
    if start is not None and start.start():
        yield data[start.start() :]


def uncompressed(data: bytes, most: int) -> bytes | None:
    """Return gzip or deflate data decompressed, also several times; None if it is neither, truncated, or too large.

    At most `most` bytes.
    """
    plain = _inflated(data, _GZIP_OR_ZLIB, most) or _inflated(data, _RAW, most)
    again = plain and _inflated(plain, _GZIP_OR_ZLIB, most)
    return again or plain


def _inflated(data: bytes, form: int, most: int) -> bytes | None:
    plain = b""
    while data:
        decoder = zlib.decompressobj(form)
        try:
            plain += decoder.decompress(data, most - len(plain))
        except zlib.error:
            return None
        if not decoder.eof or len(plain) >= most:
            return None
        # Several compressed parts may follow each other, and some programs add zeros.
        data = decoder.unused_data.lstrip(b"\0")
    return plain or None
