"""A small copy of a picture, for pages that show thousands of them."""

from __future__ import annotations

import io

from seedream_batch.files.image_inspection import QUIET, BadPicture, inspect

SUFFIX = ".webp"
"""The ending of the files that `thumbnail` makes."""

_QUALITY = 78


def thumbnail(data: bytes, side: int) -> bytes:
    """The picture as WebP whose longer side is at most `side` pixels. Raises `BadPicture`.

    Slow for large pictures, and most of that time without Python's lock: call it on threads.
    """
    picture = inspect(data, decode=False)
    from PIL import Image  # noqa: PLC0415 - slow to import, and most commands need no picture

    small = io.BytesIO()
    with QUIET:
        try:
            with Image.open(io.BytesIO(data), formats=[picture.format]) as image:
                # A JPEG is decoded at a fraction of its size, which is most of the work saved.
                image.draft("RGB", (2 * side, 2 * side))
                # Colours of a palette cannot be mixed.
                shrunk = image if image.mode == "RGB" else image.convert("RGB")
                shrunk.thumbnail((side, side), reducing_gap=2.0)
                shrunk.save(small, "WEBP", quality=_QUALITY, method=3)
        except Exception as error:  # noqa: BLE001 - whatever a decoder makes of such bytes, they are no picture
            raise BadPicture(f"is damaged: {error}") from None
    return small.getvalue()
