"""Takes a template apart into pieces that do not know of each other.

Of `{{ subject.text }}, {{ size }}` one piece has to be rendered once for each subject and the other once for each
size, not both once for each cell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from jinja2 import meta, nodes

_PURE: Final = (
    nodes.Add,
    nodes.And,
    nodes.Call,
    nodes.Compare,
    nodes.Concat,
    nodes.CondExpr,
    nodes.Const,
    nodes.Dict,
    nodes.Div,
    nodes.Filter,
    nodes.FloorDiv,
    nodes.For,
    nodes.Getattr,
    nodes.Getitem,
    nodes.If,
    nodes.Keyword,
    nodes.List,
    nodes.Mod,
    nodes.Mul,
    nodes.Name,
    nodes.Neg,
    nodes.Not,
    nodes.Operand,
    nodes.Or,
    nodes.Output,
    nodes.Pair,
    nodes.Pos,
    nodes.Pow,
    nodes.Slice,
    nodes.Sub,
    nodes.TemplateData,
    nodes.Test,
    nodes.Tuple,
)
"""What leaves nothing behind for the rest of the template. `set`, `macro` and `include` do, or may."""

_LONG: Final = 100
"""Characters of a text from which on it stays a piece of its own: it need not be kept with each value beside it."""


def reads_of(tree: nodes.Template) -> frozenset[str]:
    """The variables that a template reads from its context: also those that hide a function of all templates."""
    functions = tree.environment.globals if tree.environment else {}
    hiding = (node.name for node in tree.find_all(nodes.Name) if node.name in functions)
    return frozenset(meta.find_undeclared_variables(tree)).union(hiding)


def pieces_of(tree: nodes.Template, turns: Callable[[str], bool]) -> list[str | nodes.Template] | None:
    """The pieces of a freshly parsed template, in order: texts, and templates with some of its expressions and blocks.

    Neighbours are one piece where they read the same of the variables that `turns` names, or none of them. None where
    a part of the template may lean on another one. The tree is used up.
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
    """The template of these nodes, if there are any."""
    if not group:
        return []
    body = [nodes.Output([node], lineno=node.lineno) if isinstance(node, nodes.Expr) else node for node in group]
    template = nodes.Template(body, lineno=1)
    if tree.environment is not None:
        template.set_environment(tree.environment)
    return [template]
