"""Checks a submission against the service's documented limits.

`check_request` looks at the request alone, without I/O, so a property test can compare it with any other description of
the same limits. `check_inline_images` also decodes the images inside data URIs.
"""

import base64
import binascii
import io
import re
from collections.abc import Iterator
from typing import Any

MODELS = ("doubao-seedance-4-5", "Doubao-Seedream-4.5", "doubao-seedream-4.5", "doubao-seedream-4-5")
SIZES = ("1:1", "4:3", "3:4", "16:9", "9:16", "3:2", "2:3", "21:9", "9:21", "auto")
RESOLUTIONS = ("2K", "4K")
FIELDS = (
    "model",
    "prompt",
    "size",
    "resolution",
    "n",
    "image_urls",
    "optimize_prompt_options",
    "sequential_image_generation",
    "sequential_image_generation_options",
    "watermark",
)

MAX_IMAGES = 15  # references and images asked for, together
MAX_REFERENCE_BYTES = 10 * 1024 * 1024
MAX_REFERENCE_PIXELS = 6000 * 6000
MIN_REFERENCE_SIDE = 15  # "more than 14 px"
MAX_ASPECT_RATIO = 3

_WEB_URL = re.compile(r"https?://[^\s/?#][^\s]*")
_DATA_URI = re.compile(r"data:image/(?P<kind>jpeg|png);base64,(?P<payload>[A-Za-z0-9+/]+={0,2})")


def check_request(body: object, *, strict: bool) -> list[str]:
    """Everything that is wrong with the body of a submission; empty when the service takes it.

    Each message begins with the name of the field. Strict refuses fields that the documentation doesn't name.
    """
    if not isinstance(body, dict):
        return ["body: must be a JSON object"]
    return [
        *_unknown_fields(body, FIELDS, "", strict=strict),
        *_check_fields(body),
        *_check_n(body),
        *_check_references(body),
        *_check_options(body, strict=strict),
        *_check_combined_limits(body),
    ]


def check_inline_images(body: dict[str, Any]) -> list[str]:
    """What is wrong with the pictures inside the data URIs of a body that `check_request` took."""
    wrong: list[str] = []
    for index, reference in enumerate(body.get("image_urls", ())):
        match = _DATA_URI.fullmatch(reference)
        if match is not None:
            data = base64.b64decode(match["payload"], validate=True)
            wrong += [f"image_urls[{index}]: {message}" for message in check_reference_image(data)]
    return wrong


def check_reference_image(data: bytes) -> list[str]:
    """Which limits for reference pictures these bytes break: jpeg or png, ratio, sides, pixels, bytes."""
    if len(data) > MAX_REFERENCE_BYTES:
        return [f"must be at most 10 MB, is {len(data)} bytes"]
    inspected = inspect_image(data)
    if inspected is None or inspected[0] not in {"JPEG", "PNG"}:
        return ["must be a jpeg or png picture"]
    _, width, height = inspected
    wrong = []
    if min(width, height) < MIN_REFERENCE_SIDE:
        wrong.append(f"width and height must be above 14 px, are {width}x{height}")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        wrong.append(f"width / height must be within [1/3, 3], is {width}x{height}")
    if width * height > MAX_REFERENCE_PIXELS:
        wrong.append(f"must have at most 36000000 pixels, has {width * height}")
    return wrong


def inspect_image(data: bytes) -> tuple[str, int, int] | None:
    """Format (as Pillow names it), width and height in pixels of a picture; None if these bytes are none."""
    from PIL import Image  # noqa: PLC0415 - judging a request without pictures must not cost the import

    try:
        with Image.open(io.BytesIO(data)) as picture:
            return str(picture.format), picture.width, picture.height
    # A decoder fed with anything raises anything; whatever it was, these bytes are no picture.
    except Exception:  # noqa: BLE001
        return None


def data_uri_bytes(reference: str) -> bytes | None:
    """The bytes inside a data URI; None for any other reference."""
    match = _DATA_URI.fullmatch(reference)
    return None if match is None else base64.b64decode(match["payload"])


def images_asked(body: dict[str, Any]) -> int:
    """How many images a valid body asks for, and so how many are charged in advance.

    `n`, or `max_images` where the sequential mode is on and asks for more.
    """
    asked = int(body.get("n", 1))
    if body.get("sequential_image_generation") == "auto":
        asked = max(asked, int(body.get("sequential_image_generation_options", {}).get("max_images", 1)))
    return asked


