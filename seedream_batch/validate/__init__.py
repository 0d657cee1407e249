"""Validation against JSON Schema, with messages and positions that people understand."""
