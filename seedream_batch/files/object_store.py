"""Pictures on an object store: one conditional upload each, looked at again before it counts."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    UnauthenticatedError,
)

from seedream_batch.errors import StorageError, UsageError, translate_os_errors
from seedream_batch.files.destination import Destination, FileStat
from seedream_batch.files.image_inspection import FORMATS
from seedream_batch.files.local_folder import PART, Changed, Occupied, OutputFolder
from seedream_batch.files.object_store_config import bucket, link_of
from seedream_batch.model.locations import Store

TRIES = 5
"""Uploads of one picture before a run gives up. The library repeats none whose answer did not come."""

PAUSE = 0.5
"""Seconds before the second upload, and twice that before each further one."""

AT_ONCE = 8
"""Uploads, or looks, at the same time."""

HASH = "sha256"
"""The metadata of an object that has the hash of the picture, for people and other programs."""

MARK = "seedreammark"
"""The metadata that tells whose upload an object is. Azure takes letters and digits alone for a name."""

_MEDIA_TYPES = {f".{extension}": media_type for extension, media_type in FORMATS.values()}


class ObjectStore(Destination):
    """Keeps pictures as objects below a prefix; parts, and the rest of a job's state, are in a folder of this machine.

    An object is there whole or not at all, and it is durable once the store has said so: what has to be synced, or
    tidied up, in a folder is nothing here. Nothing is ever overwritten: every upload is made on the condition that the
    key is free, and a store that does not know such conditions is refused.
    """

    def __init__(self, store: Store, spool: Path, environ: Mapping[str, str]) -> None:
        """Raises `UsageError` where the settings of the environment make no sense."""
        self.store = store
        self.spool = spool
        self.near = False
        self.parallel = 2 * AT_ONCE
        self._files = OutputFolder(spool)
        self._bucket = bucket(store, environ)
        self._link = link_of(store, environ)

    def file(self, path: str) -> None:
        """None: no picture is a file of this machine."""

    @property
    def link(self) -> str:
        """The URL of the store's own for what is below the prefix; unsigned, so it works where reading is open."""
        return self._link

    def named(self, path: str) -> str:
        """The URL of a picture as the job has it."""
        return f"{self.store.url}/{path}"

    def prepare(self) -> None:
        """Uploads an empty object, sees that it cannot be uploaded again, and deletes it.

        Raises `UsageError` for a store that would have overwritten it.
        """
        self._files.prepare()
        # Its own name each time: workers on other machines begin as well.
        name = f"{PART}{secrets.token_hex(8)}.part"
        with self._telling():
            # There already it is when the answer to a first try was lost, and the library tried again.
            with suppress(AlreadyExistsError):
                self._put(name, b"", {})
            try:
                self._put(name, b"", {})
                keeps = False
            except AlreadyExistsError:
                keeps = True
            finally:
                obstore.delete(self._bucket, name)
        if not keeps:
            raise UsageError(
                f"{self.store.url}: this store knows no conditional uploads (If-None-Match), so a picture could"
                " overwrite what is there; use a store or a version that does"
            )

    def free_bytes(self) -> int:
        """Bytes that may still be written into parts: a store has no end, or does not tell of it."""
        return self._files.free_bytes()

    def knows(self, path: str) -> bool:
        """Whether the folder of the parts was looked at."""
        del path
        return self._files.knows("part")

    def new_part(self, path: str) -> Path:
        """A fresh hidden name in the folder of the parts; all of them are in one."""
        del path
        return self._files.new_part("part")

    def discard(self, part: Path) -> None:
        """Removes a part, if it is still there."""
        self._files.discard(part)

    def sweep(self) -> None:
        """Removes the parts of a killed run. There is none of an object: an upload that was cut off left nothing."""
        self._files.sweep({""})

    def place(self, files: Sequence[tuple[Path, str]]) -> list[Exception | None]:
        """Uploads whole files, several at a time, looks at what arrived, and removes the parts."""
        if len(files) == 1:
            return [self._try_to_place(*files[0])]
        with ThreadPoolExecutor(min(AT_ONCE, len(files) or 1), thread_name_prefix="upload") as pool:
            return list(pool.map(self._try_to_place, *zip(*files, strict=True))) if files else []

    def _try_to_place(self, part: Path, path: str) -> Exception | None:
        try:
            with translate_os_errors(part):
                data = part.read_bytes()
            self._upload(path, data)
            self.discard(part)
        except Exception as error:  # noqa: BLE001 - it is not swallowed: the file's caller gets it
            return error
        return None

    def _upload(self, path: str, data: bytes) -> None:
        """Brings bytes under a free key, and looks at what is there then. Raises `Occupied`, `StorageError`."""
        about = {HASH: hashlib.sha256(data).hexdigest(), MARK: secrets.token_hex(16)}
        wrong = ""
        for tries in range(TRIES):
            if tries:
                time.sleep(PAUSE * 2 ** (tries - 1))
            try:
                self._put(path, data, about)
                wrong = self._unlike(path, data)
            except AlreadyExistsError:
                if not self._is_ours(path, data, about):
                    told = f"{self.named(path)} exists already and was not made by this job; move it away"
                    raise Occupied(f"{told}, then run again") from None
                # A try whose answer was lost had arrived.
                with self._telling(path):
                    wrong = self._unlike(path, data)
            except (FileNotFoundError, PermissionDeniedError, UnauthenticatedError) as error:
                raise StorageError(self._cause(error, path)) from None
            except BaseError as error:
                # Whether it arrived is not known; if so, the next try finds it.
                wrong = self._cause(error, path)
                continue
            if not wrong:
                return
            if self._is_ours(path, data, about):
                self.unlink(path)
        raise StorageError(wrong)

    def _unlike(self, path: str, data: bytes) -> str:
        """In what the object is not what was uploaded; empty if it is. Raises errors of the library.

        Where the ETag is the MD5 of the content, as it is for plain uploads to S3, the store has told its hash already;
        else the object is read back.
        """
        meta = obstore.head(self._bucket, path)
        if meta["size"] != len(data):
            return f"{self.named(path)}: {meta['size']:,} bytes arrived of {len(data):,}"
        tag = (meta["e_tag"] or "").strip('"')
        if tag == hashlib.md5(data, usedforsecurity=False).hexdigest():
            return ""
        if bytes(obstore.get(self._bucket, path).bytes()) != data:
            return f"{self.named(path)}: other bytes arrived than were sent"
        return ""

    def _is_ours(self, path: str, data: bytes, about: Mapping[str, str]) -> bool:
        """Whether an object is this upload, or the beginning of an earlier one of the same picture.

        Some stores keep what came of an upload that was cut, with all of its metadata; nothing is lost with that.
        """
        with self._telling(path):
            try:
                found = obstore.get(self._bucket, path, options={"head": True})
            except FileNotFoundError as error:
                self._no_bucket(error)
                return False
            if found.attributes.get(MARK) == about[MARK]:
                return True
            if found.attributes.get(HASH) != about[HASH] or found.meta["size"] >= len(data):
                return False
            return data.startswith(bytes(obstore.get(self._bucket, path).bytes()))

    def _put(self, path: str, data: bytes, about: Mapping[str, str]) -> None:
        kind = _MEDIA_TYPES.get(PurePosixPath(path).suffix, "application/octet-stream")
        attributes = {"Content-Type": kind, **about}
        obstore.put(self._bucket, path, data, attributes=attributes, mode="create", use_multipart=False)

    def move(self, old: str, new: str, sha256: str) -> None:
        """Uploads the object under its new key, then deletes it at the old one: stores know no renaming.

        Cut off between the two, it stands at both, and `end_move`, or moving it again, ends that.
        """
        data = self._whole(old)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Changed(f"{self.named(old)} is not the stored picture any more")
        try:
            self._upload(new, data)
        except Occupied as error:
            if self.sha256(new) != sha256:
                raise Occupied(f"{self.named(new)} exists already; move it away, then run again") from error
        self.unlink(old)

    def end_move(self, old: str, new: str) -> None:
        """Deletes what a move that was cut off left at its old key."""
        if old != new:
            left = self.sha256(old)
            if left is not None and left == self.sha256(new):
                self.unlink(old)

    def existing(self, paths: Iterable[str]) -> list[str]:
        """Those of these keys that an object has."""
        paths = list(paths)
        if len(paths) < 2:
            return [path for path in paths if self.look(path)]
        with ThreadPoolExecutor(min(AT_ONCE, len(paths)), thread_name_prefix="look") as pool:
            return [path for path, found in zip(paths, pool.map(self.look, paths), strict=True) if found]

    def look(self, path: str) -> FileStat | None:
        """The size of an object, or None where there is none."""
        with self._telling(path):
            try:
                return FileStat(obstore.head(self._bucket, path)["size"])
            except FileNotFoundError as error:
                # Without a body, this may also be a bucket that is gone: whoever reads next is told.
                self._no_bucket(error)
                return None

    def read(self, path: str, most: int) -> bytes:
        """The bytes of an object, at most so many."""
        with self._telling(path):
            found = obstore.get(self._bucket, path)
            if found.meta["size"] <= most:
                return bytes(found.bytes())
            return bytes(obstore.get_range(self._bucket, path, start=0, end=most))

    def _whole(self, path: str) -> bytes:
        with self._telling(path):
            return bytes(obstore.get(self._bucket, path).bytes())

    def sha256(self, path: str) -> str | None:
        """The hash in hex of the bytes that the store gives for a key, or None where there is no object."""
        with self._telling(path):
            digest = hashlib.sha256()
            try:
                for chunk in obstore.get(self._bucket, path):
                    digest.update(chunk)
            except FileNotFoundError as error:
                self._no_bucket(error)
                return None
            return digest.hexdigest()

    def unlink(self, path: str) -> None:
        """Deletes an object, durably."""
        with self._telling(path):
            obstore.delete(self._bucket, path)

    def sync(self, paths: Iterable[str]) -> None:
        """Nothing: what the store has said is durable."""

    def settle(self, paths: Iterable[str]) -> None:
        """Nothing: what the store has said is durable, and it has no folders."""

    def drop_if_empty(self, name: str) -> None:
        """Nothing: a store has no folders."""

    def _no_bucket(self, error: FileNotFoundError) -> None:
        if "NoSuchBucket" in str(error) or "ContainerNotFound" in str(error):
            raise error

    @contextmanager
    def _telling(self, path: str = "") -> Iterator[None]:
        """Errors of the library as `StorageError`."""
        try:
            yield
        except (AlreadyExistsError, FileNotFoundError, BaseError, ValueError, OSError) as error:
            raise StorageError(self._cause(error, path)) from None

    def _cause(self, error: Exception, path: str) -> str:
        """What went wrong, where, and how it is mended; without the library's account of its own insides."""
        where = self.named(path) if path else self.store.url
        text = str(error)
        code = re.search(r"<Code>([^<]{1,100})</Code>", text)
        if "NoSuchBucket" in text or "ContainerNotFound" in text:
            return f"{self.store.url}: there is no bucket {self.store.bucket}; make it, or mend output.dir"
        if isinstance(error, PermissionDeniedError | UnauthenticatedError):
            why = f" ({code[1]})" if code else ""
            return f"{where}: the store refuses the credentials, or what they may do{why}; see AWS_PROFILE and AWS_*"
        if isinstance(error, FileNotFoundError):
            return f"{where} is gone"
        if any(sign in text for sign in _NO_CREDENTIALS):
            return f"{where}: no credentials were found; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and its secret"
        first = text.partition("\n")[0]
        short = code[1] if code else first.rpartition(" - ")[2][:300]
        return f"{where}: the store cannot be used now: {short}"


_NO_CREDENTIALS = ("169.254.169.254", "169.254.170.2")
"""Where credentials are asked for on machines of a cloud, when nothing else gives any."""
