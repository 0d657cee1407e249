"""Measures how fast the program is beside other ways to do the same, and says whether it is fast enough.

    python tests/tools/benchmarks [--only NAME,...] [--rounds N] [--small] [--pinned] [--json FILE]

Every ratio is measured in one go on one machine: in each round the contestants take turns, and a row's figure is the
median of the rounds. It needs Linux with two cores and nothing else to do: what else runs takes turns with the threads
of the contestants, and favours those that have many. Some rows also need curl and what is in requirements.txt beside
this file. Files are written to the folder for temporary ones; TMPDIR chooses another, which should be on a real disk.

All rows take about an hour. `--small` looks in a minute or two whether all of them work; its figures mean nothing, and
are not judged.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import textwrap
from importlib import metadata
from pathlib import Path

from rows import Options, Row

GROUPS = ("startup", "large_job", "throughput", "downloads", "pacing", "polling", "memory", "workers", "charges")
"""Modules with `ROWS`, the names of their rows, and `measure(options)`, which gives those that are wanted."""

WIDTH = 120


def main() -> int:
    """Measures, prints the table, and writes the figures as JSON where asked to; the exit code."""
    modules = {name: importlib.import_module(name) for name in GROUPS}
    known = {name: (name,) for module in modules.values() for name in module.ROWS}
    known |= {group: module.ROWS for group, module in modules.items()}
    parser = argparse.ArgumentParser(
        prog="python tests/tools/benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="rows:\n" + "\n".join(f"  {name:<12}{', '.join(module.ROWS)}" for name, module in modules.items()),
    )
    parser.add_argument("--only", metavar="NAME,...", help="only these rows, or groups of rows")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="sizes of seconds: to see that everything works")
    parser.add_argument("--pinned", action="store_true", help="throughput: one core for the service")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    arguments = parser.parse_args()
    chosen = arguments.only.split(",") if arguments.only else list(GROUPS)
    if unknown := [name for name in chosen if name not in known]:
        parser.error(f"no row is called {', '.join(unknown)}")
    if arguments.rounds < 1:
        parser.error("--rounds has to be at least 1")
    only = {row for name in chosen for row in known[name]}
    options = Options(arguments.rounds, arguments.small, only, pinned=arguments.pinned)

    rows: list[Row] = []
    for module in modules.values():
        if any(options.wants(name) for name in module.ROWS):
            for row in module.measure(options):
                rows.append(row)
                show(row, judged=not options.small)
    if arguments.json:
        write(arguments.json, options, rows)
    return 0


def show(row: Row, *, judged: bool) -> None:
    """Prints one row: its figure, its target, whether that is met, the rounds; below, what was measured, and notes."""
    figure = "not measured" if row.figure is None else f"{_short(row.figure)} {row.unit}"
    verdict = {True: "met", False: "NOT MET", None: ""}[row.met if judged else None]
    rounds = " ".join(_short(one) for one in row.runs)
    print(f"{row.name:<24}{figure:>14}  {row.target:<12}{verdict:<9}{rounds}")
    for text in (row.measured, *row.notes):
        print(textwrap.fill(text, WIDTH, initial_indent="    ", subsequent_indent="      "))
    sys.stdout.flush()


def _short(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 1000 else f"{figure:.3g}"


def write(file: Path, options: Options, rows: list[Row]) -> None:
    """Writes the figures, with what they hold for."""
    versions = {name: metadata.version(name) for name in ("seedream-batch", "aiohttp", "httpx", "httpx-aiohttp")}
    document = {
        "rounds": options.rounds,
        "small": options.small,
        "pinned": options.pinned,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "versions": versions,
        "rows": [row.as_json() for row in rows],
    }
    file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
