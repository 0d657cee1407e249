"""The command line: arguments, printing, exit codes."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit with its code; without `args`, as the only command of this process."""
    if args is None:
        from seedream_batch.cli.streams import prepare

        prepare()
    if (sys.argv[1:] if args is None else args) in (["--help"], ["-h"]):
        from seedream_batch.cli.help_text import text

        sys.stdout.write(f"{text()}\n")
        sys.exit(0)
    from seedream_batch.cli.lazy_imports import alone, importing

    if args is None:
        alone()
    with importing():
        from seedream_batch.cli.app import main as run

    run(args)
