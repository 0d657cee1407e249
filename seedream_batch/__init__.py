"""Declarative, resumable batches of paid Seedream 4.5 images from YAML job files."""

__version__ = "0.1.0"
