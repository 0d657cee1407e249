"""Whether bytes are a whole picture: every known kind of damage, and any other."""

import io
import struct
import threading
import warnings
import zlib
from contextlib import suppress

import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from seedream_batch.files.image_inspection import FORMATS, MAX_PIXELS, REFERENCES, BadPicture, Picture, inspect


def noise(width=40, height=30, mode="RGB"):
    return Image.effect_noise((width, height), 90).convert(mode)


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_text():
    info = PngInfo()
    info.add_text("prompt", "a fox " * 50, zip=True)
    info.add_itxt("title", "t" * 50, zip=True)
    return info


def png_of_16_bits():
    """An RGB PNG with 16 bits a channel, which Pillow reads and does not write."""
    rows = zlib.compress((b"\0" + b"\x12\x34" * 3 * 40) * 30)
    parts = ((b"IHDR", struct.pack(">IIBBBBB", 40, 30, 16, 2, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


EXIF = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
GOOD = {
    "jpeg": saved(noise(), "JPEG"),
    "progressive jpeg": saved(noise(), "JPEG", progressive=True),
    "grey jpeg": saved(noise(mode="L"), "JPEG"),
    "cmyk jpeg": saved(noise(mode="CMYK"), "JPEG"),
    "jpeg with exif": saved(noise(), "JPEG", exif=EXIF, icc_profile=b"i" * 300, comment=b"a fox"),
    "jpegs of a camera": saved(noise(), "MPO", save_all=True, append_images=[noise()]),
    "png": saved(noise(), "PNG"),
    "png with alpha": saved(noise(mode="RGBA"), "PNG"),
    "grey png": saved(noise(mode="L"), "PNG"),
    "16-bit png": saved(Image.new("I;16", (40, 30), 30_000), "PNG"),
    "16-bit colour png": png_of_16_bits(),
    "rotated jpeg": saved(noise(), "JPEG", exif=EXIF.replace(b"\x06\0\0\0\0\0\0\0", b"\x08\0\0\0\0\0\0\0")),
    "palette png": saved(noise(mode="P"), "PNG", pnginfo=png_text(), transparency=0),
    "moving png": saved(noise(), "PNG", save_all=True, append_images=[noise()]),
    # What image hosts make of them by themselves.
    "webp": saved(noise(), "WEBP"),
    "webp with alpha": saved(noise(mode="RGBA"), "WEBP", lossless=True),
    "moving webp": saved(noise(), "WEBP", save_all=True, append_images=[noise()]),
    "avif": saved(noise(), "AVIF"),
    "gif": saved(noise(), "GIF"),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_pictures(name, tmp_path):
    kind = next((kind for kind in FORMATS if kind.lower() in name), "JPEG")
    expected = Picture(kind, 40, 30)
    assert inspect(GOOD[name]) == expected
    assert inspect(GOOD[name], decode=False) == expected
    (tmp_path / "wrong.gif").write_bytes(GOOD[name])
    assert inspect(tmp_path / "wrong.gif") == expected, "the bytes decide, not the name"
    assert (expected.extension, expected.media_type) == FORMATS[kind]


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (15, 15), (63, 65), (2048, 8)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_sizes(size, kind):
    assert inspect(saved(noise(*size), kind)) == Picture(kind, *size)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_images_that_programs_show_turned(kind):
    for orientation in range(10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture = inspect(saved(noise(40, 30), kind, exif=exif))
        assert (picture.width, picture.height, picture.turned) == (40, 30, orientation in {5, 6, 7, 8})
    damaged = saved(noise(40, 30), kind, exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\1" * 9)
    assert not inspect(damaged).turned


def test_a_picture_at_full_size():
    data = saved(Image.new("RGB", (6198, 2656), (200, 30, 30)), "JPEG")
    assert inspect(data) == Picture("JPEG", 6198, 2656)


@pytest.mark.parametrize(
    "name", ["jpeg", "progressive jpeg", "png", "palette png", "webp", "moving webp", "avif", "gif"]
)
def test_a_picture_that_is_cut_anywhere(name):
    data = GOOD[name]
    step = max(1, len(data) // 400)
    cuts = {*range(0, len(data), step), *range(max(0, len(data) - 40), len(data)), *range(40)}
    for cut in cuts:
        with pytest.raises(BadPicture):
            inspect(data[:cut])


def chunks_of(data):
    """Where each chunk of a PNG starts: (kind, start, length of its data)."""
    at = 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        yield data[at + 4 : at + 8], at, length
        at += length + 12


def test_a_png_with_any_flipped_byte_in_its_pixels():
    data = saved(noise(16, 16), "PNG")
    [(start, length)] = [(start, length) for kind, start, length in chunks_of(data) if kind == b"IDAT"]
    for at in range(start, start + 8 + length + 4):
        for flip in (0x01, 0x80, 0xFF):
            broken = bytearray(data)
            broken[at] ^= flip
            with pytest.raises(BadPicture):
                inspect(bytes(broken))


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT", b"IEND"])
def test_a_png_with_a_wrong_checksum(kind):
    data = bytearray(saved(noise(16, 16), "PNG"))
    [(start, length)] = [(start, length) for name, start, length in chunks_of(data) if name == kind]
    data[start + 8 + length] ^= 1
    with pytest.raises(BadPicture):
        inspect(bytes(data))


def png_with(kind, data, *, wrong=0):
    """A PNG with one more chunk behind its header; `wrong` is added to the chunk's checksum."""
    plain = GOOD["png"]
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ wrong)
    return plain[:33] + chunk + plain[33:]


NOTES = {
    b"tEXt": lambda: b"workflow\0" + b"a" * 3_000_000,
    b"zTXt": lambda: b"workflow\0\0" + zlib.compress(b"a" * 70_000_000),
    b"iTXt": lambda: b"workflow\0\1\0\0\0" + zlib.compress(b"a" * 3_000_000),
    b"iCCP": lambda: b"profile\0\0" + zlib.compress(bytes(3_000_000)),
}


@pytest.mark.parametrize("kind", NOTES)
def test_a_png_with_large_notes_is_whole(kind):
    notes = NOTES[kind]()
    assert inspect(png_with(kind, notes)) == Picture("PNG", 40, 30)
    with pytest.raises(BadPicture, match=f"checksum of its {kind.decode()} chunk"):
        inspect(png_with(kind, notes, wrong=1))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>expired</html>", "web page"),
        (b"\n  <HTML>", "web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "web page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "it is SVG"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- drawn -->\n<svg/>", "it is SVG"),
        (b'{"error": "expired"}', "JSON"),
        (b"[]", "JSON"),
        (saved(noise(), "BMP"), "it is BMP"),
        (saved(noise(), "TIFF"), "it is TIFF"),
        (b"MM\0*" + bytes(40), "it is TIFF"),
        (saved(noise(), "JPEG2000"), "it is JPEG 2000"),
        (b"\0\0\0\x24ftypheic\0\0\0\0mif1heic", "it is HEIC"),
        (b"\0\0\0\x24ftypmif1\0\0\0\0mif1avif", "it is HEIC"),
        (b"\0\0\0\x20ftypavif\0\0\0\0avifmif1", "it is AVIF"),
        (b"\0\0\0\x18ftypiso5\0\0\0\0isomavif", "it is AVIF"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "it is an MP4 or QuickTime file"),
        (b"\xff\x0a\0\0", "it is JPEG XL"),
        (b"8BPS\0\1", "it is a Photoshop file"),
        (b"PK\x03\x04", "it is a zip file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", '"git lfs pull"'),
        (saved(noise(), "ICO"), "an icon"),
        (b"%PDF-1.7", "it is PDF"),
        (b"\xff\xd8\xff", "is damaged: its header"),
        (b"\x89PNG\r\n\x1a\n", "is damaged: its header"),
        (b"\xff\xd8\xff\xff" * 9, "is damaged: its header"),
        (b"\0" * 1000, "starts with"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 1000, "is damaged"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
    ],
)
def test_what_is_no_picture(data, said):
    with pytest.raises(BadPicture) as told:
        inspect(data)
    assert said in str(told.value)
    assert str(told.value).isprintable()


def png(width, height, pixels=b"", *, cut=0):
    """A PNG with right checksums; `cut` bytes are missing at the end of its compressed pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    packed = zlib.compress(pixels)
    body = chunk(b"IDAT", packed[: len(packed) - cut])
    return b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("width", "height"), [(8001, 8000), (10_000, 10_000), (20_000, 20_000), (65_000, 65_000), (2**31 - 1, 2**31 - 1)]
)
@pytest.mark.parametrize("decode", [True, False])
def test_decompression_bombs(width, height, decode):
    with pytest.raises(BadPicture):
        inspect(png(width, height), decode=decode)


def test_an_error_of_the_decoder_itself_is_explained():
    whole = png(300, 200)
    without_pixels = whole[: whole.index(b"IDAT") - 4] + whole[whole.index(b"IEND") - 4 :]
    with pytest.raises(BadPicture, match="is damaged: its structure is invalid"):
        inspect(without_pixels)


def test_the_bound_on_pixels():
    data = saved(noise(20, 10), "PNG")
    assert inspect(data, max_pixels=200) == Picture("PNG", 20, 10)
    with pytest.raises(BadPicture, match="has 20 x 10 = 200 pixels; at most 199 are allowed"):
        inspect(data, max_pixels=199)
    assert MAX_PIXELS > 6198 * 3520


@pytest.mark.thorough
@pytest.mark.parametrize("decode", [True, False])
def test_a_jpeg_that_is_painted_over_and_over(decode):
    data = saved(Image.new("L", (6000, 6000), 128), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xc4", 0, data.rindex(b"\xff\xda")) : -2]
    assert inspect(data[:-2] + last * 9 + data[-2:], decode=decode) == Picture("JPEG", 6000, 6000)
    with pytest.raises(BadPicture, match="has more than 200 scans"):
        inspect(data[:-2] + last * 5_000 + data[-2:], decode=decode)


def test_a_jpeg_full_of_notes():
    data = GOOD["jpeg with exif"]
    note = b"\xff\xe1\0\x08Exif\0\0"
    assert inspect(data[:2] + note * 900 + data[2:]) == Picture("JPEG", 40, 30)
    with pytest.raises(BadPicture, match="more than 1000 Exif parts"):
        inspect(data[:2] + note * 500_000 + data[2:])


@pytest.mark.parametrize(("width", "height"), [(0, 10), (10, 0), (0, 0)])
def test_pictures_of_nothing(width, height):
    with pytest.raises(BadPicture):
        inspect(png(width, height))


def test_pixels_that_end_early():
    pixels = (b"\0" + bytes(range(12))) * 400
    assert inspect(png(4, 400, pixels)) == Picture("PNG", 4, 400)
    for cut in range(20, len(zlib.compress(pixels))):
        with pytest.raises(BadPicture):
            inspect(png(4, 400, pixels, cut=cut))


@pytest.mark.parametrize("name", ["jpeg", "png"])
@pytest.mark.parametrize("garbage", [b"\0", b"\r\n", b"x" * 1000, b"<html>"])
def test_bytes_after_the_end_do_no_harm(name, garbage):
    # Cameras and services put notes there; the picture itself is whole.
    assert inspect(GOOD[name] + garbage) == inspect(GOOD[name])


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError):
        inspect(tmp_path / "none.png")
    with pytest.raises(IsADirectoryError):
        inspect(tmp_path)


def test_damaged_notes_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inspect(saved(noise(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"))
        with pytest.raises(BadPicture):
            inspect(png(10_000, 10_000))
        with pytest.raises(UserWarning, match="still an error"):
            warnings.warn("still an error", stacklevel=1)


def test_many_threads_leave_warnings_as_they_were():
    before = list(warnings.filters)
    failures = []

    def work():
        try:
            for _ in range(30):
                inspect(GOOD["jpeg"])
        except Exception as error:  # noqa: BLE001 - shown below
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert warnings.filters == before


@settings(max_examples=examples(300))
@given(data=st.data())
def test_damage_of_any_kind_is_told_as_damage(data):
    picture = bytearray(GOOD[data.draw(st.sampled_from(sorted(GOOD)))])
    for _ in range(data.draw(st.integers(0, 5))):
        # Half of the hits land in the headers, where there is more to go wrong than in the pixels.
        last = data.draw(st.sampled_from([min(100, len(picture)), len(picture)])) - 1
        picture[data.draw(st.integers(0, last))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        start = data.draw(st.integers(0, len(picture)))
        del picture[start : start + data.draw(st.integers(0, 300))]
    try:
        found = inspect(bytes(picture))
    except BadPicture:
        return
    assert found.format in FORMATS
    assert found.width * found.height <= MAX_PIXELS


@pytest.mark.parametrize(("kind", "named"), [("WEBP", "WebP"), ("GIF", "GIF"), ("AVIF", "AVIF")])
def test_a_reference_is_of_fewer_formats(kind, named):
    with pytest.raises(BadPicture, match=rf"is not a JPEG or PNG image \(it is {named}\)"):
        inspect(saved(noise(), kind), formats=REFERENCES)


STARTS = [b"", b"\xff\xd8", b"\xff\xd8\xff\xe1", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"GIF89a"]


@settings(max_examples=examples(300))
@given(start=st.sampled_from(STARTS), rest=st.binary(max_size=200))
def test_any_bytes_are_a_picture_or_a_bad_one(start, rest):
    with suppress(BadPicture):
        inspect(start + rest)
