"""Check whether bytes are a complete image, and of which format; find one in bytes that are not."""

from __future__ import annotations

import base64
import io
import re
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = {
    "JPEG": ("jpg", "image/jpeg"),
    "PNG": ("png", "image/png"),
    "WEBP": ("webp", "image/webp"),
    "AVIF": ("avif", "image/avif"),
    "GIF": ("gif", "image/gif"),
}
"""The formats of stored images: file extension and media type.

The service makes the first two; image hosts convert to the others on their own, and the images are paid for all the
same.
"""

EXTENSIONS = tuple(extension for extension, _ in FORMATS.values())

REFERENCES = ("JPEG", "PNG")
"""The formats that the service accepts as references."""

MAX_PIXELS = 64_000_000
"""Most pixels of an image: over twice the largest one the model makes; more is a decompression bomb."""

MAX_SCANS = 200
"""Most scans of a JPEG: encoders make about ten, and each takes up to 60 ms to decode however small it is."""

MAX_EXIFS = 1000
"""Most Exif parts: one per image is usual, and the decoder copies all of them for each further one."""


class BadPicture(ValueError):
    """The bytes are no complete image of a known format; the message says why."""


class NoPicture(BadPicture):
    """The bytes are something else than an image of a known format."""


@dataclass(frozen=True, slots=True)
class Picture:
    """The properties of an image; `format` is one of `FORMATS`, sizes in pixels.

    With `turned`, programs show it turned by a quarter, since its Exif says so.
    """

    format: str
    width: int
    height: int
    turned: bool = field(default=False, compare=False)

    @property
    def extension(self) -> str:
        """The file extension of the format, without a dot."""
        return FORMATS[self.format][0]

    @property
    def media_type(self) -> str:
        return FORMATS[self.format][1]


def inspect(
    source: Path | bytes,
    *,
    decode: bool = True,
    max_pixels: int = MAX_PIXELS,
    formats: tuple[str, ...] = tuple(FORMATS),
) -> Picture:
    """Return the properties of an image after all checks. Raise `BadPicture`, or `OSError` if it cannot be read.

    With `decode` the image is decoded completely, and the checksums of a PNG, which `load()` ignores, are verified; a
    JPEG has none. Slow for large images: call it on a thread.
    """
    data = _decodable(source if isinstance(source, bytes) else source.read_bytes())
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - slow to import, and most commands need no picture

    with QUIET:
        try:
            with Image.open(io.BytesIO(data), formats=formats) as image:
                # Cameras store several JPEGs in one file, an MPO; the first one is the image.
                kind = "JPEG" if image.format == "MPO" else str(image.format)
                picture = Picture(kind, image.width, image.height, turned=_is_turned(image))
                _check(picture, data, max_pixels)
                if decode:
                    _decode(image, data)
        except UnidentifiedImageError:
            if data.startswith((_PNG_START, _JPEG_START)):
                raise BadPicture("is damaged: its header cannot be read") from None
            named = f"{', '.join(formats[:-1])} or {formats[-1]}"
            raise NoPicture(f"is not a {named} image ({_looks_like(data)})") from None
        except BadPicture:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a decoder makes of such bytes, they are no picture
            # Other errors come from the decoder's own code and mean nothing to users.
            known = isinstance(error, OSError | SyntaxError | ValueError | Image.DecompressionBombError)
            raise BadPicture(f"is damaged: {error if known else 'its structure is invalid'}") from None
    return picture


def _decode(image: Image, data: bytes) -> None:
    """Read all data of an image; raise what its decoder raises."""
    if image.format == "PNG":
        from PIL import Image as pillow  # noqa: PLC0415, N813 - loaded already

        image.verify()
        # After `verify`, Pillow requires the image to be opened again.
        with pillow.open(io.BytesIO(data), formats=["PNG"]) as again:
            again.load()
        # Decoders stop at the last row of pixels: they notice any truncated JPEG, but not a PNG without its last chunk.
        if _PNG_END not in data:
            raise BadPicture("is damaged: the end is missing")
    else:
        # Of a JPEG, computes one pixel of 64: less time, and far less memory.
        image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
        image.load()


def _decodable(data: bytes) -> bytes:
    """Return the bytes as the decoder accepts them; raise `BadPicture` for what it must not see."""
    if not data:
        raise NoPicture("is empty")
    if data.count(_EXIF) > MAX_EXIFS:
        raise BadPicture(f"is damaged: it has more than {MAX_EXIFS} Exif parts")
    return _without_notes(data) if data.startswith(_PNG_START) else data


