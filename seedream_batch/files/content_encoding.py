"""Bodies that somebody on the way has compressed, whatever their headers say."""

from __future__ import annotations

import zlib

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS


def uncompressed(data: bytes, most: int) -> bytes | None:
    """What gzip or deflate has made these bytes of; None if they are nothing such, cut off, or more than `most`."""
    for form in (_GZIP_OR_ZLIB, _RAW):
        decoder = zlib.decompressobj(form)
        try:
            plain = decoder.decompress(data, most)
        except zlib.error:
            continue
        if decoder.eof and plain:
            return plain
    return None
