"""Splits a template into independent pieces.

Of `{{ subject.text }}, {{ size }}`, one piece has to be rendered once per subject and the other once per size, rather
than both once per cell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from jinja2 import meta, nodes

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
