"""URLs of images: created for poll responses and uploads, and checked when they are requested."""

import hashlib
import re

from seedream_batch.emulator.config import Oddities
from seedream_batch.emulator.http.state import EmulatorState
from seedream_batch.emulator.world.tasks import Task

_EXTENSIONS = {"jpeg": "jpg", "png": "png"}
_OTHER_EXTENSION = {"jpg": "png", "png": "jpg"}


def result_url(state: EmulatorState, task: Task, index: int, oddities: Oddities) -> str:
    """Return the URL of an image of a task; valid until the task's links expire.

    The expiry is part of the URL, so earlier URLs expire when they were meant to, even after a restart.
    """
    extension = _EXTENSIONS[task.plan.format_of(index)]
    if oddities.url_extension == "wrong":
        extension = _OTHER_EXTENSION[extension]
    name = str(index) if oddities.url_extension == "none" else f"{index}.{extension}"
    expires = str(int(task.links_until * 1000))
    token = _token(task.plan.id, index, expires)
    return f"{_origin(state)}/results/{task.plan.id}/{name}?expires={expires}&token={token}"


def upload_url(state: EmulatorState, name: str) -> str:
    """Return the URL of an upload."""
    return f"{_origin(state)}/uploads/{name}"


def image_index(name: str) -> int | None:
    """Return the index of an image from the last part of its URL's path; None if there is none."""
    match = re.fullmatch(r"([0-9]{1,4})(\.[^.]*)?", name)
    return None if match is None else int(match[1])


def is_valid(task_id: str, index: int, expires: str, token: str, now: float) -> bool:
    """Return whether `result_url` created a URL with this expiry and token, and it hasn't expired."""
    is_time = re.fullmatch(r"[0-9]{1,20}", expires) is not None
    return is_time and token == _token(task_id, index, expires) and now * 1000 < int(expires)


def _origin(state: EmulatorState) -> str:
    return f"http://{state.config.image_host}:{state.port}"


def _token(task_id: str, index: int, expires: str) -> str:
    return hashlib.sha256(f"{task_id}/{index}/{expires}".encode()).hexdigest()[:16]
