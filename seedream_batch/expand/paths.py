"""Rendered output paths -> paths that every file system takes."""

from __future__ import annotations

import re
import unicodedata

_REFUSED = re.compile(r'[<>:"\\|?*\x00-\x1f\x7f-\x9f\u2028\u2029]')
_RESERVED = re.compile(r"^(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?$", re.IGNORECASE)
_MAX_COMPONENT = 220
"""Bytes of one name: 255 is what file systems take, less an image number and an extension."""
_MAX_PATH = 1000
"""Bytes of the whole relative path: 1024 is the least that systems take."""


class BadPath(ValueError):
    """A rendered output path that no file may have; the message says why."""


def safe_path(rendered: str) -> str:
    """The rendered path with characters that some file system refuses replaced by `-`, NFC-normalised.

    `/` separates folders. Raises `BadPath` for absolute paths, `..`, hidden, empty and over-long names.
    """
    rendered = unicodedata.normalize("NFC", rendered.strip())
    if not rendered:
        raise BadPath("is empty")
    if rendered.startswith("/") or re.match(r"^[A-Za-z]:[\\/]", rendered):
        raise BadPath(f"{rendered!r} is absolute; output paths are relative to output.dir")
    parts = []
    for part in rendered.split("/"):
        if part == "..":
            raise BadPath(f"{rendered!r} has '..' in it; a path may not leave output.dir")
        # Windows drops trailing dots and spaces; two names would become one there.
        name = _REFUSED.sub("-", part).strip().rstrip(". ")
        if not name:
            raise BadPath(f"{rendered!r} has an empty name in it")
        if name.startswith("."):
            raise BadPath(f"{rendered!r} has a name that starts with a dot; those are hidden and kept for the runner")
        if _RESERVED.match(name):
            name = f"_{name}"
        try:
            size = len(name.encode())
        except UnicodeEncodeError:
            raise BadPath(f"{rendered!r} is not valid Unicode") from None
        if size > _MAX_COMPONENT:
            raise BadPath(f"the name {name[:40]!r}... has {size} bytes; at most {_MAX_COMPONENT} fit")
        parts.append(name)
    path = "/".join(parts)
    if len(path.encode()) > _MAX_PATH:
        raise BadPath(f"the path {path[:40]!r}... has {len(path.encode())} bytes; at most {_MAX_PATH} fit")
    return path


def collision_key(path: str) -> str:
    """What two paths share when some file system takes them for one: letter case and Unicode form do not count."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())
