"""Uploaded reference images, named by the hash of their bytes, in files or in memory."""

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from seedream_batch.emulator.world.request_rules import inspect_image

MAX_UPLOAD_BYTES = 20 * 1024 * 1024
_KINDS = {
    "JPEG": ("jpg", "image/jpeg"),
    "PNG": ("png", "image/png"),
    "WEBP": ("webp", "image/webp"),
    "GIF": ("gif", "image/gif"),
}
_TYPES = dict(_KINDS.values())


@dataclass(frozen=True)
class Upload:
    """What is known about an uploaded image."""

    name: str
    content_type: str
    size: int
    """Bytes."""
    created: float
    """Seconds since the epoch."""


class Uploads:
    """The uploads of a state folder, under `uploads/`. The modification time of a file is the time of its upload."""

    def __init__(self, state_dir: Path | None) -> None:
        self._folder = None if state_dir is None else state_dir / "uploads"
        self._memory: dict[str, tuple[Upload, bytes]] = {}
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)

    def put(self, data: bytes) -> Upload | None:
        """Keep an image; return None if the bytes are not a jpeg, png, webp or gif."""
        inspected = inspect_image(data)
        if inspected is None or inspected[0] not in _KINDS:
            return None
        extension, content_type = _KINDS[inspected[0]]
        name = f"{hashlib.sha256(data).hexdigest()[:40]}.{extension}"
        upload = Upload(name, content_type, len(data), time.time())
        if self._folder is None:
            self._memory[name] = (upload, data)
        else:
            part = self._folder / f"{name}.part"
            part.write_bytes(data)
            os.utime(part, (upload.created, upload.created))
            part.replace(self._folder / name)
        return upload

    def get(self, name: str) -> tuple[Upload, bytes] | None:
        """Return an upload and its bytes; None for an unknown name."""
        if self._folder is None:
            return self._memory.get(name)
        # The name comes from a URL: only names that `put` could have given are looked up.
        stem, _, extension = name.partition(".")
        path = self._folder / name
        if extension not in _TYPES or not stem.isalnum() or not path.is_file():
            return None
        data = path.read_bytes()
        return Upload(name, _TYPES[extension], len(data), path.stat().st_mtime), data

    def clear(self) -> None:
        self._memory.clear()
        if self._folder is not None:
            for path in self._folder.iterdir():
                path.unlink()
