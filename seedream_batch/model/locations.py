"""Where the manifest of a job is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

_SECRET = "password"  # noqa: S105 - a part of names
"""What the names of parameters have in them whose values are secret."""


@dataclass(frozen=True, slots=True)
class Server:
    """A manifest in a PostgreSQL database: the `url` of that, and the `schema` in it that is all the manifest's."""

    url: str
    schema: str

    @property
    def name(self) -> str:
        """The manifest for people, without user and parameters."""
        address = self.url.partition("://")[2].partition("?")[0]
        authority, slash, database = address.partition("/")
        return f"postgresql://{authority.rpartition('@')[2]}{slash}{database} schema {self.schema}"

    def without_secrets(self, text: str) -> str:
        """A text that may quote the URL, without the passwords in that."""
        for secret in sorted(secrets_of(self.url), key=len, reverse=True):
            for form in (secret, unquote(secret)):
                text = text.replace(form, "***")
        return text


Place = Path | Server
"""A manifest: a file, or a schema in a database."""


def secrets_of(url: str) -> Iterator[str]:
    """The passwords in a URL of a database, as they are written there."""
    address, _, query = url.partition("://")[2].partition("?")
    user = address.rpartition("@")[0]
    if user.partition(":")[2]:
        yield user.partition(":")[2]
    for parameter in query.split("&"):
        value = parameter.partition("=")[2]
        if _is_secret(parameter) and value:
            yield value


def without_passwords(url: str) -> str:
    """A URL of a database as it may be printed."""
    scheme, _, rest = url.partition("://")
    address, _, query = rest.partition("?")
    user, at, hosts = address.rpartition("@")
    shown = "&".join(one for one in query.split("&") if one and not _is_secret(one))
    return f"{scheme}://{user.partition(':')[0]}{at}{hosts}{f'?{shown}' if shown else ''}"


def _is_secret(parameter: str) -> bool:
    return _SECRET in unquote(parameter.partition("=")[0]).lower()


def as_text(path: Path) -> str:
    """A path as text that every database takes: bytes in it that are no UTF-8 are escaped."""
    return os.fsencode(path).decode(errors="backslashreplace")


def name_of(place: Place) -> str:
    """A manifest by its whole name."""
    return str(place.resolve()) if isinstance(place, Path) else place.name


MANIFEST = "manifest.db"
"""The file of a manifest, in the output folder of its job."""


@dataclass(frozen=True, slots=True)
class Store:
    """A place on an object store: a bucket, and what the keys in it start with; `scheme` is s3, gs or az.

    Credentials are no part of it.
    """

    scheme: str
    bucket: str
    prefix: str = ""

    @property
    def url(self) -> str:
        """The address, without a slash at its end."""
        return f"{self.scheme}://{self.bucket}/{self.prefix}".rstrip("/")
