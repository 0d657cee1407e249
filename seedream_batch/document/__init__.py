"""Parsers from text to values with positions: YAML 1.2 job files, JSON, and tables for axes."""
