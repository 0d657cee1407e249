"""Templates that are asked once for the same values."""

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
"""How many texts of a whole template are kept: most axes turn without changing the prompt."""
_PIECE: Final = 65_536
"""How many texts of a piece of a template are kept: as many as an axis may well have values."""
_CHARACTERS: Final = 4_000_000
"""How many characters the texts that are kept may have together."""
_TRIAL: Final = 16
"""Renderings after which it is worth the time to take a template apart."""


class CachedTemplate:
    """`Template.render` for many contexts, most of whose values are the same objects again.

    `varying_names` are the names whose values are not the same in all contexts, `fresh` those of them whose values are
    new objects each time. A template is taken apart where that is possible, and the text of each piece is kept for each
    value that it reads. Whatever fails, or could pass a bound of the sandbox, is left to the whole template: so the
    texts, the errors and the bounds are those of the whole.
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
        """The text for these values; raises `TemplateError`."""
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
    """Texts, kept for the same values of the names that they depend on.

    Values are told apart by identity. They are kept, too, so that no other value gets the identity of one of them.
    """

    def __init__(self, make: Callable[[Context], str], names: AbstractSet[str], most: int) -> None:
        self.name = next(iter(names)) if len(names) == 1 else None
        """The name, where it is only one."""
        self.texts: dict[object, str] = {}
        """By the identity of the value of the one name, or by those of the values of all names, in order."""
        self._values: dict[object, object] = {}
        self._make = make
        self._names = sorted(names)
        self._most = most
        self._characters = 0

    def text(self, context: Context) -> str:
        """The text for these values; raises `TemplateError`."""
        values = [context.get(name, ABSENT) for name in self._names]
        key = tuple(map(id, values)) if self.name is None else id(values[0])
        text = self.texts.get(key)
        return self._made(context, key, values) if text is None else text

    def _made(self, context: Context, key: object, values: list[Json]) -> str:
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
    """The pieces of a template, each with the texts it gave."""

    def __init__(
        self, template: Template, pieces: list[str | Template], varying_names: AbstractSet[str], fresh: AbstractSet[str]
    ) -> None:
        # The steps of the whole template's own nodes come on top, so that the sum is never too small.
        self._steps = template.cost
        self._length = sum(len(piece) for piece in pieces if isinstance(piece, str))
        self._max_steps, self._max_length = template.bounds
        self._texts = [piece if isinstance(piece, str) else "" for piece in pieces]
        self._simple: list[tuple[int, str, dict[object, str]]] = []
        """Pieces that turn with one name: their index, the name, and their texts by the identity of its value."""
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
        """Whether the largest texts of the pieces could pass a bound together."""

    @classmethod
    def of(cls, template: Template, varying_names: AbstractSet[str], fresh: AbstractSet[str]) -> _Pieces | None:
        """The pieces, if there are at least two that are no plain text."""
        pieces = template.pieces(varying_names.__contains__)
        if pieces is None or sum(not isinstance(piece, str) for piece in pieces) < 2:
            return None
        return cls(template, pieces, varying_names, fresh)

    def render(self, context: Context) -> str | None:
        """The text, or None where only the whole template can tell."""
        texts = self._texts.copy()
        try:
            try:
                # A million times in a large job: the texts are there, and nothing more is to be called.
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
        """Renders the piece, and counts its largest rendering."""
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
