"""Builds values and their positions from YAML, using the events of PyYAML's C parser.

It uses events because the C composer and constructor are three times slower, follow YAML 1.1 and recurse.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
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
            builder.problems.append(error.problem)
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
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class _Anchored:
    """The value of an anchor; `mark` is None while the value is still open.

    `size` is its number of values and `length` an upper bound of its characters, both with aliases expanded.
    """

    __slots__ = ("height", "length", "mark", "size", "text", "value")

    def __init__(
        self, value: Json, mark: Mark | None, size: int, height: int, length: int, text: str | None = None
    ) -> None:
        self.value = value
        self.mark = mark
        self.size = size
        self.height = height
        self.length = length
        self.text = text


class _Frame:
    """A list or mapping that is still open.

    `flow` says that it is written in brackets. A mapping expects a key while `key` is None; `merge` is None until a
    merge key, and then holds its mappings. `before` is the number of values when it was opened, `start` that of
    characters.
    """

    __slots__ = ("anchor", "before", "flow", "height", "is_map", "key", "mark", "merge", "merging", "start", "value")

    def __init__(self, value: Json, mark: Mark, anchor: str | None, before: int, start: int, *, flow: bool) -> None:
        self.flow = flow
        self.value = value
        self.mark = mark
        self.anchor = anchor
        self.before = before
        self.start = start
        self.is_map = isinstance(value, dict)
        self.height = 1
        self.key: str | None = None
        self.merge: list[tuple[Json, Mark]] | None = None
        self.merging = False


class _Builder:
    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self.problems: list[Problem] = []
        self.anchors: dict[str, _Anchored] = {}
        self.frames: list[_Frame] = []
        self.count = 0
        self.aliased = 0  # characters from aliases
        self.merged = 0
        self.escapes = _SURROGATE_ESCAPE.search(text) is not None  # only the pure Python parser accepts them

    def build(self) -> tuple[Json, Mark]:
        """Return the root value and its mark."""
        loader = _Loader(self.text)
        try:
            return self._document(loader)
        finally:
            loader.dispose()

    def _document(self, loader: Any) -> tuple[Json, Mark]:
        next_event = loader.get_event
        next_event()  # the start of the stream
        event = next_event()
        if isinstance(event, yaml.StreamEndEvent):
            raise self._fatal("the file is empty", (1, 1))
        event = next_event()
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and not event.value and event.tag is None:
            raise self._fatal("the file is empty", (1, 1))
        root = self._values(event, next_event)
        next_event()  # the end of the document
        event = next_event()
        if not isinstance(event, yaml.StreamEndEvent):
            at = (event.start_mark.line + 1, event.start_mark.column + 1)
            raise self._fatal("a second document starts here", at, "a file can contain only one: remove the `---`")
        return root

    def _values(self, event: Any, next_event: Any) -> tuple[Json, Mark]:
        """Return the value that `event` starts: the hot loop, with an explicit stack instead of recursion."""
        frames = self.frames
        scalar_event, alias_event = yaml.ScalarEvent, yaml.AliasEvent
        opening = (yaml.MappingStartEvent, yaml.SequenceStartEvent)
        frame: _Frame | None = None
        while True:
            kind = type(event)
            start = event.start_mark
            line, column = start.line + 1, start.column + 1
            height = 0
            is_key = frame is not None and frame.is_map and frame.key is None and not frame.merging
            if kind in opening:
                self.count += 1
                frame = self._open(event, frame, line, column)
                frames.append(frame)
                event = next_event()
                continue
            if frame is not None and is_key and (kind is scalar_event or kind is alias_event):
                self._key_of(frame, event, line, column)
                event = next_event()
                continue
            if kind is scalar_event:
                value, mark = self._scalar_value(frame, event, line, column)
            elif kind is alias_event:
                anchored = self._alias(event.anchor, line, column)
                value, mark, height = anchored.value, anchored.mark or Mark(line, column), anchored.height
                if len(frames) + height > MAX_DEPTH:
                    raise self._fatal(f"nested deeper than {MAX_DEPTH} levels", (line, column))
            else:  # the end of a list or mapping
                value, mark, height = self._close(frames.pop(), event)
                frame = frames[-1] if frames else None
            if self.count > MAX_VALUES:
                message = f"more than {MAX_VALUES:,} values after expanding the aliases"
                raise self._fatal(message, (line, column), "use fewer aliases")
            if frame is None:
                return value, mark
            self._add(frame, value, mark, height, (line, column))
            event = next_event()

    def _scalar_value(self, frame: _Frame | None, event: Any, line: int, column: int) -> tuple[Json, Mark]:
        text = event.value
        self._check_escapes(text, line, column)
        self.count += 1
        value: Json = text
        if event.tag is not None:
            value = self._scalar(event.tag, text, line, column)
        elif not event.style:  # neither quoted, literal nor folded
            if text in WORDS:
                value = WORDS[text]
            elif text[0] in NUMERIC_START:
                value = self._scalar(None, text, line, column)
            elif not text.isascii():
                self._check_signs(text, frame, (line, column))
        mark = Mark(line, column)
        if type(value) in _NUMBERS:
            mark.written = written_as(value, text)
        if event.anchor is not None:
            self.anchors[event.anchor] = _Anchored(value, mark, 1, 0, len(text), text)
        return value, mark

    def _check_escapes(self, text: str, line: int, column: int) -> None:
        if self.escapes and not encodable(text):
            raise self._fatal("the escape is half of a character (a lone surrogate)", (line, column))

    def _key_of(self, frame: _Frame, event: Any, line: int, column: int) -> None:
        """Take a scalar or an alias as the key of the next value."""
        if type(event) is yaml.ScalarEvent:
            self._check_escapes(event.value, line, column)
            self._key(frame, event, event.value, line, column)
            return
        text = self._alias(event.anchor, line, column).text
        if text is None:
            raise self._complex_key(line, column)
        self._set_key(frame, text, line, column)

    def _close(self, frame: _Frame, event: Any) -> tuple[Json, Mark, int]:
        """Return the value of a list or mapping that ends, its mark and its height."""
        if frame.merge is not None:
            self._merge(frame)
        if frame.anchor is not None:
            length = event.end_mark.index + self.aliased - frame.start
            size = self.count - frame.before
            self.anchors[frame.anchor] = _Anchored(frame.value, frame.mark, size, frame.height, length)
        return frame.value, frame.mark, frame.height

    def _add(self, frame: _Frame, value: Json, mark: Mark, height: int, at: tuple[int, int]) -> None:
        """Add a value to the open list or mapping."""
        if height >= frame.height:
            frame.height = height + 1
        if not frame.is_map:
            frame.value.append(value)
            frame.mark.items.append(mark)  # type: ignore[union-attr]  # a list for a list
        elif frame.merging:
            self._merged(frame, value, mark, at)
        elif frame.key is not None:
            frame.value[frame.key] = value
            frame.mark.items[frame.key] = mark  # type: ignore[index,call-overload]  # a dict for a mapping
            frame.key = None

    def _open(self, event: Any, parent: _Frame | None, line: int, column: int) -> _Frame:
        """Return the frame of the list or mapping that this event opens."""
        if parent is not None and parent.is_map and parent.key is None and not parent.merging:
            raise self._complex_key(line, column)
        if len(self.frames) >= MAX_DEPTH:
            raise self._fatal(f"nested deeper than {MAX_DEPTH} levels", (line, column))
        is_map = isinstance(event, yaml.MappingStartEvent)
        if event.tag is not None:
            try:
                check_collection_tag(event.tag, "map" if is_map else "seq")
            except BadScalar as error:
                self._problem(str(error), (line, column), error.hint)
        mark = Mark(line, column, {}, {}) if is_map else Mark(line, column, [])
        value: Json = {} if is_map else []
        if event.anchor is not None:
            self.anchors[event.anchor] = _Anchored(value, None, 0, 0, 0)
        start = event.start_mark.index + self.aliased
        return _Frame(value, mark, event.anchor, self.count - 1, start, flow=bool(event.flow_style))

    def _scalar(self, tag: str | None, text: str, line: int, column: int) -> Json:
        try:
            return number(text) if tag is None else tagged(tag, text)
        except BadScalar as error:
            self._problem(str(error), (line, column), error.hint)
            return None

    def _key(self, frame: _Frame, event: Any, text: str, line: int, column: int) -> None:
        """Take a scalar as the key of the next value."""
        if event.anchor is not None:
            self.anchors[event.anchor] = _Anchored(text, Mark(line, column), 1, 0, len(text), text)
        if event.tag is not None:
            self._scalar(event.tag, text, line, column)
        elif not event.style:
            if text == "<<":
                if frame.merge is not None:
                    self._problem("`<<` occurs twice", (line, column), "combine them: `<<: [*first, *second]`")
                frame.merge = frame.merge or []
                frame.merging = True
                return
            if not text:
                self._problem("a key is missing before the colon", (line, column))
            odd = next((one for one in text if plain_value(one) != one and one != " "), "")
            if odd:
                message = f"the key contains the invisible character U+{ord(odd):04X}"
                self._problem(message, (line, column + text.index(odd)), "remove it; indent with spaces")
        self._set_key(frame, text, line, column)

    def _check_signs(self, text: str, frame: _Frame | None, at: tuple[int, int]) -> None:
        """Report a full-width sign in an unquoted text that was probably meant for YAML."""
        found = wide_sign(text, in_list=frame is not None and frame.flow and not frame.is_map)
        if found:
            self._problem(found[1], (at[0], at[1] + found[0]), found[2])

    def _set_key(self, frame: _Frame, text: str, line: int, column: int) -> None:
        keys = frame.mark.keys
        frame.key = text
        if keys is None:
            return
        if text in keys:
            first = keys[text]
            message = f"repeated key, first given at line {first[0]}, column {first[1]}"
            self._problem(message, (line, column), "remove one of the two", path=(*self._path(), text))
        else:
            keys[text] = (line, column)

    def _alias(self, name: str, line: int, column: int) -> _Anchored:
        anchored = self.anchors.get(name)
        if anchored is None:
            known = ", ".join(f"&{anchor}" for anchor in list(self.anchors)[:8])
            hint = f"defined so far: {known}" if known else "define an anchor with &name before its first use"
            raise self._fatal(f"no anchor &{name}", (line, column), hint)
        if anchored.mark is None:
            raise self._fatal(f"*{name} is inside the value of &{name} itself", (line, column))
        self.count += anchored.size
        self.aliased += anchored.length
        if self.aliased > MAX_ALIASED:
            message = f"aliases add more than {MAX_ALIASED:,} characters"
            raise self._fatal(message, (line, column), "use fewer aliases")
        return anchored

    def _merged(self, frame: _Frame, value: Json, mark: Mark, at: tuple[int, int]) -> None:
        """Store what a merge key brings until the mapping is closed."""
        frame.merging = False
        sources = list(zip(value, mark.items or (), strict=False)) if isinstance(value, list) else [(value, mark)]
        if all(isinstance(source, dict) for source, _ in sources):
            frame.merge = [*(frame.merge or ()), *sources]
        else:
            self._problem("`<<` takes a mapping or a list of mappings", at, "write `<<: *name`")

    def _merge(self, frame: _Frame) -> None:
        """Put merged keys before the mapping's own; own keys win, then earlier sources."""
        mark, own = frame.mark, frame.value
        self.merged += sum(len(source) for source, _ in frame.merge or ())
        if self.merged > MAX_MERGED:
            message = f"merge keys add more than {MAX_MERGED:,} keys"
            raise self._fatal(message, (mark.line, mark.column), "use fewer merge keys")
        values: dict[str, Json] = {}
        items: dict[str, Mark] = {}
        keys: dict[str, tuple[int, int]] = {}
        for source, source_mark in frame.merge or ():
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

    def _path(self) -> tuple[str | int, ...]:
        """Return the path to the innermost open list or mapping."""
        steps: list[str | int] = []
        for frame in self.frames[:-1]:
            if not frame.is_map:
                steps.append(len(frame.value))
            elif frame.merging:
                steps.append("<<")
            elif frame.key is not None:
                steps.append(frame.key)
        return tuple(steps)

    def _problem(
        self, message: str, at: tuple[int, int], hint: str = "", *, path: tuple[str | int, ...] | None = None
    ) -> None:
        if path is None:
            path = self._path()
            if self.frames:
                frame = self.frames[-1]
                if not frame.is_map:
                    path += (len(frame.value),)
                elif frame.key is not None:
                    path += (frame.key,)
        self.problems.append(Problem(dotted(path), message, Position(self.file, *at), hint))
        if len(self.problems) >= MOST_PROBLEMS:
            raise self._fatal("more errors after this line", at, "fix these first")

    def _fatal(self, message: str, at: tuple[int, int], hint: str = "") -> _Fatal:
        return _Fatal(Problem("", message, Position(self.file, *at), hint))

    def _complex_key(self, line: int, column: int) -> _Fatal:
        # To YAML, `{{ x }}` is a flow mapping inside another one: a mapping as a key.
        if template_at(self.text, line, column - 1):
            return self._fatal("a template must be quoted in YAML", (line, column - 1), QUOTE_TEMPLATE)
        return self._fatal("a key must be text, not a list or mapping", (line, column))
