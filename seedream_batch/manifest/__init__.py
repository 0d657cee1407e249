"""The manifest: the only place that speaks SQL, in whole transactions. Its `writer` belongs to an event loop."""

from seedream_batch.manifest.manifest import Manifest
from seedream_batch.manifest.reader import ManifestReader

__all__ = ["Manifest", "ManifestReader"]
