"""Turns rendered output paths into paths that every file system accepts."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_REFUSED = re.compile(r'[<>:"\\|?*\x00-\x1f\x7f-\x9f\u2028\u2029]')
_RESERVED = re.compile(r"^(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³]) *(\..*)?$", re.IGNORECASE)
_DEVICE = "(?i:con|prn|aux|nul|com|lpt)"
_SPACES = " \xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_PICTURE = re.compile(r"\.(png|jpe?g)\Z", re.IGNORECASE)
_OWN = re.compile(r"^manifest\.", re.IGNORECASE)
_WORD = "[A-Za-z0-9_=+-]+"
_HARMLESS = re.compile(rf"(?:(?!{_DEVICE}){_WORD}(?: +{_WORD})*/)*(?!{_DEVICE}){_WORD}(?:[ .]+{_WORD})*")
"""Paths that need no change: ASCII words, no dots in folders, nothing that starts like a device name."""
_MAX_COMPONENT = 220
"""Most bytes of one name: file systems accept 255, less an image number and an extension."""
_MAX_PATH = 1000
"""Most bytes of the relative path: the smallest limit of common systems is 1024."""


class BadPath(ValueError):
    """Raised for a rendered output path that no file may have; the message says why.

    `cause` is the reason without the path, so it is equal for all paths of a job that share it.
    """

    def __init__(self, cause: str, rendered: str = "") -> None:
        self.cause = cause
        shown = rendered if len(rendered) <= 60 else f"{rendered[:60]}..."
        super().__init__(f"{shown!r} {cause}" if rendered else cause)


def safe_path(rendered: str) -> str:
    """Return the path NFC-normalised, with characters that some file system refuses replaced by `-`.

    `/` separates folders. Raises `BadPath` for absolute paths, `..`, and hidden, empty or overlong names.
    """
    dashed = rendered  # 16:9 becomes 16-9 first: most paths of a large job contain a ratio
    if ":" in rendered and not _DRIVE.match(rendered):
        dashed = rendered.replace(":", "-")
    return dashed if is_harmless(dashed) else _checked(rendered)


def is_harmless(rendered: str) -> bool:
    """Return whether a path obviously needs no change, like most of the million paths of a large job."""
    return len(rendered) <= _MAX_COMPONENT and _HARMLESS.fullmatch(rendered) is not None


def _checked(rendered: str) -> str:
    rendered = unicodedata.normalize("NFC", rendered.strip())
    if not rendered:
        raise BadPath("is empty")
    if rendered.startswith("/") or _DRIVE.match(rendered):
        raise BadPath("is absolute; output paths are relative to output.dir", rendered)
    *folders, last = rendered.split("/")
    try:
        names = [_safe_folder(part) for part in folders]
        names.append(_safe_name(last))
        if folders and _OWN.match(names[0]):
            # The manifest and its companion files have the same parent as the top folders.
            names[0] = f"_{names[0]}"
    except BadPath as error:
        raise BadPath(error.cause, rendered) from None
    path = "/".join(names)
    if len(path.encode()) > _MAX_PATH:
        raise BadPath(f"is longer than {_MAX_PATH} bytes", rendered)
    return path


@lru_cache(maxsize=4096)
def _safe_name(part: str) -> str:
    """Return one name of a path, made safe. Raises `BadPath` with a message about the whole path."""
    if part == "..":
        raise BadPath("contains '..'; a path must not leave output.dir")
    # Windows drops trailing dots and spaces, so two names could become the same.
    name = _REFUSED.sub("-", part).lstrip(_SPACES).rstrip(_SPACES + ".")
    if not name:
        raise BadPath("contains an empty name")
    if name.startswith("."):
        raise BadPath("contains a name that starts with a dot, which is reserved for seedream-batch")
    if _RESERVED.match(name):
        name = f"_{name}"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise BadPath("is not valid Unicode") from None
    if size > _MAX_COMPONENT:
        raise BadPath(f"contains a name longer than {_MAX_COMPONENT} bytes")
    return name


@lru_cache(maxsize=4096)
def _safe_folder(part: str) -> str:
    # A folder `a.png` would have the path of the image `a`.
    return _PICTURE.sub(r"-\1", _safe_name(part))


def collision_key(path: str) -> str:
    """Return a key that is equal for paths some file system treats as one: ignores case and Unicode form."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())
