"""Small copies of pictures."""

import io

import pytest
from examples import some
from PIL import Image

from seedream_batch.files.image_inspection import BadPicture
from seedream_batch.report.thumbnails import thumbnail


def picture(mode, size, form, **options):
    data = io.BytesIO()
    Image.new(mode, size, 120 if mode in {"L", "P", "1"} else None).save(data, form, **options)
    return data.getvalue()


@pytest.mark.parametrize(
    ("size", "small"),
    some([((2048, 2048), (256, 256)), ((9, 7), (9, 7)), ((1296, 3024), (110, 256)), ((5404, 3040), (256, 144))], 2),
)
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_the_longer_side_is_bounded_and_the_ratio_kept(size, small, form):
    with Image.open(io.BytesIO(thumbnail(picture("RGB", size, form), 256))) as image:
        assert image.format == "WEBP"
        assert image.size == pytest.approx(small, abs=1)


@pytest.mark.parametrize(
    ("mode", "form"), [("L", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG"), ("LA", "PNG"), ("1", "PNG")]
)
def test_any_kind_of_colour(mode, form):
    with Image.open(io.BytesIO(thumbnail(picture(mode, (600, 300), form), 256))) as image:
        assert image.size == (256, 128)
        assert image.mode == "RGB"


def test_it_is_the_same_picture():
    data = io.BytesIO()
    Image.linear_gradient("L").resize((1024, 1024)).save(data, "JPEG", quality=95)
    with Image.open(io.BytesIO(thumbnail(data.getvalue(), 256))) as image:
        assert [abs(image.getpixel((128, y))[0] - y) < 8 for y in (10, 128, 245)] == [True] * 3


@pytest.mark.parametrize(
    "data", [b"", b"text", picture("RGB", (300, 300), "JPEG")[:200], picture("RGB", (9, 9), "PNG")[:40]]
)
def test_what_is_no_picture(data):
    with pytest.raises(BadPicture):
        thumbnail(data, 256)
