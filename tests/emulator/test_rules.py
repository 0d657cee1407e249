"""Each limit of a submission, on both sides of its boundary."""

import base64

import pytest
from examples import some
from hypothesis import given
from hypothesis import strategies as st

from seedream_batch.emulator.world.request_rules import (
    PARAMETERS,
    check_inline_images,
    check_reference_image,
    check_request,
    images_requested,
)

WEB = "https://example.com/{}.png"
PIXEL = "data:image/png;base64,iVBORw0KGgo="


def body(**fields):
    request = {"model": "doubao-seedance-4-5", "prompt": "a fox", **fields}
    return {name: value for name, value in request.items() if value is not ...}


def references(count):
    return [WEB.format(index) for index in range(count)]


GOOD = {
    "the least": {},
    "model Doubao-Seedream-4.5": {"model": "Doubao-Seedream-4.5"},
    "model doubao-seedream-4.5": {"model": "doubao-seedream-4.5"},
    "model doubao-seedream-4-5": {"model": "doubao-seedream-4-5"},
    "4K": {"resolution": "4K"},
    "2K": {"resolution": "2K"},
    "n one": {"n": 1},
    "n one with a point": {"n": 1.0},
    "references and n make 15": {"n": 13, "image_urls": references(2)},
    "14 references": {"image_urls": references(14)},
    "no references, as an empty list": {"image_urls": []},
    "http reference": {"image_urls": ["http://example.com/a"]},
    "data URI png": {"image_urls": [PIXEL]},
    "data URI jpeg": {"image_urls": ["data:image/jpeg;base64,/9j/4AAQ"]},
    "auto size with a reference": {"size": "auto", "image_urls": references(1)},
    "prompt options": {"optimize_prompt_options": {"mode": "fast"}},
    "prompt options, empty": {"optimize_prompt_options": {}},
    "sequential disabled": {"sequential_image_generation": "disabled"},
    "sequential disabled, n above 1": {
        "sequential_image_generation": "disabled",
        "n": 2,
        "image_urls": references(1),
    },
    "sequential auto": {"sequential_image_generation": "auto", "image_urls": references(1)},
    "references and max_images make 15": {
        "sequential_image_generation": "auto",
        "sequential_image_generation_options": {"max_images": 14},
        "image_urls": references(1),
    },
    "watermark": {"watermark": True},
    **{
        f"size {ratio}": {"size": ratio}
        for ratio in ("1:1", "4:3", "3:4", "16:9", "9:16", "3:2", "2:3", "21:9", "9:21")
    },
}

AUTO = {"sequential_image_generation": "auto", "image_urls": references(1)}
BAD = {
    "no model": ({"model": ...}, "model"),
    "another model": ({"model": "doubao-seedream-5"}, "model"),
    "model of another type": ({"model": ["doubao-seedance-4-5"]}, "model"),
    "no prompt": ({"prompt": ...}, "prompt"),
    "empty prompt": ({"prompt": ""}, "prompt"),
    "prompt of white space": ({"prompt": " \n"}, "prompt"),
    "prompt null": ({"prompt": None}, "prompt"),
    "prompt a number": ({"prompt": 5}, "prompt"),
    "unknown size": ({"size": "5:4"}, "size"),
    "size with a cross": ({"size": "2048x2048"}, "size"),
    "size as YAML 1.1 reads 16:9": ({"size": 969}, "size"),
    "auto size without references": ({"size": "auto"}, "size"),
    "auto size with an empty list": ({"size": "auto", "image_urls": []}, "size"),
    "1K": ({"resolution": "1K"}, "resolution"),
    "lower case": ({"resolution": "2k"}, "resolution"),
    "resolution null": ({"resolution": None}, "resolution"),
    "n zero": ({"n": 0}, "n"),
    "n 16": ({"n": 16, "image_urls": references(1)}, "n"),
    "n in quotes": ({"n": "1"}, "n"),
    "n true": ({"n": True}, "n"),
    "n in between": ({"n": 1.5}, "n"),
    "n not finite": ({"n": float("inf")}, "n"),
    "n null": ({"n": None}, "n"),
    "several without references": ({"n": 2}, "n"),
    "references and n make 16": ({"n": 2, "image_urls": references(14)}, "image_urls"),
    "15 references": ({"image_urls": references(15)}, "image_urls"),
    "references no list": ({"image_urls": WEB}, "image_urls"),
    "reference no string": ({"image_urls": [5]}, "image_urls[0]"),
    "reference a path": ({"image_urls": ["fox.png"]}, "image_urls[0]"),
    "reference ftp": ({"image_urls": ["ftp://example.com/a.png"]}, "image_urls[0]"),
    "reference with a space": ({"image_urls": ["https://example.com/a b.png"]}, "image_urls[0]"),
    "reference without a host": ({"image_urls": ["https://"]}, "image_urls[0]"),
    "data URI webp": ({"image_urls": ["data:image/webp;base64,UklGRg=="]}, "image_urls[0]"),
    "data URI without base64": ({"image_urls": ["data:image/png,abcd"]}, "image_urls[0]"),
    "data URI empty": ({"image_urls": ["data:image/png;base64,"]}, "image_urls[0]"),
    "data URI broken": ({"image_urls": ["data:image/png;base64,abc"]}, "image_urls[0]"),
    "data URI with a line feed": ({"image_urls": [PIXEL + "\n"]}, "image_urls[0]"),
    "bare base64": ({"image_urls": ["iVBORw0KGgo="]}, "image_urls[0]"),
    "options no object": ({"optimize_prompt_options": "fast"}, "optimize_prompt_options"),
    "unknown mode": ({"optimize_prompt_options": {"mode": "slow"}}, "optimize_prompt_options.mode"),
    "unknown sequential": (
        {"sequential_image_generation": "on", "image_urls": references(1)},
        "sequential_image_generation",
    ),
    "sequential true": (
        {"sequential_image_generation": True, "image_urls": references(1)},
        "sequential_image_generation",
    ),
    "sequential auto without references": ({"sequential_image_generation": "auto"}, "sequential_image_generation"),
    "max_images zero": (
        {**AUTO, "sequential_image_generation_options": {"max_images": 0}},
        "sequential_image_generation_options.max_images",
    ),
    "max_images 16": (
        {**AUTO, "sequential_image_generation_options": {"max_images": 16}},
        "sequential_image_generation_options.max_images",
    ),
    "max_images in quotes": (
        {**AUTO, "sequential_image_generation_options": {"max_images": "3"}},
        "sequential_image_generation_options.max_images",
    ),
    "references and max_images make 16": (
        {**AUTO, "sequential_image_generation_options": {"max_images": 15}},
        "image_urls",
    ),
    "max_images without auto": (
        {"sequential_image_generation_options": {"max_images": 1}, "image_urls": references(1)},
        "sequential_image_generation_options",
    ),
    "max_images with disabled": (
        {
            "sequential_image_generation": "disabled",
            "sequential_image_generation_options": {"max_images": 1},
            "image_urls": references(1),
        },
        "sequential_image_generation_options",
    ),
    "sequential options no object": (
        {**AUTO, "sequential_image_generation_options": 3},
        "sequential_image_generation_options",
    ),
    "watermark a string": ({"watermark": "false"}, "watermark"),
    "watermark a number": ({"watermark": 0}, "watermark"),
}


