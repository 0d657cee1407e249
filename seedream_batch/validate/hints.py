"""Hints on what to write instead, from a schema and the value that it refused."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from seedream_batch.model.document import Json, dotted
from seedream_batch.model.text import LONGEST, escaped

Schema = Mapping[str, Json]

_INTEGER = re.compile(r"[0-9]{1,15}")
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?")
_RATIO = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)\s*[:xX×/*-]\s*([0-9]{1,6}(?:\.[0-9]{1,6})?)")  # noqa: RUF001
_WORDS = {"true": "true", "yes": "true", "on": "true", "false": "false", "no": "false", "off": "false"}


def types_of(schema: Schema) -> tuple[str, ...]:
    """Return the JSON types that a schema names."""
    named = schema.get("type", ())
    return (named,) if isinstance(named, str) else tuple(named)


def hint_for(schema: Schema, value: Json) -> str:
    """Return a hint on what to write instead of `value`; empty if there is none."""
    types = types_of(schema)
    if "boolean" in types:
        return _boolean(value)
    if "enum" in schema:
        return schema.get("x-hints", {}).get(value, "") or _choice(schema["enum"], value) if _simple(value) else ""
    if isinstance(value, str) and {"integer", "number"} & {*types}:
        return _unquoted(schema, value, whole="number" not in types)
    return _form_hint(schema, types, value)


def _form_hint(schema: Schema, types: tuple[str, ...], value: Json) -> str:
    if "object" in types and isinstance(value, str) and "\uff1a" in value:
        return "\uff1a (U+FF1A) is not a colon in YAML: write `key: value`"
    if types == ("string",) and _simple(value) and not isinstance(value, str):
        return f'put it in quotes: "{bare(value)}"'
    if types == ("object",) and "required" in schema:
        return f"required: {_listed(schema['required'])}"
    if "array" in types and _simple(value) and value != "":
        return f"write it as a list: [{flow(value)}]"
    return ""


def usable_name(schema: Schema, name: str) -> str:
    """Return a hint with a similar name that the schema of names accepts; empty if there is none."""
    near = re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_")
    near = f"_{near}" if near[:1].isdigit() else near
    return f"for example {near}" if re.search(schema["pattern"], near) and len(near) <= LONGEST else ""


def unknown_key(key: str, known: Sequence[str], root: Schema, parent: str) -> str:
    """Return where an unknown key belongs, what it was probably meant to be, or the known keys."""
    homes = sorted({home for name, home in _homes(root, "") if name == key and home != parent}, key=len)
    if homes:
        places = [f"under `{home}`" if home else "at the top level" for home in homes]
        return f"`{key}` belongs {' or '.join(places)}"
    near = did_you_mean(key, known)
    return f"did you mean `{near}`?" if near else f"known: {', '.join(known)}"


def _homes(schema: Schema, home: str) -> Iterator[tuple[str, str]]:
    """Yield each key known to a schema of nested mappings, with the dotted path of its mapping."""
    for name, child in schema.get("properties", {}).items():
        yield name, home
        if types_of(child) == ("object",):
            yield from _homes(child, f"{home}.{name}" if home else name)


def _listed(names: Sequence[str]) -> str:
    return " and ".join((", ".join(names[:-1]), names[-1]) if len(names) > 1 else names)


def _simple(value: Json) -> bool:
    return isinstance(value, str | bool | int | float)


def _unquoted(schema: Schema, text: str, *, whole: bool) -> str:
    if not (_INTEGER if whole else _NUMBER).fullmatch(text):
        return ""
    if not schema.get("minimum", 0) <= float(text) <= schema.get("maximum", math.inf) or not float(text):
        return ""
    number = text.lstrip("0") if whole else text
    because = schema.get("x-quoted")
    return f"{because}: write {number}" if because else f"write {number} without quotes"


def _boolean(value: Json) -> str:
    if isinstance(value, str):
        meant = _WORDS.get(value.casefold(), "")
        return f"write {meant}" + (" without quotes" if value == meant else "") if meant else ""
    if isinstance(value, int | float) and value in (0, 1):
        return f"write {'true' if value else 'false'}"
    return ""


def _choice(choices: Sequence[str], value: Json) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        ratio = f"{value // 60}:{value % 60}" if value < 6000 else ""
        if ratio in choices:
            return f'YAML 1.1 reads an unquoted {ratio} as {value}: write "{ratio}"'
    if not isinstance(value, str):
        return ""
    near = _nearest_ratio(choices, value)
    if near:
        return f"the nearest ratio is {near}"
    word = did_you_mean(value.strip(), choices)
    return f"did you mean {word}?" if word else ""


def _nearest_ratio(choices: Sequence[str], text: str) -> str:
    """Return the choice whose ratio is nearest to that of `text`; empty if either has no ratio."""
    wanted = _ratio(text)
    ratios = {choice: ratio for choice in choices if (ratio := _ratio(choice)) is not None}
    if wanted is None or not ratios:
        return ""
    return min(ratios, key=lambda choice: abs(ratios[choice] - wanted))


def _ratio(text: str) -> float | None:
    """Return the logarithm of width / height, so that tall and wide are equally far from square."""
    match = _RATIO.fullmatch(text.strip())
    if not match:
        return None
    width, height = float(match[1]), float(match[2])
    return math.log(width / height) if width and height else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the one of `known` most similar to `word`, ignoring case and dashes; empty if none is similar."""
    from difflib import get_close_matches  # noqa: PLC0415 - only a mistake is worth the import

    by_form = {_form(name): name for name in reversed(tuple(islice(known, 1000)))}
    near = get_close_matches(_form(word[:100]), by_form, n=1, cutoff=0.7)
    return by_form[near[0]] if near else ""


def _form(word: str) -> str:
    return word.casefold().replace("-", "_").replace(" ", "_")


_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.:/+-]*(?<! )")
_NOT_TEXT = re.compile(r"(?i)true|false|null|yes|no|on|off|[-+.]?[0-9][0-9_.,eE+-]*")


def shown(value: Json) -> str:
    """Return a value as it was written; for a mapping or list only its kind."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, str):
        return f'"{escaped(value)}"'
    if isinstance(value, Sequence):
        return "a list"
    return _scalar(value)


def bare(value: Json) -> str:
    """Return `shown`, but without quotes for a text that needs none in YAML."""
    return value if isinstance(value, str) and len(value) <= LONGEST and _PLAIN.fullmatch(value) else shown(value)


def flow(value: Json) -> str:
    """Return a value in YAML's flow style, ready to be copied."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    if isinstance(value, str):
        plain = _PLAIN.fullmatch(value) and ": " not in value and not _NOT_TEXT.fullmatch(value)
        return value if plain else shown(value)
    return "null" if value is None else _scalar(value)


def path_text(path: Iterable[str | int]) -> str:
    """Return `dotted` with the keys made safe to print."""
    return dotted([step if isinstance(step, int) else escaped(step) for step in path])


def _scalar(value: Json) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return escaped(str(value))
