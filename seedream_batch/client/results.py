"""Read the document of a task: which object it is, its progress, images and cost. Pure; never raises."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import TypeGuard
from urllib.parse import unquote, urljoin, urlsplit

from seedream_batch.client.documents import DEEPEST, Documents, inner, plain
from seedream_batch.client.error_details import fault_in, number_of, shown
from seedream_batch.model.document import Json
from seedream_batch.model.job import MICRO
from seedream_batch.model.outcome import ImageUrl

MOST_ENTRIES = 1_000
"""Entries of a list that are looked at for images; a task has at most 15."""

LONGEST_URL = 8192
_LONGEST_LIST = 16 * LONGEST_URL


class Progress(StrEnum):
    """The progress of a task, by its status word."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    UNKNOWN = "unknown"


_WORDS = {
    Progress.RUNNING: "submitted pending processing inprogress progress queued queueing running waiting wait starting"
    " started start notstart created accepted generating scheduled initializing initialized preparing working active"
    " inqueue 处理中 排队中 等待中 生成中 进行中 待处理",
    Progress.COMPLETED: "completed complete succeeded succeed success successful finished finish done ok ready ended"
    " generated partiallycompleted partialsuccess completedwitherrors 完成 已完成 成功 完了 완료",
    Progress.FAILED: "failed fail failure error errored cancelled canceled cancel rejected refused"
    " aborted terminated banned moderated moderationfailed 失败 失敗 エラー 실패 审核不通过 已取消 取消",
}
# Not "timeout" or "expired": the task may be charged for, though a relay gave up on it or its result was deleted.
_PROGRESS = {word: progress for progress, words in _WORDS.items() for word in words.split()}
_ABOUT = re.compile(r"(?i)^(?:(?:task|job|status|state|image|generation|任务|生成)[_. -]*)+|[_. -]*(?:successfully)$")
_STATUSES = ("status", "state", "task_status", "taskStatus", "job_status", "phase")


def status_of(task: Mapping[str, Json]) -> str | None:
    """Return the status word of a task; None if there is none."""
    return next((value for name in _STATUSES if isinstance(value := task.get(name), str)), None)


def names_itself(task: Mapping[str, Json]) -> bool:
    """Return whether an object has an id, its own or that of a task."""
    return any(plain(name) in {"id", "taskid"} and isinstance(value, str | int) for name, value in task.items())


def progress_of(word: str) -> Progress:
    """Return what a status word means, in any notation."""
    word = word.strip()[:100]
    for text in (word, _ABOUT.sub("", word)):
        if progress := _PROGRESS.get(plain(text)):
            return progress
    return Progress.UNKNOWN


# The object of the task

_ENVELOPES = ("data", "result", "task", "output", "response")


@dataclass(frozen=True, slots=True)
class _Node:
    value: Mapping[str, Json]
    wraps: int
    """How many objects contain it."""
    matches: bool
    tells: bool
    """Whether it has an id at all."""


def task_in(documents: Documents, task_id: str | None) -> Mapping[str, Json] | None:
    """Return the object of the task, however it is wrapped; None if there is none of this task.

    The outermost object with the task's id wins over those inside it, which may be the raw response of another service.
    Without any id, an object counts where the service wraps its tasks, or if it has images.
    """
    per_document = [list(islice(_objects(document, 0, task_id), 2000)) for document in documents.found]
    for nodes in reversed(per_document):
        # Of several documents, as in a stream of events, the last one is the newest.
        ours = [node.value for node in nodes if node.matches]
        if ours:
            return _describing(ours)
    nodes = [node for nodes in per_document for node in nodes]
    node = next((node for node in nodes if status_of(node.value) is not None), None)
    while node is not None and (deeper := _inside(node)) is not None:
        # This was the status of an envelope.
        node = deeper
    if node is None or (task_id is not None and node.tells):
        return None
    # Without a wrapper, a status may be that of anything, such as an error page.
    return node.value if task_id is None or node.wraps or images_in(node.value, []) else None


def _describing(ours: list[Mapping[str, Json]]) -> Mapping[str, Json] | None:
    """Return the one of these objects, all with the task's id, that shows its state; they come from the outside in."""
    with_status = [task for task in ours if status_of(task) is not None]
    if not with_status:
        # Its own images say more than the status of another service's response inside it.
        delivered = next((task for task in ours if images_in(task, [])), None)
        if delivered is not None:
            return delivered
        node = _inside(_Node(ours[0], 0, matches=True, tells=True), deeper=True)
        return None if node is None else node.value
    if progress_of(status_of(with_status[0]) or "") is Progress.COMPLETED:
        # "success" may only be the status of the envelope.
        unfinished = (
            task
            for task in with_status[1:]
            if progress_of(status_of(task) or "") in {Progress.RUNNING, Progress.FAILED}
        )
        return next(unfinished, with_status[0])
    return with_status[0]


