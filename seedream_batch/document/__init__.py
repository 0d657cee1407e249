"""Parsers from text to values with positions: YAML 1.2 job files, JSON, and tables for axes."""

from __future__ import annotations

from seedream_batch.document.tables import parse_table
from seedream_batch.document.yaml_loader import parse_yaml

__all__ = ["parse_table", "parse_yaml"]
