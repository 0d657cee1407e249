"""Store images as local files: complete files under their final names, or none."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import unicodedata
from collections.abc import Iterable, Sequence
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from seedream_batch.errors import StorageError, translate_os_errors
from seedream_batch.files.destination import Destination, FileStat

PART = ".seedream-"
"""Prefix of the names of temp files; no other name in the folder may start with it."""

MOST_KNOWN = 4096
"""Most folders remembered in each cache."""

_UNSEEN = {"Cc", "Cs", "Zl", "Zp"}
"""Categories of characters that no folder name has on purpose."""

_TURNS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
"""Characters that change the text direction, so that a name is not what it seems to be; and the BOM."""

_LONGEST_NAME = 255
"""Most bytes of a name on common file systems."""
_LONGEST_PATH = 3_500
"""Most bytes of a folder's path that leave room for the names of images."""

_PART_NAME = re.compile(re.escape(PART) + r"[0-9a-f]{16}\.part")


def unseen(text: str) -> str:
    """Return why a path contains invisible characters, with what to do; empty if it does not."""
    if any(unicodedata.category(char) in _UNSEEN or char in _TURNS for char in text):
        return f"{text!a} has invisible characters: remove them"
    return ""


def unusable(folder: Path, text: str) -> str:
    """Return why `text`, a path below `folder`, cannot be an output folder, with what to do; empty if it can."""
    for name in Path(text).parts:
        size = len(name.encode(errors="surrogateescape"))
        if size > _LONGEST_NAME:
            return f"has a name of {size:,} bytes ({name[:20]}...): file systems allow {_LONGEST_NAME}"
    size = len(os.path.abspath(folder / text).encode(errors="surrogateescape"))  # noqa: PTH100 - links are not followed
    if size > _LONGEST_PATH:
        return f"is a path of {size:,} bytes: systems allow less than 4,096, including the image names"
    at = folder
    for name in Path(text).parts:
        at /= name
        # Unlike the methods of `Path`, these return False where access is denied.
        if os.path.islink(at) and not os.path.exists(at):  # noqa: PTH110, PTH114
            # It may lead to a disk that is not mounted now; with a new folder, everything would be bought again.
            return (
                f"{at} is a link to {at.readlink()}, which does not exist: mount or create it first, or change the link"
            )
    if resolved(at).as_posix().startswith(("/proc/", "/sys/")):
        return f"{text} is in a system folder that cannot store files: choose another folder"
    return ""


