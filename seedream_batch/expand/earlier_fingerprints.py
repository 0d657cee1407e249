"""Other readings of a job: as earlier versions read it, and with numbers as they are written.

Texts are normalised before they are used (`model.text`). What an earlier version bought from the original text is the
same image, so a task also knows the fingerprints it had then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from seedream_batch.expand.request_template import PROMPT, Context, FieldError
from seedream_batch.expand.request_variants import RequestVariant, RequestVariants
from seedream_batch.model.document import Json, WrittenFloat, WrittenInt
from seedream_batch.model.job import Job
from seedream_batch.model.text import CONTROL, plain_text, words


def plain_prompt(prompt: str) -> str:
    """Return the prompt as it is sent. Raises `FieldError` for control characters."""
    if prompt.isprintable():
        return prompt
    plain = plain_text(prompt).strip()
    if control := CONTROL.search(plain):
        message = f"the prompt has the control character U+{ord(control.group()):04X}, which is not allowed"
        raise FieldError(("request", PROMPT), message, "remove it")
    return plain


class EarlierFingerprints:
    """The other readings of one job's cells."""

    def __init__(self, job: Job, variants: RequestVariants) -> None:
        self._variants = variants
        self._include = job.readings.earlier_include
        self._prompt = job.readings.earlier_prompt
        self._earlier = {axis.name: axis.earlier for axis in job.axes if axis.earlier}
        reads = variants.prompt_reads
        self._vars = {
            name: value for name, value in job.readings.written_vars.items() if reads is None or name in reads
        }
        self._written_include = job.readings.written_include
        self._written = {
            axis.name: axis.written for axis in job.axes if axis.written and (reads is None or axis.name in reads)
        }
        self._checked: set[tuple[str, int]] = set()

    def check_numbers(self, context: Context, cell: Mapping[str, Json], prompt: str) -> None:
        """Raise `FieldError` for a number that the prompt shows differently from how it is written."""
        if not (self._vars or self._written or self._written_include):
            return
        for section, name, key, written in self._numbers(cell):
            if (name, key) in self._checked:
                continue
            meant = self._variants.prompt({**context, name: written})
            if meant is not None and meant != prompt:
                number = _first_number(written)
                shown = int(number) if isinstance(number, int) else float(number)
                message = f"{number} is a number, which the prompt shows as {shown}"
                hint = f'to show it as written, quote it: "{number}"; otherwise write {shown}'
                raise FieldError((section, name), message, hint)
            if section != "vars":
                self._checked.add((name, key))

    def _numbers(self, cell: Mapping[str, Json]) -> Iterator[tuple[str, str, int, Json]]:
        for name, value in self._vars.items():
            yield "vars", name, 0, value
        included = self._written_include.get(id(cell))
        for name, value in cell.items():
            if included is not None:
                if included[name] is not value:
                    yield "matrix", name, id(value), included[name]
            elif name in self._written and id(value) in self._written[name]:
                yield "matrix", name, id(value), self._written[name][id(value)]

    def earlier(
        self, context: Context, cell: Mapping[str, Json], variant: RequestVariant, prompt: str, raw: str
    ) -> tuple[tuple[str, str], ...]:
        """Return the other texts and fingerprints that a cell's request may have had in earlier versions.

        `raw` is the prompt before normalisation. Raises `FieldError` where normalising a value joins two words.
        """
        if raw is prompt and not self._earlier and not self._include and not self._prompt:
            return ()
        sample = context["sample"]
        earlier_texts: dict[str, str] = {}
        if raw != prompt:
            text, print_ = self._variants.texts(variant, raw, sample)
            earlier_texts[print_] = text
        for values in self._values(cell):
            body = self._body({**context, **values})
            if body is None:
                continue
            if self._prompt:
                body[PROMPT] = self._prompt.strip()
            if words(body[PROMPT]) != words(prompt):
                name = next((name for name in values if values[name] is not cell.get(name)), PROMPT)
                message = (
                    f"a value of `{name}` has white space around it, which would join or split words in the prompt"
                )
                at = ("matrix", name) if values else ("request", PROMPT)
                raise FieldError(at, message, "move the space from the value to the template", cause=message)
            text, print_ = self._variants.texts(self._variants.shape(body), body[PROMPT], sample)
            earlier_texts[print_] = text
        text, print_ = self._variants.texts(variant, prompt, sample)
        earlier_texts.pop(print_, None)
        return tuple((text, print_) for print_, text in earlier_texts.items())

    def _values(self, cell: Mapping[str, Json]) -> Iterator[dict[str, Json]]:
        """Yield the values that differ, as each earlier reading had them."""
        included = self._include.get(id(cell))
        if included is not None:
            yield dict(included)
            return
        changed = {
            name: self._earlier[name][id(value)]
            for name, value in cell.items()
            if name in self._earlier and id(value) in self._earlier[name]
        }
        if changed or self._prompt:
            for index in range(max(map(len, changed.values()), default=1)):
                yield {name: values[min(index, len(values) - 1)] for name, values in changed.items()}

    def _body(self, context: Context) -> dict[str, Json] | None:
        try:
            body = self._variants.request(context)
        except FieldError:
            return None  # then nothing was bought for it either
        _, bad = self._variants.with_references(body)
        return None if bad or not isinstance(body.get(PROMPT), str) else body


def _first_number(value: Json) -> WrittenInt | WrittenFloat:
    """Return the first number in a value that prints differently from how it is written; there is one."""
    level = [value]
    while True:
        for item in level:
            if isinstance(item, WrittenInt | WrittenFloat):
                return item
        parts = (item.values() if isinstance(item, dict) else item if isinstance(item, list) else () for item in level)
        level = [item for part in parts for item in part]