@pytest.mark.parametrize("fields", GOOD.values(), ids=GOOD.keys())
def test_requests_within_the_limits_are_taken(fields):
    assert check_request(body(**fields), strict=True) == []
    assert check_request(body(**fields), strict=False) == []


@pytest.mark.parametrize(("fields", "named"), BAD.values(), ids=BAD.keys())
def test_requests_beyond_a_limit_are_refused_with_the_field_named(fields, named):
    for strict in (True, False):
        messages = check_request(body(**fields), strict=strict)
        assert named in {message.partition(": ")[0] for message in messages}


@pytest.mark.parametrize("request_body", [None, [], "text", 5, True])
def test_bodies_that_are_no_object_are_refused(request_body):
    assert check_request(request_body, strict=False) == ["body: must be a JSON object"]


@pytest.mark.parametrize("name", ["quality", "output_format", "response_format", "webhook", "seed"])
def test_unknown_fields_are_for_the_lenient_mode_only(name):
    assert check_request(body(**{name: "x"}), strict=True) == [f"{name}: unknown parameter"]
    assert check_request(body(**{name: "x"}), strict=False) == []


def test_unknown_options_are_for_the_lenient_mode_only():
    request = body(optimize_prompt_options={"thinking": True}, **AUTO, sequential_image_generation_options={"order": 1})
    assert len(check_request(request, strict=True)) == 2
    assert check_request(request, strict=False) == []


def test_every_mistake_is_reported_at_once():
    assert len(check_request({"n": "3", "size": "5:4", "resolution": "1K"}, strict=True)) == 5


@pytest.mark.parametrize(
    ("fields", "images"),
    [
        ({}, 1),
        ({"n": 3.0, "image_urls": references(1)}, 3),
        ({**AUTO, "sequential_image_generation_options": {"max_images": 5}}, 5),
        ({**AUTO, "n": 4, "sequential_image_generation_options": {"max_images": 2}}, 4),
        (AUTO, 1),
    ],
)
def test_how_many_images_a_request_asks_for(fields, images):
    assert images_requested(body(**fields)) == images


@pytest.mark.parametrize(
    ("size", "expected"),
    some(
        [
            ((15, 15), None),
            ((14, 15), "above 14 px"),
            ((45, 15), None),
            ((15, 45), None),
            ((46, 15), "within [1/3, 3]"),
            ((15, 46), "within [1/3, 3]"),
            ((6001, 6000), "36000000 pixels"),
            ((6000, 6000), None),
        ],
        6,
    ),
)
def test_limits_of_reference_pictures(picture, size, expected):
    messages = check_reference_image(picture(*size))
    assert messages == [] if expected is None else expected in messages[0]


def test_reference_pictures_are_jpeg_or_png_of_10_mb(picture):
    assert check_reference_image(picture(kind="JPEG")) == []
    assert check_reference_image(picture(kind="GIF")) == ["must be a jpeg or png image"]
    assert check_reference_image(b"no picture") == ["must be a jpeg or png image"]
    assert "10 MB" in check_reference_image(bytes(10 * 1024 * 1024 + 1))[0]


def test_pictures_in_data_uris_are_measured(data_uri):
    assert check_inline_images(body(image_urls=[data_uri(64, 64), data_uri(64, 64, "JPEG"), WEB])) == []
    steep = data_uri(100, 20)
    junk = "data:image/png;base64," + base64.b64encode(b"junk").decode()
    messages = check_inline_images(body(image_urls=[WEB, steep, junk]))
    assert [message.partition(":")[0] for message in messages] == ["image_urls[1]", "image_urls[2]"]


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["auto", "1:1", PIXEL])
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["mode", "max_images", "other"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*PARAMETERS]) | st.text(), VALUES, max_size=8))
def test_any_json_is_judged_and_strict_refuses_all_that_lenient_refuses(request_body):
    lenient = check_request(request_body, strict=False)
    assert set(lenient) <= set(check_request(request_body, strict=True))