def resolved(path: Path) -> Path:
    """Return the path with links resolved as far as possible; a link that leads to itself stays."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return Path(os.path.abspath(path))  # noqa: PTH100 - the other one follows links


class Occupied(StorageError):
    """A file that this job did not make is at the path of an image."""


class Changed(StorageError):
    """The file at the path of an image is not that image, so it is left alone."""


class OutputFolder(Destination):
    """Writes images below one folder, each first as a temp file beside its final path.

    All paths are relative to the folder, with `/` between names. Links inside the folder are not followed out of it.
    Methods block: call those that write on a thread. All raise `StorageError`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spool = root
        self.near = True
        self.parallel = os.cpu_count() or 1
        self._created: set[str] = set()
        """Folders that this run has created or checked, by their path in the root."""
        self._inside: dict[str, Path] = {}
        """Existing folders that do not lead out of the root, by their path in it."""
        self._synced: set[Path] = set()
        """Folders whose own names are durable."""

    def file(self, path: str) -> Path:
        return self.locate(path)

    @property
    def link(self) -> None:
        """None: images are files of this machine."""
        return

    def named(self, path: str) -> str:
        return str(self.root / path)

    def prepare(self) -> None:
        """Create the folder if needed, and verify that it can be written to."""
        with translate_os_errors(self.root):
            blocker = next((path for path in (self.root, *self.root.parents) if os.path.lexists(path)), self.root)
            if os.path.lexists(blocker) and not blocker.is_dir():
                message = f"{blocker} is not a folder, so the images cannot be stored in {self.root}"
                raise StorageError(f"{message}; move it away or set another output.dir in the job")
            # The folder's own name has to be durable too, or a power failure loses the manifest.
            self._create(self.root)
            # Always the same name: a file that a kill leaves here is removed by the next run.
            probe = self.root / f"{PART}{'0' * 16}.part"
            probe.write_bytes(b"")
            probe.unlink(missing_ok=True)

    def free_bytes(self) -> int:
        with translate_os_errors(self.root):
            return shutil.disk_usage(self.root).free

    def knows(self, path: str) -> bool:
        """Return whether the parent folder of `path` was created, so that a new temp file there needs no sync of it."""
        return path.rpartition("/")[0] in self._created

    def new_part(self, path: str) -> Path:
        """Return a new hidden name in the parent folder of `path`, which is created if needed."""
        parent = self.locate(path).parent
        folder = path.rpartition("/")[0]
        if folder not in self._created:
            with translate_os_errors(parent):
                self._create(parent)
            if len(self._created) >= MOST_KNOWN:
                self._created.clear()
            self._created.add(folder)
        return parent / f"{PART}{secrets.token_hex(8)}.part"

    def place(self, files: Sequence[tuple[Path, str]]) -> list[Exception | None]:
        """Give complete, synced temp files their final names, and sync each folder once.

        Return an error or None for each file, independent of the others: `Occupied` if something is at its path
        already, `StorageError` if its name is not durable, None if it is.
        """
        errors: list[Exception | None] = [None] * len(files)
        named: dict[Path, list[int]] = {}
        for number, (temp_path, path) in enumerate(files):
            try:
                named.setdefault(self._commit(temp_path, path), []).append(number)
            except Exception as error:  # noqa: BLE001 - it is not swallowed: the file's caller gets it
                errors[number] = error
        for folder, numbers in named.items():
            try:
                with translate_os_errors(folder):
                    sync_folder(folder)
            except StorageError as error:
                for number in numbers:
                    # One exception object per caller, since each raises its own.
                    errors[number] = StorageError(str(error))
        return errors

    def _commit(self, temp_path: Path, path: str) -> Path:
        """Give one file its final name; return the folder to sync."""
        final = self.locate(path)
        with translate_os_errors(final):
            self._create(final.parent)
            try:
                _give_name(temp_path, final)
            except FileExistsError:
                message = f"{final} already exists and is not from this job; move it away, then run again"
                raise Occupied(message) from None
        return final.parent

    def move(self, old: str, new: str, sha256: str) -> None:
        """Rename the file with this hash inside the folder; overwrite nothing, and remove folders left empty.

        Raise `Occupied` or `Changed`.
        """
        source, final = self.locate(old), self.locate(new)
        with translate_os_errors(final):
            if os.path.lexists(final) and not _is_same_entry(source, final):
                raise Occupied(f"{final} already exists; move it away, then run again")
            if self.sha256(old) != sha256:
                raise Changed(f"{source} was deleted, moved or changed")
            self._create(final.parent)
            source.rename(final)
            sync_folder(final.parent)
            sync_folder(source.parent)
        self._drop_empty(source.parent)

    def end_move(self, old: str, new: str) -> None:
        """Make a rename durable, the new name first."""
        self.sync([new, old])

    def existing(self, paths: Iterable[str]) -> list[str]:
        """Return those of these paths at which there is anything, including a broken link."""
        found = []
        absent = set()
        for path in paths:
            folder = path.rpartition("/")[0]
            if folder in absent:
                # Locating a file costs a look at every parent folder, and callers ask for each file extension.
                continue
            file = self.locate(path)
            if os.path.lexists(file):
                found.append(path)
            elif folder not in self._inside and not os.path.lexists(file.parent):
                absent.add(folder)
        return found

    def look(self, path: str) -> FileStat | None:
        """Return what is at a path; a link is not followed, since it is not ours."""
        file = self.locate(path)
        try:
            status = file.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError(f"{file}: {error.strerror or error}") from error
        return FileStat(status.st_size, stat.S_ISREG(status.st_mode))

    def read(self, path: str, most: int) -> bytes:
        """Return the bytes of a file, at most this many; a link is an error."""
        file = self.locate(path)
        with translate_os_errors(file):
            stream = _opened(file)
            if stream is None:
                raise StorageError(f"{file} is not a file")
            with stream:
                return stream.read(most)

    def sha256(self, path: str) -> str | None:
        """Return the SHA-256 in hex of the file at `path`; None if there is no ordinary file."""
        file = self.locate(path)
        with translate_os_errors(file):
            try:
                stream = _opened(file)
            except (FileNotFoundError, NotADirectoryError):
                return None
            if stream is None:
                return None
            with stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()

    def unlink(self, path: str) -> None:
        file = self.locate(path)
        with translate_os_errors(file):
            file.unlink(missing_ok=True)

    def sync(self, paths: Iterable[str]) -> None:
        """Make the presence or absence of these names durable: a killed run may have synced nothing.

        The order matters: of a renamed file, pass the new name first.
        """
        for folder in dict.fromkeys(self.locate(path).parent for path in paths):
            with translate_os_errors(folder):
                if folder.is_dir():
                    sync_folder(folder)
                    # After its content: the parent may be the folder that a file was moved out of.
                    self._sync_own_name(folder)

    def settle(self, paths: Iterable[str]) -> None:
        """Make the deletion of these files durable, and remove folders left empty."""
        paths = list(paths)
        self.sync(paths)
        for folder in {self.locate(path).parent for path in paths}:
            self._drop_empty(folder)

    def drop_if_empty(self, name: str) -> None:
        self._drop_empty(self.root / name)

    def discard(self, temp_path: Path) -> None:
        with translate_os_errors(temp_path):
            temp_path.unlink(missing_ok=True)

    def sweep(self, folders: set[str] | None = None) -> None:
        """Remove temp files of killed runs in these folders (relative, "" is the root), or in all."""
        if folders is None:
            with translate_os_errors(self.root):
                # Linked folders are not searched: their files are not ours.
                walk = os.walk(self.root, followlinks=False)
                folders = {os.path.relpath(path, self.root) for path, _, _ in walk}
        for folder in sorted(folders):
            # The folder itself may be a link that leads out, so its parent is resolved and checked.
            path = self.locate(f"{folder or '.'}/any").parent
            with translate_os_errors(path):
                if path.is_dir():
                    for entry in os.scandir(path):
                        if _PART_NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                            Path(entry.path).unlink(missing_ok=True)

    def locate(self, path: str) -> Path:
        """Return the file of an image path; raise `StorageError` if it would be outside the folder."""
        folder, _, name = path.rpartition("/")
        parent = self._inside.get(folder)
        if parent is not None and name not in {"", ".", ".."}:
            return parent / name
        final = self.root / path
        if not path or ".." in path.split("/"):
            raise StorageError(f"{path!r} is not a path of an image in {self.root}")
        try:
            inside = final.parent.resolve().is_relative_to(self.root.resolve())
        except (OSError, RuntimeError, ValueError) as error:
            raise StorageError(f"{path!r} is not a path of an image in {self.root}: {error}") from error
        if not inside:
            raise StorageError(f"{final} would be outside {self.root}: a link in that folder points outside")
        # Unlike `Path.is_dir`, `isdir` returns False for what is not a valid name.
        if final.parent == self.root / folder and os.path.isdir(final.parent):  # noqa: PTH112
            # Resolved once per run: it checks every parent folder, and many images share them.
            if len(self._inside) >= MOST_KNOWN:
                self._inside.clear()
            self._inside[folder] = final.parent
        return final

    def _create(self, folder: Path) -> None:
        missing = []
        at = folder
        while not at.exists():
            missing.append(at)
            at = at.parent
        self._sync_own_name(at)
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
            self._sync_own_name(path)

    def _sync_own_name(self, folder: Path) -> None:
        """Make a folder's own name durable, once per run: a run may have been killed right after creating it.

        The folders above it are durable already: each was synced before the next one was created.
        """
        if folder not in self._synced:
            sync_folder(folder.parent)
            if len(self._synced) >= MOST_KNOWN:
                self._synced.clear()
            self._synced.add(folder)

    def _drop_empty(self, folder: Path) -> None:
        while folder != self.root and folder.is_relative_to(self.root):
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                return
            self._synced.discard(folder)
            self._created.discard(folder.relative_to(self.root).as_posix())
            self._inside.pop(folder.relative_to(self.root).as_posix(), None)
            folder = folder.parent


