"""Builds values and their positions from YAML, using the events of PyYAML's C parser.

It uses events because the C composer and constructor are three times slower, follow YAML 1.1 and recurse unbounded.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import is_
from typing import Any, Final

import yaml

from seedream_batch.document.decoding import MAX_BYTES, MAX_DEPTH, MAX_VALUES, MOST_PROBLEMS, decoded
from seedream_batch.document.yaml_errors import QUOTE_TEMPLATE, syntax_problem, template_at, wide_sign
from seedream_batch.document.yaml_scalars import NUMERIC_START, WORDS, BadScalar, check_collection_tag, number, tagged
from seedream_batch.errors import InvalidJob
from seedream_batch.model.document import Document, Json, Mark, Position, Problem, dotted, written_as
from seedream_batch.model.text import UNPRINTABLE_IN_YAML, encodable, plain_value

MAX_ALIASED: Final = MAX_BYTES
"""Most characters from aliases: a long text repeated a few thousand times would exhaust the memory."""

MAX_MERGED: Final = 500_000
"""Most keys from merge keys: unlike aliases, they are copied."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_SURROGATE_ESCAPE: Final = re.compile(r"\\(?:u|U0000)[dD][89a-fA-F]")


def parse_yaml(text: str | bytes, file: str, problems: list[Problem] | None = None) -> Document:
    """Parse the one document of a YAML file by the rules of YAML 1.2, with the position of every value and key.

    Keys keep their text, so `2K: 1` and `1: 1` have the keys "2K" and "1". The keys of a merge key (`<<`) come first;
    explicit keys override them, and so do mappings earlier in its list. Values of aliases are shared, not copied: do
    not modify them.

    Raises `InvalidJob` with all repeated keys and invalid scalars, and the first syntax error. If `problems` is given,
    those that leave a usable value are added to it instead.
    """
    text = UNPRINTABLE_IN_YAML.sub("", decoded(text, file))
    builder = _Builder(file, text)
    with _without_gc():
        try:
            value, mark = builder.build()
        except yaml.YAMLError as error:
            builder.problems.append(syntax_problem(error, text, file))
        except _Fatal as error:
            builder.problems += error.args
        else:
            if problems is not None:
                problems += builder.problems
                return Document(file, value, mark)
    if builder.problems:
        raise InvalidJob(builder.problems)
    return Document(file, value, mark)


def as_written(document: Document, path: Sequence[str] = ()) -> dict[str | int, Json]:
    """Return the parts of the list or mapping at `path`, by key or index, that have a number which prints differently.

    The numbers in these parts print as they were written.
    """
    value, mark = document.value, document.mark
    for step in path:
        if not isinstance(mark.items, dict) or step not in mark.items:
            return {}
        value, mark = value[step], mark.items[step]
    memory: dict[int, Json] = {}
    items = mark.items
    parts: Iterable[tuple[str | int, Json, Mark]] = ()
    if isinstance(items, dict):
        parts = ((key, value[key], one) for key, one in items.items())
    elif isinstance(items, list):
        parts = ((index, value[index], one) for index, one in enumerate(items))
    found = ((key, part, _as_written(part, one, memory)) for key, part, one in parts)
    return {key: made for key, part, made in found if made is not part}


def _as_written(value: Json, mark: Mark, memory: dict[int, Json]) -> Json:
    """Return the value with numbers that print as they were written; the same object if there are none."""
    if mark.written is not None:
        return mark.written
    items = mark.items
    if items is None:
        return value
    known = memory.get(id(mark), memory)
    if known is not memory:
        return known
    made: Json = value
    if isinstance(value, list) and isinstance(items, list):
        parts = [_as_written(part, one, memory) for part, one in zip(value, items, strict=True)]
        made = value if all(map(is_, parts, value)) else parts
    elif isinstance(value, dict) and isinstance(items, dict):
        fields = {key: _as_written(part, items[key], memory) for key, part in value.items()}
        made = value if all(map(is_, fields.values(), value.values())) else fields
    memory[id(mark)] = made
    return made