def _inside(node: _Node, *, deeper: bool = False) -> _Node | None:
    """Return the object with a status inside an envelope."""
    wraps = node.wraps + 1
    members = _ENVELOPES if deeper else ("data",)
    objects = (inside for name in members for inside in _objects(node.value.get(name), wraps, None))
    return next((inside for inside in objects if status_of(inside.value) is not None), None)


def _objects(value: Json, wraps: int, task_id: str | None) -> Iterator[_Node]:
    """Yield the objects that may describe a task, from the outside in."""
    if wraps > DEEPEST:
        return
    value = inner(value)
    if isinstance(value, list):
        for entry in islice(value, 1000):
            yield from _objects(entry, wraps, task_id)
    elif isinstance(value, dict):
        ids = [held for name, held in value.items() if plain(name) in {"id", "taskid"} and isinstance(held, str | int)]
        matches = task_id is not None and any(_is_same_id(held, task_id) for held in ids)
        yield _Node(value, wraps, matches, bool(ids))
        named = {plain(name): member for name, member in value.items()}
        for name in _ENVELOPES:
            yield from _objects(named.pop(name, None), wraps + 1, task_id)
        if task_id is not None:
            keyed = value.get(task_id)
            if isinstance(keyed, dict):
                yield _Node(keyed, wraps + 1, matches=True, tells=True)
            # In an unknown wrapper, only its id or its images identify the task.
            for member in named.values():
                yield from (node for node in _objects(member, wraps + 1, task_id) if node.matches or _is_task(node))


def _is_task(node: _Node) -> bool:
    return not node.tells and status_of(node.value) is not None and bool(images_in(node.value, []))


def _is_same_id(found_id: str | int, task_id: str) -> bool:
    try:
        return str(found_id).strip() == task_id
    except ValueError:
        return False  # a number with thousands of digits


# Images

_HOLDERS = (
    "result", "results", "output", "outputs", "images", "image", "data", "imageurls", "imageurl", "urls", "url",
    "resulturls", "resulturl", "downloadurl", "imagelist", "artifacts", "files", "file", "pictures",
    "content", "response", "resultjson", "uri", "link", "href", "src", "b64json", "b64", "base64", "imagebase64",
    "imageb64",
)  # fmt: skip
"""Names of members that hold images, the likeliest first; only the first one with images counts.

The same image is often listed in several members. What was requested (`request`, `input`, references) is not among
them.
"""

_LINKS = {name for name in _HOLDERS if "url" in name or name in {"uri", "link", "href", "src"}}
_BASE64 = {"b64json", "b64", "base64", "imagebase64", "imageb64"}
_ENTRIES = {"images", "image", "imagelist", "pictures"}
_EXPIRIES = ("expiresat", "expireat", "expiredat", "expires", "expirestime", "expiretime", "expiration")
_NO_RESULT = re.compile(
    r"input|request|reference|^refs?|param|prompt|^source|^original(?:im|in|ph|pi|fi)|mask|thumb|preview|cover|poster|icon|avatar|logo|watermark"
    r"|error|model|user|imageurls"
)
"""Undocumented members that are not searched for images: what was sent, small versions, and what is about them."""
_NO_FILE = re.compile(r"task|status|poll|query|detail|page|share|web|view|callback|hook|cancel|stream|next|help|doc")
"""Undocumented members whose link leads elsewhere."""
_FILE = re.compile(r"ur[il]|link|image|img|pic|photo|src|href|file|media|asset|b64|base64")
_IMAGE_PATH = re.compile(r"(?i)\.(?:jpe?g|png|webp|avif|gif)$")
_WHOLE_LINK = re.compile(r"(?i)https?:|//|data:|https?%3A|iVBO|/9j/|UklG|R0lG")
_AVIF = re.compile(r"AAAA..Z0eXBhdml")
_ESCAPED = re.compile(r"(?i)https?%3A%2F%2F[^/?#]+$")
"""A whole link that was percent-encoded."""
_BREAKS = re.compile(r"[\t\r\n]+")
_SEVERAL = re.compile(r"[,;|\s]+(?=https?://)")
_LINK_IN_TEXT = re.compile(r"(?i)https?://[^\s<>\"'\\`)\]]+")
_DATA_URI = re.compile(r"(?i)data:(?:image/[\w.+-]+|application/octet-stream)?(?:;[\w=.+-]+)*;base64,")
_SIGNATURES = {"iVBORw0KGgo": "image/png", "/9j/": "image/jpeg", "UklGR": "image/webp", "R0lGOD": "image/gif"}