def _opened(file: Path) -> BufferedReader | None:
    """Return an ordinary file opened for reading; None for anything else.

    Links are not followed, and a pipe is not waited for.
    """
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        # Linux reports these for a link, and for a socket or a device without a driver.
        if error.errno in {errno.ELOOP, errno.ENXIO}:
            return None
        raise
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return os.fdopen(handle, "rb")
    os.close(handle)
    return None


def _give_name(temp_path: Path, final: Path) -> None:
    """Rename without ever overwriting: creating a hard link fails if the name is taken."""
    try:
        os.link(temp_path, final)
    except FileExistsError:
        raise
    except OSError:
        # Not every file system has hard links; without them, a check before the rename has to do.
        if os.path.lexists(final):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final)) from None
        temp_path.rename(final)
    else:
        temp_path.unlink()


def _is_same_entry(left: Path, right: Path) -> bool:
    """Return whether two names are the same entry, as on a case-insensitive file system.

    A link to the file, hard or symbolic, is a separate entry that somebody else made.
    """
    if not os.path.lexists(left):
        return False
    status = left.lstat()
    return status.st_nlink == 1 and os.path.samestat(status, right.lstat())


def sync(stream: BinaryIO) -> None:
    """Sync the file's bytes to the disk. A failure is final: the file has to be written again."""
    stream.flush()
    os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder to the disk."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        # A folder may be writable but not readable, and such a folder cannot be synced.
        return
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot sync folders and report EINVAL.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(handle)
