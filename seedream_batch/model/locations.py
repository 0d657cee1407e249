"""Where the manifest and the images of a job are stored."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

_SECRET = "password"  # noqa: S105 - a part of names
"""Parameters with this in their name have secret values."""


@dataclass(frozen=True, slots=True)
class Server:
    """A manifest in a PostgreSQL database: the database's `url`, and the `schema` that only the manifest uses."""

    url: str
    schema: str

    @property
    def name(self) -> str:
        """The manifest for people, without user and parameters."""
        address = self.url.partition("://")[2].partition("?")[0]
        authority, slash, database = address.partition("/")
        return f"postgresql://{authority.rpartition('@')[2]}{slash}{database} schema {self.schema}"

    def without_secrets(self, text: str) -> str:
        """Mask the passwords of the URL in a text that may quote it."""
        for secret in sorted(secrets_of(self.url), key=len, reverse=True):
            for form in (secret, unquote(secret)):
                text = text.replace(form, "***")
        return text


Place = Path | Server
"""Where a manifest is: a file, or a schema in a database."""


def secrets_of(url: str) -> Iterator[str]:
    """Yield the passwords in a database URL, as they are written there."""
    address, _, query = url.partition("://")[2].partition("?")
    user = address.rpartition("@")[0]
    if user.partition(":")[2]:
        yield user.partition(":")[2]
    for parameter in query.split("&"):
        value = parameter.partition("=")[2]
        if _is_secret(parameter) and value:
            yield value


def without_passwords(url: str) -> str:
    """Return a database URL without its passwords, for printing."""
    scheme, _, rest = url.partition("://")
    address, _, query = rest.partition("?")
    user, at, hosts = address.rpartition("@")
    shown = "&".join(parameter for parameter in query.split("&") if parameter and not _is_secret(parameter))
    return f"{scheme}://{user.partition(':')[0]}{at}{hosts}{f'?{shown}' if shown else ''}"


def _is_secret(parameter: str) -> bool:
    return _SECRET in unquote(parameter.partition("=")[0]).lower()


def as_text(path: Path) -> str:
    """Return a path as text that every database accepts: bytes that are not UTF-8 are escaped."""
    return os.fsencode(path).decode(errors="backslashreplace")


def name_of(place: Place) -> str:
    """Return the full name of a manifest for people."""
    return str(place.resolve()) if isinstance(place, Path) else place.name


MANIFEST = "manifest.db"
"""File name of a manifest in the output folder of its job."""


@dataclass(frozen=True, slots=True)
class Store:
    """A location on an object store: a bucket and a key prefix; `scheme` is s3, gs or az. Holds no credentials."""

    scheme: str
    bucket: str
    prefix: str = ""

    @property
    def url(self) -> str:
        """The URL, without a trailing slash."""
        return f"{self.scheme}://{self.bucket}/{self.prefix}".rstrip("/")
