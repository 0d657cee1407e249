"""The Jinja environment of templates: what it looks up, what it calls, and the counting filters.

Jinja's own sandbox protects Python's internals but not memory and time: it does not see `~`, loops, slices and
comparisons. `rewrite` wraps those in the counting filters of this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MethodType
from typing import Any, Final

from jinja2 import StrictUndefined, TemplateNotFound, UndefinedError, pass_context
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, missing

from seedream_batch.templates.filters import FILTERS, TESTS, Group, budget_of, guarded
from seedream_batch.templates.limits import Budget, TemplateError, binary, kind_of, sequence, to_text
from seedream_batch.templates.methods import Method, methods_of, run_method

BUDGET: Final = "@budget"
"""The name of the budget in the context: no template can contain it, and includes inherit it."""

MAX_RANGE: Final = 100_000

_LOOP_VALUES: Final = frozenset(
    "index index0 revindex revindex0 first last length depth depth0 previtem nextitem".split()  # noqa: SIM905
)
_LOOP_METHODS: Final = frozenset({"cycle", "changed"})


class UndefinedLookup(UndefinedError):
    """Raised for the use of something undefined: `name`, of the value `owner` unless that is `missing`."""

    def __init__(self, owner: Any, name: Any, hint: str | None, message: str) -> None:
        super().__init__(hint or message)
        self.owner = owner
        self.name = name
        self.hint = hint


class Undefined(StrictUndefined):
    """An undefined value that records what was looked up, for a better message."""

    __slots__ = ()

    def __init__(self, hint: str | None = None, obj: Any = missing, name: str | None = None, exc: Any = None) -> None:
        super().__init__(hint, obj, name)
        # Jinja calls this with its message, and raises the result.
        self._undefined_exception = exc or partial(UndefinedLookup, obj, name, hint)  # type: ignore[assignment]


class BudgetContext(Context):
    """The context of one rendering, which has its budget."""

    def __init__(self, environment: Any, parent: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(environment, parent, *args, **kwargs)
        self.budget: Budget = parent[BUDGET]


def _range(*args: Any) -> range:
    try:
        made = range(*args)
        length = len(made)
    except OverflowError:
        length = MAX_RANGE + 1
    if length > MAX_RANGE:
        raise TemplateError(f"a range of more than {MAX_RANGE:,} numbers")
    return made


GLOBALS: Final[Mapping[str, Callable[..., Any]]] = {"range": _range, "dict": dict, "namespace": Namespace}


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox in which everything is counted against the budget of the rendering."""

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)
    context_class = BudgetContext

    def __init__(self, load: Callable[[str], Any], max_output: int) -> None:
        super().__init__(
            undefined=Undefined,
            optimized=False,  # folding constants would compute without a budget
            finalize=pass_context(lambda context, value: to_text(value, budget_of(context))),
            autoescape=False,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            cache_size=0,
        )
        self.load = load
        self.max_output = max_output
        self.globals = dict(GLOBALS)
        self.filters = {name: guarded(name, function) for name, function in FILTERS.items()} | _COUNTING
        self.tests = {name: guarded(name, function, "test") for name, function in TESTS.items()}

    def concat(self, pieces: Iterable[str]) -> str:  # a bounded "".join
        """Join the pieces. Raises `TemplateError` if the text is too long."""
        parts: list[str] = []
        length = 0
        for piece in pieces:
            length += len(piece)
            if length > self.max_output:
                raise TemplateError(f"the rendered text has more than {self.max_output:,} characters")
            parts.append(piece)
        return "".join(parts)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return `obj.attribute`: a key of a mapping first, then an allowed method."""
        if isinstance(obj, dict):
            if attribute in obj:
                return obj[attribute]
        elif isinstance(obj, StrictUndefined):
            str(obj)  # raises
        elif isinstance(obj, (LoopContext, Namespace, Group)):
            return self._field(obj, attribute)
        if attribute in methods_of(obj):
            return Method(obj, attribute)
        return self.undefined(obj=obj, name=attribute)

    def _field(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, LoopContext):
            allowed = attribute in _LOOP_VALUES or attribute in _LOOP_METHODS
        elif isinstance(obj, Group):
            allowed = attribute in {"grouper", "list"}
        else:
            allowed = not attribute.startswith("_")
        value = getattr(obj, attribute, missing) if allowed else missing
        return self.undefined(obj=obj, name=attribute) if value is missing else value

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return `obj[argument]`: a key or an index, never an attribute."""
        if isinstance(obj, (LoopContext, Namespace)) and isinstance(argument, str):
            return self._field(obj, argument)
        if isinstance(obj, Group) and argument in {"grouper", "list"}:
            return getattr(obj, argument)
        if isinstance(obj, StrictUndefined):
            str(obj)  # raises
        if isinstance(argument, StrictUndefined):
            str(argument)  # raises
        if isinstance(obj, (dict, list, tuple, str, range)):
            try:
                return obj[argument]
            except (TypeError, LookupError):
                pass
        # The name appears in a message, and formatting it must not take long.
        name: Any = argument if isinstance(argument, (str, int)) else kind_of(argument)
        return self.undefined(obj=obj, name=name)

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a macro, a method, a loop or one of the few functions. Raises `TemplateError` for anything else."""
        kwargs.pop("_loop_vars", None)
        kwargs.pop("_block_vars", None)
        budget = budget_of(context)
        budget.spend(1)
        budget.handle(args)
        budget.handle(kwargs)
        if isinstance(function, StrictUndefined):
            str(function)  # raises
        if isinstance(function, (Macro, LoopContext)):
            if isinstance(function, LoopContext):
                args = tuple(sequence(arg) for arg in args)
            budget.enter()
            try:
                return function(*args, **kwargs)
            finally:
                budget.leave()
        for value in (*args, *kwargs.values()):
            if isinstance(value, StrictUndefined):
                str(value)  # raises
        if isinstance(function, Method):
            return run_method(function, budget, *args, **kwargs)
        of_loop = isinstance(function, MethodType) and isinstance(function.__self__, LoopContext)
        if of_loop or any(function is known for known in GLOBALS.values()):
            return budget.handle(function(*args, **kwargs))
        raise TemplateError(f"{kind_of(function)} cannot be called", hint="write it without parentheses")

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Return `left operator right`, within limits."""
        return binary(operator, left, right, budget_of(context))

    def get_template(self, name: Any, parent: Any = None, globals: Any = None) -> Any:  # noqa: A002, ARG002
        """Return the template that an `include` of this name renders."""
        if isinstance(name, StrictUndefined):
            str(name)  # raises
        if not isinstance(name, str):
            raise TemplateError(f"`include` expects the name of a file, not {kind_of(name)}")
        try:
            return self.load(name)
        except FileNotFoundError as error:
            raise TemplateNotFound(name, f"cannot include {name!r}: file not found") from error

    get_or_select_template = get_template  # type: ignore[assignment]  # lists are refused before


@pass_context
def _concat(context: Context, *values: Any) -> str:
    budget = budget_of(context)
    pieces = [to_text(value, budget) for value in values]
    budget.fits(sum(map(len, pieces)))
    return budget.made("".join(pieces))


_COUNTING: Final[dict[str, Callable[..., Any]]] = {
    "@tick": pass_context(lambda context, steps: budget_of(context).spend(steps)),
    "@loop": sequence,
    "@sized": pass_context(lambda context, value: budget_of(context).handle(value)),
    "@concat": _concat,
}
