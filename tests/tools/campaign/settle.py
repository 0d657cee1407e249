"""How a job that anything may have happened to is brought to its end, and what has to be true then.

What was paid for comes back free of charge: a task that was lost or an image that is not there must not be bought
again. Only what the service never billed is bought, and what a person authorised before.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import json
from typing import Any
from urllib.parse import urlsplit

from bench import in_state
from forge import Ended
from oracle import Manifest
from PIL import Image, ImageChops, ImageStat
from world import KEY, World, picture_names

CODES = {0, 3, 4, 5, 6, 7, 9, 75}
"""What a command may leave with, however the service behaves; 9 is for results that are not what was requested."""

_ROUNDS = 8
_ALIKE = 12.0
"""The mean difference of two pictures, in levels of 255, that coding them again can explain."""


def crashed(ended: Ended, codes: set[int] = CODES) -> list[str]:
    """A traceback, or a code that does not fit."""
    if "Traceback" in ended.err or "Traceback" in ended.out:
        return [f"a traceback, exit {ended.code}: {ended.err[-1500:]}"]
    if not ended.killed and ended.code not in codes:
        return [f"exit {ended.code}: {ended.out[-300:]} {ended.err[-700:]}"]
    return []


def settle(world: World) -> list[str]:
    """Brings the job to its end with nothing but what is free, and with persons who look up what is in doubt."""
    wrong: list[str] = []
    for _ in range(_ROUNDS):
        wrong += crashed(world.call("run", "--quiet")) + crashed(world.call("verify", "--quiet"))
        manifest = world.manifest()
        if wrong or _all_there(manifest):
            break
        wrong += _decide(world, manifest)
    manifest = world.manifest()
    if not wrong and not _all_there(manifest):
        images = [(image["state"], image["reason"]) for image in _open_images(manifest)]
        reasons = [(task["state"], task["reason"]) for task in _current(manifest) if task["state"] != "succeeded"]
        wrong.append(f"what was paid for does not come back: {reasons} {images}")
    return wrong + world.violations() + wrong_pictures(world) + _misplaced(manifest)


def _misplaced(manifest: Manifest) -> list[str]:
    """Pictures of the job that are not where it wants them."""
    wrong = []
    for task in _current(manifest):
        wanted = set(picture_names(json.loads(task["paths"]), task["images"]))
        for image in manifest.images:
            if image["task"] == task["id"] and image["state"] == "stored":
                stem = image["path"].rpartition(".")[0]
                wrong += [] if f"{stem}.jpg" in wanted else [f"I7 {image['path']} is stored, and belongs at {wanted}"]
    return wrong


def _current(manifest: Manifest) -> list[dict[str, Any]]:
    return [task for task in manifest.tasks if task["ordinal"] is not None]


def _open_images(manifest: Manifest) -> list[dict[str, Any]]:
    """Images that are not there, without those of results that are flagged for a person to decide."""
    ids = {task["id"] for task in _current(manifest) if not task.get("warning")}
    return [image for image in manifest.images if image["task"] in ids and image["state"] != "stored"]


def _all_there(manifest: Manifest) -> bool:
    return set(manifest.states()) == {"succeeded"} and not _open_images(manifest)


def _decide(world: World, manifest: Manifest) -> list[str]:
    """What a careful person does: looks up what is in doubt, asks again for what is lost, tries what failed again."""
    wrong: list[str] = []
    charges = {entry["key"]: entry["task_id"] for entry in world.service.ledger() if entry["event"] == "charge"}
    for task in _current(manifest):
        if task["state"] != "uncertain":
            continue
        key = next(a["key"] for a in manifest.attempts if (a["task"], a["number"]) == (task["id"], task["attempt"]))
        subject = json.loads(task["cell"])["subject"]
        chosen = f"subject={subject['id'] if isinstance(subject, dict) else subject}"
        what = ("--task-id", charges[key]) if key in charges else ("--forget",)
        wrong += crashed(world.call("resolve", "--select", chosen, *what))
    if in_state(manifest, "failed"):
        wrong += crashed(world.call("retry"))
    return wrong


def wrong_pictures(world: World) -> list[str]:
    """Pictures that are stored without a warning, and are not what the service made for their task."""
    manifest = world.manifest()
    wrong = []
    for task in _current(manifest):
        images = [image for image in manifest.images if image["task"] == task["id"] and image["state"] == "stored"]
        if task["state"] != "succeeded" or task.get("warning") or not images:
            continue
        if len(images) < task["images"] and not _open(manifest, task):
            wrong.append(f"{task['paths']} has {len(images)} of {task['images']} images, without a warning")
        made = [one for task_id in json.loads(task["task_ids"] or "[]") for one in _made(world, task_id)]
        for image in images:
            path = world.out / image["path"]
            if image.get("warning") or not path.is_file():
                continue
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != image["sha256"]:
                continue
            if image["index"] > len(made) or not _alike(data, made[image["index"] - 1]):
                wrong.append(f"{image['path']} is stored without a warning, and is not what was made for its task")
    return wrong


def _open(manifest: Manifest, task: dict[str, Any]) -> bool:
    """Whether images of a task are known not to be there."""
    return any(image["task"] == task["id"] and image["state"] != "stored" for image in manifest.images)


def _made(world: World, task_id: str) -> list[bytes]:
    """The pictures of a task, straight from the service."""
    document = json.loads(_get(world, f"/v1/tasks/{task_id}"))
    images = (document.get("data", {}).get("result") or {}).get("images", [])
    urls = [url for image in images for url in image["url"]]
    return [_get(world, urlsplit(url).path + "?" + urlsplit(url).query) for url in urls]


def _get(world: World, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", world.service.port, timeout=10)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {KEY}"})
        return connection.getresponse().read()
    finally:
        connection.close()


def _alike(one: bytes, other: bytes) -> bool:
    if one == other:
        return True
    try:
        with Image.open(io.BytesIO(one)) as first, Image.open(io.BytesIO(other)) as second:
            if first.size != second.size:
                return False
            difference = ImageChops.difference(first.convert("RGB"), second.convert("RGB"))
            return max(ImageStat.Stat(difference).mean) < _ALIKE
    except (OSError, ValueError):
        return False
