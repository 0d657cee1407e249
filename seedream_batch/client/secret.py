"""Keep the API key and other secrets out of logs, tracebacks, files and messages."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from seedream_batch.errors import UsageError

SHORTEST_KEY = 12
"""Characters from which on a key is treated as secret.

A shorter one is for the emulator, and may be part of a task id.
"""
LONGEST_KEY = 10_000
"""Most bytes read of a file with a key."""
SHORTEST = 8
"""Characters from which on another secret, such as a password, is searched for in texts."""

_FRAGMENT = 12
"""Consecutive characters of a secret that count as all of it: services show keys with a few stars in them."""
_DEPTH = 4
"""Nested encodings that are decoded."""

_STARS = "***"

_HASH_COST = 2**10
"""Cost of a key's hash for scrypt: 3 ms per command. Keys are random, so guessing them is hopeless anyway."""

_ENCODED = re.compile(
    r"""
      \\ \\* u ([0-9a-f]{4})              # JSON, JavaScript; also when a JSON text is a string in another one
    | \\ \\* u \{ 0* ([0-9a-f]{1,4}) \}
    | \\ \\* x ([0-9a-f]{2})
    | \\ \\* ([0-7]{3})
    | % (?:25)* (?:u00)? ([0-9a-f]{2})      # URLs, forms
    | & \#x 0* ([0-9a-f]{1,4}) ;?           # HTML, XML
    | & \# 0* ([0-9]{1,5}) ;?
    | & ([a-z]{2,10} ;)
    | \\ \\* (?-i:[nrtbf])?                # a backslash says nothing by itself
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""Each alternative starts with a literal character, so that the search skips most texts quickly."""
_BASES = (16, 16, 16, 8, 16, 16, 10)

_UNSEEN = re.compile(r"[\s\x00-\x20\x7f\u00ad\u200b-\u200f\u2060\ufeff]")
"""Characters that may be between those of a secret: line breaks in base64, zeros in UTF-16."""


class Secrets:
    """Texts that must not be shown.

    They are found whole or in part, in any letter case and in the usual encodings: escapes of JSON, URLs and HTML, also
    nested; base64 and hexadecimal; UTF-16; broken into lines.
    """

    __slots__ = ("_coded", "_coded_probes", "_parts", "_probes")

    def __init__(self, values: Iterable[str]) -> None:
        parts: set[str] = set()
        coded: set[str] = set()
        probes: set[str] = set()
        coded_probes: set[str] = set()
        for value in values:
            whole = value.lower()
            digits = value.encode().hex()
            parts |= _windows(whole, _FRAGMENT) | _windows(digits, 2 * _FRAGMENT)
            probes |= _windows(whole, _FRAGMENT) | _probes(digits, 2 * _FRAGMENT)
            for form in _base64(value.encode()):
                coded |= _windows(form, 4 * _FRAGMENT // 3)
                coded_probes |= _probes(form, 4 * _FRAGMENT // 3)
        # The parts are compared in lower case, base64 as it is.
        self._parts, self._coded = frozenset(parts), frozenset(coded)
        self._probes, self._coded_probes = frozenset(probes), frozenset(coded_probes)

    def __repr__(self) -> str:
        return "Secrets(***)"

    def within(self, text: str) -> bool:
        """Return whether a text contains any of them."""
        return self.masked(text) != text

    def _suspects(self, text: str) -> bool:
        """Return whether a text may contain any of them: a quick check that rules out almost all texts."""
        if self._probed(text):
            return True
        text = _joined(text)
        for _ in range(_DEPTH):
            if self._probed(text):
                return True
            plain = _ENCODED.sub(_decoded, text)
            if plain == text:
                return False
            text = _joined(plain)
        return self._probed(text)

    def _probed(self, text: str) -> bool:
        lower = text.lower()
        return any(probe in lower for probe in self._probes) or any(probe in text for probe in self._coded_probes)

    def masked(self, text: str) -> str:
        """Return the text with stars in place of each of them."""
        if not self._suspects(text):
            return text
        # Each decoded character with its position in the text.
        chars = [(char, at, at + 1) for at, char in enumerate(text)]
        spans: list[tuple[int, int]] = []
        for layer in (_UNSEEN, *(_ENCODED, _UNSEEN) * _DEPTH, None):
            plain = "".join(char for char, _, _ in chars)
            spans += [(chars[start][1], chars[end - 1][2]) for start, end in self._spans(plain)]
            chars = chars if layer is None else _decode(layer, plain, chars)
        left, end = [], 0
        for start, stop in sorted(spans):
            if start >= end:
                left += [text[end:start], _STARS]
            end = max(end, stop)
        return "".join([*left, text[end:]])

    def _spans(self, text: str) -> list[tuple[int, int]]:
        # Character by character: lower() of a whole text may change its length.
        lower = "".join(char.lower() if char.isascii() else char for char in text)
        spans = []
        for where, parts in ((lower, self._parts), (text, self._coded)):
            for size in {len(part) for part in parts}:
                spans += [(at, at + size) for at in range(len(where) - size + 1) if where[at : at + size] in parts]
        return spans


def _windows(text: str, size: int) -> set[str]:
    """Return every part of this size, or the text itself if it is shorter."""
    return {text[at : at + size] for at in range(max(1, len(text) - size + 1))}


def _probes(text: str, size: int) -> set[str]:
    """Return a few short parts, at least one of which is in each window of this size."""
    size = min(size, len(text))
    half = max(1, size // 2)
    return {text[at : at + half] for at in range(0, len(text) - half + 1, size - half + 1)}


class ApiKey:
    """An API key that is revealed only as a request header. Raise `UsageError` if it cannot be a key."""

    __slots__ = ("_secrets", "_value")

    def __init__(self, value: str) -> None:
        value = value.strip()
        if not value:
            raise UsageError("the API key is empty")
        if not value.isascii() or not value.isprintable() or " " in value:
            raise UsageError("the API key contains invalid characters; check for a pasted line break or quote")
        self._value = value
        self._secrets = Secrets([value] if len(value) >= SHORTEST_KEY else [])

    def header(self) -> str:
        """Return the value of the Authorization header."""
        return f"Bearer {self._value}"

    def hashed(self, salt: str) -> str:
        """Return a salted hash that identifies the key without revealing it."""
        return hashlib.scrypt(self._value.encode(), salt=salt.encode(), n=_HASH_COST, r=8, p=1, dklen=16).hex()

    def removed_from(self, data: bytes) -> bytes:
        """Return the bytes with stars in place of the key, whatever its encoding."""
        text = data.decode(errors="surrogateescape")
        masked = self._secrets.masked(text)
        return data if masked is text else masked.encode(errors="surrogateescape")

    def masked(self, text: str) -> str:
        """Return the text with stars in place of the key, whatever its encoding."""
        return self._secrets.masked(text)

    def __repr__(self) -> str:
        return "ApiKey(***)"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("an API key cannot be pickled")


_KEY = "APIMART_API_KEY"
_KEY_FILE = "APIMART_API_KEY_FILE"
_PASSWORDS = (
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "PGPASSWORD", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_TOKEN",
    "AZURE_STORAGE_CLIENT_SECRET", "AZURE_CLIENT_SECRET", "GOOGLE_SERVICE_ACCOUNT_KEY",
)  # fmt: skip
"""Variables read by the object stores and PostgreSQL."""


def known_secrets(environ: Mapping[str, str], more: Iterable[str] = ()) -> Secrets:
    """Return the secrets in the environment that this program may use, and `more` passwords."""
    keys = [environ.get(_KEY, "")]
    file = Path(environ.get(_KEY_FILE, ""))
    with suppress(OSError):
        # A pipe can be read only once, and the run has to read it.
        if file.is_file():
            with file.open("rb") as stream:
                keys.append(stream.read(LONGEST_KEY).decode(errors="replace"))
    others = [environ.get(name, "") for name in _PASSWORDS]
    for name, value in environ.items():
        if name.lower().endswith("_proxy") and "@" in value:
            others.append(_password(value))
    others += [form for text in more for form in (text, unquote(text))]
    candidates = [(text.strip(), SHORTEST_KEY) for text in keys] + [(text.strip(), SHORTEST) for text in others]
    return Secrets(text for text, shortest in candidates if len(text) >= shortest)


def _password(url: str) -> str:
    try:
        return unquote(urlsplit(url if "://" in url else f"http://{url}").password or "")
    except ValueError:
        return ""


def _base64(value: bytes) -> Iterable[str]:
    """Yield the base64 forms of a value inside other data, at each alignment."""
    for before in range(3):
        text = base64.b64encode(b"\0" * before + value).decode("ascii").rstrip("=")
        # The characters at both ends contain bits of the neighbours.
        text = text[(0, 2, 3)[before] : len(text) - bool((before + len(value)) % 3)]
        yield text
        yield text.translate({ord("+"): "-", ord("/"): "_"})


def _joined(text: str) -> str:
    text = "".join(text.split())
    return text if text.isprintable() else _UNSEEN.sub("", text)


def _decoded(match: re.Match[str]) -> str:
    if match.re is _UNSEEN:
        return ""
    for value, base in zip(match.groups(), _BASES, strict=False):
        if value is not None:
            number = int(value, base)
            return chr(number) if 0x20 < number < 0x7F else ""
    return html.unescape(f"&{match[8]}") if match[8] else ""


def _decode(layer: re.Pattern[str], text: str, chars: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Decode one layer of encodings, and keep the positions."""
    decoded: list[tuple[str, int, int]] = []
    end = 0
    for match in layer.finditer(text):
        decoded += chars[end : match.start()]
        end = match.end()
        decoded += [(char, chars[match.start()][1], chars[end - 1][2]) for char in _decoded(match)]
    return decoded + chars[end:]
