"""Check whether a stored file is still what was stored."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from seedream_batch.files.destination import Destination
from seedream_batch.files.image_inspection import BadPicture, inspect
from seedream_batch.model.task import ImageRecord

GONE = "the file was deleted or moved"
OTHER_BYTES = "the file was changed on disk"


@dataclass(frozen=True, slots=True)
class ExpectedFile:
    """The record of a stored file: its path in the destination, bytes, hash in hex, and pixels."""

    path: str
    bytes: int
    sha256: str
    width: int
    height: int

    @classmethod
    def of(cls, image: ImageRecord, path: str | None = None) -> ExpectedFile:
        """Return the manifest's record of an image; `path` compares another path than its own."""
        place = (image.path or "") if path is None else path
        return cls(place, image.bytes or 0, image.sha256 or "", image.width or 0, image.height or 0)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of a check: `there` if anything is at the path, `wrong` why it is not the recorded file."""

    there: bool
    wrong: str = ""


def check_size(folder: Destination, recorded: ExpectedFile) -> CheckResult:
    """Check what needs no reading: that the file exists, is ordinary, and has the right size. Raise `StorageError`."""
    standing = folder.look(recorded.path)
    if standing is None:
        return CheckResult(there=False, wrong=GONE)
    if not standing.ordinary:
        return CheckResult(there=True, wrong="not a regular file")
    if standing.bytes != recorded.bytes:
        # Not read: a file that somebody put there may have any size.
        return CheckResult(there=True, wrong=f"{OTHER_BYTES} ({standing.bytes:,} bytes instead of {recorded.bytes:,})")
    return CheckResult(there=True)


def identical(folder: Destination, recorded: ExpectedFile) -> CheckResult:
    """Check type, size and hash, without decoding the image.

    Blocks: call it on a thread. Raise `StorageError` if the file cannot be read.
    """
    result = check_size(folder, recorded)
    if result.wrong or folder.sha256(recorded.path) == recorded.sha256:
        return result
    return CheckResult(there=True, wrong=OTHER_BYTES)


def check(folder: Destination, recorded: ExpectedFile, *, deep: bool) -> CheckResult:
    """Check size, hash and pixels; with `deep` also decode the image.

    Blocks, and holds the file in memory: call it on a few threads. Raise `StorageError` if the file cannot be read.
    """
    result = check_size(folder, recorded)
    if result.wrong:
        return result
    data = folder.read(recorded.path, recorded.bytes + 1)
    if hashlib.sha256(data).hexdigest() != recorded.sha256:
        return CheckResult(there=True, wrong=OTHER_BYTES)
    try:
        picture = inspect(data, decode=deep)
    except BadPicture as error:
        return CheckResult(there=True, wrong=f"the image {error}")
    if (picture.width, picture.height) != (recorded.width, recorded.height):
        wrong = f"{picture.width} x {picture.height} pixels instead of {recorded.width} x {recorded.height}"
        return CheckResult(there=True, wrong=wrong)
    return CheckResult(there=True)
