"""Parse `--select subject=fox,panda` into a predicate on cells, and check it and `--group-by` against the job.

A typo must not silently select nothing.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from seedream_batch.errors import UsageError
from seedream_batch.expand.matrix import cells
from seedream_batch.model.cell import CUT, CellFilter, matches, whole_name
from seedream_batch.model.document import Json
from seedream_batch.model.job import Job
from seedream_batch.validate.hints import did_you_mean


@dataclass(frozen=True, slots=True)
class Wanted:
    """One `--select` option: an axis, a key of its mapping values or "", and alternative values.

    `values` are trimmed and unescaped. `written` holds the same values untrimmed, because a comma may be part of a
    value; None stands for a quoted one, which is never joined with its neighbours.
    """

    text: str
    axis: str
    key: str
    values: tuple[str, ...]
    written: tuple[str | None, ...] = ()

    def fits(self, cell: Mapping[str, Json]) -> bool:
        if self.axis not in cell:
            return False
        value = cell[self.axis]
        if self.key:
            if not isinstance(value, dict) or self.key not in value:
                return False
            value = value[self.key]
        return any(matches(value, wanted) or _has_name(value, wanted) for wanted in self.values)


def _readings(
    values: tuple[str, ...], written: tuple[str | None, ...], is_value: Callable[[str], bool]
) -> Iterator[tuple[str, ...]]:
    """Yield each way to read the texts as values, where a comma separates two values or belongs to one.

    `is_value` decides what counts as a value.
    """
    if not values:
        yield ()
    for end in range(1, len(values) + 1):
        texts = [text for text in written[:end] if text is not None]
        if end > 1 and len(texts) < end:
            return
        value = values[0] if end == 1 else ",".join(texts).strip()
        if is_value(value):
            for rest in _readings(values[end:], written[end:], is_value):
                yield (value, *rest)


_PIECE = re.compile(r'\s*"((?:[^"\\]|\\.|"")*)"\s*(?:,|\Z)|((?:[^,\\]|\\.|\\\Z)*)(?:,|\Z)', re.DOTALL)
_ESCAPED = re.compile(r'\\([,"\\])')


def parsed(texts: Sequence[str]) -> tuple[Wanted, ...]:
    r"""Parse `--select` options. Raises `UsageError` if one is not of the form AXIS=VALUE.

    `AXIS=VALUE` matches as in an exclude (the value itself, or the `id` of a mapping) and by the printed name,
    `AXIS.KEY=VALUE` by a key of a mapping. Values are text, so numbers and booleans match as they are written. Quotes
    and backslashes keep a comma in a value: `"a fox, asleep"`, `a fox\, asleep`.
    """
    wanted = []
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not name or not values:
            raise UsageError(f"--select {text}: write AXIS=VALUE, for example subject=fox or size=16:9,9:16")
        axis, _, key = name.strip().partition(".")
        pieces = _split_values(values)
        wanted.append(Wanted(text, axis, key, tuple(value for value, _ in pieces), tuple(raw for _, raw in pieces)))
    return tuple(wanted)


def _split_values(text: str) -> list[tuple[str, str | None]]:
    """Return the values between commas, each with its source text, or None if it was quoted."""
    pieces: list[tuple[str, str | None]] = []
    for match in _PIECE.finditer(f"{text},"):
        quoted, plain = match.groups()
        if quoted is not None:
            pieces.append((_ESCAPED.sub(r"\1", quoted).replace('""', '"'), None))
        elif match.end() > match.start():
            value = _ESCAPED.sub(r"\1", plain)
            pieces.append((value.strip(), value))
    return pieces


def selection(wanted: Sequence[Wanted]) -> CellFilter:
    """Return a predicate that accepts a cell which matches every option."""
    return lambda cell: all(option.fits(cell) for option in wanted)


def fits_a_cell(job: Job, wanted: Sequence[Wanted]) -> bool:
    """Return whether any cell of the job matches; only generates cells that may."""
    fits = selection(wanted)
    if not {option.axis for option in wanted} <= {axis.name for axis in job.axes}:
        return any(map(fits, job.include))
    axes = []
    for axis in job.axes:
        options = [option for option in wanted if option.axis == axis.name]
        values = [value for value in axis.values if all(option.fits({axis.name: value}) for option in options)]
        axes.append(replace(axis, values=values, positions=()))
    return any(fits(cell) for cell in cells(replace(job, axes=tuple(axes))))


def _has_name(value: Json, text: str) -> bool:
    """Return whether this is the text or the printed name of a value, possibly cut."""
    shown = str(value).lower() if isinstance(value, bool) else str(value)
    if not isinstance(value, dict | list) and shown == text:
        return True
    name = whole_name(value)
    return name == text or (text.endswith(CUT) and name.startswith(text[:-1]))


def chosen(texts: Sequence[str], job: Job, *, also: Sequence[Mapping[str, Json]] = ()) -> CellFilter:
    """Return the predicate on cells that the texts describe.

    Each value must match a cell of the job or of `also`: cells that the job no longer has. Raises `UsageError`.
    """
    axes = dict.fromkeys([axis.name for axis in job.axes])
    axes.update(dict.fromkeys(name for cell in (*job.include, *also) for name in cell))
    wanted = []
    for option in parsed(texts):
        if option.axis not in axes:
            near = did_you_mean(option.axis, axes)
            more = f"did you mean `{near}`?" if near else f"axes: {', '.join(axes)}"
            raise UsageError(f"--select {option.text}: no axis `{option.axis}` in the job ({more})")
        wanted.append(replace(option, values=_resolve_values(option, job, also)))
    if len(wanted) > 1 and not fits_a_cell(job, wanted) and not any(map(selection(wanted), also)):
        raise UsageError(f"no cell of the job matches all of --select {' --select '.join(texts)}")
    return selection(wanted)


def _resolve_values(option: Wanted, job: Job, also: Sequence[Mapping[str, Json]]) -> tuple[str, ...]:
    """Return the values of one option, each of a cell; a value may contain commas. Raises `UsageError`."""

    @cache
    def is_value(value: str) -> bool:
        single = (replace(option, values=(value,)),)
        return fits_a_cell(job, single) or any(map(selection(single), also))

    readings = [option.values]
    if not all(map(is_value, option.values)):
        readings = list(itertools.islice(_readings(option.values, option.written, is_value), 2))
    in_quotes = """put a value with a comma in double quotes: 'AXIS="one, two"'"""
    if not readings:
        value = next(value for value in option.values if not is_value(value))
        more = f" ({in_quotes})" if len(option.values) > 1 else ""
        if key := _key_with(option.axis, value, job) if not option.key else "":
            more = f" (did you mean {option.axis}.{key}={value}?)"
        raise UsageError(f"--select {option.text}: no cell of the job has {value or 'an empty value'}{more}")
    if len(readings) > 1:
        raise UsageError(f"--select {option.text}: the commas are ambiguous; {in_quotes}")
    for value in readings[0]:
        _check_cut_name(replace(option, values=(value,)), job)
    return readings[0]


def _key_with(axis: str, text: str, job: Job) -> str:
    """Return the first key of the mappings of an axis that has this value; empty if there is none."""
    if not text:
        return ""
    mappings = (value for cell in _values(job) if isinstance(value := cell.get(axis), dict))
    named = ((name, value) for mapping in mappings for name, value in mapping.items())
    return next((name for name, value in named if matches(value, text) or _has_name(value, text)), "")


def _check_cut_name(option: Wanted, job: Job) -> None:
    """Raise `UsageError` if a shortened name fits several values: a run must not buy more than intended."""
    (value,) = option.values
    if value.endswith(CUT):
        matching = dict.fromkeys(whole_name(cell[option.axis]) for cell in _values(job) if option.fits(cell))
        if len(matching) > 1:
            shown = ", ".join(list(matching)[:5])
            raise UsageError(f"--select {option.text}: {value} could mean {shown}; be more specific")


def grouping(text: str, job: Job) -> tuple[str, ...]:
    """Return the path into a cell that `--group-by` names: an axis, or a key of its values. Raises `UsageError`."""
    known: dict[str, None] = {}
    for path in itertools.chain.from_iterable(map(_paths, _values(job))):
        if path == text:
            return tuple(text.split("."))
        known[path] = None
    near = did_you_mean(text, known)
    more = f"did you mean `{near}`?" if near else f"available: {', '.join(list(known)[:20])}"
    raise UsageError(f"--group-by {text}: no cell of the job has it ({more})")


def _values(job: Job) -> Iterator[Mapping[str, Json]]:
    for axis in job.axes:
        yield from ({axis.name: value} for value in axis.values)
    yield from job.include


def _paths(values: Mapping[str, Json], before: str = "") -> Iterator[str]:
    for name, value in values.items():
        # A dot separates keys, so a key that contains one cannot be named.
        if "." not in name:
            yield f"{before}{name}"
            if isinstance(value, dict):
                yield from _paths(value, f"{before}{name}.")
