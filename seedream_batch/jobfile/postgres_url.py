"""The address of a manifest on a server: what a job file or the command line says, and what is wrong with it.

No message quotes any of it: what is wrong may be the place where a password ends.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from urllib.parse import unquote

from seedream_batch.model.document import Document, Json, Problem
from seedream_batch.model.locations import Server, secrets_of

SCHEMA = "schema"
"""The parameter of the URL that names the schema; the others are for PostgreSQL."""

_LONGEST = 63
"""Bytes of a name in PostgreSQL."""

_PREFIX = "seedream_"

_USER = r"[^@/?#:\s]*(?::[^@/?#\s]*)?"
_HOST = r"(?:\[[0-9A-Fa-f:.%]+\]|[^@/?#:,\s\[\]]*)(?::[0-9]{1,5})?"
_URL = re.compile(rf"postgres(?:ql)?://(?:{_USER}@)?{_HOST}(?:,{_HOST})*(?:/[^?#\s]*)?(?:\?[^#\s]*)?", re.ASCII)
_FORM = "it is written postgresql://[USER@]HOST[:PORT]/DATABASE; other characters have to be percent-encoded"


def server(url: str, job: str) -> Server:
    """The manifest of the job of this name at a `postgresql://` URL; its schema is called after the job.

    Raises `ValueError` for what is no such URL.
    """
    if not _URL.fullmatch(url):
        raise ValueError(_FORM)
    address, _, query = url.partition("?")
    named = [unquote(one.partition("=")[2]) for one in query.split("&") if _named(one)]
    if len(named) > 1 or any(not 0 < len(name.encode()) <= _LONGEST or "\0" in name for name in named):
        raise ValueError(f"{SCHEMA} has to be given once, with 1 to {_LONGEST} bytes")
    # The rest as it was written: libpq reads it in its own way.
    left = "&".join(one for one in query.split("&") if one and not _named(one))
    return Server(f"{address}?{left}" if left else address, named[0] if named else _schema(job))


def names_schema(url: str) -> bool:
    """Whether a URL says which schema it is."""
    return any(map(_named, url.partition("?")[2].split("&")))


def server_problems(value: Mapping[str, Json], document: Document) -> Iterator[Problem]:
    """What is wrong with the `manifest` of a job file."""
    url = value.get("manifest")
    if not isinstance(url, str):
        return
    position = document.position(("manifest",))
    try:
        server(url, "any")
    except ValueError as error:
        yield Problem("manifest", f"is no address of a manifest: {error}", position)
        return
    if any(secrets_of(url)):
        hint = "put it into ~/.pgpass or PGPASSWORD; job files are for everybody to read"
        yield Problem("manifest", "has a password in it", position, hint)


def _named(parameter: str) -> bool:
    return unquote(parameter.partition("=")[0]) == SCHEMA


def _schema(job: str) -> str:
    """The schema of a job by its name: readable, and another one for another name."""
    plain = re.sub(r"[^a-z0-9]+", "_", job.lower()).strip("_")
    name = f"{_PREFIX}{plain}"
    if plain == job and len(name) <= _LONGEST:
        return name
    return f"{name[: _LONGEST - 9].rstrip('_')}_{hashlib.sha256(job.encode()).hexdigest()[:8]}"
