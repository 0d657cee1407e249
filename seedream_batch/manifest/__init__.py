"""The manifest: the only place that speaks SQL, in whole transactions."""

from seedream_batch.manifest.reader import ManifestReader
from seedream_batch.manifest.store import Manifest
from seedream_batch.manifest.writer import ManifestWriter

__all__ = ["Manifest", "ManifestReader", "ManifestWriter"]
