"""Templates whose renderings are cached by the values that they read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

from seedream_batch.model.document import Json
from seedream_batch.templates.engine import Template, TemplateError

Context = Mapping[str, Json]

ABSENT: Final = object()
"""Stands for the value of a name that the context does not have."""

_WHOLE: Final = 1024
"""Cached texts of a whole template: most axes vary without changing the prompt."""
_PIECE: Final = 65_536
"""Cached texts of a piece of a template: about as many as an axis may have values."""
_CHARACTERS: Final = 4_000_000
"""Most characters of all cached texts together."""
_TRIAL: Final = 16
"""Renderings after which splitting a template is worthwhile."""


class CachedTemplate:
    """`Template.render` for many contexts that mostly share the same value objects.

    `varying_names` are the names whose values differ between contexts, `fresh` those of them whose values are new
    objects each time. The template is split if possible, and the text of each piece is cached by the values that it
    reads. What fails, or might exceed a limit of the sandbox, is rendered by the whole template, so texts, errors and
    limits are the same as without a cache.
    """

    def __init__(
        self, template: Template, varying_names: AbstractSet[str], fresh: AbstractSet[str] = frozenset()
    ) -> None:
        self.source = template.source
        self._template = template
        self._turning = varying_names
        self._fresh = fresh
        self._pieces: _Pieces | None = None
        self._until_trial = 0 if template.includes else _TRIAL
        self._whole = template.render
        if not template.includes and not template.reads & fresh:
            self._whole = _Kept(template.render, template.reads & varying_names, _WHOLE).text

    def render(self, context: Context) -> str:
        """Return the text for these values. Raises `TemplateError`."""
        pieces = self._pieces
        if pieces is not None:
            text = pieces.render(context)
            if text is not None:
                return text
            if pieces.given_up:
                self._pieces = None
        elif self._until_trial:
            self._until_trial -= 1
            if not self._until_trial:
                self._pieces = _Pieces.of(self._template, self._turning, self._fresh)
        return self._whole(context)


class _Kept:
    """Texts cached by the values of the names that they depend on.

    Values are identified by `id()`. They are kept alive, so that no other value can get the same id.
    """

    def __init__(self, make: Callable[[Context], str], names: AbstractSet[str], most: int) -> None:
        self.name = next(iter(names)) if len(names) == 1 else None
        """The name, if it is the only one."""
        self.texts: dict[object, str] = {}
        """By the id of the only name's value, or by those of all names' values, in order."""
        self._values: dict[object, object] = {}
        self._make = make
        self._names = sorted(names)
        self._most = most
        self._characters = 0

    def text(self, context: Context) -> str:
        """Return the text for these values. Raises `TemplateError`."""
        values = [context.get(name, ABSENT) for name in self._names]
        key = tuple(map(id, values)) if self.name is None else id(values[0])
        text = self.texts.get(key)
        if text is not None:
            return text
        text = self._make(context)
        self._characters += len(text)
        if len(self.texts) >= self._most or self._characters > _CHARACTERS:
            self.texts.clear()
            self._values.clear()
            self._characters = len(text)
        self.texts[key] = text
        self._values[key] = values
        return text


class _Pieces:
    """The pieces of a template, each with its cached texts."""

    def __init__(
        self, template: Template, pieces: list[str | Template], varying_names: AbstractSet[str], fresh: AbstractSet[str]
    ) -> None:
        # Add the steps of the whole template's own nodes, so that the sum is never too small.
        self._steps = template.cost
        self._length = sum(len(piece) for piece in pieces if isinstance(piece, str))
        self._max_steps, self._max_length = template.bounds
        self._texts = [piece if isinstance(piece, str) else "" for piece in pieces]
        self._simple: list[tuple[int, str, dict[object, str]]] = []
        """Pieces that vary with one name: their index, the name, and their texts by the id of its value."""
        self._others: list[tuple[int, Callable[[Context], str]]] = []
        self._makers: list[tuple[int, Callable[[Context], str]]] = []
        for index, piece in enumerate(pieces):
            if not isinstance(piece, str):
                make = self._measuring(piece)
                names = piece.reads & varying_names
                kept = None if names & fresh else _Kept(make, names, _PIECE)
                maker = (index, make if kept is None else kept.text)
                self._makers.append(maker)
                if kept is not None and kept.name is not None:
                    self._simple.append((index, kept.name, kept.texts))
                else:
                    self._others.append(maker)
        self.given_up = False
        """Whether the largest texts of the pieces together could exceed a limit."""

    @classmethod
    def of(cls, template: Template, varying_names: AbstractSet[str], fresh: AbstractSet[str]) -> _Pieces | None:
        """Split a template; None unless it has at least two pieces that are not plain text."""
        pieces = template.pieces(varying_names.__contains__)
        if pieces is None or sum(not isinstance(piece, str) for piece in pieces) < 2:
            return None
        return cls(template, pieces, varying_names, fresh)

    def render(self, context: Context) -> str | None:
        """Return the text, or None if only the whole template can tell."""
        texts = self._texts.copy()
        try:
            try:
                # The hot path of a large job: a million times, all texts are cached and nothing is called.
                for index, name, known in self._simple:
                    texts[index] = known[id(context[name])]
                for index, make in self._others:
                    texts[index] = make(context)
            except KeyError:
                for index, make in self._makers:
                    texts[index] = make(context)
        except TemplateError:
            return None
        return None if self.given_up else "".join(texts)

    def _measuring(self, piece: Template) -> Callable[[Context], str]:
        """Return a function that renders the piece and records its largest rendering."""
        most_steps = longest = 0

        def render(context: Context) -> str:
            nonlocal most_steps, longest
            text, steps = piece.measured(context)
            if steps > most_steps or len(text) > longest:
                self._steps += max(0, steps - most_steps)
                self._length += max(0, len(text) - longest)
                most_steps, longest = max(steps, most_steps), max(len(text), longest)
                self.given_up |= self._steps > self._max_steps or self._length > self._max_length
            return text

        return render
