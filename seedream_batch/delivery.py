"""Whether what the service delivered is what was requested: pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from seedream_batch.model.document import Json

PLACEHOLDER = 32 * 32
"""Pixels below which a picture is no result at all, but what a host shows in the place of one."""

RATIO_TOLERANCE = 0.03
"""How far a picture may be from the requested ratio, as a part of it: sizes are rounded to whole blocks of pixels."""

AUTO_TOLERANCE = 0.2
"""The same for a ratio that follows a reference: the service may take the closest one that it knows."""

LEAST_PIXELS = 0.5
"""The part of the requested pixels that a picture has to have: the service's own tables differ by up to a third."""

_WIDEST = 21 / 9
"""The widest ratio that the service makes, whatever a reference has; the highest one is its inverse."""

_RATIO = re.compile(r"(\d{1,5}(?:\.\d+)?)\s*[:xX*]\s*(\d{1,5}(?:\.\d+)?)")
_RESOLUTION = re.compile(r"(\d{1,2}(?:\.\d+)?)[kK]")


def is_placeholder(width: int, height: int) -> bool:
    """Whether a picture of so many pixels can only stand in for another one."""
    return width * height < PLACEHOLDER


def wrong_picture(
    size: str, resolution: str, width: int, height: int, references: Sequence[tuple[int, int]] = ()
) -> str:
    """Why a picture of width x height pixels is not what was requested; empty if it is.

    `size` is an aspect ratio or `auto`, which follows one of the `references` (pixels of those that are known),
    `resolution` a word such as 2K. What cannot be told from them is not judged.
    """
    ratios = _ratios(size, references)
    tolerance = AUTO_TOLERANCE if size == "auto" else RATIO_TOLERANCE
    other_ratio = bool(ratios) and min(abs(math.log(width / height / one)) for one in ratios) > math.log1p(tolerance)
    pixels = _pixels(size, resolution)
    too_few = pixels is not None and width * height < LEAST_PIXELS * pixels
    if not other_ratio and not too_few:
        return ""
    found = f"{width} x {height} pixels"
    wanted = f"{size} at {resolution}" if resolution else size
    about = ""
    if pixels is not None and len(ratios) == 1:
        about = f" (about {math.sqrt(pixels * ratios[0]):.0f} x {math.sqrt(pixels / ratios[0]):.0f})"
    what = "another ratio" if other_ratio else "far fewer pixels"
    return f"{found}, {what} than the requested {wanted}{about}"


def leaves_count_open(body: Mapping[str, Json]) -> bool:
    """Return whether a request lets the service choose how many images it makes: group mode without a number."""
    options = body.get("sequential_image_generation_options") or {}
    grouped = body.get("sequential_image_generation") == "auto"
    return grouped and options.get("max_images") is None and int(body.get("n", 1)) <= 1


def wrong_count(there: int, asked: int, errors: Sequence[str] = (), *, at_most: bool = False) -> str:
    """Why `there` images are not what was requested, if `asked` were; empty if they are.

    `errors` are what the service said in the place of images. With `at_most`, fewer are fine if there is no error.
    """
    if there == asked or (at_most and 0 < there < asked and not errors):
        return ""
    told = f": {'; '.join(errors)}" if errors else ""
    if there < asked:
        return f"{asked - there} of {asked} images lacking{told}"
    return f"{there} images were delivered, and {asked} requested{told}"


def in_place(links: Sequence[str], known: Sequence[str]) -> list[int]:
    """Return the position in `links` of each image: first of those with the `known` links, then of further ones.

    A link that is known, signed anew or not, stays with its image; the others fill the gaps in their order.
    """
    places: dict[int, int] = {}
    for same in (str, _unsigned):
        for image, link in enumerate(known):
            found = [one for one, other in enumerate(links) if same(other) == same(link)]
            if image not in places and link and len(found) == 1 and found[0] not in places.values():
                places[image] = found[0]
    rest = (one for one in range(len(links)) if one not in places.values())
    return [places[image] if image in places else next(rest) for image in range(len(links))]


def _unsigned(link: str) -> str:
    return link.partition("?")[0]


def _ratios(size: str, references: Sequence[tuple[int, int]]) -> list[float]:
    if size == "auto":
        return [min(max(width / height, 1 / _WIDEST), _WIDEST) for width, height in references if width and height]
    found = _RATIO.fullmatch(size.strip())
    sides = [float(found[1]), float(found[2])] if found else []
    return [sides[0] / sides[1]] if sides and all(sides) else []


def _pixels(size: str, resolution: str) -> float | None:
    """Pixels that were requested: those of a square with the resolution's side, or of a size in pixels."""
    found = _RESOLUTION.fullmatch(resolution.strip())
    if found:
        return (1024.0 * float(found[1])) ** 2
    sides = _RATIO.fullmatch(size.strip())
    if sides and min(float(sides[1]), float(sides[2])) >= 100:
        return float(sides[1]) * float(sides[2])
    return None
