"""The command line: arguments, environment, printing, exit codes."""

from seedream_batch.cli.app import main

__all__ = ["main"]
