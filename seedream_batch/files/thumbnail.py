"""Make small copies of images, for pages that show thousands of them."""

from __future__ import annotations

import io

from seedream_batch.files.image_inspection import QUIET, BadPicture, inspect

SUFFIX = ".webp"
"""The file extension of thumbnails."""

_QUALITY = 78


def thumbnail(data: bytes, side: int) -> bytes:
    """Return the image as WebP whose longer side is at most `side` pixels. Raise `BadPicture`.

    Slow for large images, mostly without holding Python's lock: call it on threads.
    """
    picture = inspect(data, decode=False)
    from PIL import Image  # noqa: PLC0415 - slow to import, and most commands need no picture

    small = io.BytesIO()
    with QUIET:
        try:
            with Image.open(io.BytesIO(data), formats=[picture.format]) as image:
                # A JPEG is decoded at a reduced size, which saves most of the work.
                image.draft("RGB", (2 * side, 2 * side))
                # Palette colours cannot be averaged.
                shrunk = image if image.mode == "RGB" else image.convert("RGB")
                shrunk.thumbnail((side, side), reducing_gap=2.0)
                shrunk.save(small, "WEBP", quality=_QUALITY, method=3)
        except Exception as error:  # noqa: BLE001 - whatever a decoder makes of such bytes, they are no picture
            raise BadPicture(f"is damaged: {error}") from None
    return small.getvalue()
