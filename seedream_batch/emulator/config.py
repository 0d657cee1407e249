"""The settings of the emulator, with their types, defaults and `--help` texts."""

import functools
import math
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Self, get_args, get_origin, get_type_hints

OMITTABLE = frozenset(
    {"expires_at", "cost", "credits_cost", "progress", "estimated_time", "actual_time", "created", "completed"}
)
"""Fields that poll responses may leave out: some page or client of the service has seen each of them missing."""

FIXED_WHILE_RUNNING = frozenset({"host", "port", "state_dir", "seed", "faults"})

LARGEST_NUMBER = 1e300
"""No sane number is larger, and an integer may have more digits than a float can hold."""

_NOT_NEGATIVE = ("price_usd", "latency_seconds")
_POSITIVE = ("link_seconds", "upload_seconds", "max_body_bytes", "submit_entries")


class ConfigError(ValueError):
    """An invalid setting; the message names the field and the allowed values."""


@dataclass(frozen=True, kw_only=True)
class Oddities:
    """The ways in which responses differ from one page of the service's documentation to the next.

    Each one is a setting for all responses; a fault rule (`action: oddity`, `set: {...}`) plays it for some of them.
    """

    versioned: Annotated[bool, "Answer in the versioned envelope if a header of the request selects it."] = True
    submit_status: Annotated[Literal[200, 202], "HTTP status of an accepted submission: 200 or 202."] = 200
    submit_entries: Annotated[
        int,
        "Entries in `data` of an accepted submission. They share the images, one task each; entries beyond the number "
        "of images repeat the first task.",
    ] = 1
    submitted_word: Annotated[str, "Status word of a task that has not started, such as pending."] = "submitted"
    processing_word: Annotated[str, "Status word of a running task, such as in_progress."] = "processing"
    url_form: Annotated[Literal["list", "string"], "`url` of a result: list or string."] = "list"
    image_grouping: Annotated[
        Literal["entries", "one_entry"],
        "entries (one for each image) or one_entry (with all URLs; needs list).",
    ] = "entries"
    duplicate_urls: Annotated[bool, "Repeat every URL."] = False
    numbers_as_strings: Annotated[bool, "Write the numbers of task and balance documents as strings."] = False
    error_form: Annotated[
        Literal["object", "string", "absent"],
        "`error`: object, string or absent (an error response then has `success: false` and `message`).",
    ] = "object"
    error_code_form: Annotated[Literal["number", "string"], "`code` of an error response: number or string."] = "number"
    omit: Annotated[
        tuple[str, ...], f"Field that poll responses leave out (repeatable): {', '.join(sorted(OMITTABLE))}."
    ] = ()
    deliver: Annotated[
        int,
        "Images delivered beyond (2) or below (-1) the number requested, fixed at submission. At least one is "
        "delivered, but none from -15 down.",
    ] = 0
    url_extension: Annotated[Literal["right", "wrong", "none"], "Extension in result URLs: right, wrong or none."] = (
        "right"
    )
    image_format: Annotated[
        Literal["jpeg", "png", "mixed"], "jpeg, png or mixed (alternating), fixed at submission."
    ] = "jpeg"


