"""The progress of the runs for a chart: sums at a few hundred moments, without pauses between runs."""

from __future__ import annotations

from seedream_batch.manifest.gallery_reader import GalleryReader, Step
from seedream_batch.model.document import Json

POINTS = 240
"""Approximate number of moments in total; each run has at least two."""

MOST_STRETCHES = 30
"""Most runs shown side by side; more are shown as one stretch of time with its pauses."""


def timeline(reader: GalleryReader) -> list[list[list[Json]]]:
    """Return the moments of each run that did something.

    A moment has unix seconds, and the numbers of submitted, ended and stored, and the cost in USD, up to then.
    """
    stretches = reader.run_periods()
    if len(stretches) > MOST_STRETCHES:
        stretches = [(stretches[0][0], max(end for _, end in stretches))]
    if not stretches:
        return []
    total = sum(end - start for start, end in stretches) or 1.0
    moments = [_moments(start, end, max(2, round(POINTS * (end - start) / total))) for start, end in stretches]
    counts = dict.fromkeys(Step, 0)
    cost = 0
    series: list[list[list[Json]]] = [[] for _ in moments]
    steps = iter(reader.steps())
    step = next(steps, None)
    for points, times in zip(series, moments, strict=True):
        for moment in times:
            while step is not None and step[0] <= moment:
                counts[step[1]] += 1
                cost += step[2]
                step = next(steps, None)
            points.append([round(moment, 3), *counts.values(), round(cost / 1_000_000, 6)])
    return series


def _moments(start: float, end: float, count: int) -> list[float]:
    return [start + (end - start) * i / (count - 1) for i in range(count - 1)] + [end]
