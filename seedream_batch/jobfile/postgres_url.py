"""URLs of a manifest on a server, from a job file or the command line, and what is wrong with them.

No message quotes the URL: the mistake may be in a password.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from urllib.parse import unquote

from seedream_batch.model.document import Document, Json, Problem
from seedream_batch.model.locations import Server, secrets_of

SCHEMA = "schema"
"""The URL parameter that names the schema; the others are passed to PostgreSQL."""

_LONGEST = 63
"""Most bytes of a name in PostgreSQL."""

_PREFIX = "seedream_"

_USER = r"[^@/?#:\s]*(?::[^@/?#\s]*)?"
_HOST = r"(?:\[[0-9A-Fa-f:.%]+\]|[^@/?#:,\s\[\]]*)(?::[0-9]{1,5})?"
_URL = re.compile(rf"postgres(?:ql)?://(?:{_USER}@)?{_HOST}(?:,{_HOST})*(?:/[^?#\s]*)?(?:\?[^#\s]*)?", re.ASCII)
_FORM = "write postgresql://[USER@]HOST[:PORT]/DATABASE and percent-encode special characters"


def server(url: str, job: str) -> Server:
    """Return the location of a job's manifest at a `postgresql://` URL; the schema is named after the job.

    Raises `ValueError` for anything else.
    """
    if not _URL.fullmatch(url):
        raise ValueError(_FORM)
    address, _, query = url.partition("?")
    named = [unquote(parameter.partition("=")[2]) for parameter in query.split("&") if _names_schema(parameter)]
    if len(named) > 1 or any(not 0 < len(name.encode()) <= _LONGEST or "\0" in name for name in named):
        raise ValueError(f"give {SCHEMA} once, with 1 to {_LONGEST} bytes")
    # Keep the rest as it was written: libpq has its own rules for it.
    rest = "&".join(parameter for parameter in query.split("&") if parameter and not _names_schema(parameter))
    return Server(f"{address}?{rest}" if rest else address, named[0] if named else _schema(job))


def names_schema(url: str) -> bool:
    """Return whether a URL names a schema."""
    return any(map(_names_schema, url.partition("?")[2].split("&")))


def server_problems(value: Mapping[str, Json], document: Document) -> Iterator[Problem]:
    """Yield what is wrong with the `manifest` of a job file."""
    url = value.get("manifest")
    if not isinstance(url, str):
        return
    position = document.position(("manifest",))
    try:
        server(url, "any")
    except ValueError as error:
        yield Problem("manifest", f"is not a PostgreSQL URL: {error}", position)
        return
    if any(secrets_of(url)):
        hint = "put it in ~/.pgpass or PGPASSWORD; job files are often shared"
        yield Problem("manifest", "contains a password", position, hint)


def _names_schema(parameter: str) -> bool:
    return unquote(parameter.partition("=")[0]) == SCHEMA


def _schema(job: str) -> str:
    """Return the schema for a job's name: readable, and different for different names."""
    plain = re.sub(r"[^a-z0-9]+", "_", job.lower()).strip("_")
    name = f"{_PREFIX}{plain}"
    if plain == job and len(name) <= _LONGEST:
        return name
    return f"{name[: _LONGEST - 9].rstrip('_')}_{hashlib.sha256(job.encode()).hexdigest()[:8]}"
