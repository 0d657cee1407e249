"""Decompress bodies that a proxy compressed, whatever their headers say."""

from __future__ import annotations

import zlib

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS


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
