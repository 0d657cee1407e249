"""Pictures, fuzzed: the check of what was downloaded, and of reference images."""

from __future__ import annotations

import base64
import hashlib
import io
import struct
import zlib

from fuzz_claims import claim, is_clean

PNG_START = b"\x89PNG\r\n\x1a\n"


def prepare_image(folder):
    # Pillow imports its plugins when it needs them; now they are instrumented.
    from PIL import Image, JpegImagePlugin, MpoImagePlugin, PngImagePlugin  # noqa: F401

    from seedream_batch.errors import StorageError
    from seedream_batch.files.image_inspection import FORMATS, MAX_PIXELS, BadPicture, inspect
    from seedream_batch.files.references import BadReferenceImage, data_uri, load_reference

    def looked_at(data, *, decode, most):
        try:
            picture = inspect(data, decode=decode, max_pixels=most)
        except BadPicture as error:
            claim(str(error), "an error has a text")
            claim(is_clean(str(error)), "an error has no control characters", str(error))
            claim(len(str(error)) < 1000, "an error is short", str(error))
            return None
        claim(picture.format in FORMATS, "a format is known", picture)
        claim(picture.width > 0 and picture.height > 0, "a picture has pixels", picture)
        claim(picture.width * picture.height <= most, "a picture is no larger than allowed", picture)
        return picture

    def reference(data, text):
        try:
            found = load_reference(text, folder)
        except (BadReferenceImage, StorageError) as error:
            claim(str(error), "an error has a text")
            return
        claim(found.sha256 == hashlib.sha256(data).hexdigest() and found.bytes == len(data), "a hash is of the bytes")
        width, height = found.width, found.height
        claim(min(width, height) > 14 and max(width, height) <= 3 * min(width, height), "a reference is within limits")
        claim(looked_at(data, decode=True, most=MAX_PIXELS), "a reference is a picture")
        claim(load_reference(data_uri(found, data), folder).sha256 == found.sha256, "a data URI is read again")

    def run(data):
        flags, data = data[0] if data else 0, data[1:]
        if flags & 1 and data.startswith(PNG_START):
            data = with_checksums(data)
        if flags & 2:
            kind = ("png", "jpeg", "gif", "png;x")[flags >> 6]
            reference(data, f"data:image/{kind};base64,{base64.b64encode(data).decode()}")
            return
        if flags & 4:
            reference(data, data.decode("utf-8", "surrogateescape"))
            return
        # Mostly with a bound on pixels that a seed is below: damage makes huge sizes, which take long when allowed.
        most = MAX_PIXELS if flags & 0xF8 == 0xF8 else 4096
        whole = looked_at(data, decode=True, most=most)
        known = looked_at(data, decode=False, most=most)
        if whole is not None:
            claim(known == whole, "a whole picture has the same size undecoded", known, whole)
            claim(looked_at(data, decode=True, most=most) == whole, "a picture is the same again")
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                claim(image.size == (whole.width, whole.height), "a picture opens with the same size", image.size)

    return run


def with_checksums(data):
    """The PNG with the checksums that its chunks should have."""
    mended = bytearray(data)
    at = 8
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        end = at + 8 + length
        if end + 4 > len(data):
            break
        mended[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(mended)


def image_seeds():
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    noise = Image.effect_noise((16, 16), 90)
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    info = PngInfo()
    info.add_text("prompt", "a fox " * 9, zip=True)
    info.add_itxt("title", "t" * 9, zip=True)

    def saved(mode, kind, **options):
        data = io.BytesIO()
        image = Image.new("I;16", (16, 16), 30_000) if mode == "I;16" else noise.convert(mode)
        image.save(data, kind, **options)
        return data.getvalue()

    made = [
        saved("RGB", "JPEG", quality=20),
        saved("RGB", "JPEG", quality=20, progressive=True),
        saved("L", "JPEG", quality=20, comment=b"a fox"),
        saved("CMYK", "JPEG", quality=20),
        saved("RGB", "JPEG", quality=20, exif=exif, icc_profile=b"i" * 30, dpi=(72, 72)),
        saved("RGB", "JPEG", quality=20, subsampling=0, optimize=True, restart_marker_blocks=1),
        saved("RGB", "MPO", quality=20, save_all=True, append_images=[noise.convert("RGB")]),
        saved("RGB", "PNG"),
        saved("RGBA", "PNG"),
        saved("LA", "PNG"),
        saved("L", "PNG"),
        saved("1", "PNG"),
        saved("I;16", "PNG"),
        saved("P", "PNG", pnginfo=info, transparency=0),
        saved("RGB", "PNG", save_all=True, append_images=[noise.convert("RGB")]),
        saved("RGB", "PNG", exif=exif, icc_profile=b"i" * 30),
        saved("RGB", "GIF"),
        interlaced(),
        b"<html>",
        b'{"error": 1}',
        b"a.png",
        b"../a.png",
        b"data:image/png;base64,AAAA",
    ]
    for data in made:
        yield from (bytes([flags]) + data for flags in (0, 1, 2, 0xF8))
    yield from (b"\x04" + data for data in made[-3:])


def heavy_images():
    """Sizes at the bounds, and beyond them, with next to nothing behind them."""
    for data in (
        png(8000, 8000, zlib.compress(bytes(10**6))),
        png(8000, 8000, zlib.compress(bytes(8000 * 24_001), 9)),
        png(8001, 8000, b""),
        png(2**31 - 1, 2**31 - 1, b""),
        png(16, 16, zlib.compress(bytes(10**8), 9)),
        painted_over(1_000),
    ):
        yield from (bytes([flags]) + data for flags in (2, 0xF8))


def painted_over(times):
    """A JPEG whose last pass over the pixels comes again and again: little to read, and much to do."""
    from PIL import Image

    data = io.BytesIO()
    Image.new("L", (6000, 6000), 128).save(data, "JPEG", progressive=True)
    whole = data.getvalue()
    last = whole[whole.rindex(b"\xff\xc4", 0, whole.rindex(b"\xff\xda")) : -2]
    return whole[:-2] + last * times + whole[-2:]


def png(width, height, pixels, interlace=0):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, interlace))
    return PNG_START + head + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def interlaced():
    """A PNG in the seven passes that Pillow reads but does not write."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = b"".join(
        b"\0" + bytes(3 * len(range(left, 16, across)))
        for left, top, across, down in passes
        for _ in range(top, 16, down)
    )
    return png(16, 16, zlib.compress(rows), interlace=1)


IMAGE_WORDS = (
    "IHDR IDAT IEND PLTE tRNS iCCP zTXt iTXt tEXt eXIf acTL fcTL fdAT gAMA pHYs sRGB cHRM Exif\0\0 JFIF\0 MPF\0 "
    "ICC_PROFILE\0 II*\0 MM\0* Adobe Photoshop 8BIM http://ns.adobe.com/xap/1.0/\0"
)
IMAGE_MARKS = tuple(f"\\xff\\x{mark:02x}" for mark in (*range(0xC0, 0xE3), 0xEE, 0xFE))
