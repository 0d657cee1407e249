"""Checks a submission against the service's documented limits.

`check_request` looks at the request alone, without I/O, so a property test can compare it with any other description of
the same limits. `check_inline_images` also decodes the images inside data URIs.
"""

import base64
import binascii
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

MODELS = ("doubao-seedance-4-5", "Doubao-Seedream-4.5", "doubao-seedream-4.5", "doubao-seedream-4-5")
PIXELS: dict[str, dict[str, tuple[int, int]]] = {
    "2K": {
        "1:1": (2048, 2048),
        "4:3": (2304, 1728),
        "3:4": (1728, 2304),
        "16:9": (2560, 1440),
        "9:16": (1440, 2560),
        "3:2": (2496, 1664),
        "2:3": (1664, 2496),
        "21:9": (3024, 1296),
        "9:21": (1296, 3024),
    },
    "4K": {
        "1:1": (4096, 4096),
        "4:3": (4694, 3520),
        "3:4": (3520, 4694),
        "16:9": (5404, 3040),
        "9:16": (3040, 5404),
        "3:2": (4992, 3328),
        "2:3": (3328, 4992),
        "21:9": (6198, 2656),
        "9:21": (2656, 6198),
    },
}
"""The pixel sizes of images for each resolution and ratio, from the service's documentation."""

SIZES = (*PIXELS["2K"], "auto")

MAX_IMAGES = 15
"""References and requested images together."""
MAX_REFERENCE_BYTES = 10 * 1024 * 1024
MAX_REFERENCE_PIXELS = 6000 * 6000
MIN_REFERENCE_SIDE = 15  # "more than 14 px"
MAX_ASPECT_RATIO = 3

_COUNT = {"type": "integer", "minimum": 1, "maximum": MAX_IMAGES}
PARAMETERS: dict[str, dict[str, Any]] = {
    "model": {"type": "string", "enum": list(MODELS), "default": MODELS[0]},
    "prompt": {"type": "string", "minLength": 1},
    "size": {"type": "string", "enum": list(SIZES), "default": "1:1"},
    "resolution": {"type": "string", "enum": list(PIXELS), "default": "2K"},
    "n": {**_COUNT, "default": 1, "description": "with image_urls only, and at most 15 minus their number"},
    "image_urls": {"type": "array", "items": {"type": "string"}},
    "optimize_prompt_options": {
        "type": "object",
        "properties": {"mode": {"type": "string", "enum": ["standard", "fast"], "default": "standard"}},
    },
    "sequential_image_generation": {"type": "string", "enum": ["disabled", "auto"], "default": "disabled"},
    "sequential_image_generation_options": {"type": "object", "properties": {"max_images": _COUNT}},
    "watermark": {"type": "boolean", "default": False},
}
"""The parameters of a submission, as GET /v1/model-schema describes them; limits that span fields are not in it."""

_WEB_URL = re.compile(r"https?://[^\s/?#][^\s]*")
_DATA_URI = re.compile(r"data:image/(?P<kind>jpeg|png);base64,(?P<payload>[A-Za-z0-9+/]+={0,2})")


def check_request(body: object, *, strict: bool) -> list[str]:
    """Return everything that is wrong with the body of a submission; nothing for a valid one.

    Each message starts with the name of the field. Strict refuses fields that the documentation doesn't name.
    """
    if not isinstance(body, dict):
        return ["body: must be a JSON object"]
    return [
        *_unknown_fields(body, PARAMETERS, "", strict=strict),
        *_check_fields(body),
        *_check_references(body),
        *_check_options(body, strict=strict),
        *_check_combined_limits(body),
    ]


def check_inline_images(body: dict[str, Any]) -> list[str]:
    """Return what is wrong with the images inside the data URIs of a body that passed `check_request`."""
    wrong: list[str] = []
    for index, reference in enumerate(body.get("image_urls", ())):
        data = data_uri_bytes(reference)
        if data is not None:
            wrong += [f"image_urls[{index}]: {message}" for message in check_reference_image(data)]
    return wrong


def check_reference_image(data: bytes) -> list[str]:
    """Return which limits for reference images these bytes break: jpeg or png, ratio, sides, pixels, bytes."""
    if len(data) > MAX_REFERENCE_BYTES:
        return [f"must be at most 10 MB, is {len(data)} bytes"]
    inspected = inspect_image(data)
    if inspected is None or inspected[0] not in {"JPEG", "PNG"}:
        return ["must be a jpeg or png image"]
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
    """Return the format (as Pillow names it), width and height in pixels of an image; None for other bytes."""
    from PIL import Image  # noqa: PLC0415 - checking a request without images must not take the time of the import

    try:
        with Image.open(io.BytesIO(data)) as image:
            return str(image.format), image.width, image.height
    # Decoders raise all kinds of errors on invalid bytes; each of them means that this is not an image.
    except Exception:  # noqa: BLE001
        return None


