"""Whether bytes are a whole picture, and what kind."""

from __future__ import annotations

import io
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path

FORMATS = {"JPEG": ("jpg", "image/jpeg"), "PNG": ("png", "image/png")}
"""The formats the service gives and takes: their file extension and media type."""

MAX_PIXELS = 64_000_000
"""More than twice the largest image the model makes; anything above is a decompression bomb."""

MAX_SCANS = 200
"""Passes over the pixels of a JPEG: an encoder makes ten or so, and each costs up to 60 ms whatever little is in it."""

MAX_EXIFS = 1000
"""Parts of a file with notes of a camera: one a picture is usual, and the decoder copies them all for each one more."""


class BadPicture(ValueError):
    """The bytes are no whole picture of a known format; the message says why."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What a picture file is; `format` is JPEG or PNG, sizes in pixels."""

    format: str
    width: int
    height: int

    @property
    def extension(self) -> str:
        """The file extension of the format, without a dot."""
        return FORMATS[self.format][0]

    @property
    def media_type(self) -> str:
        """The media type of the format."""
        return FORMATS[self.format][1]


def inspect(source: Path | bytes, *, decode: bool = True, max_pixels: int = MAX_PIXELS) -> Picture:
    """What the picture is, after every check of it. Raises `BadPicture`, and `OSError` if it can't be read.

    With `decode` the picture is decoded to the end, and the checksums of a PNG, which `load()` does not look at, are
    verified; a JPEG has none. Slow for large pictures: call it on a thread.
    """
    data = source if isinstance(source, bytes) else source.read_bytes()
    if not data:
        raise BadPicture("is empty")
    if data.count(_EXIF) > MAX_EXIFS:
        raise BadPicture(f"is damaged: it has more than {MAX_EXIFS} Exif parts")
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - slow to import, and most commands need no picture

    with QUIET:
        try:
            with Image.open(io.BytesIO(data), formats=list(FORMATS)) as image:
                # Cameras put several JPEGs into one file and call it MPO; the first one is the picture.
                kind = "JPEG" if image.format == "MPO" else str(image.format)
                picture = Picture(kind, image.width, image.height)
                _bounded(picture, data, max_pixels)
                if decode and picture.format == "PNG":
                    image.verify()
                elif decode:
                    image.load()
            if decode and picture.format == "PNG":
                # Once verified, it has to be opened anew.
                with Image.open(io.BytesIO(data), formats=[picture.format]) as image:
                    image.load()
                _ended(data)
        except UnidentifiedImageError:
            raise BadPicture(f"is no JPEG or PNG picture ({_looks_like(data)})") from None
        except BadPicture:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a decoder makes of such bytes, they are no picture
            raise BadPicture(f"is damaged: {error}") from None
    return picture


def _ended(data: bytes) -> None:
    # Decoders stop at the last row of pixels; a JPEG that is cut anywhere is noticed, the last chunk of a PNG is not.
    if _PNG_END not in data:
        raise BadPicture("is damaged: the end is missing")


class _Quiet:
    """Holds warnings back while any thread is at work; the standard library's own way is made for one thread.

    Pillow warns of damage and of size. The bound on pixels here is ours, and an error.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._before = warnings.catch_warnings()
                self._before.__enter__()
                warnings.simplefilter("ignore")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._before.__exit__(None, None, None)


QUIET = _Quiet()
_JPEG_SCAN = b"\xff\xda"
_EXIF = b"Exif\0\0"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


def _bounded(picture: Picture, data: bytes, most: int) -> None:
    pixels = picture.width * picture.height
    if pixels > most:
        raise BadPicture(f"has {picture.width} x {picture.height} = {pixels:,} pixels; at most {most:,} are taken")
    if picture.format == "JPEG" and data.count(_JPEG_SCAN) > MAX_SCANS:
        raise BadPicture(f"has more than {MAX_SCANS} scans")


def _looks_like(data: bytes) -> str:
    start = data[:512].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<svg")):
        return "it looks like a web page"
    if start.startswith((b"{", b"[")):
        return "it looks like JSON"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "it is WebP"
    if data.startswith(b"GIF8"):
        return "it is GIF"
    return f"it starts with {data[:8]!r}"
