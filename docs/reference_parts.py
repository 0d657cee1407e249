"""Writes the parts of the reference that follow from the code: keys, commands, exit codes, JSON outputs, Python API.

A page has `<!-- generated: NAME -->` where such a part belongs. The lines right below it are for readers of the
repository, where the part is missing: they say where it is.
"""

import ast
import dataclasses
import functools
import html
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import click
import yaml

import seedream_batch
import seedream_batch.emulator
import seedream_batch.errors
from seedream_batch.cli import exit_codes
from seedream_batch.cli.app import cli

ROOT = Path(__file__).parents[1]
_MARK = re.compile(r"^<!-- generated: ([\w-]+) -->(?:\n.+)*$", re.MULTILINE)


def assembled(page: str) -> str:
    """Return the text of a page with its generated parts, and without the commands that only the tests run."""
    page = re.sub(r"^<!-- run\n.*?^-->\n+", "", page, flags=re.MULTILINE | re.DOTALL)
    if "<!-- generated: exit-codes -->" in page:
        return _with_meanings(page)
    return _MARK.sub(lambda match: _PARTS[match[1]]().strip("\n"), page)


def _table(header: str, rows: Iterator[tuple[str, ...]] | list[tuple[str, ...]]) -> str:
    names = header.split("|")
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _code(text: str) -> str:
    """Return code for a cell of a table, where a bar would end the cell."""
    return f"<code>{html.escape(text, quote=False).replace('|', '&#124;')}</code>" if "|" in text else f"`{text}`"


def _prose(text: str) -> str:
    """Return a text of the program as Markdown."""
    text = re.sub(r"\s+", " ", text.strip())
    # Options, names with underscores and addresses read better as code, and are safe from Markdown there.
    parts = re.split(r"(`[^`]*`)", text)
    for number in range(0, len(parts), 2):
        plain = parts[number].replace("<", "&lt;").replace("*", r"\*").replace("|", r"\|").replace("{{", "`{{`")
        parts[number] = re.sub(r"(?<![\w-])--[a-z][\w-]*", r"`\g<0>`", plain)
    return "".join(parts)


# The job file


