"""Rewrites the syntax tree of a template so that it counts what it does, and splits it into independent pieces.

Jinja's sandbox does not see `~`, loops, slices and comparisons. So they are wrapped in filters whose names no template
can contain: `@tick`, `@loop`, `@sized` and `@concat`.

Of `{{ subject.text }}, {{ size }}`, one piece has to be rendered once per subject and the other once per size, rather
than both once per cell.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from math import isfinite
from typing import Any, Final, NoReturn, TypeVar, cast

from jinja2 import Environment, meta, nodes
from jinja2.visitor import NodeTransformer

from seedream_batch.model.text import encodable
from seedream_batch.templates.filters import FILTERS, TESTS
from seedream_batch.templates.limits import MAX_NUMBER_BITS, TemplateError

_NODES_A_STEP: Final = 10

NodeT = TypeVar("NodeT", bound=nodes.Node)


def prepare(tree: nodes.Template, environment: Environment) -> int:
    """Rewrite the template in place; return its own cost in steps. Raises `TemplateError` for what is not allowed."""
    cost = _cost(tree.body)
    Rewriter(environment).visit(tree)
    return cost


def _cost(body: Iterable[nodes.Node]) -> int:
    """Return the steps that these nodes take if each runs once; the bodies of loops and macros are not included."""
    count = 0
    stack = list(body)
    while stack:
        node = stack.pop()
        count += 1
        if isinstance(node, nodes.For):
            stack.extend(node.iter_child_nodes(exclude=("body",)))
        elif not isinstance(node, nodes.Macro):
            stack.extend(node.iter_child_nodes())
    return 1 + count // _NODES_A_STEP


def _refuse(node: nodes.Node, message: str, hint: str = "") -> NoReturn:
    raise TemplateError(message, node.lineno, hint)


def _check_name(node: nodes.Node, name: str) -> None:
    # Python normalises identifiers to NFKC, so two names of a template could become one.
    if not name.isascii() and unicodedata.normalize("NFKC", name) != name:
        _refuse(node, f"the name {name!r} contains unusual characters", "use plain letters")
    if name == "self":
        _refuse(node, "`self` is reserved by Jinja", "use another name")


class Rewriter(NodeTransformer):
    """Adds counting to the syntax tree of a template, and refuses what is not allowed."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment

    def _wrapped(self, name: str, node: nodes.Node, *args: nodes.Expr) -> nodes.Filter:
        wrapped = nodes.Filter(cast(nodes.Expr, node), name, list(args), [], None, None, lineno=node.lineno)
        wrapped.set_environment(self.environment)
        return wrapped

    def _counted(self, node: NodeT) -> NodeT:
        """Make the body of a loop or macro charge for itself each time it runs."""
        body: list[nodes.Node] = node.body  # type: ignore[attr-defined]  # all that come here have one
        cost = nodes.Const(_cost(body), lineno=node.lineno)
        self.generic_visit(node)
        tick = nodes.ExprStmt(self._wrapped("@tick", cost), lineno=node.lineno)
        tick.set_environment(self.environment)
        body.insert(0, tick)
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self._counted(node)
        node.iter = self._wrapped("@loop", node.iter)
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        _check_name(node, node.name)
        return self._counted(node)

    visit_CallBlock = _counted

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return self._wrapped("@concat", node.nodes[0], *node.nodes[1:])

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = self._wrapped("@sized", node.expr)
        for operand in node.ops:
            operand.expr = self._wrapped("@sized", operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return self._wrapped("@sized", node) if isinstance(node.arg, nodes.Slice) else node

    def visit_Dict(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        return self._wrapped("@sized", node)

    visit_List = visit_Dict

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        return self.visit_Dict(node) if node.ctx == "load" else self.generic_visit(node)

    def visit_CondExpr(self, node: nodes.CondExpr) -> nodes.Node:
        self.generic_visit(node)
        if node.expr2 is None:
            node.expr2 = nodes.Const("", lineno=node.lineno)
        return node

    def visit_Const(self, node: nodes.Const) -> nodes.Node:
        value = node.value
        if isinstance(value, int) and value.bit_length() > MAX_NUMBER_BITS:
            _refuse(node, "the number is too large")
        if isinstance(value, float) and not isfinite(value):
            _refuse(node, "the number is too large")
        if isinstance(value, str) and not encodable(value):
            _refuse(node, "the escape is half of a character (a lone surrogate)")
        return node

    def visit_Name(self, node: nodes.Name | nodes.NSRef) -> nodes.Node:
        _check_name(node, node.name)
        return node

    visit_NSRef = visit_Name

    def visit_Keyword(self, node: nodes.Keyword) -> nodes.Node:
        _check_name(node, node.key)
        if node.key in {"_loop_vars", "_block_vars"}:
            _refuse(node, f"{node.key!r} is reserved by Jinja", "use another name")
        return self.generic_visit(node)

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:
        self._known(node, node.name, FILTERS, "filter")
        return self.generic_visit(node)

    def visit_Test(self, node: nodes.Test) -> nodes.Node:
        self._known(node, node.name, TESTS, "test")
        return self.generic_visit(node)

    @staticmethod
    def _known(node: nodes.Node, name: str, known: Mapping[str, Any], what: str) -> None:
        if name not in known:
            close = get_close_matches(name[:60], known, n=1)
            hint = f"did you mean `{close[0]}`?" if close else "available: " + ", ".join(sorted(known))
            _refuse(node, f"unknown {what} `{name[:60]}`", hint)

    def visit_Include(self, node: nodes.Include) -> nodes.Node:
        if isinstance(node.template, (nodes.List, nodes.Tuple)):
            _refuse(node, "`include` expects one file, not a list")
        if not node.with_context:
            _refuse(node, "`include ... without context` is not supported", "remove `without context`")
        return self.generic_visit(node)

    def visit_Block(self, node: nodes.Node) -> NoReturn:
        name = {"FromImport": "from", "Block": "block"}.get(type(node).__name__, type(node).__name__.lower())
        _refuse(node, f"`{name}` is not supported", "use `include`, or `macro` in the template itself")

    visit_Extends = visit_FromImport = visit_Import = visit_Block


_PURE: Final = (nodes.Expr, nodes.Helper, nodes.For, nodes.If, nodes.Output)
"""Nodes that do not affect the rest of the template, unlike `set`, `macro` and perhaps `include`."""

_LONG: Final = 100
"""Characters from which a text is a piece of its own, so that it is not cached with each value next to it."""


def reads_of(tree: nodes.Template) -> frozenset[str]:
    """Return the variables that a template reads from its context, including those that hide a global function."""
    functions = tree.environment.globals if tree.environment else {}
    hiding = (node.name for node in tree.find_all(nodes.Name) if node.name in functions)
    return frozenset(meta.find_undeclared_variables(tree)).union(hiding)


def pieces_of(tree: nodes.Template, turns: Callable[[str], bool]) -> list[str | nodes.Template] | None:
    """Split a freshly parsed template into texts, and templates with some of its expressions and blocks, in order.

    Neighbours become one piece if they read the same of the variables accepted by `turns`, or none. Returns None if a
    part of the template may depend on another one. Consumes the tree.
    """
    stack: list[nodes.Node] = list(tree.body)
    while stack:
        node = stack.pop()
        if not isinstance(node, _PURE):
            return None
        stack.extend(node.iter_child_nodes())
    pieces: list[str | nodes.Template] = []
    group: list[nodes.Node] = []
    group_reads: set[str] = set()
    for statement in tree.body:
        for node in statement.nodes if isinstance(statement, nodes.Output) else [statement]:
            if isinstance(node, nodes.TemplateData) and len(node.data) >= _LONG:
                pieces += [*_templates(group, tree), node.data]
                group, group_reads = [], set()
                continue
            (alone,) = _templates([node], tree)
            reads = {name for name in reads_of(alone) if turns(name)}
            if reads and group_reads and reads != group_reads:
                pieces += _templates(group, tree)
                group, group_reads = [], set()
            group.append(node)
            group_reads |= reads
    return [*pieces, *_templates(group, tree)]


def _templates(group: list[nodes.Node], tree: nodes.Template) -> list[nodes.Template]:
    """Return a list with the template of these nodes; empty if there are none."""
    if not group:
        return []
    body = [nodes.Output([node], lineno=node.lineno) if isinstance(node, nodes.Expr) else node for node in group]
    template = nodes.Template(body, lineno=1)
    if tree.environment is not None:
        template.set_environment(tree.environment)
    return [template]
