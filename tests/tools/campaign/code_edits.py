"""Edits of the package's code for the mutations: found as syntax inside a named function, wherever it stands there.

Layout, comments and whatever stands around the edited code do not matter.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class NotOnce(Exception):
    """Raised if there is no such function, or if it does not have the code exactly once."""


@dataclass(frozen=True, slots=True)
class Edit:
    """Code inside a function, which has to be there exactly once, and what takes its place.

    `within` is the dotted name of the function, or of a constant of a module, below the package. `old` is an expression
    or a statement, in which `...` stands for any expression, any block, or the rest of a call's arguments. If `old` and
    `new` are string literals, `old` only has to be part of a string.
    """

    within: str
    old: str
    new: str = "pass"


def edited(package: Path, edits: Iterable[Edit]) -> dict[Path, str]:
    """Return the new text of each file that the edits change. Raise `NotOnce`."""
    trees: dict[Path, ast.AST] = {}
    for edit in edits:
        file, names = _file(package, edit.within)
        if file not in trees:
            trees[file] = ast.parse(file.read_text(encoding="utf-8"))
        replacer = _Replacer(edit)
        replacer.visit(_scope(trees[file], names, edit.within))
        if replacer.found != 1:
            raise NotOnce(f"{edit.within} has {replacer.found} times what is to be changed: {edit.old}")
    return {file: ast.unparse(ast.fix_missing_locations(tree)) for file, tree in trees.items()}


def _file(package: Path, within: str) -> tuple[Path, list[str]]:
    """Return the file of the module, and the names inside it."""
    names = within.split(".")
    for count in range(len(names) - 1, 0, -1):
        file = package.joinpath(*names[:count]).with_suffix(".py")
        if file.is_file():
            return file, names[count:]
    raise NotOnce(f"there is no module for {within}")


def _scope(tree: ast.AST, names: list[str], within: str) -> ast.AST:
    for name in names:
        found = [node for node in ast.iter_child_nodes(tree) if _defines(node, name)]
        if len(found) != 1:
            raise NotOnce(f"{within} is there {len(found)} times")
        [tree] = found
    return tree


def _defines(node: ast.AST, name: str) -> bool:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return node.name == name
        case ast.Assign(targets=[ast.Name(id=defined)]) | ast.AnnAssign(target=ast.Name(id=defined)):
            return defined == name
    return False


class _Replacer(ast.NodeTransformer):
    """Replaces the code in place, and counts how often it was there."""

    def __init__(self, edit: Edit) -> None:
        self.found = 0
        [old], new = ast.parse(edit.old).body, ast.parse(edit.new).body
        self._old: ast.AST = old
        self._new: Any = new
        if isinstance(old, ast.Expr) and len(new) == 1 and isinstance(new[0], ast.Expr):
            self._old, self._new = old.value, new[0].value

    def visit(self, node: ast.AST) -> Any:
        match self._old, self._new, node:
            case ast.Constant(str(old)), ast.Constant(str(new)), ast.Constant(str(text)) if old in text:
                self.found += text.count(old)
                return ast.Constant(text.replace(old, new))
        if _matches(self._old, node):
            self.found += 1
            return self._new
        return self.generic_visit(node)


def _matches(pattern: Any, code: Any) -> bool:
    if _is_anything(pattern):
        return True
    if isinstance(pattern, list):
        if pattern and _is_anything(pattern[-1]):
            *pattern, _ = pattern
            code = code[: len(pattern)]
        return len(pattern) == len(code) and all(map(_matches, pattern, code))
    if not isinstance(pattern, ast.AST):
        return bool(pattern == code)
    rest = isinstance(pattern, ast.Call) and any(map(_is_anything, pattern.args[-1:]))
    fields = [field for field in pattern._fields if not (rest and field == "keywords")]
    return type(pattern) is type(code) and all(_matches(getattr(pattern, f), getattr(code, f)) for f in fields)


def _is_anything(pattern: Any) -> bool:
    value = pattern.value if isinstance(pattern, ast.Expr) else pattern
    return isinstance(value, ast.Constant) and value.value is ...
