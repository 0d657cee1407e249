"""The output paths of a task: from the job's template or by default, and such that every file system accepts them."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

from seedream_batch.expand.fingerprint import dumps
from seedream_batch.expand.matrix import varying_names
from seedream_batch.expand.request_template import PROMPT, Context, FieldError, render_at
from seedream_batch.expand.request_variants import RequestVariant
from seedream_batch.model.cell import name_of
from seedream_batch.model.document import Json, Path
from seedream_batch.model.job import Job
from seedream_batch.templates.engine import Template
from seedream_batch.templates.render_cache import CachedTemplate

_PATH: Path = ("output", "path")


class Places:
    """The paths of the tasks of one job; `template` is that of `output.path`, if the job has one."""

    def __init__(self, job: Job, template: Template | None) -> None:
        self._default = DefaultPath(job)
        self._template: CachedTemplate | None = None
        if template:
            names = varying_names(job) | {"size", "resolution", "request", "index"}
            self._template = CachedTemplate(template, names, frozenset({"request"}))
        self._numbered = template is not None and "index" in template.names
        self._reads_request = template is not None and (template.includes or "request" in template.names)

    def of(self, variant: RequestVariant, prompt: Json, context: Context, cell: Mapping[str, Json]) -> tuple[str, ...]:
        """Return the paths of a task, relative to the output folder, without extension. Raises `FieldError`."""
        if self._template is None:
            return self._default.render(cell, context["sample"])
        known = {
            "size": variant.size,
            "resolution": variant.resolution,
            "request": {**variant.body, PROMPT: prompt} if self._reads_request else variant.body,
            **context,
            "index": 1,
        }
        try:
            if not self._numbered:
                return (safe_path(render_at(self._template, known, _PATH)),)
            return tuple(
                safe_path(render_at(self._template, {**known, "index": index}, _PATH))
                for index in range(1, variant.images + 1)
            )
        except BadPath as error:
            raise FieldError(_PATH, str(error), cause=error.cause) from error


class DefaultPath:
    """The path for a job that sets none: the first axis gives the folder, the other axes the file name.

    The names are joined by `_`, which they do not contain themselves, so that no two cells get the same path.
    """

    _LONGEST = 150
    """Longest name in bytes; longer ones are cut."""

    def __init__(self, job: Job) -> None:
        self._sample = job.repeat > 1
        self._axes = [axis.name for axis in job.axes]
        values: dict[str, list[Json]] = {axis.name: list(axis.values) for axis in job.axes}
        for cell in job.include:
            for name, value in cell.items():
                values.setdefault(name, []).append(value)
        included = {name for cell in job.include for name in cell}
        self._parts = {name: _parts(listed, several=name in included) for name, listed in values.items()}
        # A path joined from parts that are harmless and short is harmless and short as well, so needs no check.
        short = self._LONGEST // (len(self._axes) + 4)
        self._harmless = [(name, _harmless(self._parts[name], short)) for name in self._axes]

    def render(self, cell: Mapping[str, Json], sample: int) -> tuple[str, ...]:
        if len(cell) == len(self._harmless) > 0:
            try:
                first, *others = [parts[id(cell[name])] for name, parts in self._harmless]
            except KeyError:
                return self._rendered(cell, sample)
            if self._sample:
                others.append(str(sample))
            return (first + "/" + "_".join(others) if others else first,)
        return self._rendered(cell, sample)

    def _rendered(self, cell: Mapping[str, Json], sample: int) -> tuple[str, ...]:
        if len(cell) == len(self._axes) and all(name in cell for name in self._axes):
            parts = [self._parts[name][id(cell[name])] for name in self._axes]
        else:
            names = [*self._axes, *sorted(cell.keys() - set(self._axes))]
            parts = [f"{name}={self._parts[name][id(cell[name])]}" for name in names if name in cell]
        if self._sample:
            parts.append(str(sample))
        rendered = parts[0]
        if len(parts) > 1:
            rendered += "/" + self._bounded("_".join(parts[1:]))
        try:
            return (safe_path(rendered),)
        except BadPath as error:
            raise FieldError(("output", "path"), str(error), "set output.path", error.cause) from error

    def _bounded(self, name: str) -> str:
        encoded = name.encode()
        if len(encoded) <= self._LONGEST:
            return name
        short = encoded[: self._LONGEST].decode(errors="ignore")
        return f"{short}-{hashlib.sha256(encoded).hexdigest()[:12]}"


def _parts(values: Sequence[Json], *, several: bool) -> dict[int, str]:
    """Return the path part for each value, by its `id()`; `several` allows equal values to occur repeatedly."""
    slugs = [_slug(value) for value in values]
    keys = [collision_key(slug) for slug in slugs]
    distinct = {dumps(value): key for value, key in zip(values, keys, strict=True)}.values() if several else keys
    times = Counter(distinct)
    parts = {}
    for value, slug, key in zip(values, slugs, keys, strict=True):
        parts[id(value)] = slug
        if times[key] > 1 or slug.endswith("…"):
            # Two values share a name, or the name was cut: a few digits of the value's hash make it unique.
            digits = hashlib.sha256(dumps(value).encode()).hexdigest()[:6]
            parts[id(value)] = f"{slug.rstrip('…')}-{digits}"
    return parts


def _harmless(parts: Mapping[int, str], short: int) -> dict[int, str]:
    """Return the parts that need no change as a folder or in a file name, and are shorter than `short`."""
    return {key: part for key, part in parts.items() if len(part) < short and is_harmless(f"{part}/{part}")}


def _slug(value: Json) -> str:
    """Return the name of a value as part of a file name: without `/`, `_` or anything that a path replaces."""
    text = "-".join(name_of(value).replace("/", "-").replace("_", "-").split()).lstrip(".")
    try:
        return safe_path(text) if text else "value"
    except BadPath:
        return "value"


_REFUSED = re.compile(r'[<>:"\\|?*\x00-\x1f\x7f-\x9f\u2028\u2029]')
_RESERVED = re.compile(r"^(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³]) *(\..*)?$", re.IGNORECASE)
_DEVICE = "(?i:con|prn|aux|nul|com|lpt)"
_SPACES = " \xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_PICTURE = re.compile(r"\.(png|jpe?g)\Z", re.IGNORECASE)
_OWN = re.compile(r"^manifest\.", re.IGNORECASE)
_WORD = "[A-Za-z0-9_=+-]+"
_HARMLESS = re.compile(rf"(?:(?!{_DEVICE}){_WORD}(?: +{_WORD})*/)*(?!{_DEVICE}){_WORD}(?:[ .]+{_WORD})*")
"""Paths that need no change: ASCII words, no dots in folders, nothing that starts like a device name."""
_MAX_COMPONENT = 220
"""Most bytes of one name: file systems accept 255, less an image number and an extension."""
_MAX_PATH = 1000
"""Most bytes of the relative path: the smallest limit of common systems is 1024."""


class BadPath(ValueError):
    """Raised for a rendered output path that no file may have; the message says why.

    `cause` is the reason without the path, so it is equal for all paths of a job that share it.
    """

    def __init__(self, cause: str, rendered: str = "") -> None:
        self.cause = cause
        shown = rendered if len(rendered) <= 60 else f"{rendered[:60]}..."
        super().__init__(f"{shown!r} {cause}" if rendered else cause)


def safe_path(rendered: str) -> str:
    """Return the path NFC-normalised, with characters that some file system refuses replaced by `-`.

    `/` separates folders. Raises `BadPath` for absolute paths, `..`, and hidden, empty or overlong names.
    """
    dashed = rendered  # 16:9 becomes 16-9 first: most paths of a large job contain a ratio
    if ":" in rendered and not _DRIVE.match(rendered):
        dashed = rendered.replace(":", "-")
    return dashed if is_harmless(dashed) else _checked(rendered)


def is_harmless(rendered: str) -> bool:
    """Return whether a path obviously needs no change, like most of the million paths of a large job."""
    return len(rendered) <= _MAX_COMPONENT and _HARMLESS.fullmatch(rendered) is not None


def _checked(rendered: str) -> str:
    rendered = unicodedata.normalize("NFC", rendered.strip())
    if not rendered:
        raise BadPath("is empty")
    if rendered.startswith("/") or _DRIVE.match(rendered):
        raise BadPath("is absolute; output paths are relative to output.dir", rendered)
    *folders, last = rendered.split("/")
    try:
        names = [_safe_folder(part) for part in folders]
        names.append(_safe_name(last))
        if folders and _OWN.match(names[0]):
            # The manifest and its companion files have the same parent as the top folders.
            names[0] = f"_{names[0]}"
    except BadPath as error:
        raise BadPath(error.cause, rendered) from None
    path = "/".join(names)
    if len(path.encode()) > _MAX_PATH:
        raise BadPath(f"is longer than {_MAX_PATH} bytes", rendered)
    return path


@lru_cache(maxsize=4096)
def _safe_name(part: str) -> str:
    """Return one name of a path, made safe. Raises `BadPath` with a message about the whole path."""
    if part == "..":
        raise BadPath("contains '..'; a path must not leave output.dir")
    # Windows drops trailing dots and spaces, so two names could become the same.
    name = _REFUSED.sub("-", part).lstrip(_SPACES).rstrip(_SPACES + ".")
    if not name:
        raise BadPath("contains an empty name")
    if name.startswith("."):
        raise BadPath("contains a name that starts with a dot, which is reserved for seedream-batch")
    if _RESERVED.match(name):
        name = f"_{name}"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise BadPath("is not valid Unicode") from None
    if size > _MAX_COMPONENT:
        raise BadPath(f"contains a name longer than {_MAX_COMPONENT} bytes")
    return name


@lru_cache(maxsize=4096)
def _safe_folder(part: str) -> str:
    # A folder `a.png` would have the path of the image `a`.
    return _PICTURE.sub(r"-\1", _safe_name(part))


def collision_key(path: str) -> str:
    """Return a key that is equal for paths some file system treats as one: ignores case and Unicode form."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())