@functools.cache
def _schema(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8"))


def _resolved(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """Return a node with what its references say; what the node itself says goes before that."""
    for reference in [node, *node.get("anyOf", ()), *node.get("allOf", ())]:
        if "$ref" in reference:
            target = _resolved(schema, schema["$defs"][reference["$ref"].rpartition("/")[2]])
            node = {**target, **node} if not target.get("x-aside") else node
    return node


def _keys(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Yield each key below a node of the job schema, with what it accepts, and whether it is required."""
    for name, part in node.get("properties", {}).items():
        if re.fullmatch(r"[a-z_]+", name):
            key = _resolved(_schema("job"), part)
            yield f"{path}{name}", key, name in node.get("required", ())
            if path + name not in {"matrix", "manifest"}:
                yield from _keys(key, f"{path}{name}.")


def _accepted(key: dict[str, Any]) -> str:
    """Return what a key accepts, in words."""
    if "enum" in key:
        words = ", ".join(f"`{value}`" for value in key["enum"])
    elif key.get("x-expected"):
        words = _prose(_numbers(key["x-expected"]))
    else:
        kinds = key.get("type", "any")
        names = {"object": "mapping", "array": "list", "string": "text", "boolean": "`true` or `false`"}
        words = " or ".join(names.get(kind, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds))
    limits = [f"at most {key[limit]:,} {what}" for limit, what in (("maxItems", "items"),) if limit in key]
    template = any(part.get("$ref") == "#/$defs/template" for part in key.get("anyOf", ()))
    return ", ".join([words, *limits]) + ("; or a template" if template else "")


def _numbers(text: str) -> str:
    return re.sub(r"\b\d{4,}\b", lambda match: f"{int(match[0]):,}", text)


def _value(path: str, key: dict[str, Any]) -> object:
    """Return the default of a key, None without one; those of the request are in the schema of the request."""
    if path.startswith("request.") and "default" not in key:
        key = {"properties": {"request": _schema("seedream-4.5.request")}}
        for name in path.split("."):
            key = key.get("properties", {}).get(name, {})
    return key.get("default")


def _default(path: str, key: dict[str, Any]) -> str:
    """Return the default of a key as Markdown, or an empty text."""
    value = _value(path, key)
    if value is None:
        stated = re.search(r"Default: (.+?)\.(?: |$)", key.get("description", ""))
        return _prose(stated[1]) if stated else ""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


class _Dumper(yaml.SafeDumper):
    """Writes YAML 1.2, in which `16:9` is a text."""

    yaml_implicit_resolvers: ClassVar = {
        first: [
            (tag, re.compile(r"^[-+]?[0-9]+$") if tag == "tag:yaml.org,2002:int" else expression)
            for tag, expression in resolvers
        ]
        for first, resolvers in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }


def _example(path: str, value: object) -> str:
    for name in reversed(path.split(".")):
        value = {name: value}
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return f"```yaml\n{text}```"


def _job_file() -> str:
    keys = list(_keys(_schema("job")))
    rows = [
        (f"[`{path}`](#{_slug(path)})", _prose(key["title"]), "required" if required else _default(path, key))
        for path, key, required in keys
    ]
    parts = [_table("Key|What it is|Default", rows)]
    for path, key, required in keys:
        facts = [("Accepts", _accepted(key)), ("Default", _default(path, key)), ("Required", "yes" if required else "")]
        parts += [
            f"{'#' * (path.count('.') + 3)} `{path}`",
            _prose(_numbers(re.sub(r" ?Default: .+?\.(?= |$)", "", key["description"]))),
            "\n".join(f"- {name}: {fact}" for name, fact in facts if fact),
            _example(path, next((one for one in key["examples"] if one != _value(path, key)), key["examples"][0])),
        ]
    return "\n\n".join(parts)


def _slug(title: str) -> str:
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


# Commands


def _commands() -> str:
    parts = []
    for name in cli.list_commands(click.Context(cli)):
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        parts += _command(command, f"seedream-batch {name}", "##")
        if isinstance(command, click.Group):
            for below, inner in command.commands.items():
                parts += _command(inner, f"seedream-batch {name} {below}", "###")
    return "\n\n".join(parts)


def _command(command: click.Command, name: str, level: str) -> list[str]:
    context = click.Context(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    parts = [
        f"{level} {name.removeprefix('seedream-batch ')}",
        *_paragraphs(command.help),
        f"```console\n$ {usage}\n```",
    ]
    options = [option for option in command.params if isinstance(option, click.Option)]
    records = [record for option in options if (record := option.get_help_record(context))]
    rows = [(_code(names), _option(help_text)) for names, help_text in records]
    if rows:
        parts.append(_table("Option|What it does", rows))
    return [*parts, *_paragraphs(command.epilog)]


def _option(help_text: str) -> str:
    """Return the help of an option, with what click adds in brackets as sentences."""
    text, *extras = re.split(r" +\[(?=default: |required|[\dx]+[<>]=)", help_text)
    sentences = [_prose(text)]
    for extra in "; ".join(extras).replace("]", "").split("; "):
        if extra.startswith("default: "):
            value = _numbers(extra.removeprefix("default: "))
            sentences.append(f"Default: {value}." if " " in value else f"Default: `{value}`.")
        elif bounds := re.fullmatch(r"(?:(\d+)<=)?x(?:([<>]=)(\d+))?", extra):
            if least := bounds[1] or (bounds[2] == ">=" and bounds[3]):
                sentences.append(f"At least {int(least):,}.")
            if bounds[2] == "<=":
                sentences.append(f"At most {int(bounds[3]):,}.")
        elif extra:
            sentences.append(f"{extra.capitalize()}.")
    return " ".join(sentences)


def _paragraphs(text: str | None) -> Iterator[str]:
    """Yield the paragraphs of a help text; those that click does not wrap keep their lines."""
    for paragraph in re.split(r"\n[ ]*\n", inspect.cleandoc(text or "")):
        if not paragraph.strip():
            continue
        lines = paragraph.strip("\n").split("\n")
        if lines[0].strip() != "\b":
            yield _prose(paragraph)
        elif lines[1].startswith("Exit codes:"):
            yield "Exit codes: see [Exit codes](exit-codes.md)."
        else:
            literal = lines[1:]
            if literal[0].endswith(":"):
                yield literal.pop(0)
            yield "```text\n" + textwrap.dedent("\n".join(literal)) + "\n```"


# Exit codes


def _with_meanings(page: str) -> str:
    """Return the page of exit codes, whose table says what to do, with what each code means."""
    page = re.sub(_MARK.pattern + r"\n+", "", page, flags=re.MULTILINE)
    page = re.sub(r"^\| Code \| (.+) \|\n\|---\|", r"| Code | Meaning | \1 |\n|---|---|", page, flags=re.MULTILINE)

    def row(match: re.Match[str]) -> str:
        meanings = dict.fromkeys(exit_codes.meaning(int(code)) for code in match[1].split(","))
        return f"| {match[1]} | {_prose('; '.join(meanings))} |"

    return re.sub(r"^\| ([\d, ]+) \|", row, page, flags=re.MULTILINE)


# JSON outputs


def _fields(schema: dict[str, Any], node: dict[str, Any], path: str = "") -> Iterator[tuple[str, str, str]]:
    for name, part in node.get("properties", {}).items():
        field = _resolved(schema, part)
        items = _resolved(schema, field.get("items", {}))
        kinds = field.get("type", "any")
        kind = " or ".join([kinds] if isinstance(kinds, str) else kinds)
        meaning = field.get("description") or field.get("title", "")
        yield f"`{path}{name}`", kind, _prose(_numbers(meaning))
        yield from _fields(schema, field, f"{path}{name}.")
        yield from _fields(schema, items, f"{path}{name}[].")


def _json_schema(name: str) -> str:
    return _table("Field|Type|What it is", _fields(_schema(name), _schema(name)))


# The Python API


def _python() -> str:
    names = [name for name in seedream_batch.__all__ if not name.startswith("__")]
    objects = [getattr(seedream_batch, name) for name in names]
    functions = [one for one in objects if inspect.isfunction(one)]
    classes = [one for one in objects if inspect.isclass(one)]
    parts = ["## Functions", *(part for one in functions for part in _function(one))]
    return "\n\n".join([*parts, "## Classes", *(part for one in classes for part in _class(one))])


def _errors() -> str:
    return f"```text\n{_indented(seedream_batch.errors)}\n```"


def _indented(module: ModuleType) -> str:
    """Return the drawing in the docstring of a module."""
    lines = [line for line in (module.__doc__ or "").splitlines() if line.startswith("    ")]
    return textwrap.dedent("\n".join(lines))


def _emulator_api() -> str:
    emulator = seedream_batch.emulator
    return "\n\n".join([*_class(emulator.Emulator), *_class(emulator.EmulatorConfig), *_function(emulator.load_faults)])


def _signature(what: Any) -> str:
    """Return a signature as it is written, a parameter a line where it is long."""
    node = ast.parse(textwrap.dedent(inspect.getsource(what))).body[0]
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    start = f"{'async ' if isinstance(node, ast.AsyncFunctionDef) else ''}def {node.name}("
    end = f") -> {ast.unparse(node.returns)}" if node.returns else ")"
    arguments = re.sub(r"(?<=: )([^:]+?)=", r"\1 = ", ast.unparse(node.args))
    short = start + arguments + end
    if len(short) <= 88:
        return short
    parameters = re.split(r", (?![^\[(]*[\])])", arguments)
    return start + "".join(f"\n    {parameter}," for parameter in parameters) + "\n" + end


def _function(function: Any, level: str = "###") -> list[str]:
    return [f"{level} {function.__name__}", f"```python\n{_signature(function)}\n```", *_docstring(function)]


def _docstring(what: Any) -> Iterator[str]:
    """Yield the parts of a docstring, its `Args` and `Raises` as lists."""
    for paragraph in re.split(r"\n\s*\n", inspect.getdoc(what) or ""):
        head, _, rest = paragraph.partition("\n")
        if head in {"Args:", "Raises:"}:
            entries = re.split(r"\n(?=\S)", textwrap.dedent(rest))
            named = (re.sub(r"\s+", " ", entry).partition(": ") for entry in entries)
            yield f"{head}\n\n" + "\n".join(f"- `{name}`: {_prose(meaning)}" for name, _, meaning in named)
        elif paragraph.startswith("    "):
            yield f"```python\n{textwrap.dedent(paragraph)}\n```"
        else:
            yield _prose(paragraph)


def _class(which: type) -> list[str]:
    """Return what a class has for its users: values, fields and properties, or methods."""
    parts = [f"### {which.__name__}", *_docstring(which)]
    members = list(_members(which))
    if members:
        described = any(text for *_, text in members)
        parts.append(
            _table("Name|Type|What it is", members) if described else _table("Name|Value", [one[:2] for one in members])
        )
    if not dataclasses.is_dataclass(which):
        for name, method in vars(which).items():
            if inspect.isfunction(method) and not name.startswith("_") and method.__doc__:
                parts += _function(method, "####")
    return parts


def _members(which: type) -> Iterator[tuple[str, str, str]]:
    """Yield name, type and meaning of enum members, fields and properties, as the source has them."""
    for base in reversed(which.__mro__[:-1]):
        if not base.__module__.startswith("seedream_batch"):
            continue
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(node, ast.ClassDef)
        for statement, after in zip(node.body, [*node.body[1:], None], strict=True):
            meaning = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
            match statement:
                case ast.AnnAssign(target=ast.Name(id=name)) if not name.startswith("_"):
                    kind, note = _annotated(statement.annotation)
                    default = f" = {ast.unparse(statement.value)}" if _plain(statement.value) else ""
                    yield f"`{name}`", _code(f"{kind}{default}"), _prose(note or str(meaning))
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=value)) if name.isupper():
                    yield f"`{name}`", _code(repr(value)), _prose(str(meaning))
                case ast.FunctionDef(name=name) if _is_property(statement) and not name.startswith("_"):
                    kind = ast.unparse(statement.returns) if statement.returns else ""
                    yield f"`{name}`", _code(kind), _prose(ast.get_docstring(statement) or "")


def _annotated(annotation: ast.expr) -> tuple[str, str]:
    """Return a type, and what `Annotated` says of it."""
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Annotated":
        assert isinstance(annotation.slice, ast.Tuple)
        kind, note = annotation.slice.elts[:2]
        return ast.unparse(kind), note.value if isinstance(note, ast.Constant) else ""
    return ast.unparse(annotation), ""


def _plain(value: ast.expr | None) -> bool:
    """Whether a default says something to a reader: a constant, and no factory."""
    return value is not None and not isinstance(value, ast.Call)


def _is_property(statement: ast.FunctionDef) -> bool:
    return any(
        ast.unparse(decorator) in {"property", "functools.cached_property"} for decorator in statement.decorator_list
    )


# Other files of the project


def _without_title(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8").partition("\n")[2]


_PARTS = {
    "job-file": _job_file,
    "commands": _commands,
    "status": lambda: _json_schema("status"),
    "summary": lambda: _json_schema("summary"),
    "python": _python,
    "errors": _errors,
    "emulator": _emulator_api,
    "contributing": lambda: _without_title("CONTRIBUTING.md"),
    "changelog": lambda: _without_title("CHANGELOG.md"),
}
