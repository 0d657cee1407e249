"""Tasks: what is fixed about one, its state at a moment, and the document that a poll returns."""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from seedream_batch.emulator.config import Oddities

WAITING_SHARE = 0.1
"""The share of a task's duration before it starts processing."""

_FAILURES = {
    "en": "image generation failed",
    "zh": "图像生成失败",
    "ja": "画像の生成に失敗しました",
    "ko": "이미지 생성에 실패했습니다",
}
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class Clock:
    """Seconds since the epoch that never jump: the system's time at the start, continued by the monotonic clock."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        return self._offset + time.monotonic()


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """What is fixed about a task at submission and written to the ledger."""

    id: str
    number: int
    """The number of the task, from 1."""
    created: float
    """Seconds since the epoch."""
    seconds: float
    """Duration of the task."""
    images: int
    """Images charged in advance."""
    delivered: int
    price: float
    """USD for an image."""
    prompt: str
    ratio: str
    resolution: str
    width: int
    height: int
    image_format: str
    """`jpeg`, `png` or `mixed`."""
    quality: int
    """JPEG quality."""
    pad: int | None
    """Bytes to pad images to."""
    estimate: int
    """The `estimated_time` in seconds."""
    outcome: Mapping[str, Any] | None = None
    """The action and parameters of a fault that decides how the task ends."""
    oddities: Mapping[str, Any] | None = None
    """The settings of a fault, for every response about the task."""
    blank: bool = False
    """Whether its images have one colour and no text: small files that are fast to create and decode."""

    @property
    def ends(self) -> float:
        """When the task ends, in seconds since the epoch."""
        return self.created + self.seconds

    @property
    def never_ends(self) -> bool:
        return self.outcome is not None and self.outcome["action"] == "never_end"

    @property
    def fails(self) -> bool:
        return self.outcome is not None and self.outcome["action"] == "fail"

    def format_of(self, index: int) -> str:
        """Return `jpeg` or `png`: the format of the image with this index, from 0."""
        if self.image_format == "mixed":
            return ("jpeg", "png")[(self.number + index) % 2]
        return self.image_format

    def as_json(self) -> dict[str, Any]:
        # `asdict` would copy the nested values.
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "TaskPlan":
        """Return the plan in a ledger entry, which an earlier or later version may have written."""
        return cls(**{each.name: document[each.name] for each in fields(cls) if each.name in document})


@dataclass(slots=True)
class Task:
    """A task, and what has happened to it since its submission."""

    plan: TaskPlan
    polls: int = 0
    completed_polls: int = 0
    closed: bool = False
    """Whether its refund or settlement is in the ledger."""
    failed_late: bool = False
    links_until: float = 0.0
    """When the latest result URLs expire, in seconds since the epoch; 0 before there are any."""

    def state(self, now: float) -> str:
        """Return `submitted`, `processing`, `completed`, `failed` or `cancelled`."""
        plan = self.plan
        if self.failed_late:
            return "failed"
        if now < plan.created + WAITING_SHARE * plan.seconds:
            return "submitted"
        if now < plan.ends or plan.never_ends:
            return "processing"
        if plan.fails and plan.outcome is not None:
            return str(plan.outcome.get("status", "failed"))
        return "completed"


def task_id(seed: int, number: int, created: float) -> str:
    """Return an id like those of the service: `task_` and 26 characters that start with the time (a ULID)."""
    digest = hashlib.sha256(f"{seed}/{number}/{created}".encode()).digest()
    value = (int(created * 1000) << 80) | int.from_bytes(digest[:10])
    return "task_" + "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5))


def task_document(
    task: Task,
    now: float,
    *,
    state: str,
    oddities: Oddities,
    error: Mapping[str, Any],
    result_url: Callable[[int], str],
    language: str,
) -> dict[str, Any]:
    """Return the document of a task for a poll, with its `state` as `Task.state` returns it.

    `error` has `code` and `message` of a failed task, if they are known, in a `language` of en, zh, ja or ko;
    `result_url` returns the URL of the image with an index, from 0.
    """
    plan = task.plan
    ended = state in {"completed", "failed", "cancelled"}
    words = {"submitted": oddities.submitted_word, "processing": oddities.processing_word}
    data: dict[str, Any] = {"id": plan.id, "status": words.get(state, state), "progress": _progress(task, now, state)}
    if ended:
        cost = plan.price * min(plan.delivered, plan.images) if state == "completed" else 0.0
        data |= {"cost": round(cost, 6), "credits_cost": round(cost * 10, 6)}
    data |= {"created": int(plan.created), "estimated_time": plan.estimate}
    if ended:
        data |= {"completed": int(plan.ends), "actual_time": round(plan.seconds)}
    for name in oddities.omit:
        data.pop(name, None)
    if state == "completed":
        data["result"] = {"images": _images(task, oddities, result_url)}
    document = with_number_form({"code": 200, "data": data}, oddities)
    if state in {"failed", "cancelled"} and oddities.error_form != "absent":
        document["data"]["error"] = _error(error, oddities, language)
    return document


def with_number_form(document: dict[str, Any], oddities: Oddities) -> dict[str, Any]:
    """Return a document with every number in it as a string, if the oddities say so."""
    return _stringify_numbers(document) if oddities.numbers_as_strings else document


def _stringify_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _stringify_numbers(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_stringify_numbers(each) for each in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value


def _progress(task: Task, now: float, state: str) -> int:
    """Return the percentage of the duration that has passed; 100 only for a completed task."""
    if state == "completed":
        return 100
    if state == "submitted":
        return 0
    return max(1, min(99, int(100 * (now - task.plan.created) / max(task.plan.seconds, 0.001))))


def _images(task: Task, oddities: Oddities, result_url: Callable[[int], str]) -> list[dict[str, Any]]:
    urls = [result_url(index) for index in range(task.plan.delivered)]
    if oddities.duplicate_urls:
        urls = [url for url in urls for _ in range(2)]
    groups = [urls] if oddities.image_grouping == "one_entry" and urls else [[url] for url in urls]
    images = []
    for group in groups:
        entry: dict[str, Any] = {"url": group if oddities.url_form == "list" else group[0]}
        if "expires_at" not in oddities.omit:
            entry["expires_at"] = int(task.links_until)
        images.append(entry)
    return images


def _error(error: Mapping[str, Any], oddities: Oddities, language: str) -> Any:
    code = error.get("code", "task_failed")
    # English for unknown languages.
    default = _FAILURES.get(language.split("-", maxsplit=1)[0].lower(), _FAILURES["en"])
    message = error.get("message") or default
    if oddities.error_form == "string":
        return f"{code}: {message}"
    return {"code": code, "message": message, "type": "task_error"}
