"""A job: the contents of a job file, checked and with all defaults filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path as FilePath

from seedream_batch.model.document import Document, Json, Position
from seedream_batch.model.locations import Place, Store

MICRO = 1_000_000
"""Millionths of a US dollar in one dollar: money is counted in whole millionths, never in floats."""

DEFAULT_PRICE = 35_000
"""Assumed price of an image in millionths of a USD, where neither the job nor an earlier task says it."""


class Send(StrEnum):
    """How a local reference image is sent to the service."""

    UPLOAD = "upload"
    INLINE = "inline"


class OnUnknown(StrEnum):
    """What to do with a submission whose outcome is unknown."""

    HOLD = "hold"
    RESEND = "resend"


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of the matrix: its name and its values, in the order they were written.

    `typed` is false for values from a file format that only has text. `earlier` maps the `id()` of a value to the
    values that earlier versions may have read instead, and `written` to the value with its numbers as they were
    written.
    """

    name: str
    values: Sequence[Json]
    positions: Sequence[Position]
    typed: bool = True
    earlier: Mapping[int, Sequence[Json]] = field(default_factory=dict)
    written: Mapping[int, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OtherReadings:
    """Other ways to read the parts of a job outside its axes, for matching tasks of earlier versions.

    `earlier_include` and `written_include` are as in `Axis`, for the cells of `include`. `written_vars` has the
    variables whose numbers print differently from how they were written. `earlier_prompt` is a prompt from a file with
    the line ends that earlier versions may have sent; empty if there is none.
    """

    earlier_include: Mapping[int, Mapping[str, Json]] = field(default_factory=dict)
    written_include: Mapping[int, Mapping[str, Json]] = field(default_factory=dict)
    written_vars: Mapping[str, Json] = field(default_factory=dict)
    earlier_prompt: str = ""


@dataclass(frozen=True, slots=True)
class Budget:
    """Hard limits; money in millionths of a USD. `prices` maps a resolution to the price of an image."""

    max_images: int | None = None
    max_cost: int | None = None
    price: int | None = None
    prices: Mapping[str, int] | None = None

    @property
    def stated(self) -> bool:
        """Whether the job states any price itself."""
        return self.price is not None or bool(self.prices)

    def price_of(self, resolution: str) -> int:
        """Return the estimated price of one image at `resolution`, in millionths of a USD."""
        if self.prices and resolution in self.prices:
            return self.prices[resolution]
        return DEFAULT_PRICE if self.price is None else self.price


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Settings of a run: `rate` in submissions per second (None: as fast as the service accepts), times in seconds."""

    max_in_flight: int = 64
    rate: float | None = None
    attempts: int = 3
    task_timeout: float = 1800.0
    on_unknown: OnUnknown | None = None

    @property
    def resends(self) -> bool:
        """Whether submissions with an unknown outcome are sent again with the same idempotency key."""
        return self.on_unknown is OnUnknown.RESEND


class NotifyOn(StrEnum):
    """Outcomes of a run that can trigger the webhook."""

    SUCCESS = "success"
    FAILURE = "failure"
    UNFINISHED = "unfinished"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Notify:
    """A webhook and the outcomes that trigger it; `url` is as written, with `${NAME}` for secrets."""

    url: str
    on: tuple[NotifyOn, ...] = (NotifyOn.SUCCESS, NotifyOn.FAILURE)
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Job:
    """A job file with every path made absolute and every default filled in.

    `request` still holds the templates; `output_path` is the template for the path of an image inside the destination,
    without an extension. With a `store`, images are stored there, and `output_dir` holds the rest on this machine: the
    manifest, unless it is on a server, and images while they are being written.
    """

    name: str
    file: FilePath
    document: Document
    vars: Mapping[str, Json]
    axes: tuple[Axis, ...]
    exclude: tuple[Mapping[str, Json], ...]
    include: tuple[Mapping[str, Json], ...]
    repeat: int
    request: Mapping[str, Json]
    send: Send
    output_dir: FilePath
    manifest: Place
    output_path: str
    budget: Budget
    run: RunSettings
    notify: Notify | None = None
    store: Store | None = None
    readings: OtherReadings = OtherReadings()

    @property
    def pictures(self) -> FilePath | str:
        """The image destination: a folder or a URL."""
        return self.output_dir if self.store is None else self.store.url

    @property
    def folder(self) -> FilePath:
        """The folder of the job file; relative paths in the job start here."""
        return self.file.parent


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference image whose bytes are available: a local file, or a data URI written in the job.

    `file` is None for a data URI; `text` is what the job says. `media_type` is image/jpeg or image/png.
    """

    sha256: str
    media_type: str
    bytes: int
    width: int
    height: int
    text: str
    file: FilePath | None


REFERENCE = "sha256:"
"""Prefix of the hash that stands for a local reference image in a request until it is sent."""


def web_address(text: str) -> str | None:
    """Return an http or https URL with its scheme in lower case; None if `text` is not one."""
    scheme, colon, rest = text.partition("://")
    return f"{scheme.lower()}{colon}{rest}" if colon and scheme.lower() in {"http", "https"} else None
