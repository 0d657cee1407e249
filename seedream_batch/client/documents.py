"""Parse JSON documents, and the task ids in them, from the bytes of a response. Pure; any bytes, never raises.

A response to a submission may hold a task id that was paid for, so everything readable is read: other encodings, text
around the JSON, several documents in one body, a body that was cut off, undocumented wrappers.
"""

from __future__ import annotations

import base64
import codecs
import html
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from urllib.parse import unquote, urlsplit

from seedream_batch.model.document import Json

LARGEST = 64 * 1024 * 1024
"""Bytes to which a compressed body may unpack."""

SCANNED = 256 * 1024
"""Characters in which JSON is searched for, in a text that is not JSON as a whole."""

DEEPEST = 12
"""Levels of nesting that are searched."""

_TRIES = 64
"""Positions in a text, and ends of a truncated one, that are tried."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP response, read to its end or to the limit; `whole` is false if it was cut off or too long.

    The status is 0 if the bytes are not HTTP.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool = True

    @property
    def succeeded(self) -> bool:
        """Whether the request was successful, as far as the status says."""
        return not self.status or 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Documents:
    """The JSON documents of a body, in order; `clean` if it was one document and nothing else.

    With `repaired`, the only document was cut off, and holds just the values received in full. `text` is the body,
    except that of a web page.
    """

    found: tuple[Json, ...] = ()
    clean: bool = False
    repaired: bool = False
    text: str = field(default="", repr=False)

    @property
    def first(self) -> Json:
        """The first object, else the first document; None if there is none."""
        return next(
            (document for document in self.found if isinstance(document, dict)), self.found[0] if self.found else None
        )


def unpacked(body: bytes, encoding: str) -> bytes:
    """Return the body decompressed, also several times; what cannot be decompressed stays as it is.

    The first bytes decide before the header, since headers are sometimes wrong.
    """
    for _ in range(_LAYERS):
        if body[:2] == b"\x1f\x8b":
            plain = _inflated(body, 16 + zlib.MAX_WBITS)
        elif body[:1] == b"\x78" and int.from_bytes(body[:2], "big") % 31 == 0:
            plain = _inflated(body, zlib.MAX_WBITS)
        elif encoding and body.lstrip()[:1] not in _TEXT_STARTS:
            # Deflate without its header has no signature.
            plain = _inflated(body, -zlib.MAX_WBITS)
            plain = plain if plain.lstrip()[:1] in _TEXT_STARTS else b""
        else:
            break
        body, encoding = plain or body, ""
    return body


_LAYERS = 3
"""Most times that a body may have been compressed."""

_TEXT_STARTS = {bytes([start]) for start in b'{[<"\xef'}
"""First bytes of a response that is not compressed."""


def _inflated(body: bytes, kind: int) -> bytes:
    """Return compressed data as far as it can be decompressed: what precedes a bad part may be all that matters."""
    unpacker = zlib.decompressobj(kind)
    plain = bytearray()
    try:
        for start in range(0, len(body), 4096):
            piece = body[start : start + 4096]
            while piece and len(plain) < LARGEST:
                plain += unpacker.decompress(piece, LARGEST - len(plain))
                # Compressed data may consist of several parts.
                piece = unpacker.unused_data
                if unpacker.eof:
                    unpacker = zlib.decompressobj(kind)
    except zlib.error:
        pass
    return bytes(plain)


def documents(answer: Answer) -> Documents:
    """Return the JSON documents of a response, whatever surrounds them.

    A web page has none, unless JSON is all that it shows: the objects in its scripts are not the service's. A text may
    contain some. In a response that was cut off, a number or word might continue after the cut, so only objects
    and lists count, with the values that were received in full.
    """
    text = _text(answer)
    stripped = text.strip()
    if stripped.startswith("<") and not stripped.endswith(("}", "]")):
        shown = inner(html.unescape(_TAGS.sub("", stripped[:SCANNED])))
        if isinstance(shown, dict | list):
            return Documents((shown,))
        return Documents(text="" if _HTML.search(stripped[:2000]) else text)
    try:
        whole: Json = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        almost = _almost_json(stripped[:SCANNED])
        if almost is not None:
            return Documents((almost,), text=text)
    else:
        if answer.whole or isinstance(whole, dict | list):
            return Documents((inner(whole),), clean=answer.whole, text=text)
        return Documents()
    if answer.whole and _LOOKS_LIKE_ID.fullmatch(stripped):
        return Documents((stripped,))
    found = tuple(_embedded(text[:SCANNED])) or _from_base64(stripped)
    if not found and "{" in text:
        repaired = _repaired(text[text.index("{") : SCANNED])
        if repaired is not None:
            return Documents((repaired,), repaired=True, text=text)
    return Documents(found, text=text)


def _almost_json(text: str) -> dict[str, Json] | list[Json] | None:
    """Return the document in JSON with comments or commas at the end, or in the notation of Python; None for others."""
    if text[:1] not in {"{", "["}:
        return None
    try:
        # Twice, since a comment may follow a comma.
        value = json.loads(_NOT_JSON.sub(_to_json, _NOT_JSON.sub(_to_json, text)), strict=False)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


# Bounded repetitions: what is never closed would be searched from each of its beginnings to the end of the text.
_NOT_JSON = re.compile(
    r"""("(?:[^"\\]|\\.)*") | '((?:[^'\\]|\\.)*)' | \b(True|False|None)\b
    | ,(?=\s{0,200}[}\]]) | /\*.{0,200}?\*/ | //[^\n]{0,1000}""",
    re.DOTALL | re.VERBOSE,
)
_OF_PYTHON = {"True": "true", "False": "false", "None": "null"}


