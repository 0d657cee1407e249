"""URLs of images: made for poll answers and uploads, and checked when they come back."""

import hashlib
from pathlib import PurePosixPath

from seedream_batch.emulator.config import Oddities
from seedream_batch.emulator.http.state import EmulatorState
from seedream_batch.emulator.world.tasks import Task

_EXTENSIONS = {"jpeg": "jpg", "png": "png"}
_SWAPPED = {"jpg": "png", "png": "jpg"}


def result_url(state: EmulatorState, task: Task, index: int, odd: Oddities) -> str:
    """The URL of an image of a task; good until the task's links expire.

    The expiry is part of the URL, so links that were given out earlier end when they were said to, also after the
    emulator was started again.
    """
    extension = _EXTENSIONS[task.plan.format_of(index)]
    name = f"{index}.{_SWAPPED[extension] if odd.url_extension == 'wrong' else extension}"
    if odd.url_extension == "none":
        name = str(index)
    expires = int(task.links_until * 1000)
    token = _token(task.plan.id, index, expires)
    return f"{_origin(state)}/results/{task.plan.id}/{name}?expires={expires}&token={token}"


def upload_url(state: EmulatorState, name: str) -> str:
    """The URL of an upload."""
    return f"{_origin(state)}/uploads/{name}"


def image_index(name: str) -> int | None:
    """The index of an image from the last part of its URL's path."""
    stem = PurePosixPath(name).stem
    return int(stem) if stem.isascii() and stem.isdigit() else None


def is_good(task_id: str, index: int, expires: str, token: str, now: float) -> bool:
    """Whether a result URL is one that was given out and hasn't expired."""
    if not (expires.isascii() and expires.isdigit()) or token != _token(task_id, index, int(expires)):
        return False
    return now * 1000 < int(expires)


def _origin(state: EmulatorState) -> str:
    return f"http://{state.config.image_host}:{state.port}"


def _token(task_id: str, index: int, expires: int) -> str:
    return hashlib.sha256(f"{task_id}/{index}/{expires}".encode()).hexdigest()[:16]
