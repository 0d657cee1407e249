"""The thumbnails of a gallery: created on all cores, and only if missing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from seedream_batch.errors import StorageError
from seedream_batch.files.destination import Destination
from seedream_batch.files.image_inspection import BadPicture
from seedream_batch.files.integrity import OTHER_BYTES, ExpectedFile, check_size
from seedream_batch.files.thumbnail import SUFFIX, thumbnail
from seedream_batch.model.task import ImageRecord
from seedream_batch.report.gallery_folder import ReportFolder

FOLDER = "thumbs"
SIDE = 256
"""Longer side in pixels."""

_DIGITS = 24
"""Hex digits of the SHA-256 in a thumbnail's name: enough to distinguish any two images."""

_PATH = re.compile(rf"{FOLDER}/[0-9a-f]{{2}}/[0-9a-f]{{{_DIGITS}}}{re.escape(SUFFIX)}")


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
        """Number of thumbnails created."""
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
        path = _path(image)
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
            return f"the picture {error}"
        self._report.write(path, small)
        # Two images with the same bytes may both get here, which is harmless.
        self._existing.add(path)
        return ""


def name(image: ImageRecord) -> str:
    """Return the name by which the page finds the thumbnail of a stored image."""
    return (image.sha256 or "")[:_DIGITS]


def _path(image: ImageRecord) -> str:
    return f"{FOLDER}/{name(image)[:2]}/{name(image)}{SUFFIX}"
