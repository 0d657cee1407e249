"""Read reference images: local files and data URIs, checked against the API's limits before anything is sent."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import unicodedata
from pathlib import Path

from seedream_batch.errors import StorageError
from seedream_batch.files.image_inspection import REFERENCES, BadPicture, inspect
from seedream_batch.model.job import Reference

# The limits of a reference image [Seedream 4.5 API documentation].
MAX_BYTES = 10 * 1024 * 1024
MAX_PIXELS = 6000 * 6000
MIN_SIDE = 15
MAX_RATIO = 3


class BadReferenceImage(ValueError):
    """The image exceeds the API's limits; the message says which, and the measured value."""


_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(?=//|\\\\)|(file|data|blob|https?):", re.IGNORECASE)
_SHELL = re.compile(r"~[^/\\]*(?:[/\\]|\Z)|.*(?:\$\{?[A-Za-z_]|%[A-Za-z_]+%)", re.DOTALL)


def shell_part(path: str) -> str:
    """Return what a path contains that only a shell would expand, in a word; empty if nothing."""
    if not _SHELL.match(path):
        return ""
    return "`~`" if path.startswith("~") else "a variable"


def shell_words(path: str) -> str:
    """Return a message about what only a shell would expand in a path, with what to do; empty if nothing."""
    what = shell_part(path)
    if not what:
        return ""
    return f"{path} contains {what}, which is not expanded: write the path itself, relative to the job file"


def _address_fault(text: str) -> str:
    """Return why an address that is neither http(s) nor a data URI cannot be used; empty for a file path."""
    takes = "a reference image is an http:// or https:// URL, a data URI or a file in the job's folder"
    if text.startswith("//"):
        return f"{text[:80]} has no scheme; write https:{text[:80]}"
    match = _SCHEME.match(text)
    if not match:
        return ""
    scheme = (match[1] or match[2]).lower()
    if scheme in {"http", "https"}:
        return f"{text[:80]} is not a URL: expected {scheme}://"
    return f"{text[:80]}: {scheme}: addresses are not supported; {takes}"


def inside(folder: Path, relative: str) -> Path:
    """Return the real path of a file named in a job file. Raise `StorageError` if it is outside `folder`.

    A job file may come from others: it reads nothing outside its own folder, links included.
    """
    root = folder.resolve()
    if not relative.strip():
        raise StorageError("the path is empty")
    try:
        path = (root / relative).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise StorageError(f"{relative!r} is not a valid path: {error}") from None
    if not path.is_relative_to(root):
        advice = "copy it into that folder, or move the job file"
        message = shell_words(relative) or f"{relative} is outside the job file's folder {folder}; {advice}"
        raise StorageError(message)
    return path if os.path.lexists(path) else _in_other_form(root, path)


def _in_other_form(root: Path, path: Path) -> Path:
    """Return the file of this name in another Unicode form, below `root`; the path itself if there is none.

    A name with an accent has two spellings, and the system decides which one a disk or an archive stores.
    """
    if str(path).isascii():
        return path
    current = root
    for name in path.relative_to(root).parts:
        step = current / name
        if not os.path.lexists(step):
            try:
                same = [entry for entry in current.iterdir() if _composed(entry.name) == _composed(name)]
            except OSError:
                return path
            if len(same) != 1:
                return path
            step = same[0]
        current = step
    # Resolved again, since the other name may be a link that leads out.
    real = current.resolve()
    return real if real.is_relative_to(root) else path


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def read_inside(folder: Path, relative: str, *, limit: int = 64 * 1024 * 1024) -> bytes:
    """Return the bytes of a file named in a job file, at most `limit`. Raise `StorageError` with the reason."""
    path = inside(folder, relative)
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise StorageError(f"{relative} is a folder")
        if not path.is_file():
            raise StorageError(f"{relative} is not a regular file")
        if size > limit:
            raise StorageError(f"{relative} has {size:,} bytes; at most {limit:,} are allowed")
        return path.read_bytes()
    except FileNotFoundError:
        raise StorageError(shell_words(relative) or f"file {relative} not found in {folder}") from None
    except OSError as error:
        raise StorageError(f"cannot read {relative}: {error.strerror or error}") from None


def load_reference(text: str, folder: Path) -> Reference:
    """Return the checked reference image that `text` (a path below `folder`, or a data URI) names.

    Raise `BadReferenceImage` or `StorageError`.
    """
    data, file = reference_bytes(text, folder)
    name = text if file else "the data URI"
    if len(data) > MAX_BYTES:
        raise BadReferenceImage(f"{name} has {len(data):,} bytes; a reference image may have at most {MAX_BYTES:,}")
    try:
        picture = inspect(data, max_pixels=MAX_PIXELS, formats=REFERENCES)
    except BadPicture as error:
        raise BadReferenceImage(f"{name} {error}; a reference image must be a JPEG or PNG") from None
    width, height = picture.width, picture.height
    if min(width, height) < MIN_SIDE:
        raise BadReferenceImage(f"{name} is {width} x {height}; both sides must have more than {MIN_SIDE - 1} pixels")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise BadReferenceImage(
            f"{name} is {width} x {height}, a ratio of {width / height:.2f};"
            f" it must be from 1:{MAX_RATIO} to {MAX_RATIO}:1"
        )
    return Reference(
        sha256=hashlib.sha256(data).hexdigest(),
        media_type=picture.media_type,
        bytes=len(data),
        width=width,
        height=height,
        text=text,
        file=file,
    )


def reference_bytes(text: str, folder: Path) -> tuple[bytes, Path | None]:
    """Return the bytes of a reference, and its file (None for a data URI).

    Raise `BadReferenceImage` or `StorageError`.
    """
    if text[:5].lower() != "data:":
        fault = _address_fault(text)
        if fault:
            raise BadReferenceImage(fault)
        return read_inside(folder, text), inside(folder, text)
    head, comma, payload = text.partition(",")
    if not comma or head.lower() not in {"data:image/jpeg;base64", "data:image/png;base64"}:
        raise BadReferenceImage(
            f"{head[:40]!r} is not a data URI of an image;"
            " it must start with data:image/jpeg;base64, or data:image/png;base64,"
        )
    try:
        return base64.b64decode(payload, validate=True), None
    except (binascii.Error, ValueError):
        raise BadReferenceImage("the data URI is not valid base64") from None


def data_uri(reference: Reference, data: bytes) -> str:
    """Return the data URI of the image; the same bytes always yield the same text."""
    return f"data:{reference.media_type};base64,{base64.b64encode(data).decode('ascii')}"
