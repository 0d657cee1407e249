"""The course of the runs as a chart needs it: sums at a few hundred moments, pauses between runs left out."""

from __future__ import annotations

from seedream_batch.manifest import ManifestReader
from seedream_batch.manifest.reader import Step
from seedream_batch.model.document import Json

POINTS = 240
"""Moments in all, about; each run has two at least."""

MOST_STRETCHES = 30
"""Runs that are shown side by side; more of them are one stretch of time, pauses and all."""


def timeline(reader: ManifestReader) -> list[list[list[Json]]]:
    """For each run that did something its moments: unix seconds, submitted, ended, stored, and USD until then."""
    stretches = reader.stretches()
    if len(stretches) > MOST_STRETCHES:
        stretches = [(stretches[0][0], max(end for _, end in stretches))]
    if not stretches:
        return []
    whole = sum(end - start for start, end in stretches) or 1.0
    moments = [_moments(start, end, max(2, round(POINTS * (end - start) / whole))) for start, end in stretches]
    counts = dict.fromkeys(Step, 0)
    cost = 0
    found: list[list[list[Json]]] = [[] for _ in moments]
    steps = iter(reader.steps())
    step = next(steps, None)
    for points, times in zip(found, moments, strict=True):
        for moment in times:
            while step is not None and step[0] <= moment:
                counts[step[1]] += 1
                cost += step[2]
                step = next(steps, None)
            points.append([round(moment, 3), *counts.values(), round(cost / 1_000_000, 6)])
    return found


def _moments(start: float, end: float, count: int) -> list[float]:
    return [start + (end - start) * i / (count - 1) for i in range(count - 1)] + [end]
