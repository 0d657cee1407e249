"""The page itself: a template, styles and scripts that are part of the program."""

from __future__ import annotations

import json
import re
from pathlib import Path

from jinja2 import StrictUndefined, Template

from seedream_batch._version import __version__
from seedream_batch.model.document import Json
from seedream_batch.report.gallery_folder import ReportFolder

ASSETS = Path(__file__).parent / "assets"

STYLES = ("page.css", "grid.css", "views.css")
_SCRIPTS = "base words data marks arrange tile grid zoom windows copy detail compare filters export chart theme main"
SCRIPTS = tuple(f"{name}.js" for name in _SCRIPTS.split())
"""In loading order: each uses those before it."""


def write_assets(report: ReportFolder) -> None:
    for name in (*STYLES, *SCRIPTS):
        report.copy(ASSETS / name, f"assets/{name}")


def write_page(report: ReportFolder, job: str) -> None:
    """Write the page, which is only a frame: its content comes from the scripts in `data/`."""
    source = (ASSETS / "index.html.j2").read_text(encoding="utf-8")
    template = Template(source, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    text = template.render(job=clean(job), version=__version__, styles=STYLES, scripts=SCRIPTS)
    report.write("index.html", text.encode("utf-8"))


LONGEST_LABEL = 80
"""Most characters of a label; the detail view has the full value."""

# Keeps line breaks and tabs, and the joiners that scripts and emoji need. Removes characters that override the
# direction of the text after them.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(text: str) -> str:
    """Replace the control characters of a text."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def label(value: Json) -> str:
    """Return a short text for a value of an axis: its `id` if it is a mapping with one."""
    if isinstance(value, dict):
        value = value.get("id", next(iter(value.values()), ""))
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(clean(text).split())
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…"


def script(function: str, *values: Json) -> bytes:
    """Return a script that passes values to the page: `seedream.FUNCTION(VALUE, ...)`, in ASCII, safe inside HTML.

    A page opened from disk may load scripts but not read files.
    """
    arguments = ",".join(json.dumps(value, ensure_ascii=True, separators=(",", ":")) for value in values)
    return f"seedream.{function}({arguments.replace('<', chr(92) + 'u003c')});\n".encode("ascii")
