"""The address of an object store: what a job file says as its `output.dir`, and what is wrong with it."""

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

_FORM = "an address of an object store is written s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(/+)(.*)", re.DOTALL)
"""Anything that was meant as a URL; a folder may have a colon in its name, but none with a slash behind it here."""

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
"""As the strictest and the most liberal of the three have it [documentation of S3, GCS and Azure]."""

_SEGMENT = re.compile(r"[A-Za-z0-9!_.*'()=+@,&$~ -]+")
"""Characters of a key that make no trouble [S3 documentation, object key names]."""


def is_url(text: str) -> bool:
    """Whether an `output.dir` was meant as a URL, and not as the path of a folder."""
    return _URL.match(text) is not None


def store(text: str) -> Store:
    """The place of a URL. Raises `ValueError`, which never quotes it: somebody may have put a secret there."""
    found = _URL.fullmatch(text.strip())
    if found is None or found[2] != "//":
        raise ValueError(f"is no address of an object store: {_FORM}")
    scheme = found[1].lower()
    if scheme not in SCHEMES:
        raise ValueError(f"has the scheme {found[1]}://, which is none that pictures can be put to: {_FORM}")
    name, _, prefix = found[3].partition("/")
    if "@" in name or "?" in found[3] or "#" in found[3]:
        raise ValueError("may have no user, key or parameter in it: credentials come from the environment")
    if not name:
        raise ValueError(f"names no bucket: {_FORM}")
    if not _BUCKET.fullmatch(name):
        raise ValueError("has a name of a bucket that none can have: 3 or more letters, digits, dots and dashes")
    prefix = prefix.strip("/")
    segments = prefix.split("/") if prefix else []
    if not all(_SEGMENT.fullmatch(one) and one not in {".", ".."} for one in segments):
        raise ValueError("has a prefix with an empty part, a dot as a part, or characters that make trouble in keys")
    return Store(scheme, name, prefix)


def store_problems(value: Mapping[str, Json], document: Document, folder: FilePath) -> Iterator[Problem]:
    """What is wrong with the `output.dir` of a job file in `folder`: as a URL, or as a path that only a shell knows."""
    output = value.get("output")
    given = text = output.get("dir") if isinstance(output, dict) else None
    if not isinstance(text, str) or not text:
        # As `build_job` has it; what is wrong with a name is told with the name.
        name = value.get("name")
        text = f"out/{name if isinstance(name, str) else FilePath(document.file).stem}"
    told = ""
    if is_url(text):
        try:
            store(text)
        except ValueError as error:
            told = str(error)
    elif not os.path.lexists(folder / text):
        # Earlier versions made a folder called `~`, and the images may be in it.
        told = shell_words(text)
    if not told and not is_url(text):
        told = (unseen(text) if given else "") or unusable(folder, text)
    if told:
        what, _, hint = told.partition(": ")
        yield Problem("output.dir", what, document.position(("output", "dir")), hint)
