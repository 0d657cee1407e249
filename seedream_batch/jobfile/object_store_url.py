"""Object store URLs in a job's `output.dir`, and what is wrong with them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath

from seedream_batch.files.local_folder import unseen, unusable
from seedream_batch.files.references import shell_words
from seedream_batch.model.document import Document, Json, Problem
from seedream_batch.model.locations import Store

SCHEMES = ("s3", "gs", "az")

_FORM = "write s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(/+)(.*)", re.DOTALL)
"""Anything meant as a URL: a folder's name may have a colon, but not one followed by a slash."""

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
"""Accepts what any of the three stores accepts [documentation of S3, GCS and Azure]."""

_SEGMENT = re.compile(r"[A-Za-z0-9!_.*'()=+@,&$~ -]+")
"""Characters that are safe in a key [S3 documentation, object key names]."""


def is_url(text: str) -> bool:
    """Return whether an `output.dir` was meant as a URL rather than the path of a folder."""
    return _URL.match(text) is not None


def store(text: str) -> Store:
    """Parse the URL of an object store. Raises `ValueError` that never quotes it, as it may contain a secret."""
    match = _URL.fullmatch(text.strip())
    if match is None or match[2] != "//":
        raise ValueError(f"is not an object store URL: {_FORM}")
    scheme = match[1].lower()
    if scheme not in SCHEMES:
        raise ValueError(f"has the unsupported scheme {match[1]}://: {_FORM}")
    name, _, prefix = match[3].partition("/")
    if "@" in name or "?" in match[3] or "#" in match[3]:
        raise ValueError("must not contain a user, key or parameter: credentials come from the environment")
    if not name:
        raise ValueError(f"names no bucket: {_FORM}")
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