@dataclass(frozen=True, kw_only=True)
class EmulatorConfig(Oddities):
    """All settings of an emulator. Durations are in seconds, money is in USD."""

    host: Annotated[str, "Address to listen on. The emulator has no real authentication: keep it on loopback."] = (
        "127.0.0.1"
    )
    port: Annotated[int, "Port; 0 picks a free one."] = 0
    state_dir: Annotated[
        Path | None, "Folder for the ledger and uploads, which a restart continues.  [default: in memory]"
    ] = None
    image_host: Annotated[str, "Host in image URLs; with 'localhost', images come from another host than the API."] = (
        "127.0.0.1"
    )
    seed: Annotated[int, "Seed of task durations and of fault probabilities."] = 0
    strict: Annotated[bool, "Refuse undocumented request fields, or ignore them (and call webhooks)."] = True

    bad_keys: Annotated[
        frozenset[str], "API key answered with 401 (repeatable); any other key is valid.  [default: wrong-key]"
    ] = frozenset({"wrong-key"})
    forbidden_keys: Annotated[frozenset[str], "API key answered with 403 (repeatable)."] = frozenset()
    honour_keys: Annotated[bool, "Honour Idempotency-Key. Otherwise every POST is a new task and a new charge."] = True
    max_body_bytes: Annotated[int, "Maximum size of a request body; larger ones are answered with 413."] = (
        64 * 1024 * 1024
    )

    task_seconds: Annotated[
        str, "Duration of a 2K task: fixed:S, uniform:LOW,HIGH or lognormal:MEDIAN,SIGMA. 4K takes twice as long."
    ] = "uniform:0.5,2.0"
    price_usd: Annotated[float, "Price of an image at either resolution."] = 0.035
    balance_usd: Annotated[float | None, "Balance at the start; -1 for unlimited."] = 100.0

    latency_seconds: Annotated[float, "Delay of every response of the API."] = 0.0
    rate_limit: Annotated[str | None, "50/s, 600/m or 1000/h; requests beyond it are answered with 429."] = None
    rate_burst: Annotated[
        int | None, "Requests that the limit allows at once.  [default: those of 0.1 s, at least 1]"
    ] = None
    rate_limit_on: Annotated[
        Literal["submit", "api"], "Requests that the limit counts: submit or api (all of them)."
    ] = "submit"
    retry_after: Annotated[str, "Retry-After of the limit: number, date, negative, absurd, none, or any text."] = (
        "number"
    )

    link_seconds: Annotated[float, "Lifetime of result URLs."] = 86400.0
    link_status: Annotated[Literal[403, 404, 410], "Status of an expired result URL: 403, 404 or 410."] = 403
    renew_links: Annotated[bool, "Polling a task whose URLs have expired returns new ones."] = True
    upload_seconds: Annotated[float, "Lifetime of uploaded images."] = 259200.0

    webhook_retries: Annotated[
        tuple[float, ...], "Seconds before a retry of a webhook (repeatable).  [default: 10, 30, 60]"
    ] = (10.0, 30.0, 60.0)

    image_size: Annotated[
        Literal["exact", "tiny"],
        "exact: drawn, with the prompt; tiny: same pixel size, one colour, small files, for load tests.",
    ] = "exact"
    image_bytes: Annotated[int | None, "Pad images to about this many bytes; they stay valid."] = None
    jpeg_quality: Annotated[int, "1 to 95."] = 85

    faults: Annotated[tuple[Mapping[str, Any], ...], "Fault plan in YAML; see below."] = field(default=(), hash=False)

    def __post_init__(self) -> None:
        """Convert every field to its type, and check the values. Raises `ConfigError` for an invalid value."""
        for name, hint in field_types().items():
            if name != "faults":  # `FaultPlan` checks those
                object.__setattr__(self, name, _converted(name, getattr(self, name), hint))
        for name in _NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: {getattr(self, name)!r} is not a number of 0 or more")
        for name in _POSITIVE:
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name}: {getattr(self, name)!r} is not a number above 0")
        if not 0 <= self.port <= 65_535:
            raise ConfigError(f"port: {self.port} is not from 0 to 65535")
        if any(seconds < 0 for seconds in self.webhook_retries):
            raise ConfigError(f"webhook_retries: {self.webhook_retries!r} are not seconds of 0 or more")
        if unknown := set(self.omit) - OMITTABLE:
            raise ConfigError(
                f"omit: {', '.join(sorted(unknown))} cannot be omitted; possible: {', '.join(sorted(OMITTABLE))}"
            )
        if self.image_grouping == "one_entry" and self.url_form == "string":
            raise ConfigError("image_grouping: one_entry needs url_form list (a string holds one URL only)")
        DurationDistribution.parse(self.task_seconds)
        if self.rate_limit is not None:
            parse_rate(self.rate_limit)

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """Return this config with some fields changed, as settings at run time are.

        Raises `ConfigError` for an unknown or fixed field, or an invalid value.
        """
        known = {each.name for each in fields(self)}
        if unknown := set(changes) - known:
            allowed = ", ".join(sorted(known - FIXED_WHILE_RUNNING))
            raise ConfigError(f"{', '.join(sorted(unknown))}: unknown setting; known: {allowed}")
        if fixed := set(changes) & FIXED_WHILE_RUNNING:
            raise ConfigError(f"{', '.join(sorted(fixed))}: cannot change while the emulator runs")
        return replace(self, **changes)

    def as_json(self) -> dict[str, Any]:
        """Return the settings as a JSON document, without API keys and fault rules."""
        hidden = {"bad_keys", "forbidden_keys", "faults"}
        document = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in hidden}
        document["state_dir"] = None if self.state_dir is None else str(self.state_dir)
        return document


