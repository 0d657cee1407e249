"""Rules that span fields of a request, each with its own message.

The part of the request schema that expresses such a rule is marked with `x-rule` and the rule's name here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from seedream_batch.model.document import Json, Path

MOST_TOGETHER = 15
"""Most reference images plus requested images [Seedream 4.5 API documentation]."""


@dataclass(frozen=True, slots=True)
class BrokenRule:
    """A violation of a rule that spans fields: where, what the rule says, and how to follow it."""

    path: Path
    message: str
    hint: str = ""


def broken_rule(rule: str, path: Path, value: Json, body: Json) -> BrokenRule:
    """Return the violation of `rule` by `value` at `path` of the request `body`."""
    return _SENTENCES[rule](path, value, body)


def _size_auto(path: Path, _value: Json, _body: Json) -> BrokenRule:
    return BrokenRule(path, "size auto needs a reference image", "give image_urls, or a ratio such as 1:1")


def _several_images(path: Path, value: Json, _body: Json) -> BrokenRule:
    message = f"several images ({path[-1]} {int(value)}) need at least one reference image in image_urls"
    return BrokenRule(path, message, "for several pictures of one text without references use `repeat` in the job")


def _series(path: Path, _value: Json, _body: Json) -> BrokenRule:
    message = "sequential_image_generation auto needs at least one reference image in image_urls"
    return BrokenRule(path, message, "give image_urls, or leave it out")


def _options_without_auto(_path: Path, _value: Json, _body: Json) -> BrokenRule:
    return BrokenRule(
        ("sequential_image_generation_options",),
        "goes only together with sequential_image_generation: auto",
        "add sequential_image_generation: auto, or use n alone",
    )


def _together(path: Path, value: Json, body: Json) -> BrokenRule:
    references, images, name = len(body["image_urls"]), int(value), path[-1]
    return BrokenRule(
        path,
        f"{references} reference{'s' * (references > 1)} + {name} {images} make {references + images}, "
        f"the API takes at most {MOST_TOGETHER} together",
        f"{name} can be at most {MOST_TOGETHER - references} here",
    )


_SENTENCES: dict[str, Callable[[Path, Json, Json], BrokenRule]] = {
    "size-auto": _size_auto,
    "several-images": _several_images,
    "series": _series,
    "options-without-auto": _options_without_auto,
    "together": _together,
}
