"""Store images on an object store: one conditional upload each, verified before it counts."""

from __future__ import annotations

import hashlib
import re
import secrets
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError

from seedream_batch.errors import StorageError, UsageError, translate_os_errors
from seedream_batch.files.destination import Destination, FileStat
from seedream_batch.files.image_inspection import FORMATS
from seedream_batch.files.local_folder import PART, Changed, Occupied, OutputFolder
from seedream_batch.files.object_store_config import bucket, link_of
from seedream_batch.model.locations import Store

TRIES = 5
"""Uploads of one image before a run gives up. The library does not repeat uploads without a response."""

PAUSE = 0.5
"""Seconds before the second upload; doubled before each further one."""

AT_ONCE = 8
"""Uploads, or checks, at the same time."""

HASH = "sha256"
"""The object metadata with the hash of the image, for users and other programs."""

MARK = "seedreammark"
"""The object metadata that identifies an upload. Azure accepts only letters and digits in its name."""

_MEDIA_TYPES = {f".{extension}": media_type for extension, media_type in FORMATS.values()}


class ObjectStore(Destination):
    """Stores images as objects below a prefix; temp files and the rest of a job's state are in a local folder.

    An object exists completely or not at all, and is durable once the store has confirmed it: syncing and folder
    clean-up do nothing here. Nothing is ever overwritten: every upload is conditional on the key being free, and a
    store without conditional uploads is refused.
    """

    def __init__(self, store: Store, spool: Path, environ: Mapping[str, str]) -> None:
        """Raise `UsageError` if settings in the environment are invalid."""
        self.store = store
        self.spool = spool
        self.near = False
        self.parallel = 2 * AT_ONCE
        self._files = OutputFolder(spool)
        self._bucket = bucket(store, environ)
        self._link = link_of(store, environ)

    def file(self, path: str) -> None:
        """Return None: images are not files of this machine."""

    @property
    def link(self) -> str:
        """The store's own URL of what is below the prefix; unsigned, so it works only for public objects."""
        return self._link

    def named(self, path: str) -> str:
        """Return the URL of an image, as in the job."""
        return f"{self.store.url}/{path}"

    def prepare(self) -> None:
        """Upload an empty object, check that it cannot be uploaded again, and delete it.

        Raise `UsageError` for a store that would have overwritten it.
        """
        self._files.prepare()
        # A new name each time: workers on other machines may start at the same time.
        name = f"{PART}{secrets.token_hex(8)}.part"
        with self._translate_errors():
            # It exists already if the response to a first try was lost, and the library tried again.
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
                f"{self.store.url}: this store does not support conditional uploads (If-None-Match), so images could"
                " overwrite existing objects; use another store or a newer version"
            )

    def free_bytes(self) -> int:
        """Return the free bytes for temp files: a store has no limit, or does not report one."""
        return self._files.free_bytes()

    def knows(self, path: str) -> bool:
        """Return whether the folder of the temp files was created."""
        del path
        return self._files.knows("part")

    def new_part(self, path: str) -> Path:
        """Return a new hidden name in the folder that holds all temp files."""
        del path
        return self._files.new_part("part")

    def discard(self, temp_path: Path) -> None:
        self._files.discard(temp_path)

    def sweep(self) -> None:
        """Remove the temp files of killed runs. Interrupted uploads leave no objects."""
        self._files.sweep({""})

    def place(self, files: Sequence[tuple[Path, str]]) -> list[Exception | None]:
        """Upload complete files, several at a time, verify what arrived, and remove the temp files."""
        if len(files) == 1:
            return [self._try_to_place(*files[0])]
        with ThreadPoolExecutor(min(AT_ONCE, len(files) or 1), thread_name_prefix="upload") as pool:
            return list(pool.map(self._try_to_place, *zip(*files, strict=True))) if files else []

    def _try_to_place(self, temp_path: Path, path: str) -> Exception | None:
        try:
            with translate_os_errors(temp_path):
                data = temp_path.read_bytes()
            self._upload(path, data)
            self.discard(temp_path)
        except Exception as error:  # noqa: BLE001 - it is not swallowed: the file's caller gets it
            return error
        return None

    def _upload(self, path: str, data: bytes) -> None:
        """Upload bytes under a free key, and verify what is there then. Raise `Occupied` or `StorageError`."""
        about = {HASH: hashlib.sha256(data).hexdigest(), MARK: secrets.token_hex(16)}
        wrong = ""
        for tries in range(TRIES):
            if tries:
                time.sleep(PAUSE * 2 ** (tries - 1))
            try:
                self._put(path, data, about)
                wrong = self._difference(path, data)
            except AlreadyExistsError:
                if not self._is_ours(path, data, about):
                    message = f"{self.named(path)} already exists and is not from this job; move it away"
                    raise Occupied(f"{message}, then run again") from None
                # An earlier try arrived, but its response was lost.
                with self._translate_errors(path):
                    wrong = self._difference(path, data)
            except (FileNotFoundError, PermissionDeniedError, UnauthenticatedError) as error:
                raise StorageError(self._describe(error, path)) from None
            except BaseError as error:
                # It may have arrived; if so, the next try finds it.
                wrong = self._describe(error, path)
                continue
            if not wrong:
                return
            if self._is_ours(path, data, about):
                self.unlink(path)
        raise StorageError(wrong)

    def _difference(self, path: str, data: bytes) -> str:
        """Return how the object differs from what was uploaded; empty if it does not. Raise errors of the library.

        If the ETag is the MD5 of the content, as for plain uploads to S3, the store has confirmed its hash; else the
        object is read back.
        """
        meta = obstore.head(self._bucket, path)
        if meta["size"] != len(data):
            return f"{self.named(path)}: {meta['size']:,} of {len(data):,} bytes were stored"
        tag = (meta["e_tag"] or "").strip('"')
        if tag == hashlib.md5(data, usedforsecurity=False).hexdigest():
            return ""
        if bytes(obstore.get(self._bucket, path).bytes()) != data:
            return f"{self.named(path)}: the stored bytes differ from those sent"
        return ""

    def _is_ours(self, path: str, data: bytes, about: Mapping[str, str]) -> bool:
        """Return whether an object is this upload, or the start of an earlier one of the same image.

        Some stores keep a truncated upload, with all of its metadata; replacing it loses nothing.
        """
        with self._translate_errors(path):
            try:
                existing = obstore.get(self._bucket, path, options={"head": True})
            except FileNotFoundError as error:
                self._raise_if_no_bucket(error)
                return False
            if existing.attributes.get(MARK) == about[MARK]:
                return True
            if existing.attributes.get(HASH) != about[HASH] or existing.meta["size"] >= len(data):
                return False
            return data.startswith(bytes(obstore.get(self._bucket, path).bytes()))

    def _put(self, path: str, data: bytes, about: Mapping[str, str]) -> None:
        kind = _MEDIA_TYPES.get(PurePosixPath(path).suffix, "application/octet-stream")
        attributes = {"Content-Type": kind, **about}
        obstore.put(self._bucket, path, data, attributes=attributes, mode="create", use_multipart=False)

    def move(self, old: str, new: str, sha256: str) -> None:
        """Upload the object under its new key, then delete the old one: stores cannot rename.

        Interrupted in between, it is at both keys, and `end_move`, or moving it again, finishes that.
        """
        data = self.read(old, sys.maxsize)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Changed(f"{self.named(old)} was changed since it was stored")
        try:
            self._upload(new, data)
        except Occupied as error:
            if self.sha256(new) != sha256:
                raise Occupied(f"{self.named(new)} already exists; move it away, then run again") from error
        self.unlink(old)

    def end_move(self, old: str, new: str) -> None:
        """Delete what an interrupted move left at its old key."""
        if old != new:
            left = self.sha256(old)
            if left is not None and left == self.sha256(new):
                self.unlink(old)

    def existing(self, paths: Iterable[str]) -> list[str]:
        """Return those of these keys at which there is an object."""
        paths = list(paths)
        if len(paths) < 2:
            return [path for path in paths if self.look(path)]
        with ThreadPoolExecutor(min(AT_ONCE, len(paths)), thread_name_prefix="look") as pool:
            return [path for path, stat in zip(paths, pool.map(self.look, paths), strict=True) if stat]

    def look(self, path: str) -> FileStat | None:
        """Return the size of an object; None if there is none."""
        with self._translate_errors(path):
            try:
                return FileStat(obstore.head(self._bucket, path)["size"])
            except FileNotFoundError as error:
                # Without a body, this may also be a missing bucket: the next read reports that.
                self._raise_if_no_bucket(error)
                return None

    def read(self, path: str, most: int) -> bytes:
        """Return the bytes of an object, at most this many."""
        with self._translate_errors(path):
            response = obstore.get(self._bucket, path)
            if response.meta["size"] <= most:
                return bytes(response.bytes())
            return bytes(obstore.get_range(self._bucket, path, start=0, end=most))

    def sha256(self, path: str) -> str | None:
        """Return the SHA-256 in hex of the bytes that the store returns for a key; None if there is no object."""
        with self._translate_errors(path):
            digest = hashlib.sha256()
            try:
                for chunk in obstore.get(self._bucket, path):
                    digest.update(chunk)
            except FileNotFoundError as error:
                self._raise_if_no_bucket(error)
                return None
            return digest.hexdigest()

    def unlink(self, path: str) -> None:
        """Delete an object, durably."""
        with self._translate_errors(path):
            obstore.delete(self._bucket, path)

    def sync(self, paths: Iterable[str]) -> None:
        """Do nothing: what the store has confirmed is durable."""

    def settle(self, paths: Iterable[str]) -> None:
        """Do nothing: what the store has confirmed is durable, and it has no folders."""

    def drop_if_empty(self, name: str) -> None:
        """Do nothing: a store has no folders."""

    def _raise_if_no_bucket(self, error: FileNotFoundError) -> None:
        if "NoSuchBucket" in str(error) or "ContainerNotFound" in str(error):
            raise error

    @contextmanager
    def _translate_errors(self, path: str = "") -> Iterator[None]:
        """Turn errors of the library into `StorageError`."""
        try:
            yield
        except (AlreadyExistsError, FileNotFoundError, BaseError, ValueError, OSError) as error:
            raise StorageError(self._describe(error, path)) from None

    def _describe(self, error: Exception, path: str) -> str:
        """Return what failed, where, and what to do; without internals of the library."""
        where = self.named(path) if path else self.store.url
        text = str(error)
        code = re.search(r"<Code>([^<]{1,100})</Code>", text)
        if "NoSuchBucket" in text or "ContainerNotFound" in text:
            return f"{self.store.url}: the bucket {self.store.bucket} does not exist; create it or correct output.dir"
        if isinstance(error, PermissionDeniedError | UnauthenticatedError):
            why = f" ({code[1]})" if code else ""
            return f"{where}: the store denied access{why}; check AWS_PROFILE and the AWS_* variables"
        if isinstance(error, FileNotFoundError):
            return f"{where} does not exist"
        if any(sign in text for sign in _NO_CREDENTIALS):
            return f"{where}: no credentials found; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        first = text.partition("\n")[0]
        short = code[1] if code else first.rpartition(" - ")[2][:300]
        return f"{where}: cannot use the store: {short}"


_NO_CREDENTIALS = ("169.254.169.254", "169.254.170.2")
"""Metadata services of cloud machines, asked for credentials when nothing else provides any."""
