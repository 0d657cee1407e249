"""Everything that can be set about the emulator, with its defaults."""

import functools
import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

# What a poll answer may leave out, each as some page or client of the service has seen it left out.
OMITTABLE = frozenset(
    {"expires_at", "cost", "credits_cost", "progress", "estimated_time", "actual_time", "created", "completed"}
)

FIXED_WHILE_RUNNING = frozenset({"host", "port", "state_dir", "seed", "faults"})

_CHOICES: dict[str, tuple[object, ...]] = {
    "error_code_form": ("number", "string"),
    "error_form": ("object", "string", "absent"),
    "image_format": ("jpeg", "png", "mixed"),
    "image_grouping": ("entries", "one_entry"),
    "image_size": ("exact", "tiny"),
    "link_status": (403, 404, 410),
    "rate_limit_on": ("submit", "api"),
    "submit_status": (200, 202),
    "url_extension": ("right", "wrong", "none"),
    "url_form": ("list", "string"),
}


class ConfigError(ValueError):
    """A setting of the emulator that makes no sense; the message names the field and what is allowed."""


@dataclass(frozen=True, kw_only=True)
class Oddities:
    """The ways in which answers differ from one page of the service's documentation to the next.

    Each one is a setting for all answers, and can be played for some of them by a fault rule
    (`action: oddity`, `set: {...}`).
    """

    versioned: bool = True
    """Answer with the versioned envelope where the request asks for it by header."""
    submit_status: int = 200
    """HTTP status of an accepted submission: 200 or 202."""
    submit_entries: int = 1
    """Entries in `data` of an accepted submission. The images are shared out among them, one task each; entries
    beyond the number of images repeat the first task."""
    submitted_word: str = "submitted"
    """Status word of a task that has not begun, such as `pending`."""
    processing_word: str = "processing"
    """Status word of a task at work, such as `in_progress`, or a word that no page mentions."""
    url_form: str = "list"
    """`url` of a result is a `list` of strings or one `string`."""
    image_grouping: str = "entries"
    """`entries`: one entry of `images` for each image; `one_entry`: all URLs in one entry (needs url_form `list`)."""
    duplicate_urls: bool = False
    """Name every URL twice."""
    numbers_as_strings: bool = False
    """Write every number of a task or balance document as a string."""
    error_form: str = "object"
    """`error` is an `object`, a `string`, or `absent` (for refusals: `success: false` and `message` instead)."""
    error_code_form: str = "number"
    """`code` of a refusal is a `number` or a `string`."""
    omit: tuple[str, ...] = ()
    """Fields that poll answers leave out."""
    deliver: int = 0
    """Images delivered more (positive) or fewer (negative) than were asked for, decided at submission. At least one
    is delivered, except where the number is -15 or lower: then none."""
    url_extension: str = "right"
    """Extension in result URLs: `right`, `wrong` or `none`."""
    image_format: str = "jpeg"
    """`jpeg`, `png` or `mixed` (by turns), decided at submission."""


