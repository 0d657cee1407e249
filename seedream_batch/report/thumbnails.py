"""The thumbnails of a gallery: created on all cores, and only if missing."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from seedream_batch.errors import StorageError
from seedream_batch.files.destination import Destination
from seedream_batch.files.image_inspection import QUIET, BadPicture, inspect
from seedream_batch.files.integrity import OTHER_BYTES, ExpectedFile, check_size
from seedream_batch.model.task import ImageRecord
from seedream_batch.report.gallery_folder import ReportFolder

FOLDER = "thumbs"
SIDE = 256
"""Longer side in pixels."""

_QUALITY = 78

_DIGITS = 24
"""Hex digits of the SHA-256 in a thumbnail's name: enough to distinguish any two images."""

_PATH = re.compile(rf"{FOLDER}/[0-9a-f]{{2}}/[0-9a-f]{{{_DIGITS}}}\.webp")


class Thumbnails:
    """Creates thumbnails of stored images, each named by the hash of its image, so that none is created twice."""

    def __init__(self, images: Destination, report: ReportFolder) -> None:
        self._images = images
        self._report = report
        self._existing = report.names(FOLDER, _PATH)
        self._before = len(self._existing)
        self._wanted: set[str] = set()
        self._pool = ThreadPoolExecutor(max_workers=images.parallel, thread_name_prefix="thumbnail")

    @property
    def made(self) -> int:
        return len(self._existing) - self._before

    def close(self) -> None:
        """Stop the threads; thumbnails not yet begun are skipped."""
        self._pool.shutdown(cancel_futures=True)

    def ensure(self, images: Sequence[ImageRecord]) -> list[str]:
        """Create missing thumbnails; return for each image why it cannot be shown, empty if it can."""
        return list(self._pool.map(self._ensure, images))

    def drop_others(self) -> None:
        """Delete thumbnails of images that are no longer in the gallery."""
        self._report.keep_only(FOLDER, _PATH, self._wanted)

    def _ensure(self, image: ImageRecord) -> str:
        name = (image.sha256 or "")[:_DIGITS]
        path = f"{FOLDER}/{name[:2]}/{name}.webp"
        try:
            size = image.bytes or 0
            check = check_size(self._images, ExpectedFile.of(image))
            if check.wrong:
                return check.wrong
            self._wanted.add(path)
            if path in self._existing:
                return ""
            data = self._images.read(image.path or "", size + 1)
        except StorageError as error:
            return str(error)
        if hashlib.sha256(data).hexdigest() != image.sha256:
            return OTHER_BYTES
        try:
            small = thumbnail(data, SIDE)
        except BadPicture as error:
            return f"the image {error}"
        self._report.write(path, small)
        # Two images with the same bytes may both get here, which is harmless.
        self._existing.add(path)
        return ""


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