def _to_json(match: re.Match[str]) -> str:
    """Return JSON for a token that is not, and nothing for a comment or a comma at the end."""
    if match[1] is not None:
        return match[1]
    if match[2] is not None:
        # The escapes of Python that JSON does not have are those of the quote, and of bytes.
        return f'"{_ESCAPES.sub(_escape_for_json, match[2])}"'
    return _OF_PYTHON.get(match[3], "")


_ESCAPES = re.compile(r"""\\x([0-9a-fA-F]{2})|\\'|"|\\.""")


def _escape_for_json(match: re.Match[str]) -> str:
    if match[1] is not None:
        return f"\\u00{match[1]}"
    return {"\\'": "'", '"': '\\"'}.get(match[0], match[0])


_HTML = re.compile(r"(?i)<(?:!doctype|html|head|body|script|title|div|h1|p)\b")
_TAGS = re.compile(r"(?is)<(script|style|title)\b.*?(?:</\1\s*>|\Z)|<[^<>]*>")


def _from_base64(text: str) -> tuple[Json, ...]:
    """Return the document that some gateways encode as if it were a file."""
    try:
        decoded = inner(base64.b64decode(text, validate=True).decode())
    except ValueError:
        return ()
    return () if isinstance(decoded, str) else (decoded,)


def _text(answer: Answer) -> str:
    body = answer.body
    charset = re.search(r"charset=\"?([\w.:-]{1,40})", str(answer.headers.get("content-type", "")))
    try:
        guess = json.detect_encoding(body)
        named = codecs.lookup(charset[1]).name if charset else guess
    except LookupError:
        named = guess
    # gb18030: what Chinese systems use besides UTF-8; any other encoding only garbles single characters.
    for encoding in dict.fromkeys((guess, named, "gb18030")):
        try:
            text = body.decode(encoding)
        except (ValueError, LookupError):
            continue
        return text.lstrip("\ufeff")
    return body.decode("utf-8", "replace").lstrip("\ufeff")


