"""The page itself: a template, styles and scripts that are part of the program."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from seedream_batch._version import __version__
from seedream_batch.report.gallery_folder import ReportFolder
from seedream_batch.report.page_text import clean

ASSETS = Path(__file__).parent / "assets"

STYLES = ("page.css", "grid.css", "views.css")
SCRIPTS = (
    "base.js",
    "words.js",
    "data.js",
    "marks.js",
    "arrange.js",
    "tile.js",
    "grid.js",
    "zoom.js",
    "windows.js",
    "copy.js",
    "detail.js",
    "compare.js",
    "filters.js",
    "export.js",
    "chart.js",
    "theme.js",
    "main.js",
)
"""In loading order: each uses those before it."""


def write_assets(report: ReportFolder) -> None:
    """Write the styles and scripts."""
    for name in (*STYLES, *SCRIPTS):
        report.copy(ASSETS / name, f"assets/{name}")


def write_page(report: ReportFolder, job: str) -> None:
    """Write the page, which is only a frame: its content comes from the scripts in `data/`."""
    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("index.html.j2").render(
        job=clean(job), version=__version__, styles=STYLES, scripts=SCRIPTS
    )
    report.write("index.html", text.encode("utf-8"))
