"""Tasks: what is known of one, how it stands at a moment, and the document that a poll gets."""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from seedream_batch.emulator.config import Oddities

# A tenth of a task's time goes by before it is at work.
WAITING_SHARE = 0.1

_FAILURES = {
    "en": "image generation failed",
    "zh": "图像生成失败",
    "ja": "画像の生成に失敗しました",
    "ko": "이미지 생성에 실패했습니다",
}
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class Clock:
    """Seconds since the epoch that never jump: set by the system's clock once, then carried on by the monotonic."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        """The time."""
        return self._offset + time.monotonic()


@dataclass(frozen=True, slots=True)
class Plan:
    """What is settled about a task when it is taken, and written to the ledger: it never changes."""

    id: str
    number: int
    created: float
    seconds: float
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
    quality: int
    pad: int | None
    estimate: int
    outcome: Mapping[str, Any] | None = None
    """The action and parameters of a fault that decides how the task ends."""
    oddities: Mapping[str, Any] | None = None
    blank: bool = False
    """Whether its images have one shade and no letters: small files that are made and decoded quickly."""

    @property
    def ends(self) -> float:
        """When the task ends."""
        return self.created + self.seconds

    @property
    def never_ends(self) -> bool:
        """Whether it stays at work for ever."""
        return self.outcome is not None and self.outcome["action"] == "never_end"

    @property
    def fails(self) -> bool:
        """Whether it fails when it ends."""
        return self.outcome is not None and self.outcome["action"] == "fail"

    def format_of(self, index: int) -> str:
        """`jpeg` or `png`: the format of the image with this index, from 0."""
        if self.image_format == "mixed":
            return ("jpeg", "png")[(self.number + index) % 2]
        return self.image_format

    def as_json(self) -> dict[str, Any]:
        """All fields, for the ledger."""
        # Not `asdict`, which copies everything that is inside.
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Plan":
        """The plan that a ledger entry holds."""
        return cls(**{each.name: document[each.name] for each in fields(cls) if each.name in document})


@dataclass(slots=True)
class Task:
    """A task and what has happened to it since it was taken."""

    plan: Plan
    polls: int = 0
    completed_polls: int = 0
    closed: bool = False
    """Whether its refund or settlement, if it needs one, is in the ledger."""
    failed_late: bool = False
    links_until: float = 0.0
    """When the URLs that were given out last expire."""

    def state(self, now: float) -> str:
        """`submitted`, `processing`, `completed`, `failed` or `cancelled`."""
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
    """An id like those of the service: `task_` and 26 characters that begin with the time."""
    digest = hashlib.sha256(f"{seed}/{number}/{created}".encode()).digest()
    value = (int(created * 1000) << 80) | int.from_bytes(digest[:10])
    return "task_" + "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5))


def task_document(
    task: Task,
    now: float,
    *,
    odd: Oddities,
    state: str,
    error: Mapping[str, Any] | None,
    links: Callable[[int], str],
    language: str,
) -> dict[str, Any]:
    """The document of a task as a poll gets it.

    Args:
        task: The task.
        now: The time.
        odd: The oddities to play.
        state: How it stands, as one of the words of `Task.state`.
        error: `code` and `message` where it failed.
        links: Gives the URL of the image with an index.
        language: Of messages: en, zh, ja or ko.
    """
    plan = task.plan
    ended = state in {"completed", "failed", "cancelled"}
    data: dict[str, Any] = {"id": plan.id, "status": _word(state, odd), "progress": _progress(task, now, state)}
    if ended:
        cost = plan.price * min(plan.delivered, plan.images) if state == "completed" else 0.0
        data |= {"cost": round(cost, 6), "credits_cost": round(cost * 10, 6)}
    data |= {"created": int(plan.created), "estimated_time": plan.estimate}
    if ended:
        data |= {"completed": int(plan.ends), "actual_time": round(plan.seconds)}
    for name in odd.omit:
        data.pop(name, None)
    if state == "completed":
        data["result"] = {"images": _images(task, odd, links)}
    if odd.numbers_as_strings:
        data = stringify_numbers(data)
    if state in {"failed", "cancelled"} and odd.error_form != "absent":
        data["error"] = _error(error or {}, odd, language)
    return {"code": "200" if odd.numbers_as_strings else 200, "data": data}


def stringify_numbers(value: Any) -> Any:
    """A document with every number in it as a string."""
    if isinstance(value, dict):
        return {name: stringify_numbers(each) for name, each in value.items()}
    if isinstance(value, list):
        return [stringify_numbers(each) for each in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value


def failure_message(language: str) -> str:
    """The message of a failed task; English for languages that aren't known."""
    return _FAILURES.get(language.split("-", maxsplit=1)[0].lower(), _FAILURES["en"])


def _word(state: str, odd: Oddities) -> str:
    return {"submitted": odd.submitted_word, "processing": odd.processing_word}.get(state, state)


def _progress(task: Task, now: float, state: str) -> int:
    if state == "completed":
        return 100
    if state == "submitted":
        return 0
    return max(1, min(99, int(100 * (now - task.plan.created) / max(task.plan.seconds, 0.001))))


def _images(task: Task, odd: Oddities, links: Callable[[int], str]) -> list[dict[str, Any]]:
    urls = [links(index) for index in range(task.plan.delivered)]
    if odd.duplicate_urls:
        urls = [url for url in urls for _ in range(2)]
    groups = [urls] if odd.image_grouping == "one_entry" and urls else [[url] for url in urls]
    images = []
    for group in groups:
        entry: dict[str, Any] = {"url": group if odd.url_form == "list" else group[0]}
        if "expires_at" not in odd.omit:
            entry["expires_at"] = int(task.links_until)
        images.append(entry)
    return images


def _error(error: Mapping[str, Any], odd: Oddities, language: str) -> Any:
    code = error.get("code", "task_failed")
    message = error.get("message") or failure_message(language)
    if odd.error_form == "string":
        return f"{code}: {message}"
    return {"code": code, "message": message, "type": "task_error"}
