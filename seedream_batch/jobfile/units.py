"""Converts durations, rates and money of a job file to numbers, and limits their size."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal

from seedream_batch.model.document import Document, Json, Path, Problem, dotted
from seedream_batch.model.job import MICRO

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd])")


def seconds(value: Json) -> float:
    """Convert `90`, `"90s"`, `"30m"` or `"1h30m"` to seconds. Raises `ValueError`."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    text = str(value).replace(" ", "")
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{value!r} is not a duration; write 90s, 30m or 1h30m")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def per_second(value: Json) -> float:
    """Convert `5`, `"5/s"`, `"120/m"` or `"1000/h"` to a rate per second."""
    if isinstance(value, int | float):
        return float(value)
    number, _, unit = str(value).replace(" ", "").partition("/")
    return float(number) / _SECONDS[unit or "s"]


def micro_usd(value: int | float) -> int:  # noqa: PYI041 - both are what YAML gives
    """Convert dollars to millionths of a dollar, exactly as written."""
    return int((Decimal(str(value)) * MICRO).to_integral_value())


_DAY = 86_400
_LIMITS: tuple[tuple[Path, Callable[[Json], float], float, float, str], ...] = (
    (("budget", "max_images"), lambda value: value, 0, 10**12, "at most 1,000,000,000,000"),
    (("budget", "max_cost_usd"), lambda value: value, 0, 10**9, "at most 1,000,000,000"),
    (("budget", "price_per_image_usd"), lambda value: value, 0, 1000, "at most 1,000"),
    (("budget", "price_per_image_usd", "2K"), lambda value: value, 0, 1000, "at most 1,000"),
    (("budget", "price_per_image_usd", "4K"), lambda value: value, 0, 1000, "at most 1,000"),
    (("run", "rate"), per_second, 1 / _DAY, 10**6, "from one per day to 1,000,000 per second"),
    (("run", "task_timeout"), seconds, 0, 365 * _DAY, "at most 365 days"),
)


def limit_problems(value: Mapping[str, Json], document: Document) -> Iterator[Problem]:
    """Yield problems for numbers that are too large or too small to be meant, stored or waited for."""
    for path, measure, least, most, allowed in _LIMITS:
        number: Json = value
        for step in path:
            number = number.get(step) if isinstance(number, dict) else None
        if number is None or isinstance(number, dict):
            continue
        try:
            good = least <= measure(number) <= most
        except OverflowError:
            good = False
        if not good:
            yield Problem(dotted(path), f"must be {allowed}", document.position(path))


def without(value: Mapping[str, Json], problems: Iterable[Problem]) -> dict[str, Json]:
    """Return the job without the numbers that have these problems."""
    refused = {problem.path.split(".")[1] for problem in problems}
    return {
        section: {name: item for name, item in content.items() if name not in refused}
        if refused and section in {"budget", "run"}
        else content
        for section, content in value.items()
    }