@dataclass(frozen=True, kw_only=True)
class EmulatorConfig(Oddities):
    """All settings of an emulator. Seconds are seconds of real time, money is USD."""

    host: str = "127.0.0.1"
    """Address to listen on. There is no real authentication: leave it on loopback."""
    port: int = 0
    """0 picks a free one."""
    state_dir: Path | None = None
    """Folder of `ledger.jsonl` and of uploads; an emulator started on it again knows its tasks, keys and balance.
    None keeps everything in memory."""
    image_host: str = "127.0.0.1"
    """Host in the URLs of images; `localhost` makes them another host than that of the API."""
    seed: int = 0
    """Seed of task times and of the faults' dice."""
    strict: bool = True
    """Refuse fields of a request that the documentation does not name; otherwise they are ignored."""

    bad_keys: frozenset[str] = frozenset({"wrong-key"})
    """API keys answered with 401. Every other non-empty key is good."""
    forbidden_keys: frozenset[str] = frozenset()
    """API keys answered with 403."""
    honour_keys: bool = True
    """Honour Idempotency-Key. Otherwise every POST is a new task and a new bill."""
    max_body_bytes: int = 64 * 1024 * 1024
    """A request body above this is answered with 413."""

    task_seconds: str = "uniform:0.5,2.0"
    """Time from submission to the end at 2K: `fixed:S`, `uniform:LOW,HIGH` or `lognormal:MEDIAN,SIGMA`. 4K takes twice
    as long."""
    price_usd: float = 0.035
    """Price of an image at either resolution."""
    balance_usd: float | None = 100.0
    """Balance at the start; None or -1 for unlimited."""

    latency_seconds: float = 0.0
    """Added to every answer of the API."""
    rate_limit: str | None = None
    """`50/s`, `600/m` or `1000/h`; more is answered with 429."""
    rate_burst: int | None = None
    """Requests at once that the limit allows; a tenth of a second's worth, and at least one, by default."""
    rate_limit_on: str = "submit"
    """Which calls the limit counts: `submit` or the whole `api`."""
    retry_after: str = "number"
    """Retry-After of the limit's 429: `number`, `date`, `negative`, `absurd`, `none`, or any text as it is."""

    link_seconds: float = 86400.0
    """Lifetime of a result URL."""
    link_status: int = 403
    """What an expired result URL answers: 403, 404 or 410."""
    renew_links: bool = True
    """Asking again for a task whose URLs have expired gives fresh ones."""
    upload_seconds: float = 259200.0
    """Lifetime of an uploaded image: 72 h."""

    webhook_retries: tuple[float, ...] = (10.0, 30.0, 60.0)
    """Seconds before each further try to call a webhook (in lenient mode, on this machine only)."""

    image_size: str = "exact"
    """`exact`: drawn, with the prompt on them; `tiny`: as many pixels, of one shade, in small files, for load tests."""
    image_bytes: int | None = None
    """Pad images to about this many bytes (with a comment or a private chunk: they stay valid pictures)."""
    jpeg_quality: int = 85
    """1 to 95."""

    faults: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    """The fault rules to begin with, as mappings; see `faults.plan`."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ConfigError: naming the field.
        """
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name}: {getattr(self, name)!r} is not one of {', '.join(map(str, allowed))}")
        for name in ("price_usd", "latency_seconds"):
            if not _is_number(getattr(self, name)) or getattr(self, name) < 0:
                raise ConfigError(f"{name}: {getattr(self, name)!r} is not a number of 0 or more")
        for name in ("link_seconds", "upload_seconds", "max_body_bytes", "submit_entries"):
            if not _is_number(getattr(self, name)) or getattr(self, name) <= 0:
                raise ConfigError(f"{name}: {getattr(self, name)!r} is not a number above 0")
        if not 0 <= self.port <= 65_535:
            raise ConfigError(f"port: {self.port} is not from 0 to 65535")
        if not all(_is_number(each) and each >= 0 for each in self.webhook_retries):
            raise ConfigError("webhook_retries: there is one that is no number of seconds")
        if unknown := set(self.omit) - OMITTABLE:
            raise ConfigError(
                f"omit: {', '.join(sorted(unknown))} can't be left out; {', '.join(sorted(OMITTABLE))} can"
            )
        if self.image_grouping == "one_entry" and self.url_form == "string":
            raise ConfigError("image_grouping: one_entry needs url_form list (a string holds one URL only)")
        DurationDistribution.parse(self.task_seconds)
        if self.rate_limit is not None:
            parse_rate(self.rate_limit)

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """This config with some fields changed, as settings at run time are.

        Raises:
            ConfigError: for a field that doesn't exist or can't change while running, or a value that makes no sense.
        """
        known = {each.name for each in fields(self)}
        if unknown := set(changes) - known:
            allowed = ", ".join(sorted(known - FIXED_WHILE_RUNNING))
            raise ConfigError(f"{', '.join(sorted(unknown))}: no such setting; there are {allowed}")
        if fixed := set(changes) & FIXED_WHILE_RUNNING:
            raise ConfigError(f"{', '.join(sorted(fixed))}: can't change while the emulator runs")
        return replace(self, **coerce(changes))

    def as_json(self) -> dict[str, Any]:
        """The settings as a JSON document, API keys and fault rules left out."""
        hidden = {"bad_keys", "forbidden_keys", "faults"}
        document = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in hidden}
        document["state_dir"] = None if self.state_dir is None else str(self.state_dir)
        document |= {"omit": list(self.omit), "webhook_retries": list(self.webhook_retries)}
        return document