def images_in(
    task: Mapping[str, Json], notes: list[str], origin: str = "", errors: list[str] | None = None
) -> tuple[ImageUrl, ...]:
    """Return the images of a task in their order, each once.

    Adds unusable values to `notes`, and what the service says in place of an image to `errors`. Links without a host
    are relative to `origin`.
    """
    gathering = _Gathering(origin, notes, [] if errors is None else errors)
    names = {plain(name): value for name, value in reversed(list(task.items()))}
    # On the task itself, this member lists the references that were sent.
    names.pop("imageurls", None)
    gathering.object(names, None, 0)
    return tuple(gathering.found.values())


def images_elsewhere(documents: Documents, task_id: str | None, origin: str) -> tuple[ImageUrl, ...]:
    """Return the images of a completed task that has none where services list them: in any other member.

    What belongs to another task is left out, and so is what was sent: `_NO_RESULT`.
    """
    for document in reversed(documents.found):
        gathering = _Gathering(origin, [], [], anywhere=True, task_id=task_id)
        gathering.value(document)
        if gathering.found:
            return tuple(gathering.found.values())
    return ()


class _Gathering:
    def __init__(
        self, origin: str, notes: list[str], errors: list[str], *, anywhere: bool = False, task_id: str | None = None
    ) -> None:
        self._anywhere = anywhere
        self._task_id = task_id
        self._errors = errors
        self._origin = origin
        self._notes = notes
        self.found: dict[str, ImageUrl] = {}

    def object(self, names: Mapping[str, Json], expires: float | None, depth: int, *, entry: bool = False) -> None:
        """Take the images of the first member that has any; `entry` if the object should be an image."""
        if self._anywhere and self._is_of_another(names):
            return
        expiry = next((names[name] for name in _EXPIRIES if names.get(name) is not None), None)
        if expiry is not None and depth:
            expires = _unix_time(expiry, self._notes)
        tried, count, notes = False, len(self.found), len(self._notes)
        failed = depth and bool(names.get("error"))
        for name in _HOLDERS:
            if (
                name in names
                and not (failed and not names[name])
                and (depth or name not in _LINKS or _is_file(names[name]))
            ):
                tried = True
                count_before, notes_before = len(self.found), len(self._notes)
                self._take(names[name], name, expires, depth + 1)
                if len(self.found) > count_before:
                    # An empty link beside base64 data is usual, and the image is there.
                    del self._notes[notes:notes_before]
                    return
        if entry and names.get("error") and len(self.found) == count:
            fault = fault_in(names["error"])
            message = ": ".join(filter(None, (fault.code or fault.type, fault.message)))
            self._errors.append(message or "an error without a message")
        elif entry and not tried:
            self._notes.append("an invalid image URL: an object")
        if self._anywhere:
            for name in sorted(names.keys() - set(_HOLDERS), key=lambda one: (not _FILE.search(one), one)):
                self._take_undocumented(names[name], name, expires, depth + 1)
                if len(self.found) > count:
                    return

    def value(self, value: Json) -> None:
        """Take the images of a whole document."""
        self._take(value, "", None, 0)

    def _is_of_another(self, names: Mapping[str, Json]) -> bool:
        ids = [one for name in ("id", "taskid") if isinstance(one := names.get(name), str | int)]
        has_status = any(plain(name) in names for name in _STATUSES)
        return bool(ids) and has_status and not any(_is_same_id(one, self._task_id or "") for one in ids)

    def _take_undocumented(self, value: Json, name: str, expires: float | None, depth: int) -> None:
        if _NO_RESULT.search(name):
            return
        value = inner(value)
        if isinstance(value, dict | list):
            self._take(value, name, expires, depth)
        elif isinstance(value, str) and not _NO_FILE.search(name) and _WHOLE_LINK.match(value.strip()[:200]):
            link = _link(value, self._origin)
            if link is not None and (link[:5] == "data:" or _FILE.search(name) or _is_image_file(link)):
                self._take(value, name, expires, depth)

    def _take(self, value: Json, name: str, expires: float | None, depth: int) -> None:
        if depth > DEEPEST:
            return
        value = inner(value)
        if isinstance(value, dict) and value and all(map(str.isdecimal, value)):
            # A list, as some languages write it.
            value = list(value.values())
        if isinstance(value, dict):
            names = {plain(key): held for key, held in reversed(list(value.items()))}
            self.object(names, expires, depth, entry=name in _LINKS or name in _ENTRIES)
        elif isinstance(value, list):
            for entry in islice(value, MOST_ENTRIES):
                self._take(entry, name, expires, depth + 1)
        elif isinstance(value, str) and len(links := _SEVERAL.split(value[:_LONGEST_LIST].strip())) > 1:
            for link in links:
                self._take(link, name, expires, depth + 1)
        elif name in _BASE64:
            self._add(_as_data_uri(value), value, expires)
        else:
            link = _link(value, self._origin)
            if link is not None or name in _LINKS or name in _ENTRIES:
                self._add(link, value, expires)

    def _add(self, url: str | None, value: Json, expires: float | None) -> None:
        if url is None:
            self._notes.append(f"an invalid image URL: {shown(value)}")
        elif url in self.found:
            self._notes.append("the same image URL twice")
        else:
            self.found[url] = ImageUrl(url, expires)