def _without_notes(data: bytes) -> bytes:
    """Return a PNG without its text chunks and colour profile, whose checksums are verified here.

    Programs store whole workflows in text chunks, and Pillow rejects an image whose chunks exceed its limits.
    """
    parts = [_PNG_START]
    at = len(_PNG_START)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        if kind not in _PNG_NOTES or end > len(data):
            parts.append(data[at:end])
        elif zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise BadPicture(f"is damaged: the checksum of its {kind.decode()} chunk is wrong")
        at = end
    return b"".join([*parts, data[at:]])


def _is_turned(image: Image) -> bool:
    if "exif" not in image.info:
        return False
    try:
        return image.getexif().get(_ORIENTATION) in {5, 6, 7, 8}
    except Exception:  # noqa: BLE001 - whatever a decoder makes of such bytes, the image itself may be good
        return False


_ORIENTATION = 0x0112


def _check(picture: Picture, data: bytes, most: int) -> None:
    """Raise `BadPicture` for an image that is too large, or that ends too early for its format."""
    pixels = picture.width * picture.height
    if pixels > most:
        raise BadPicture(f"has {picture.width} x {picture.height} = {pixels:,} pixels; at most {most:,} are allowed")
    if picture.format == "JPEG" and data.count(_JPEG_SCAN) > MAX_SCANS:
        raise BadPicture(f"has more than {MAX_SCANS} scans")
    # A decoder does not notice a truncation after the first frame of an animation.
    if picture.format == "WEBP" and len(data) < 8 + int.from_bytes(data[4:8], "little"):
        raise BadPicture("is damaged: the end is missing")
    if picture.format == "GIF" and not data.rstrip(b"\0").endswith(b";"):
        raise BadPicture("is damaged: the end is missing")


def has_end(data: bytes) -> bool:
    """Return whether bytes that begin as an image also end as one of that format; False where that is not known."""
    end = data[-64:].rstrip(b"\0\r\n")
    if data.startswith(b"RIFF"):
        return len(data) >= 8 + int.from_bytes(data[4:8], "little")
    return any(data.startswith(start) and end.endswith(last) for start, last in _ENDS.items())


class _Quiet:
    """Suppresses warnings while any thread is inside; `warnings.catch_warnings` supports only one thread.

    Pillow warns about damage and size; the limit on pixels here is our own, and an error.
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
_PNG_START = b"\x89PNG\r\n\x1a\n"
_JPEG_START = b"\xff\xd8\xff"
_PNG_NOTES = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP"})
_ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND\xaeB`\x82", b"GIF8": b";"}
"""How the files of a format begin and end."""
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


def _looks_like(data: bytes) -> str:
    brand = _BRANDS.get(data[8:12], "an MP4 or QuickTime file") if data[4:8] == b"ftyp" else ""
    if data[4:8] == b"ftyp" and brand not in _BRANDS.values():
        # The main brand of HEIC and AVIF may be a generic one, with the specific one among the compatible brands.
        brand = next((name for code, name in _BRANDS.items() if code in data[16:64]), brand)
    if brand:
        return f"it is {brand}"
    for start, name in _STARTS:
        if start.match(data):
            return f"it is {name}"
    text = data[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"{", b"[")):
        return "it looks like JSON"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<")):
        return "it is SVG" if b"<svg" in data[:4096].lower() else "it looks like a web page"
    return f"it starts with {data[:8]!r}"


_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC"),
    b"crx ": "a raw photo (CR3)",
}
"""Formats of ISO base media files, by their brand."""

_STARTS = tuple(
    (re.compile(start, re.DOTALL), name)
    for start, name in (
        (rb"RIFF....WEBP", "WebP"),
        (rb"GIF8", "GIF"),
        (rb"II(\*\0|\+\0)|MM(\0\*|\0\+)", "TIFF"),
        (rb"BM....\0\0\0\0", "BMP"),
        (rb"%PDF-", "PDF"),
        (rb"%!PS", "PostScript"),
        (rb"\xff\x0a|\0\0\0\x0cJXL ", "JPEG XL"),
        (rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  ", "JPEG 2000"),
        (rb"8BPS", "a Photoshop file"),
        (rb"\0\0[\1\2]\0", "an icon (ICO)"),
        (rb"qoif", "QOI"),
        (rb"\x76\x2f\x31\x01", "OpenEXR"),
        (rb"P[1-7]\s", "a Netpbm image"),
        (rb"PK\x03\x04", "a zip file"),
        (rb"\x1f\x8b", "a gzip file"),
        (rb"version https?://\S+/spec/v\d", 'a Git LFS pointer: run "git lfs pull" to get the image'),
        (rb"/annex/objects/", 'a git-annex pointer: run "git annex get" to get the image'),
    )
)
"""Formats by the first bytes of a file."""


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