@functools.cache
def field_types() -> dict[str, Any]:
    """Return the type of each field of the config, without its help text."""
    return get_type_hints(EmulatorConfig)


def _converted(name: str, value: Any, wanted: Any) -> Any:
    """Return a value from JSON, YAML or Python in the type of its field: lists as tuples and sets, 5 as 5.0.

    Raises `ConfigError` for a value of another type.
    """
    if isinstance(value, int | float) and not abs(value) < LARGEST_NUMBER:
        raise ConfigError(f"{name}: {value!r} is not a number below 1e300")
    if type(value) is wanted:
        return value
    origin, allowed = get_origin(wanted), get_args(wanted)
    if origin is UnionType:
        return None if value is None else _converted(name, value, allowed[0])
    if origin is Literal:
        if value in allowed:
            return allowed[allowed.index(value)]
        raise ConfigError(f"{name}: {value!r} is not one of {', '.join(map(str, allowed))}")
    if origin is not None:
        if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
            return origin(_converted(name, each, allowed[0]) for each in value)
        raise ConfigError(f"{name}: {value!r} is not a list")
    if wanted is float and type(value) is int:
        return float(value)
    # bool is a subclass of int, but `port: true` is a mistake.
    if wanted is float or not isinstance(value, wanted) or isinstance(value, bool):
        raise ConfigError(f"{name}: {value!r} is not of type {wanted.__name__}")
    return value


def parse_rate(text: str) -> float:
    """Return the requests per second of a limit written as `50/s`, `600/m` or `1000/h`.

    Raises `ConfigError` for any other text.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*/\s*([smh])\s*", text)
    if match is None or float(match[1]) <= 0:
        raise ConfigError(f"rate_limit: {text!r} is not a rate like 50/s, 600/m or 1000/h")
    return float(match[1]) / {"s": 1, "m": 60, "h": 3600}[match[2]]


@dataclass(frozen=True)
class DurationDistribution:
    """The durations of tasks in seconds: a distribution and its one or two parameters."""

    shape: str
    first: float
    second: float

    @classmethod
    @functools.lru_cache(maxsize=64)
    def parse(cls, text: str) -> "DurationDistribution":
        """Parse `fixed:S`, `uniform:LOW,HIGH`, `lognormal:MEDIAN,SIGMA` or a bare number of seconds.

        Raises `ConfigError` for any other text.
        """
        number = r"(\d+(?:\.\d+)?)"
        if match := re.fullmatch(rf"\s*(?:fixed:)?\s*{number}\s*", text):
            return cls("fixed", float(match[1]), 0.0)
        match = re.fullmatch(rf"\s*(uniform|lognormal):\s*{number}\s*,\s*{number}\s*", text)
        if match is None or (match[1] == "uniform" and float(match[2]) > float(match[3])):
            raise ConfigError(f"task_seconds: {text!r} is not fixed:S, uniform:LOW,HIGH or lognormal:MEDIAN,SIGMA")
        return cls(match[1], float(match[2]), float(match[3]))

    def draw(self, dice: random.Random) -> float:
        """Draw the seconds that a 2K task takes."""
        if self.shape == "uniform":
            return dice.uniform(self.first, self.second)
        if self.shape == "lognormal":
            return self.first * math.exp(self.second * dice.gauss(0.0, 1.0))
        return self.first

    @property
    def typical(self) -> float:
        """Seconds in the middle of the distribution, for `estimated_time`."""
        return (self.first + self.second) / 2 if self.shape == "uniform" else self.first
