"""Templates: a sandboxed, bounded and deterministic Jinja.

The text of a template decides what is paid for, so the same context always gives the same text: templates have no
clock, randomness or hash order, and limits are counts, never times.

Lines with only a block tag leave no trace (`trim_blocks`, `lstrip_blocks`), and the newline at the end is kept. A null,
list or mapping cannot be inserted into text: `None` or `{'id': 'panda'}` in a prompt is a mistake.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from types import TracebackType
from typing import Any, Final

import jinja2
from jinja2 import nodes
from jinja2.runtime import Context
from jinja2.utils import missing

from seedream_batch.model.document import Json
from seedream_batch.model.text import encodable
from seedream_batch.templates.filters import budget_of
from seedream_batch.templates.limits import Budget, TemplateError, kind_of
from seedream_batch.templates.rewrite import pieces_of, prepare, reads_of
from seedream_batch.templates.sandbox import BUDGET, GLOBALS, BoundedEnvironment, UndefinedLookup

__all__ = ["Template", "TemplateEngine", "TemplateError"]

# What a template can raise in addition: Jinja's sandbox passes Python's own exceptions on.
_ERRORS: Final = (
    jinja2.TemplateError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)
_MARKUP: Final = ("{{", "{%", "{#")


class TemplateEngine:
    """Compiles templates, and holds what they may use.

    `include` returns the text of an included file by the name in the template; it raises `FileNotFoundError` or
    `TemplateError` for what it refuses, and is called once per name. `max_output` limits every intermediate text in
    characters; `max_steps` limits the work of one rendering (loop iterations, calls, filters, and further steps by the
    size of what they handle).
    """

    def __init__(
        self, include: Callable[[str], str] | None = None, *, max_output: int = 100_000, max_steps: int = 100_000
    ) -> None:
        self._include = include
        self._included: dict[str, _Included] = {}
        self.max_output = max_output
        self.max_steps = max_steps
        self._environment = BoundedEnvironment(self._load, max_output)

    def compile(self, source: str) -> Template:
        """Compile a template. Raises `TemplateError`."""
        if len(source) > self.max_output:
            raise TemplateError(f"the template is longer than {self.max_output:,} characters")
        if not encodable(source):
            raise TemplateError("the template contains half of a character (a lone surrogate)")
        if not any(mark in source for mark in _MARKUP):
            return Template(source, self, None)
        return Template(source, self, _Compiled(self._environment, source))

    def _load(self, name: str) -> _Included:
        if self._include is None:
            raise TemplateError("`include` is not allowed here")
        included = self._included.get(name)
        if included is None:
            try:
                source = self._include(name)
            except FileNotFoundError:
                raise
            except (OSError, ValueError) as error:
                raise TemplateError(f"cannot include {name!r}: {error}") from None
            if len(source) > self.max_output:
                raise TemplateError(f"the file {name!r} is longer than {self.max_output:,} characters")
            if not encodable(source):
                raise TemplateError(f"the file {name!r} contains half of a character (a lone surrogate)")
            try:
                included = _Included(self._environment, name, source)
            except TemplateError as error:
                raise _inside(name, error) from None
            self._included[name] = included
        return included


class Template:
    """A compiled template.

    `is_constant` says that it has no markup at all. `names` are the variables it reads, without those of its includes
    and without the functions of all templates; `reads` includes the latter, because values of the context hide them.
    `includes` says that it has an include, which may read anything. `cost` is what its own nodes take of the budget, in
    steps.
    """

    __slots__ = ("_compiled", "_engine", "cost", "includes", "is_constant", "names", "reads", "source")

    def __init__(self, source: str, engine: TemplateEngine, compiled: _Compiled | None) -> None:
        self.source = source
        self.is_constant = compiled is None
        self.reads: frozenset[str] = frozenset() if compiled is None else compiled.reads
        self.names = self.reads - GLOBALS.keys()
        self.includes = compiled is not None and compiled.includes
        self.cost = 0 if compiled is None else compiled.cost
        self._engine = engine
        self._compiled = compiled

    @property
    def bounds(self) -> tuple[int, int]:
        """The most steps of one rendering, and the most characters of its text."""
        return self._engine.max_steps, self._engine.max_output

    def pieces(self, turns: Callable[[str], bool]) -> list[str | Template] | None:
        """Split it into texts and templates whose concatenated renderings equal its own; None if that is impossible.

        A piece reads fewer of the varying variables, as given by `turns`, so its text can be cached for longer.
        """
        compiled = self._compiled
        if compiled is None:
            return None
        try:
            trees = pieces_of(compiled.environment.parse(self.source), turns)
            if trees is None:
                return None
            return [
                tree if isinstance(tree, str) else Template("", self._engine, _Compiled(compiled.environment, tree))
                for tree in trees
            ]
        except (TemplateError, *_ERRORS):
            return None  # only an optimisation: the template itself compiled

    def render(self, context: Mapping[str, Json]) -> str:
        """Return the text for these values. Raises `TemplateError`."""
        return self.measured(context)[0]

    def measured(self, context: Mapping[str, Json]) -> tuple[str, int]:
        """Return the text for these values, and the steps it took. Raises `TemplateError`."""
        compiled = self._compiled
        if compiled is None:
            return self.source, 0
        engine = self._engine
        budget = Budget(engine.max_steps, engine.max_output)
        values = {**GLOBALS, **context, BUDGET: budget}
        try:
            text = compiled.environment.concat(compiled.run(compiled.context(values)))
        except TemplateError as error:
            if error.line is None:
                error.line = compiled.first_line_of(error.__traceback__)
            raise
        except _ERRORS as error:
            raise _translated(error, compiled.first_line_of(error.__traceback__), values) from None
        return text, engine.max_steps - budget.left


class _Compiled:
    """The code of one template, from its text or from its syntax tree."""

    def __init__(self, environment: BoundedEnvironment, source: str | nodes.Template) -> None:
        self.environment = environment
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Python warns about odd code, such as calling a number
                tree = environment.parse(source) if isinstance(source, str) else source
                self.cost = prepare(tree, environment)
                self.reads = reads_of(tree)
                self.includes = tree.find(nodes.Include) is not None
                code = environment.compile(tree)
                self.template = jinja2.Template.from_code(environment, code, {})
        except jinja2.TemplateSyntaxError as error:
            raise _syntax_error(error) from None
        except (RecursionError, MemoryError, SyntaxError) as error:
            # Python's own compiler allows 20 nested blocks and 200 nested parentheses.
            nested = not isinstance(error, SyntaxError) or "nested" in str(error) or "indent" in str(error)
            message = "the template is nested too deeply" if nested else "the template is not valid"
            raise TemplateError(message, hint="simplify it") from None
        except (jinja2.TemplateError, ArithmeticError, AssertionError, AttributeError, TypeError, ValueError) as error:
            what = "a number is too large" if "integer string" in str(error) else str(error)[:200]
            raise TemplateError(f"the template is not valid: {what}") from None
        self._globals = self.template.root_render_func.__globals__

    def context(self, values: dict[str, Any]) -> Context:
        return self.environment.context_class(self.environment, values, None, {})

    def run(self, context: Context) -> Iterator[str]:
        budget_of(context).spend(self.cost)
        return self.template.root_render_func(context)

    def first_line_of(self, trace: TracebackType | None) -> int | None:
        """Return the innermost line of this template in a traceback."""
        line = None
        while trace is not None:
            if trace.tb_frame.f_globals is self._globals:
                line = self.template.get_corresponding_lineno(trace.tb_lineno)
            trace = trace.tb_next
        return line


class _Included:
    """An included template with the interface that Jinja's code for `include` uses."""

    def __init__(self, environment: BoundedEnvironment, name: str, source: str) -> None:
        self.name = name
        self._compiled = _Compiled(environment, source)

    def new_context(self, values: dict[str, Any], shared: bool, local: Mapping[str, Any]) -> Context:  # noqa: ARG002, FBT001 - Jinja's signature
        """Return the context of the including template, with its local variables."""
        return self._compiled.context(
            {**values, **{name: value for name, value in local.items() if value is not missing}}
        )

    def root_render_func(self, context: Context) -> Iterator[str]:
        compiled, budget = self._compiled, budget_of(context)
        budget.enter()
        try:
            yield from compiled.run(context)
        except TemplateError as error:
            if error.line is None:
                error.line = compiled.first_line_of(error.__traceback__)
            raise _inside(self.name, error) from None
        except _ERRORS as error:
            line = compiled.first_line_of(error.__traceback__)
            raise _inside(self.name, _translated(error, line, context.get_all())) from None
        finally:
            budget.leave()


