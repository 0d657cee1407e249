"""What users read avoids the words that CONTRIBUTING.md replaces with usual ones."""

import ast
import json
import re
from pathlib import Path

import click

from seedream_batch.cli.app import cli

ROOT = Path(__file__).parents[1]
AVOIDED = re.compile(
    r"""
    \b(?:anew | mend(?:s|ed)? | in[ ]hand | reckon\w* | tells? | told | whatever[ ]became | there[ ]and[ ]then
      | pictures? | stands | gone | is[ ]no(?=[ ](?!longer\b)) | there[ ](?:is|are)[ ]no | not[ ]there | looks?[ ]at
      | of[ ](?:its|their)[ ]own | goes?[ ]out | asks?[ ](?:for|nobody|nothing) | is[ ]going\b(?![ ]to) | left[ ]alone
      | all[ ]the[ ]same | by[ ]itself | ha(?:s|ve)[ ]to | (?:be[ ]had|had[ ]again) | buys? | bought | lack(?:s|ing)?
      | perhaps[ ]made | cut[ ]off | somebody | anybody | beside)\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
FOR_PROGRAMS = re.compile(r"\(\?i\)|\\[bsSwWd]|\n    |\b(?:SELECT|UPDATE|INSERT|DELETE|WHERE)\b")
"""In regular expressions and SQL."""


def literals(path):
    """The texts with spaces in a module, without docstrings; `…` is in the place of what an f-string inserts."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inserted = (part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node))
    skipped |= {id(part) for part in inserted if isinstance(part, ast.Constant)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            text = node.value
        else:
            continue
        if " " in text.strip() and not FOR_PROGRAMS.search(text):
            yield f"{path.relative_to(ROOT)}:{node.lineno}", text


def notes(value, place):
    """The titles, descriptions and parts of messages in a JSON Schema."""
    if isinstance(value, list):
        for item in value:
            yield from notes(item, place)
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, str) and (key in {"title", "description"} or key.startswith("x-")):
                yield f"{place}: {key}", item
            yield from notes(item, place)


def helps(command, path):
    """The help of a command and of its subcommands."""
    context = click.Context(command, info_name=path)
    yield f"{path} --help", command.get_help(context)
    for name in command.list_commands(context) if isinstance(command, click.Group) else ():
        yield from helps(command.get_command(context, name), f"{path} {name}")


def avoided(texts):
    return [f"{place}: {match[0]!r} in {text[:100]!r}" for place, text in texts if (match := AVOIDED.search(text))]


def test_messages_use_the_usual_words():
    modules = sorted((ROOT / "seedream_batch").rglob("*.py"))
    texts = [each for path in modules for each in literals(path)]
    assert len(texts) > 500
    assert avoided(texts) == []


def test_help_uses_the_usual_words():
    texts = list(helps(cli, "seedream-batch"))
    assert len(texts) > 15
    assert avoided(texts) == []


def test_schemas_and_the_gallery_use_the_usual_words():
    schemas = sorted((ROOT / "schemas").glob("*.json"))
    texts = [each for path in schemas for each in notes(json.loads(path.read_text(encoding="utf-8")), path.name)]
    assert len(texts) > 200
    page = (ROOT / "seedream_batch" / "report" / "assets" / "index.html.j2").read_text(encoding="utf-8")
    assert avoided([*texts, ("the gallery", page)]) == []


def test_the_words_to_avoid_are_found():
    assert avoided([("a", "A picture is not there."), ("b", "there is no file a.png"), ("c", "it has to end")])
    assert not avoided([("d", "The image is no longer in the job; regenerate it.")])