def _is_image_file(link: str) -> bool:
    """Return whether the path of a link ends as that of an image."""
    try:
        return bool(_IMAGE_PATH.search(urlsplit(link).path))
    except ValueError:
        return False


def _is_file(value: Json) -> bool:
    """Return whether a link on a task itself may lead to its image, rather than its document or page."""
    if not isinstance(value, str):
        return isinstance(value, list)
    try:
        return "/tasks" not in urlsplit(value).path
    except ValueError:
        return False


def _link(value: Json, origin: str) -> str | None:
    """Return the link to an image in a string; None if there is none."""
    if not isinstance(value, str):
        return None
    text = value.strip().strip("<>\"'`").strip()
    if _DATA_URI.match(text[:200]):
        return "".join(text.split())
    if _ESCAPED.match(text[:LONGEST_URL]):
        text = unquote(text)
    # Escaped twice in JSON.
    text = text.replace("\\/", "/").replace("\\u0026", "&")
    if text[:2] == "//" or (text[:1] == "/" and origin):
        try:
            text = urljoin(origin or "https://", text)
        except ValueError:
            return None
    elif text[:8].lower().startswith(("http://", "https://")):
        pass
    elif text[:4] in {"iVBO", "/9j/", "UklG", "R0lG"}:
        return _as_data_uri(text)
    else:
        # Chat models return `![image](https://...)`.
        match = _LINK_IN_TEXT.search(text[:LONGEST_URL])
        text = match[0] if match else ""
    # A signature would be invalid in a URL that is escaped for HTML, or broken into lines.
    text = text if " " in text else _BREAKS.sub("", text)
    text = text.replace("&amp;", "&")
    scheme, colon, rest = text.partition(":")
    text = scheme.lower() + colon + rest
    return text if is_url(text) else None


def _as_data_uri(value: Json) -> str | None:
    """Return base64 image data, with or without the head of a data URI, as a data URI; None for anything else."""
    if not isinstance(value, str):
        return None
    if _DATA_URI.match(value.lstrip()[:200]):
        return "".join(value.split())
    text = "".join(value.split())
    kind = next((kind for start, kind in _SIGNATURES.items() if text.startswith(start)), None)
    if kind is None and _AVIF.match(text[:20]):
        kind = "image/avif"
    return None if kind is None or not text.isascii() else f"data:{kind};base64,{text}"


def is_url(value: Json) -> TypeGuard[str]:
    """Return whether a value is the URL of an image; invalid hosts are rejected later."""
    # Not printable includes lone surrogates, which neither a database nor a socket accepts.
    return (
        isinstance(value, str)
        and value.startswith(("http://", "https://"))
        and len(value) <= LONGEST_URL
        and value.isprintable()
    )


def _unix_time(value: Json, notes: list[str]) -> float | None:
    number = number_of(value)
    if number is None and isinstance(value, str):
        number = _iso_time(value)
    # Unix time between 2001 and 5138 in seconds, milli-, micro- or nanoseconds; anything else is no expiry.
    for unit in (1, 1e3, 1e6, 1e9):
        if number is not None and 1e9 < number / unit < 1e11:
            return number / unit
    notes.append(f"an invalid expires_at: {shown(value)}")
    return None


def _iso_time(text: str) -> float | None:
    try:
        date = dt.datetime.fromisoformat(text.strip()[:40])
        return (date if date.tzinfo else date.replace(tzinfo=dt.UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


# Costs and times


def cost_of(task: Mapping[str, Json], notes: list[str]) -> int | None:
    """Return the real cost in millionths of a USD: `cost` in USD, else a tenth of `credits_cost`; None if unknown."""
    for name, unit in (("cost", MICRO), ("credits_cost", MICRO // 10)):
        value = task.get(name)
        if value is None:
            continue
        number = number_of(value)
        if number is not None and 0 <= number < 1e6:
            return round(number * unit)
        notes.append(f"an invalid {name}: {shown(value)}")
    return None


def took_of(task: Mapping[str, Json]) -> float | None:
    """Return the seconds from `created` to `completed`, else `actual_time`; None for implausible values."""
    created, completed = number_of(task.get("created")), number_of(task.get("completed"))
    took = completed - created if created and completed else number_of(task.get("actual_time"))
    return took if took is not None and 0 <= took < 1e9 else None