def _inside(name: str, error: TemplateError) -> TemplateError:
    """Return the error of an included file for the file that includes it."""
    line = f", line {error.line}" if error.line else ""
    message = error.message if error.message.startswith("in ") else f"in {name!r}{line}: {error.message}"
    return TemplateError(message, None, error.hint)


def _syntax_error(error: jinja2.TemplateSyntaxError) -> TemplateError:
    message = (error.message or "syntax error").rstrip(".")
    hint = ""
    if "unexpected char" in message:
        hint = "quote text in a template: '...'"
    elif "end of print statement" in message:
        hint = _name_with_space(error) or "join with `~`, or close the template with }}"
    elif "Unexpected end of template" in message:
        hint = "a tag such as {% if %} or {{ is not closed"
    return TemplateError(f"{message[:1].lower()}{message[1:]}"[:300], error.lineno, hint)


_KEYWORDS = "and|else|if|in|is|not|or"


def _name_with_space(error: jinja2.TemplateSyntaxError) -> str:
    """Return how to write a key with a space, if that is what ended the expression too early."""
    got = re.search(r"got '([^\W\d]\w*)'", error.message or "")
    after = rf" {got[1]}\b(?: (?!(?:{_KEYWORDS})\b)\w+)*" if got else "(?!)"
    found = re.search(rf"\b(\w+)\.([^\W\d]\w*{after})", error.source or "")
    return f"write a name with a space as {found[1]}['{found[2]}']" if found else ""


