"""The README and the pages of `docs/`: their blocks, and the folder in which a reader would try them.

Their conventions are in CONTRIBUTING.md.
"""

import configparser
import re
import shlex
import shutil
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
EVERYTHING = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
_BLOCK = re.compile(
    r"^( *)```(?P<language>\w+)(?P<info>[^\n]*)\n(?P<text>.*?)^\1```$|^<!-- run\n(?P<hidden>.*?)^-->$",
    re.MULTILINE | re.DOTALL,
)


@dataclass
class Block:
    """A fenced block: its language, its text, the file that it shows, and the output that is quoted behind it."""

    language: str
    text: str
    title: str = ""
    output: str | None = None


def name(page):
    return page.relative_to(ROOT).as_posix()


def blocks(page):
    """The blocks of a page, in order; a hidden one is `sh`, and an output is part of the block before it."""
    found = []
    for match in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        title = re.search(r'title="([^"]+)"', match["info"] or "")
        text = textwrap.dedent(match["text"] or match["hidden"] or "")
        block = Block(match["language"] or "sh", text, title[1] if title else "")
        if block.language == "text" and not block.title:
            assert found, f"{name(page)} begins with an output"
            assert found[-1].output is None, f"{name(page)} has two outputs in a row:\n{block.text}"
            found[-1].output = block.text
        else:
            found.append(block)
    return found


def every(language):
    """The blocks of this language in all pages."""
    return [block for page in PAGES for block in blocks(page) if block.language == language]


def titled(title):
    """The text of the one block that shows the file with this name."""
    (text,) = [block.text for page in PAGES for block in blocks(page) if Path(block.title).name == title]
    return text


def unit(title):
    """A unit of systemd that a page shows."""
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.optionxform = str
    parsed.read_string(titled(title))
    return parsed


def make_clone(home):
    """Make a clone of this project in a home folder: the jobs, the schemas, and an environment with the program."""
    tree = home / "seedream-batch"
    shutil.copytree(ROOT / "jobs", tree / "jobs")
    (tree / "schemas").symlink_to(ROOT / "schemas")
    programs = tree / ".venv" / "bin"
    programs.mkdir(parents=True)
    for program, module in (("seedream-batch", "-m seedream_batch "), ("python", "")):
        file = programs / program
        file.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {module}"$@"\n', encoding="utf-8")
        file.chmod(0o755)
    (programs / "activate").write_text('PATH="$PWD/.venv/bin:$PATH"\n', encoding="utf-8")
    return tree