def coerce(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Values from JSON or YAML in the types of the config: lists become tuples and sets, 5 becomes 5.0.

    Raises:
        ConfigError: for a value whose type doesn't fit the field.
    """
    result: dict[str, Any] = {}
    for name, value in changes.items():
        default = getattr(EmulatorConfig, name, None)
        if name in {"bad_keys", "forbidden_keys", "omit"}:
            if isinstance(value, str) or not all(isinstance(each, str) for each in value):
                raise ConfigError(f"{name}: {value!r} is not a list of strings")
            result[name] = tuple(value) if name == "omit" else frozenset(value)
        elif name == "webhook_retries":
            if not isinstance(value, list | tuple) or not all(_is_number(each) and each >= 0 for each in value):
                raise ConfigError(f"{name}: {value!r} is not a list of seconds")
            result[name] = tuple(float(each) for each in value)
        elif default is not None and value is not None:
            result[name] = _fitting(name, value, type(default))
        else:
            result[name] = value
    return result


def _fitting(name: str, value: Any, wanted: type) -> Any:
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is a subclass of int, and `strict: 1` or `port: true` are slips worth telling.
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise ConfigError(f"{name}: {value!r} is not of type {wanted.__name__}")
    return value


def _is_number(value: object) -> bool:
    # Nothing sane is larger, and an integer may have more digits than a float can hold.
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300


def parse_rate(text: str) -> float:
    """Requests a second of a limit written as `50/s`, `600/m` or `1000/h`.

    Raises:
        ConfigError: for any other text.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*/\s*([smh])\s*", text) if isinstance(text, str) else None
    if match is None or float(match[1]) <= 0:
        raise ConfigError(f"rate_limit: {text!r} is not a rate like 50/s, 600/m or 1000/h")
    return float(match[1]) / {"s": 1, "m": 60, "h": 3600}[match[2]]


@dataclass(frozen=True)
class DurationDistribution:
    """How long tasks take: a distribution and its one or two parameters."""

    shape: str
    first: float
    second: float

    @classmethod
    @functools.lru_cache(maxsize=64)
    def parse(cls, text: str) -> "DurationDistribution":
        """The distribution written as `fixed:S`, `uniform:LOW,HIGH`, `lognormal:MEDIAN,SIGMA` or just seconds.

        Raises:
            ConfigError: for any other text.
        """
        number = r"(\d+(?:\.\d+)?)"
        written = str(text).strip()
        if match := re.fullmatch(rf"(?:fixed:)?\s*{number}", written):
            return cls("fixed", float(match[1]), 0.0)
        match = re.fullmatch(rf"(uniform|lognormal):\s*{number}\s*,\s*{number}", written)
        if match is None or (match[1] == "uniform" and float(match[2]) > float(match[3])):
            raise ConfigError(f"task_seconds: {text!r} is not fixed:S, uniform:LOW,HIGH or lognormal:MEDIAN,SIGMA")
        return cls(match[1], float(match[2]), float(match[3]))

    def draw(self, dice: random.Random) -> float:
        """Seconds that a 2K task takes."""
        if self.shape == "uniform":
            return dice.uniform(self.first, self.second)
        if self.shape == "lognormal":
            return self.first * math.exp(self.second * dice.gauss(0.0, 1.0))
        return self.first

    @property
    def typical(self) -> float:
        """The middle of the distribution in seconds, for `estimated_time`."""
        return (self.first + self.second) / 2 if self.shape == "uniform" else self.first