def inner(value: Json) -> Json:
    """Return the document that a JSON string contains; any other value as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in {"{", "["}:
        try:
            document: Json = json.loads(value, strict=False)
        except (ValueError, RecursionError):
            return value
        return document
    return value


def _embedded(text: str) -> Iterator[Json]:
    """Yield the objects and lists in a text: JSON lines, stream events, log lines, JSON after a prefix."""
    decoder = json.JSONDecoder(strict=False)
    at = 0
    for _ in range(_TRIES):
        match = _OPENS.search(text, at)
        if match is None:
            return
        try:
            value, at = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            at = match.start() + 1
            if at == 1:
                # A truncated object contains complete ones, which are not the response itself.
                return
        else:
            yield value


_OPENS = re.compile(r"[{\[]")


def _repaired(text: str) -> Json:
    """Return the object or list at the start of a truncated text, with all complete values; None if there is none."""
    closers: list[str] = []
    ends: list[tuple[int, str]] = []
    for match in _TOKENS.finditer(text):
        piece = match[0]
        if piece in "{[":
            closers.append("}" if piece == "{" else "]")
        elif piece in "}]":
            if not closers or closers.pop() != piece:
                break
            ends.append((match.end(), "".join(reversed(closers))))
        else:
            # After a complete string, or before a comma, a value has ended.
            ends.append((match.start() if piece == "," else match.end(), "".join(reversed(closers))))
        if len(closers) > DEEPEST:
            break
    for end, closing in islice(reversed(ends), _TRIES):
        try:
            value: Json = json.loads(text[:end] + closing, strict=False)
        except (ValueError, RecursionError):
            continue
        return value
    return None


_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],]', re.DOTALL)


# Task ids


@dataclass(frozen=True, slots=True)
class Ids:
    """Task ids and how certain they are: 0 none, 1 any id, 2 the id of a task, 3 named as a task id."""

    rank: int = 0
    ids: tuple[str, ...] = ()


_NAMES_OF_ID = {"taskid", "taskids", "taskuuid"}
_MAYBE_ID = ("jobid", "generationid", "predictionid", "operationid", "jobids", "id", "ids", "uuid", "task", "tasks")
_MAYBE_WORDS = ("task", "tasks")
"""Members that may also hold a kind of task, or a number of tasks."""
_WRAPPERS = ("data", "result", "task", "output", "response")
_NOT_TASKS = {
    "account", "app", "channel", "choices", "error", "errors", "images", "input", "key", "meta", "metadata", "model",
    "organization", "owner", "parameters", "project", "request", "token", "trace", "usage", "user",
}  # fmt: skip
"""Objects whose `id` is not that of a task."""

_BEGUN = {"submitted", "pending", "processing", "inprogress", "queued", "running", "created", "accepted"}
_LOOKS_LIKE_ID = re.compile(r"(?i)task[_-](?=[\w-]{0,250}[0-9])[\w-]{1,250}")


_BARE_ID = re.compile(r"(?i)[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{24,64}|[0-9]{15,25}")
"""What can only be an id: a UUID, a hash, a number longer than a time in milliseconds."""
_NAMED = re.compile(
    r"(?i)(?<![a-z])task[ _-]?(?:uu)?id\W{1,12}(?=[\w.:-]{0,250}\d)([\w.:-]{6,250})(?=[^\w.:-])", re.ASCII
)
"""An id with its name. Something has to follow it, or it may have been cut off."""
_LONG = re.compile(r"\b(?=[\w-]{0,250}[0-9])[\w-]{12,250}\b", re.ASCII)
"""Anything too long for a word that contains digits."""


def plain(name: str) -> str:
    """Return a member's name without its notation: `taskId`, `task_id` and `Task-ID` become the same."""
    return "".join(filter(str.isalnum, name[:100])).lower()


def task_ids(documents: Documents, headers: Mapping[str, str]) -> Ids:
    """Return the task ids of a response: those named so, else ids of what looks like a task, else any id.

    The documented response has one in `data`; ids anywhere else, in lists and in headers count as well. The id of a
    request is never used.
    """
    best = max((_ids_in(document, 0) for document in documents.found), key=lambda ids: ids.rank, default=Ids())
    if best.rank < 2:
        for name, value in headers.items():
            header_id = _in_header(plain(name), str(value))
            if header_id:
                return Ids(3, (header_id,))
    return best if best.rank else _in_text(documents.text)


def _in_text(text: str) -> Ids:
    """Return the ids that a text names as those of tasks: XML, YAML, forms, JSON with mistakes or nested too deeply."""
    found = [match[1].rstrip(".:") for match in islice(_NAMED.finditer(text[: 4 * SCANNED]), 20)]
    return Ids(1, tuple(dict.fromkeys(found))) if found else Ids()


def candidates(text: str, headers: Mapping[str, str]) -> tuple[str, ...]:
    """Return what may be task ids in a response, the likeliest first, for the user to choose from."""
    body = documents(Answer(200, {}, text.encode("utf-8", "replace")))
    ids = list(task_ids(body, headers).ids)
    for pattern in (_LOOKS_LIKE_ID, _LONG):
        ids += [match[0] for match in islice(pattern.finditer(text), 20)]
    return tuple(dict.fromkeys(ids))[:20]


