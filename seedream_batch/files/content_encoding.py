"""Decompress bodies that a proxy compressed, whatever their headers say."""

from __future__ import annotations

import zlib

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS


def uncompressed(data: bytes, most: int) -> bytes | None:
    """Return gzip or deflate data decompressed; None if it is neither, truncated, or larger than `most` bytes."""
    for form in (_GZIP_OR_ZLIB, _RAW):
        decoder = zlib.decompressobj(form)
        try:
            plain = decoder.decompress(data, most)
        except zlib.error:
            continue
        if decoder.eof and plain:
            return plain
    return None
