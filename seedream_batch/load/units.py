"""Durations, rates and money as a job file writes them -> numbers."""

from __future__ import annotations

import re
from decimal import Decimal

from seedream_batch.model.document import Json
from seedream_batch.model.job import MICRO

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd])")


def seconds(value: Json) -> float:
    """`90`, `"90s"`, `"30m"` or `"1h30m"` in seconds. Raises `ValueError`."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    text = str(value).replace(" ", "")
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{value!r} is no duration; write 90s, 30m or 1h30m")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def per_second(value: Json) -> float:
    """`5`, `"5/s"`, `"120/m"` or `"1000/h"` as a number a second."""
    if isinstance(value, int | float):
        return float(value)
    number, _, unit = str(value).replace(" ", "").partition("/")
    return float(number) / _SECONDS[unit or "s"]


def micro_usd(value: int | float) -> int:  # noqa: PYI041 - both are what YAML gives
    """Dollars in millionths of a dollar, exactly as written."""
    return int((Decimal(str(value)) * MICRO).to_integral_value())
