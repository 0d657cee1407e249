"""The thumbnails of a gallery: made on all cores, and only where there is none yet."""

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
"""Pixels of the longer side."""

_DIGITS = 24
"""Digits of the SHA-256 that name a thumbnail: enough to tell any two images apart."""

_PATH = re.compile(rf"{FOLDER}/[0-9a-f]{{2}}/[0-9a-f]{{{_DIGITS}}}{re.escape(SUFFIX)}")


class Thumbnails:
    """Makes thumbnails of stored images, each named by the hash of its image, so that none is made twice."""

    def __init__(self, images: Destination, report: ReportFolder) -> None:
        self._images = images
        self._report = report
        self._there = report.names(FOLDER, _PATH)
        self._before = len(self._there)
        self._wanted: set[str] = set()
        self._pool = ThreadPoolExecutor(max_workers=images.parallel, thread_name_prefix="thumbnail")

    @property
    def made(self) -> int:
        """How many were made."""
        return len(self._there) - self._before

    def close(self) -> None:
        """Ends the threads; what they have not begun is not made."""
        self._pool.shutdown(cancel_futures=True)

    def ensure(self, images: Sequence[ImageRecord]) -> list[str]:
        """Why each of these stored images cannot be shown: empty where it can, and then its thumbnail is there."""
        return list(self._pool.map(self._ensure, images))

    def drop_others(self) -> None:
        """Removes thumbnails of images that the gallery does not show any more."""
        self._report.keep_only(FOLDER, _PATH, self._wanted)

    def _ensure(self, image: ImageRecord) -> str:
        path = _path(image)
        try:
            size = image.bytes or 0
            seen = check_size(self._images, ExpectedFile.of(image))
            if seen.wrong:
                return seen.wrong
            self._wanted.add(path)
            if path in self._there:
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
        # Two images may have the same bytes; then this is done twice, which does no harm.
        self._there.add(path)
        return ""


def name(image: ImageRecord) -> str:
    """What the page needs to find the thumbnail of a stored image."""
    return (image.sha256 or "")[:_DIGITS]


def _path(image: ImageRecord) -> str:
    return f"{FOLDER}/{name(image)[:2]}/{name(image)}{SUFFIX}"
