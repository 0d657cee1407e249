"""The URLs in a job, and what is wrong with them: object stores, a manifest on a server, webhooks.

Where a password may be the mistake, a message does not quote the URL.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from urllib.parse import unquote

from seedream_batch.client.secret import known_secrets
from seedream_batch.errors import UsageError
from seedream_batch.files.local_folder import unseen, unusable
from seedream_batch.files.references import shell_words
from seedream_batch.model.document import Document, Json, Problem, dotted
from seedream_batch.model.job import Job
from seedream_batch.model.locations import Server, Store, secrets_of

SCHEMES = ("s3", "gs", "az")

_STORE_FORM = "write s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"

_STORE_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(/+)(.*)", re.DOTALL)
"""Anything meant as a URL: a folder's name may have a colon, but not one followed by a slash."""

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
"""Accepts what any of the three stores accepts [documentation of S3, GCS and Azure]."""

_SEGMENT = re.compile(r"[A-Za-z0-9!_.*'()=+@,&$~ -]+")
"""Characters that are safe in a key [S3 documentation, object key names]."""


def is_url(text: str) -> bool:
    """Return whether an `output.dir` was meant as a URL rather than the path of a folder."""
    return _STORE_URL.match(text) is not None


def store(text: str) -> Store:
    """Parse the URL of an object store. Raises `ValueError` that never quotes it, as it may contain a secret."""
    match = _STORE_URL.fullmatch(text.strip())
    if match is None or match[2] != "//":
        raise ValueError(f"is not an object store URL: {_STORE_FORM}")
    scheme = match[1].lower()
    if scheme not in SCHEMES:
        raise ValueError(f"has the unsupported scheme {match[1]}://: {_STORE_FORM}")
    name, _, prefix = match[3].partition("/")
    if "@" in name or "?" in match[3] or "#" in match[3]:
        raise ValueError("must not contain a user, key or parameter: credentials come from the environment")
    if not name:
        raise ValueError(f"names no bucket: {_STORE_FORM}")
    if not _BUCKET.fullmatch(name):
        raise ValueError("has an invalid bucket name: use 3 or more letters, digits, dots and dashes")
    prefix = prefix.strip("/")
    segments = prefix.split("/") if prefix else []
    if not all(_SEGMENT.fullmatch(segment) and segment not in {".", ".."} for segment in segments):
        raise ValueError("has an invalid prefix: remove empty parts, parts that are only dots, and special characters")
    return Store(scheme, name, prefix)


def store_problems(value: Mapping[str, Json], document: Document, folder: FilePath) -> Iterator[Problem]:
    """Yield what is wrong with `output.dir` of a job file in `folder`: as a URL, or as a path only a shell expands."""
    output = value.get("output")
    given = text = output.get("dir") if isinstance(output, dict) else None
    if not isinstance(text, str) or not text:
        # The same default as in `build_job`; an invalid name is reported elsewhere.
        name = value.get("name")
        text = f"out/{name if isinstance(name, str) else FilePath(document.file).stem}"
    fault = ""
    if is_url(text):
        try:
            store(text)
        except ValueError as error:
            fault = str(error)
    elif not os.path.lexists(folder / text):
        # Earlier versions created a folder called `~`, which may hold images.
        fault = shell_words(text)
    if not fault and not is_url(text):
        fault = (unseen(text) if given else "") or unusable(folder, text)
    if fault:
        what, _, hint = fault.partition(": ")
        yield Problem("output.dir", what, document.position(("output", "dir")), hint)


_SCHEMA = "schema"
"""The URL parameter that names the schema; the others are passed to PostgreSQL."""

_LONGEST = 63
"""Most bytes of a name in PostgreSQL."""

_PREFIX = "seedream_"

_USER = r"[^@/?#:\s]*(?::[^@/?#\s]*)?"
_HOST = r"(?:\[[0-9A-Fa-f:.%]+\]|[^@/?#:,\s\[\]]*)(?::[0-9]{1,5})?"
_SERVER_URL = re.compile(rf"postgres(?:ql)?://(?:{_USER}@)?{_HOST}(?:,{_HOST})*(?:/[^?#\s]*)?(?:\?[^#\s]*)?", re.ASCII)
_SERVER_FORM = "write postgresql://[USER@]HOST[:PORT]/DATABASE and percent-encode special characters"