_NUMBERS: Final = frozenset({int, float})


@contextmanager
def _without_gc() -> Iterator[None]:
    """Disable the cycle collector, which would spend half of the time scanning live values."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Fatal(Exception):
    """A problem after which nothing more can be read."""


@dataclass(slots=True)
class _Anchored:
    """The value of an anchor; `mark` is None while the value is still open.

    `size` is its number of values and `length` an upper bound of its characters, both with aliases expanded.
    """

    value: Json
    mark: Mark | None
    size: int
    height: int
    length: int
    text: str | None = None


@dataclass(slots=True)
class _Value:
    """A value that was read, and how many lists and mappings it has inside each other, itself included."""

    value: Json
    mark: Mark
    height: int = 0


class _Builder:
    """Builds the value of each event, recursively: at most `MAX_DEPTH` deep."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self.problems: list[Problem] = []
        self.anchors: dict[str, _Anchored] = {}
        self.path: list[str | int] = []
        self.depth = 0
        self.count = 0
        self.aliased = 0  # characters from aliases
        self.merged = 0
        self.escapes = _SURROGATE_ESCAPE.search(text) is not None  # only the pure Python parser accepts them
        self.next_event: Any = None

    def build(self) -> tuple[Json, Mark]:
        """Return the root value and its mark."""
        loader = _Loader(self.text)
        self.next_event = loader.get_event
        try:
            return self._document()
        finally:
            loader.dispose()

    def _document(self) -> tuple[Json, Mark]:
        self.next_event()  # the start of the stream
        event = self.next_event()
        if isinstance(event, yaml.StreamEndEvent):
            raise self._fatal("the file is empty", (1, 1))
        event = self.next_event()
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and not event.value and event.tag is None:
            raise self._fatal("the file is empty", (1, 1))
        root = self._value(event)
        self.next_event()  # the end of the document
        event = self.next_event()
        if not isinstance(event, yaml.StreamEndEvent):
            raise self._fatal(
                "a second document starts here", _start(event), "a file can contain only one: remove the `---`"
            )
        return root.value, root.mark

    def _value(self, event: Any, *, in_flow_list: bool = False) -> _Value:
        """Return the value that starts with this event."""
        at = _start(event)
        kind = type(event)
        if kind is yaml.ScalarEvent:
            found = self._scalar(event, at, in_flow_list=in_flow_list)
        elif kind is yaml.AliasEvent:
            anchored = self._alias(event.anchor, at)
            if self.depth + anchored.height > MAX_DEPTH:
                raise self._fatal(f"nested deeper than {MAX_DEPTH} levels", at)
            found = _Value(anchored.value, anchored.mark or Mark(*at), anchored.height)
        else:
            found, at = self._collection(event, at)
        if self.count > MAX_VALUES:
            message = f"more than {MAX_VALUES:,} values after expanding the aliases"
            raise self._fatal(message, at, "use fewer aliases")
        return found

    def _scalar(self, event: Any, at: tuple[int, int], *, in_flow_list: bool) -> _Value:
        text = event.value
        self._check_escapes(text, at)
        self.count += 1
        value: Json = text
        if event.tag is not None:
            value = self._parsed(event.tag, text, at)
        elif not event.style:  # neither quoted, literal nor folded
            if text in WORDS:
                value = WORDS[text]
            elif text[0] in NUMERIC_START:
                value = self._parsed(None, text, at)
            elif not text.isascii() and (found := wide_sign(text, in_list=in_flow_list)):
                self._problem(found[1], (at[0], at[1] + found[0]), found[2])
        mark = Mark(*at)
        if type(value) in _NUMBERS:
            mark.written = written_as(value, text)
        if event.anchor is not None:
            self.anchors[event.anchor] = _Anchored(value, mark, 1, 0, len(text), text)
        return _Value(value, mark)

    def _parsed(self, tag: str | None, text: str, at: tuple[int, int]) -> Json:
        try:
            return number(text) if tag is None else tagged(tag, text)
        except BadScalar as error:
            self._problem(str(error), at, error.hint)
            return None

    def _check_escapes(self, text: str, at: tuple[int, int]) -> None:
        if self.escapes and not encodable(text):
            raise self._fatal("the escape is half of a character (a lone surrogate)", at)

    def _collection(self, event: Any, at: tuple[int, int]) -> tuple[_Value, tuple[int, int]]:
        """Return a list or mapping, and where it ends."""
        if self.depth >= MAX_DEPTH:
            raise self._fatal(f"nested deeper than {MAX_DEPTH} levels", at)
        is_map = isinstance(event, yaml.MappingStartEvent)
        if event.tag is not None:
            try:
                check_collection_tag(event.tag, "map" if is_map else "seq")
            except BadScalar as error:
                self._problem(str(error), at, error.hint)
        found = _Value({}, Mark(*at, {}, {}), 1) if is_map else _Value([], Mark(*at, []), 1)
        before, start = self.count, event.start_mark.index + self.aliased
        self.count += 1
        if event.anchor is not None:
            self.anchors[event.anchor] = _Anchored(found.value, None, 0, 0, 0)
        self.depth += 1
        end = self._fill_mapping(found) if is_map else self._fill_list(found, in_flow=bool(event.flow_style))
        self.depth -= 1
        if event.anchor is not None:
            length = end.end_mark.index + self.aliased - start
            size = self.count - before
            self.anchors[event.anchor] = _Anchored(found.value, found.mark, size, found.height, length)
        return found, _start(end)

    def _fill_list(self, found: _Value, *, in_flow: bool) -> Any:
        """Read the items of a list; return the event that ends it."""
        items: Any = found.mark.items
        while type(event := self.next_event()) is not yaml.SequenceEndEvent:
            self.path.append(len(items))
            item = self._value(event, in_flow_list=in_flow)
            self.path.pop()
            found.height = max(found.height, item.height + 1)
            found.value.append(item.value)
            items.append(item.mark)
        return event

    def _fill_mapping(self, found: _Value) -> Any:
        """Read the keys and values of a mapping; return the event that ends it."""
        items: Any = found.mark.items
        keys: Any = found.mark.keys
        merge: list[tuple[Json, Mark]] | None = None
        while type(event := self.next_event()) is not yaml.MappingEndEvent:
            at = _start(event)
            key = self._key(event, at)
            if key is None and merge is not None:
                self._problem("`<<` occurs twice", at, "combine them: `<<: [*first, *second]`")
            elif key is not None and (first := keys.setdefault(key, at)) is not at:
                self.path.append(key)
                message = f"repeated key, first given at line {first[0]}, column {first[1]}"
                self._problem(message, at, "remove one of the two")
                self.path.pop()
            event = self.next_event()
            self.path.append("<<" if key is None else key)
            item = self._value(event)
            self.path.pop()
            found.height = max(found.height, item.height + 1)
            if key is None:
                merge = [*(merge or ()), *self._sources(item, _start(event))]
            else:
                found.value[key] = item.value
                items[key] = item.mark
        if merge is not None:
            self._merge(merge, found.mark, found.value)
        return event

    def _key(self, event: Any, at: tuple[int, int]) -> str | None:
        """Return a key; None for a merge key."""
        kind = type(event)
        if kind is yaml.AliasEvent:
            aliased = self._alias(event.anchor, at).text
            if aliased is None:
                raise self._complex_key(at)
            return aliased
        if kind is not yaml.ScalarEvent:
            raise self._complex_key(at)
        text: str = event.value
        self._check_escapes(text, at)
        if event.anchor is not None:
            self.anchors[event.anchor] = _Anchored(text, Mark(*at), 1, 0, len(text), text)
        if event.tag is not None:
            self._parsed(event.tag, text, at)
        elif not event.style:
            if text == "<<":
                return None
            if not text:
                self._problem("a key is missing before the colon", at)
            odd = next((one for one in text if plain_value(one) != one and one != " "), "")
            if odd:
                message = f"the key contains the invisible character U+{ord(odd):04X}"
                self._problem(message, (at[0], at[1] + text.index(odd)), "remove it; indent with spaces")
        return text

    def _alias(self, name: str, at: tuple[int, int]) -> _Anchored:
        anchored = self.anchors.get(name)
        if anchored is None:
            known = ", ".join(f"&{anchor}" for anchor in list(self.anchors)[:8])
            hint = f"defined so far: {known}" if known else "define an anchor with &name before its first use"
            raise self._fatal(f"no anchor &{name}", at, hint)
        if anchored.mark is None:
            raise self._fatal(f"*{name} is inside the value of &{name} itself", at)
        self.count += anchored.size
        self.aliased += anchored.length
        if self.aliased > MAX_ALIASED:
            raise self._fatal(f"aliases add more than {MAX_ALIASED:,} characters", at, "use fewer aliases")
        return anchored

    def _sources(self, found: _Value, at: tuple[int, int]) -> list[tuple[Json, Mark]]:
        """Return the mappings that a merge key brings."""
        sources: list[tuple[Json, Mark]] = [(found.value, found.mark)]
        if isinstance(found.value, list) and isinstance(found.mark.items, list):
            sources = list(zip(found.value, found.mark.items, strict=True))
        if all(isinstance(source, dict) for source, _ in sources):
            return sources
        self._problem("`<<` takes a mapping or a list of mappings", at, "write `<<: *name`")
        return []

    def _merge(self, sources: list[tuple[Json, Mark]], mark: Mark, own: dict[str, Json]) -> None:
        """Put merged keys before the mapping's own; own keys win, then earlier sources."""
        self.merged += sum(len(source) for source, _ in sources)
        if self.merged > MAX_MERGED:
            message = f"merge keys add more than {MAX_MERGED:,} keys"
            raise self._fatal(message, (mark.line, mark.column), "use fewer merge keys")
        values: dict[str, Json] = {}
        items: dict[str, Mark] = {}
        keys: dict[str, tuple[int, int]] = {}
        for source, source_mark in sources:
            for key, value in source.items():
                if key not in values and isinstance(source_mark.items, dict):
                    values[key] = value
                    items[key] = source_mark.items[key]
                    keys[key] = (source_mark.keys or {}).get(key, (source_mark.line, source_mark.column))
        values.update(own)
        items.update(mark.items or {})  # type: ignore[arg-type]  # a dict for a mapping
        keys.update(mark.keys or {})
        # Modify in place: aliases of this mapping share the object.
        own.clear()
        own.update(values)
        mark.items, mark.keys = items, keys

    def _problem(self, message: str, at: tuple[int, int], hint: str = "") -> None:
        self.problems.append(Problem(dotted(self.path), message, Position(self.file, *at), hint))
        if len(self.problems) >= MOST_PROBLEMS:
            raise self._fatal("more errors after this line", at, "fix these first")

    def _fatal(self, message: str, at: tuple[int, int], hint: str = "") -> _Fatal:
        return _Fatal(Problem("", message, Position(self.file, *at), hint))

    def _complex_key(self, at: tuple[int, int]) -> _Fatal:
        # To YAML, `{{ x }}` is a flow mapping inside another one: a mapping as a key.
        line, column = at
        if template_at(self.text, line, column - 1):
            return self._fatal("a template must be quoted in YAML", (line, column - 1), QUOTE_TEMPLATE)
        return self._fatal("a key must be text, not a list or mapping", at)


def _start(event: Any) -> tuple[int, int]:
    """Return the line and column where an event starts, both from 1."""
    return event.start_mark.line + 1, event.start_mark.column + 1