def _unknown_fields(part: dict[str, Any], known: tuple[str, ...], prefix: str, *, strict: bool) -> Iterator[str]:
    if strict:
        yield from (f"{prefix}{name}: unknown parameter" for name in part if name not in known)


def _check_fields(body: dict[str, Any]) -> Iterator[str]:
    for name in ("model", "prompt"):
        if name not in body:
            yield f"{name}: is required"
    # White space alone says nothing, and counts as empty.
    if "prompt" in body and (not isinstance(body["prompt"], str) or not body["prompt"].strip()):
        yield "prompt: must be a string that is not empty"
    choices = (
        ("model", MODELS),
        ("size", SIZES),
        ("resolution", RESOLUTIONS),
        ("sequential_image_generation", ("disabled", "auto")),
    )
    for name, allowed in choices:
        if name in body and not _one_of(body[name], allowed):
            yield f"{name}: must be one of {', '.join(allowed)}"
    if "watermark" in body and not isinstance(body["watermark"], bool):
        yield "watermark: must be true or false"


def _check_n(body: dict[str, Any]) -> Iterator[str]:
    if "n" in body and not _is_count(body["n"]):
        yield "n: must be an integer from 1 to 15, a number without quotes"


def _check_references(body: dict[str, Any]) -> Iterator[str]:
    if "image_urls" not in body:
        return
    references = body["image_urls"]
    if not isinstance(references, list):
        yield "image_urls: must be a list of strings"
        return
    for index, reference in enumerate(references):
        if not isinstance(reference, str):
            yield f"image_urls[{index}]: must be a string"
        elif reference.startswith("data:"):
            if not _is_data_uri(reference):
                yield f"image_urls[{index}]: must be a complete data URI, data:image/jpeg;base64,... or image/png"
        elif _WEB_URL.fullmatch(reference) is None:
            yield f"image_urls[{index}]: must be an http:// or https:// URL or a data URI"


def _check_options(body: dict[str, Any], *, strict: bool) -> Iterator[str]:
    if "optimize_prompt_options" in body:
        options = body["optimize_prompt_options"]
        if not isinstance(options, dict):
            yield "optimize_prompt_options: must be an object"
        else:
            yield from _unknown_fields(options, ("mode",), "optimize_prompt_options.", strict=strict)
            if "mode" in options and not _one_of(options["mode"], ("standard", "fast")):
                yield "optimize_prompt_options.mode: must be one of standard, fast"
    if "sequential_image_generation_options" in body:
        options = body["sequential_image_generation_options"]
        if not isinstance(options, dict):
            yield "sequential_image_generation_options: must be an object"
        else:
            yield from _unknown_fields(options, ("max_images",), "sequential_image_generation_options.", strict=strict)
            if "max_images" in options and not _is_count(options["max_images"]):
                yield "sequential_image_generation_options.max_images: must be an integer from 1 to 15"
        if body.get("sequential_image_generation") != "auto":
            yield "sequential_image_generation_options: only together with sequential_image_generation auto"


def _check_combined_limits(body: dict[str, Any]) -> Iterator[str]:
    """The limits that span fields. Fields that are broken by themselves count as absent here: they are told above."""
    listed = body.get("image_urls")
    references = len(listed) if isinstance(listed, list) else 0
    n = body.get("n", 1)
    asked = int(n) if _is_count(n) else 1
    automatic = body.get("sequential_image_generation") == "auto"
    options = body.get("sequential_image_generation_options")
    most = options.get("max_images", 1) if isinstance(options, dict) else 1
    most = int(most) if _is_count(most) else 1

    if references == 0:
        if body.get("size") == "auto":
            yield "size: auto needs image_urls"
        if asked > 1:
            yield "n: several images need image_urls, text alone makes one image"
        if automatic:
            yield "sequential_image_generation: auto needs image_urls"
    if references + asked > MAX_IMAGES:
        yield f"image_urls: references and n together must be at most 15, are {references} + {asked}"
    if references + most > MAX_IMAGES:
        yield f"image_urls: references and max_images together must be at most 15, are {references} + {most}"


def _one_of(value: object, allowed: tuple[str, ...]) -> bool:
    return isinstance(value, str) and value in allowed


def _is_count(value: object) -> bool:
    """Whether this is an integer from 1 to 15. JSON has one kind of number, so 1.0 is one; true and "1" are not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 1 <= value <= MAX_IMAGES and value == int(value)


def _is_data_uri(reference: str) -> bool:
    match = _DATA_URI.fullmatch(reference)
    if match is None:
        return False
    try:
        return bool(base64.b64decode(match["payload"], validate=True))
    except binascii.Error:
        return False