def _in_header(name: str, value: str) -> str:
    if name.endswith("taskid"):
        return usable_id(value)
    if name in {"location", "contentlocation", "operationlocation"}:
        try:
            match = re.search(r"/tasks?/([^/]+)/?$", urlsplit(value).path)
        except ValueError:
            return ""
        return usable_id(unquote(match[1])) if match else ""
    return ""


def usable_id(value: Json) -> str:
    """Return the value as a task id; empty if it cannot be one."""
    usable = isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))
    # An id becomes part of a URL and of a log line; no real one is longer.
    if not usable or (isinstance(value, int) and abs(value) >= 10**256):
        return ""
    text = str(value).strip()
    return text if 0 < len(text) <= 256 and text.isprintable() and "\ufffd" not in text else ""


def _ids_in(node: Json, depth: int, *, weak: bool = True) -> Ids:
    """Return the best ids in a value; with `weak`, an id that nothing marks as a task's counts too."""
    if depth > DEEPEST:
        return Ids()
    if isinstance(node, str):
        # A string may itself be a JSON document.
        document = inner(node)
        if document is not node:
            return _ids_in(document, depth + 1, weak=weak)
        return Ids(1, (node.strip(),)) if weak and _LOOKS_LIKE_ID.fullmatch(node.strip()) else Ids()
    if isinstance(node, list):
        return _in_list(node, depth, weak=weak)
    return _in_object(node, depth, weak=weak) if isinstance(node, dict) else Ids()


def _in_list(entries: list[Json], depth: int, *, weak: bool) -> Ids:
    per_entry = [_ids_in(entry, depth + 1, weak=weak) for entry in entries]
    best = max((ids.rank for ids in per_entry), default=0)
    # Entries that use another name for it are parts of the same submission.
    least = min(best, 2)
    return Ids(best, tuple(dict.fromkeys(task_id for ids in per_entry if ids.rank >= least for task_id in ids.ids)))


def _in_object(node: Mapping[str, Json], depth: int, *, weak: bool) -> Ids:
    names = {plain(name): value for name, value in reversed(list(node.items()))}
    for name in _NAMES_OF_ID & names.keys():
        value = names[name]
        ids = tuple(filter(None, map(usable_id, value if isinstance(value, list) else [value])))
        if ids:
            return Ids(3, tuple(dict.fromkeys(ids)))
    own = _own_id(names) if weak else Ids()
    best, best_name = Ids(), ""
    for name in sorted(names, key=lambda name: name not in _WRAPPERS):
        if name in {"id", "ids"}:
            continue
        inside = weak and name not in _NOT_TASKS and not (name not in _WRAPPERS and isinstance(names[name], str))
        ids_inside = _ids_in(names[name], depth + 1, weak=inside)
        if not ids_inside.rank and weak and name in _WRAPPERS:
            ids_inside = _bare_ids(names[name])
        if ids_inside.rank > best.rank:
            best, best_name = ids_inside, name
    if own.rank > best.rank or (own.rank == best.rank and (own.rank == 2 or best_name not in _WRAPPERS)):
        return own
    return best


def _bare_ids(value: Json) -> Ids:
    """Return the ids that an envelope holds in place of an object."""
    ids = [usable_id(one) for one in (value if isinstance(value, list) else [value])]
    return Ids(1, tuple(dict.fromkeys(ids))) if ids and all(map(_BARE_ID.fullmatch, ids)) else Ids()


def _own_id(names: Mapping[str, Json]) -> Ids:
    for name in _MAYBE_ID:
        value = names.get(name)
        if value is None:
            continue
        ids = list(filter(None, map(usable_id, value if isinstance(value, list) else [value])))
        if name in _MAYBE_WORDS:
            ids = [text for text in ids if _LOOKS_LIKE_ID.fullmatch(text)]
        if not ids:
            continue
        kind, status = names.get("object"), names.get("status", names.get("state"))
        begun = isinstance(status, str) and plain(status) in _BEGUN
        task = (isinstance(kind, str) and "task" in kind) or begun or bool(_LOOKS_LIKE_ID.fullmatch(ids[0]))
        return Ids(2 if task else 1, tuple(dict.fromkeys(ids)))
    return Ids()