def data_uri_bytes(reference: str) -> bytes | None:
    """Return the bytes inside a data URI; None for any other reference and for an incomplete one."""
    match = _DATA_URI.fullmatch(reference)
    try:
        return None if match is None else base64.b64decode(match["payload"], validate=True)
    except binascii.Error:
        return None


def images_requested(body: dict[str, Any]) -> int:
    """Return how many images a valid body requests, and so how many are charged in advance.

    That is `n`, or `max_images` if the sequential mode is on and `max_images` is larger.
    """
    requested = int(body.get("n", 1))
    if body.get("sequential_image_generation") == "auto":
        requested = max(requested, int(body.get("sequential_image_generation_options", {}).get("max_images", 1)))
    return requested


def _unknown_fields(part: dict[str, Any], known: Iterable[str], prefix: str, *, strict: bool) -> Iterator[str]:
    if strict:
        yield from (f"{prefix}{name}: unknown parameter" for name in part if name not in known)


def _check_fields(body: dict[str, Any]) -> Iterator[str]:
    """Check the fields with one plain value."""
    for name in ("model", "prompt"):
        if name not in body:
            yield f"{name}: is required"
    # White space counts as empty.
    if "prompt" in body and (not isinstance(body["prompt"], str) or not body["prompt"].strip()):
        yield "prompt: must be a string that is not empty"
    for name in ("model", "size", "resolution", "sequential_image_generation"):
        allowed = PARAMETERS[name]["enum"]
        if name in body and not (isinstance(body[name], str) and body[name] in allowed):
            yield f"{name}: must be one of {', '.join(allowed)}"
    if "watermark" in body and not isinstance(body["watermark"], bool):
        yield "watermark: must be true or false"
    if "n" in body and not _is_count(body["n"]):
        yield "n: must be an integer from 1 to 15, a number without quotes"


def _check_references(body: dict[str, Any]) -> Iterator[str]:
    references = body.get("image_urls", [])
    if not isinstance(references, list):
        yield "image_urls: must be a list of strings"
        return
    for index, reference in enumerate(references):
        if not isinstance(reference, str):
            yield f"image_urls[{index}]: must be a string"
        elif reference.startswith("data:"):
            if not data_uri_bytes(reference):
                yield f"image_urls[{index}]: must be a complete data URI, data:image/jpeg;base64,... or image/png"
        elif _WEB_URL.fullmatch(reference) is None:
            yield f"image_urls[{index}]: must be an http:// or https:// URL or a data URI"


def _is_count(value: object) -> bool:
    """Return whether this is an integer from 1 to 15.

    JSON has one kind of number, so 1.0 is an integer; true and "1" are not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 1 <= value <= MAX_IMAGES and value == int(value)


_OPTIONS: Mapping[str, tuple[str, Callable[[object], bool], str]] = {
    "optimize_prompt_options": ("mode", lambda value: value in ("standard", "fast"), "one of standard, fast"),
    "sequential_image_generation_options": ("max_images", _is_count, "an integer from 1 to 15"),
}
"""For each object: its only field, the check of that, and what it must be."""


def _check_options(body: dict[str, Any], *, strict: bool) -> Iterator[str]:
    for field, (name, accepts, expected) in _OPTIONS.items():
        options = body.get(field, {})
        if not isinstance(options, dict):
            yield f"{field}: must be an object"
            continue
        yield from _unknown_fields(options, (name,), f"{field}.", strict=strict)
        if name in options and not accepts(options[name]):
            yield f"{field}.{name}: must be {expected}"
    if "sequential_image_generation_options" in body and body.get("sequential_image_generation") != "auto":
        yield "sequential_image_generation_options: only together with sequential_image_generation auto"


def _check_combined_limits(body: dict[str, Any]) -> Iterator[str]:
    """Check limits that span fields. Fields that are invalid themselves count as absent: they are reported above."""
    listed = body.get("image_urls")
    references = len(listed) if isinstance(listed, list) else 0
    n = body.get("n", 1)
    requested = int(n) if _is_count(n) else 1
    options = body.get("sequential_image_generation_options")
    most = options.get("max_images", 1) if isinstance(options, dict) else 1
    most = int(most) if _is_count(most) else 1
    if references == 0:
        if body.get("size") == "auto":
            yield "size: auto needs image_urls"
        if requested > 1:
            yield "n: several images need image_urls, text alone makes one image"
        if body.get("sequential_image_generation") == "auto":
            yield "sequential_image_generation: auto needs image_urls"
    if references + requested > MAX_IMAGES:
        yield f"image_urls: references and n together must be at most 15, are {references} + {requested}"
    if references + most > MAX_IMAGES:
        yield f"image_urls: references and max_images together must be at most 15, are {references} + {most}"


def nearest_ratio(width: int, height: int) -> str:
    """Return the service's ratio that is nearest to width x height pixels (by the quotient of the two)."""

    def distance(ratio: str) -> float:
        wide, high = ratio.split(":")
        quotient = (width * int(high)) / (height * int(wide))
        return max(quotient, 1 / quotient)

    return min(PIXELS["2K"], key=distance)