def _translated(error: BaseException, line: int | None, values: Mapping[str, Any]) -> TemplateError:
    """Return the exception as a readable `TemplateError`."""
    if isinstance(error, UndefinedLookup):
        return _undefined(error, line, values)
    if isinstance(error, (RecursionError, MemoryError)):
        return TemplateError("the template is nested too deeply", line)
    if isinstance(error, jinja2.TemplateNotFound):
        return TemplateError(str(error.message), line, "the name is relative to the folder of the job file")
    if isinstance(error, ZeroDivisionError):
        return TemplateError("division by zero", line)
    if isinstance(error, LookupError):
        return TemplateError(f"{error} was not found"[:300], line)
    return TemplateError(f"{error or type(error).__name__}"[:300], line)


def _undefined(error: UndefinedLookup, line: int | None, values: Mapping[str, Any]) -> TemplateError:
    if error.hint is not None:
        return TemplateError(error.hint, line)
    name = str(error.name)[:60]
    if error.owner is missing:
        known = [key for key in values if key not in GLOBALS and key != BUDGET]
        return TemplateError(f"`{name}` is not defined", line, _suggestion(name, known, "available:"))
    owner = _expression(error.owner, values) or kind_of(error.owner)
    if isinstance(error.owner, Mapping):
        known = [str(key) for key in error.owner]
        hint = _suggestion(name, known, "available:", owner.strip("`"))
        return TemplateError(f"{owner} has no `{name}`", line, hint)
    if isinstance(error.name, int):
        return TemplateError(f"{owner} has no item {name}", line)
    hint = "write '%03d' % number" if name in {"format", "format_map"} else ""
    return TemplateError(f"templates cannot use `{name}` of {owner}", line, hint)


def _suggestion(name: str, known: list[str], words: str, owner: str = "") -> str:
    known = [other for other in known[:1000] if len(other) <= 60]
    close = get_close_matches(name, known, n=1)
    listed = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    # A key with a space cannot follow a dot.
    best = f"{owner}[{close[0]!r}]" if close and owner and not close[0].isidentifier() else close[0] if close else ""
    hint = f"did you mean `{best}`? " if best else ""
    return (hint + (f"{words} {listed}" if known else "")).strip()[:300]


def _expression(owner: Any, values: Mapping[str, Any]) -> str | None:
    """Return how a template refers to this very mapping or list: `subject`, `subject.meta`."""
    if not isinstance(owner, (dict, list)):
        return None
    level = {str(name): value for name, value in values.items()}
    for _ in range(3):
        below: dict[str, Any] = {}
        for name, value in level.items():
            if value is owner:
                return f"`{name}`"
            if isinstance(value, dict) and len(below) < 1000:
                below.update({f"{name}.{key}": inner for key, inner in list(value.items())[:100]})
        level = below
    return None