def server(url: str, job: str) -> Server:
    """Return the location of a job's manifest at a `postgresql://` URL; the schema is named after the job.

    Raises `ValueError` for anything else.
    """
    if not _SERVER_URL.fullmatch(url):
        raise ValueError(_SERVER_FORM)
    address, _, query = url.partition("?")
    named = [unquote(parameter.partition("=")[2]) for parameter in query.split("&") if _names_schema(parameter)]
    if len(named) > 1 or any(not 0 < len(name.encode()) <= _LONGEST or "\0" in name for name in named):
        raise ValueError(f"give {_SCHEMA} once, with 1 to {_LONGEST} bytes")
    # Keep the rest as it was written: libpq has its own rules for it.
    rest = "&".join(parameter for parameter in query.split("&") if parameter and not _names_schema(parameter))
    return Server(f"{address}?{rest}" if rest else address, named[0] if named else _schema(job))


def names_schema(url: str) -> bool:
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
    return unquote(parameter.partition("=")[0]) == _SCHEMA


def _schema(job: str) -> str:
    """Return the schema for a job's name: readable, and different for different names."""
    plain = re.sub(r"[^a-z0-9]+", "_", job.lower()).strip("_")
    name = f"{_PREFIX}{plain}"
    if plain == job and len(name) <= _LONGEST:
        return name
    return f"{name[: _LONGEST - 9].rstrip('_')}_{hashlib.sha256(job.encode()).hexdigest()[:8]}"


_WEBHOOK = ("notify", "url")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
ALLOWED = "NOTIFY_"
"""Prefix of the environment variables that a job file may send to a webhook. Naming a variable so permits it: a job
file may come from somebody else, and the environment holds keys and passwords."""


def notify_problems(value: Mapping[str, Json], document: Document) -> Iterator[Problem]:
    """Yield what is wrong with `notify.url` as written; does not read the environment."""
    section = value.get("notify")
    url = section.get("url") if isinstance(section, dict) else None
    if not isinstance(url, str):
        return
    fault, hint = _fault_as_written(url)
    if fault:
        yield Problem(dotted(_WEBHOOK), fault, document.position(_WEBHOOK), hint)


def unset_variables(job: Job, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the environment variables that the webhook's URL needs and that are not set."""
    names = dict.fromkeys(_VARIABLE.findall(job.notify.url if job.notify else ""))
    return [name for name in names if not environ.get(name)]


def webhook_url(job: Job, environ: Mapping[str, str]) -> str:
    """Return the job's webhook URL, filled in. Raises `UsageError`, which never repeats the filled-in values."""
    url = job.notify.url if job.notify else ""
    where = f"{job.document.position(_WEBHOOK)}: {dotted(_WEBHOOK)}"
    names = list(dict.fromkeys(_VARIABLE.findall(url)))
    if missing := unset_variables(job, environ):
        are = "is not set" if len(missing) == 1 else "are not set"
        raise UsageError(f"{where}: {', '.join(missing)} {are} in the environment; set it or remove `notify`")
    filled = _VARIABLE.sub(lambda match: environ[match[1]].strip(), url)
    secrets = known_secrets(environ, secrets_of(job.manifest.url) if isinstance(job.manifest, Server) else ())
    if secrets.within(filled):
        leaking = [name for name in names if secrets.within(environ[name])]
        what = f"{leaking[0]} contains" if leaking else "it contains"
        raise UsageError(f"{where}: {what} the API key or a password of this machine, which must not be sent")
    fault = _address_fault(filled)
    if fault:
        raise UsageError(f"{where}: {url}, filled in from the environment, {fault}")
    return filled


def _fault_as_written(url: str) -> tuple[str, str]:
    names = _VARIABLE.findall(url)
    for name in names:
        if not name.startswith(ALLOWED):
            hint = f"rename the variable, for example to {ALLOWED}{name.removeprefix('_')}"
            return f"must not use {name}: only variables that begin with {ALLOWED} may be sent to a webhook", hint
    if "${" in _VARIABLE.sub("", url):
        return "has a `${` without a valid variable", "write ${NOTIFY_NAME}, with letters, digits and underscores"
    fault = "" if names else _address_fault(url)
    return fault, "to keep secrets in the environment, write ${NOTIFY_URL}" if fault else ""


def _address_fault(url: str) -> str:
    # Slow to import, and few jobs have a webhook.
    from seedream_batch.client.webhook import address_fault  # noqa: PLC0415

    return address_fault(url)
