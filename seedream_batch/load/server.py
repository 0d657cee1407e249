"""The address of a manifest on a server: what a job file or the command line says, and what is wrong with it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from seedream_batch.model.document import Document, Json, Problem
from seedream_batch.model.place import Server

SCHEMA = "schema"
"""The parameter of the URL that names the schema; the others are for PostgreSQL."""

_LONGEST = 63
"""Bytes of a name in PostgreSQL."""

_PREFIX = "seedream_"


def server(url: str, job: str) -> Server:
    """The manifest of the job of this name at a `postgresql://` URL; its schema is called after the job.

    Raises `ValueError` for what is no such URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"postgresql", "postgres"}:
        raise ValueError("no postgresql:// URL")
    parameters = parse_qsl(parts.query, keep_blank_values=True)
    named = [value for name, value in parameters if name == SCHEMA]
    if len(named) > 1 or (named and not 0 < len(named[0].encode()) <= _LONGEST):
        raise ValueError(f"{SCHEMA} has to be given once, with 1 to {_LONGEST} bytes")
    left = urlencode([(name, value) for name, value in parameters if name != SCHEMA])
    return Server(urlunsplit(parts._replace(query=left)), named[0] if named else _schema(job))


def names_schema(url: str) -> bool:
    """Whether a URL says which schema it is."""
    return any(name == SCHEMA for name, _ in parse_qsl(urlsplit(url).query))


def server_problems(value: Mapping[str, Json], document: Document) -> Iterator[Problem]:
    """What is wrong with the `manifest` of a job file."""
    url = value.get("manifest")
    if not isinstance(url, str):
        return
    position = document.position(("manifest",))
    try:
        server(url, "any")
        has_password = bool(urlsplit(url).password) or any(
            name == "password" for name, _ in parse_qsl(urlsplit(url).query)
        )
    except ValueError as error:
        yield Problem("manifest", f"is no address of a manifest: {error}", position)
        return
    if has_password:
        hint = "put it into ~/.pgpass or PGPASSWORD; job files are for everybody to read"
        yield Problem("manifest", "has a password in it", position, hint)


def _schema(job: str) -> str:
    """The schema of a job by its name: readable, and another one for another name."""
    plain = re.sub(r"[^a-z0-9]+", "_", job.lower()).strip("_")
    name = f"{_PREFIX}{plain}"
    if plain == job and len(name) <= _LONGEST:
        return name
    return f"{name[: _LONGEST - 9].rstrip('_')}_{hashlib.sha256(job.encode()).hexdigest()[:8]}"
