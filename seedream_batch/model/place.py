"""Where the manifest of a job is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Server:
    """A manifest in a PostgreSQL database: the `url` of that, and the `schema` in it that is all the manifest's."""

    url: str
    schema: str

    @property
    def name(self) -> str:
        """The manifest for people, without user and password."""
        parts = urlsplit(self.url)
        port = f":{parts.port}" if parts.port else ""
        return f"postgresql://{parts.hostname or ''}{port}{parts.path} schema {self.schema}"


Place = Path | Server
"""A manifest: a file, or a schema in a database."""


def name_of(place: Place) -> str:
    """A manifest by its whole name."""
    return str(place.resolve()) if isinstance(place, Path) else place.name


MANIFEST = "manifest.db"
"""The file of a manifest, in the output folder of its job."""
