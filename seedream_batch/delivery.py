"""Check whether the service delivered what was requested. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from seedream_batch.model.document import Json

PLACEHOLDER = 32 * 32
"""Pixels below which an image is a placeholder of the image host."""

RATIO_TOLERANCE = 0.03
"""Tolerated deviation from the requested ratio, as a fraction: sizes are rounded to blocks of pixels."""

AUTO_TOLERANCE = 0.2
"""The same for a ratio that follows a reference: the service may use the closest ratio that it supports."""

LEAST_PIXELS = 0.5
"""Least fraction of the requested pixels: the service's own tables differ by up to a third."""

_WIDEST = 21 / 9
"""The widest ratio that the service makes, whatever the reference; the tallest one is its inverse."""

_RATIO = re.compile(r"(\d{1,5}(?:\.\d+)?)\s*[:xX*]\s*(\d{1,5}(?:\.\d+)?)")
_RESOLUTION = re.compile(r"(\d{1,2}(?:\.\d+)?)[kK]")


def is_placeholder(width: int, height: int) -> bool:
    """Return whether an image of this size can only be a placeholder."""
    return width * height < PLACEHOLDER


def wrong_picture(
    size: str, resolution: str, width: int, height: int, references: Sequence[tuple[int, int]] = ()
) -> str:
    """Return why an image of width x height pixels is not what was requested; empty if it is.

    `size` is an aspect ratio or `auto`, which follows one of the `references` (the known sizes in pixels); `resolution`
    is a word such as 2K. What cannot be derived from them is not checked.
    """
    ratios = _ratios(size, references)
    deviation = math.log1p(AUTO_TOLERANCE if size == "auto" else RATIO_TOLERANCE)
    other_ratio = bool(ratios) and min(abs(math.log(width / height / ratio)) for ratio in ratios) > deviation
    pixels = _pixels(size, resolution)
    too_few = pixels is not None and width * height < LEAST_PIXELS * pixels
    if not other_ratio and not too_few:
        return ""
    actual = f"{width} x {height} pixels"
    requested = f"{size} at {resolution}" if resolution else size
    about = ""
    if pixels is not None and len(ratios) == 1:
        about = f" (about {math.sqrt(pixels * ratios[0]):.0f} x {math.sqrt(pixels / ratios[0]):.0f})"
    what = "another ratio" if other_ratio else "far fewer pixels"
    return f"{actual}, {what} than the requested {requested}{about}"


def leaves_count_open(body: Mapping[str, Json]) -> bool:
    """Return whether a request lets the service choose how many images it makes: group mode without a number."""
    options = body.get("sequential_image_generation_options") or {}
    grouped = body.get("sequential_image_generation") == "auto"
    return grouped and options.get("max_images") is None and int(body.get("n", 1)) <= 1


def wrong_count(there: int, asked: int, errors: Sequence[str] = (), *, at_most: bool = False) -> str:
    """Return why `there` images are not the `asked` ones; empty if they are.

    `errors` are what the service said in place of images. With `at_most`, fewer are fine if there is no error.
    """
    if there == asked or (at_most and 0 < there < asked and not errors):
        return ""
    details = f": {'; '.join(errors)}" if errors else ""
    if there < asked:
        return f"{asked - there} of {asked} images missing{details}"
    return f"{there} images delivered instead of {asked}{details}"


def in_place(links: Sequence[str], known: Sequence[str]) -> list[int]:
    """Return the position in `links` of each image: first those with the `known` links, then further ones.

    A known link, even with a new signature, stays with its image; the others fill the gaps in order.
    """
    places: dict[int, int] = {}
    for same in (str, _unsigned):
        for image, link in enumerate(known):
            matches = [place for place, other in enumerate(links) if same(other) == same(link)]
            if image not in places and link and len(matches) == 1 and matches[0] not in places.values():
                places[image] = matches[0]
    rest = (place for place in range(len(links)) if place not in places.values())
    return [places[image] if image in places else next(rest) for image in range(len(links))]


def _unsigned(link: str) -> str:
    return link.partition("?")[0]


def _ratios(size: str, references: Sequence[tuple[int, int]]) -> list[float]:
    if size == "auto":
        return [min(max(width / height, 1 / _WIDEST), _WIDEST) for width, height in references if width and height]
    match = _RATIO.fullmatch(size.strip())
    sides = [float(match[1]), float(match[2])] if match else []
    return [sides[0] / sides[1]] if sides and all(sides) else []


def _pixels(size: str, resolution: str) -> float | None:
    """Return the requested pixels: of a square with the resolution's side, or of a size in pixels; None if unknown."""
    match = _RESOLUTION.fullmatch(resolution.strip())
    if match:
        return (1024.0 * float(match[1])) ** 2
    sides = _RATIO.fullmatch(size.strip())
    if sides and min(float(sides[1]), float(sides[2])) >= 100:
        return float(sides[1]) * float(sides[2])
    return None
