"""The page itself: one template, the styles and the scripts that come with the program."""

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
"""In the order in which the page loads them: each uses what stands before it."""


def write_assets(report: ReportFolder) -> None:
    """The styles and scripts."""
    for name in (*STYLES, *SCRIPTS):
        report.copy(ASSETS / name, f"assets/{name}")


def write_page(report: ReportFolder, job: str) -> None:
    """The page, which is nothing but a frame: what it shows comes from the scripts in `data/`."""
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
