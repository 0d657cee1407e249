"""Builds a `Job` with every default filled in, from values that the schema accepts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from seedream_batch.files.local_folder import resolved
from seedream_batch.jobfile.addresses import is_url, server, store
from seedream_batch.jobfile.units import micro_usd, per_second, seconds
from seedream_batch.model.document import Document, Json
from seedream_batch.model.job import Axis, Budget, Job, Notify, NotifyOn, OnUnknown, OtherReadings, RunSettings, Send
from seedream_batch.model.locations import MANIFEST

_RUN: Mapping[str, Callable[[Json], Json]] = {
    "max_in_flight": int,
    "rate": per_second,
    "attempts": int,
    "task_timeout": seconds,
    "on_unknown": OnUnknown,
}
"""How the settings of runs are read."""


def build_job(
    value: Mapping[str, Json],
    document: Document,
    file: Path,
    axes: tuple[Axis, ...],
    request: Mapping[str, Json],
    readings: OtherReadings,
) -> Job:
    """Build the job; `axes` and `request` already include what files provide. Makes paths absolute."""
    name = value.get("name", file.stem)
    output, run = value.get("output", {}), value.get("run", {})
    given = output.get("dir", "")
    location = store(given) if is_url(given) else None
    output_dir = resolved(file.parent / (f"out/{name}" if location or not given else given))
    return Job(
        name=name,
        file=file,
        document=document,
        vars=value.get("vars", {}),
        axes=axes,
        exclude=tuple(value.get("exclude", ())),
        include=tuple(value.get("include", ())),
        repeat=int(value.get("repeat", 1)),
        request=request,
        send=Send(value.get("references", {}).get("send", Send.UPLOAD)),
        output_dir=output_dir,
        manifest=server(value["manifest"], name) if "manifest" in value else output_dir / MANIFEST,
        output_path=output.get("path", ""),
        budget=_budget(value.get("budget", {})),
        run=RunSettings(**{name: read(run[name]) for name, read in _RUN.items() if run.get(name) is not None}),
        notify=_notify(value["notify"]) if "notify" in value else None,
        store=location,
        readings=readings,
    )


def _budget(value: Mapping[str, Json]) -> Budget:
    price = value.get("price_per_image_usd")
    cap = value.get("max_cost_usd")
    images = value.get("max_images")
    return Budget(
        max_images=None if images is None else int(images),
        max_cost=None if cap is None else micro_usd(cap),
        price=micro_usd(price) if isinstance(price, int | float) else None,
        prices={resolution: micro_usd(usd) for resolution, usd in price.items()} if isinstance(price, dict) else None,
    )


def _notify(value: Mapping[str, Json]) -> Notify:
    url = value.get("url", "")
    defaults = Notify(url)
    return Notify(
        url=url,
        on=tuple(NotifyOn(outcome) for outcome in value.get("on", defaults.on)),
        method=value.get("method", defaults.method),
    )
