"""The output folder: whole files under final names, or none."""

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
"""How the name of a file that is still being written starts; nothing else in the folder may start so."""

MOST_KNOWN = 4096
"""Folders that are kept in mind."""

_UNSEEN = {"Cc", "Cs", "Zl", "Zp"}
"""Categories of characters that no name of a folder has on purpose."""

_TURNS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
"""Characters that turn the direction of what follows, so that a name is not what it seems to be; and the BOM."""

_LONGEST_NAME = 255
"""Bytes of a name that file systems take."""
_LONGEST_PATH = 3_500
"""Bytes of a path that leave room for the names of images."""

_PART_NAME = re.compile(re.escape(PART) + r"[0-9a-f]{16}\.part")


def unseen(text: str) -> str:
    """Why a path that somebody wrote is not what it seems to be, with what to do; empty if it is."""
    if any(unicodedata.category(char) in _UNSEEN or char in _TURNS for char in text):
        return f"{text!a} has characters that cannot be seen: write the name without them"
    return ""


def unusable(folder: Path, text: str) -> str:
    """Why `text`, a path from `folder` on, can be no output folder, with what to do; empty if it may be one."""
    for part in Path(text).parts:
        size = len(part.encode(errors="surrogateescape"))
        if size > _LONGEST_NAME:
            return f"has a name of {size:,} bytes ({part[:20]}...): file systems take {_LONGEST_NAME}"
    size = len(os.path.abspath(folder / text).encode(errors="surrogateescape"))  # noqa: PTH100 - links are not followed
    if size > _LONGEST_PATH:
        return f"is a path of {size:,} bytes: systems take less than 4,096, and the images need some of them"
    at = folder
    for part in Path(text).parts:
        at /= part
        # Unlike the methods of a path, these say no where nothing can be seen.
        if os.path.islink(at) and not os.path.exists(at):  # noqa: PTH110, PTH114
            # It may lead to a disk that is not mounted now; a new folder there would have everything bought again.
            return (
                f"{at} is a link to {at.readlink()}, which leads nowhere: mount or make that first, or change the link"
            )
    if resolved(at).as_posix().startswith(("/proc/", "/sys/")):
        return f"{text} is in a folder of the system, which keeps no files: give another folder"
    return ""


def resolved(path: Path) -> Path:
    """The path with its links followed, as far as that goes: a link that leads to itself is left as it is."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return Path(os.path.abspath(path))  # noqa: PTH100 - the other one follows links


class Occupied(StorageError):
    """A file that this job did not make has the name that an image is to get."""


class Changed(StorageError):
    """What is at the path of a picture is not that picture, so it is left alone."""


class OutputFolder(Destination):
    """Writes images below one folder, each first under a hidden name beside its place.

    Every path given and returned is relative to the folder, with `/` between names. Links inside the folder are not
    followed out of it. Methods block: the ones that write belong on a thread. All raise `StorageError`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spool = root
        self.near = True
        self.parallel = os.cpu_count() or 1
        self._made: set[str] = set()
        """Folders that were made, by their path in the root."""
        self._inside: dict[str, Path] = {}
        """Folders that are there, and do not lead out of the root, by their path in it."""
        self._kept: set[Path] = set()
        """Folders whose own names are on the disk."""

    def file(self, path: str) -> Path:
        """The file of a path."""
        return self.locate(path)

    @property
    def link(self) -> None:
        """None: the pictures are files of this machine."""
        return

    def named(self, path: str) -> str:
        """The file of a path, for people."""
        return str(self.root / path)

    def prepare(self) -> None:
        """Makes the folder if need be, and proves that it can be written to."""
        with translate_os_errors(self.root):
            blocker = next((one for one in (self.root, *self.root.parents) if os.path.lexists(one)), self.root)
            if os.path.lexists(blocker) and not blocker.is_dir():
                told = f"{blocker} is no folder, and the images are to go to {self.root}"
                raise StorageError(f"{told}; move it away, or give the job another output.dir")
            # Its own name has to survive as well, or a power cut takes the manifest with it.
            self._make(self.root)
            # Always the same name: what a kill right here leaves is gone with the next run.
            probe = self.root / f"{PART}{'0' * 16}.part"
            probe.write_bytes(b"")
            probe.unlink(missing_ok=True)

    def free_bytes(self) -> int:
        """Bytes that may still be written there."""
        with translate_os_errors(self.root):
            return shutil.disk_usage(self.root).free

    def knows(self, path: str) -> bool:
        """Whether the folder in which `path` will stand was made, so that a new part there needs no sync of it."""
        return path.rpartition("/")[0] in self._made

    def new_part(self, path: str) -> Path:
        """A fresh hidden name in the folder where `path` will stand; the folder is made if need be."""
        parent = self.locate(path).parent
        folder = path.rpartition("/")[0]
        if folder not in self._made:
            with translate_os_errors(parent):
                self._make(parent)
            if len(self._made) >= MOST_KNOWN:
                self._made.clear()
            self._made.add(folder)
        return parent / f"{PART}{secrets.token_hex(8)}.part"

    def place(self, files: Sequence[tuple[Path, str]]) -> list[Exception | None]:
        """Gives whole, already synced files their final names, and syncs their folders, each of them once.

        For each file what went wrong with it, and with no other: `Occupied` when something stands there already,
        `StorageError` when its name is not durable, None when it is.
        """
        errors: list[Exception | None] = [None] * len(files)
        named: dict[Path, list[int]] = {}
        for number, (part, path) in enumerate(files):
            try:
                named.setdefault(self._name(part, path), []).append(number)
            except Exception as error:  # noqa: BLE001 - it is not swallowed: the file's caller gets it
                errors[number] = error
        for folder, numbers in named.items():
            try:
                with translate_os_errors(folder):
                    sync_folder(folder)
            except StorageError as error:
                for number in numbers:
                    # Each caller raises an error of its own.
                    errors[number] = StorageError(str(error))
        return errors

    def _name(self, part: Path, path: str) -> Path:
        """Gives one file its final name; the folder that is to be synced."""
        final = self.locate(path)
        with translate_os_errors(final):
            self._make(final.parent)
            try:
                _give_name(part, final)
            except FileExistsError:
                told = f"{final} exists already and was not made by this job; move it away, then run again"
                raise Occupied(told) from None
        return final.parent

    def move(self, old: str, new: str, sha256: str) -> None:
        """Renames the file with this hash inside the folder; nothing is overwritten. Folders left empty go."""
        source, final = self.locate(old), self.locate(new)
        with translate_os_errors(final):
            if os.path.lexists(final) and not _one_entry(source, final):
                raise Occupied(f"{final} exists already; move it away, then run again")
            if self.sha256(old) != sha256:
                raise Changed(f"{source} is gone, or is not the stored picture any more")
            self._make(final.parent)
            source.rename(final)
            sync_folder(final.parent)
            sync_folder(source.parent)
        self._drop_empty(source.parent)

    def end_move(self, old: str, new: str) -> None:
        """Makes it durable that a file was renamed; the new name comes first."""
        self.sync([new, old])

    def existing(self, paths: Iterable[str]) -> list[str]:
        """Those of these paths at which anything stands, a broken link included."""
        return [path for path in paths if os.path.lexists(self.locate(path))]

    def look(self, path: str) -> FileStat | None:
        """What stands at a path; a link is none of ours, and not followed."""
        file = self.locate(path)
        try:
            status = file.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError(f"{file}: {error.strerror or error}") from error
        return FileStat(status.st_size, stat.S_ISREG(status.st_mode))

    def read(self, path: str, most: int) -> bytes:
        """The bytes of a file, at most so many; a link in its place is an error."""
        file = self.locate(path)
        with translate_os_errors(file):
            stream = _opened(file)
            if stream is None:
                raise StorageError(f"{file} is not a file")
            with stream:
                return stream.read(most)

    def sha256(self, path: str) -> str | None:
        """The hash of the file at `path` in hex, or None where there is no ordinary file."""
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
        """Deletes a file; durable only once its folder is settled."""
        file = self.locate(path)
        with translate_os_errors(file):
            file.unlink(missing_ok=True)

    def sync(self, paths: Iterable[str]) -> None:
        """Makes it durable what has these names and what has not: a run that was killed may have synced nothing.

        In this order: of a file that was renamed, the new name comes first.
        """
        for folder in dict.fromkeys(self.locate(path).parent for path in paths):
            with translate_os_errors(folder):
                if folder.is_dir():
                    sync_folder(folder)
                    # Behind it: the folder above may be the one that a file was moved out of.
                    self._keep(folder)

    def settle(self, paths: Iterable[str]) -> None:
        """Makes it durable that files are gone from these places, and removes the folders left empty."""
        paths = list(paths)
        self.sync(paths)
        for folder in {self.locate(path).parent for path in paths}:
            self._drop_empty(folder)

    def drop_if_empty(self, name: str) -> None:
        """Removes a folder in this one if it is there and empty."""
        self._drop_empty(self.root / name)

    def discard(self, part: Path) -> None:
        """Removes a file that did not become whole, if it is still there."""
        with translate_os_errors(part):
            part.unlink(missing_ok=True)

    def sweep(self, folders: set[str] | None = None) -> None:
        """Removes what a killed run left under hidden names in these folders (relative, "" is the root), or in all."""
        if folders is None:
            with translate_os_errors(self.root):
                # Links to folders are not followed: what lies behind them is not ours.
                walk = os.walk(self.root, followlinks=False)
                folders = {os.path.relpath(path, self.root) for path, _, _ in walk}
        for folder in sorted(folders):
            # The folder itself may be a link that leads out, so it is the parent that is looked at.
            path = self.locate(f"{folder or '.'}/any").parent
            with translate_os_errors(path):
                if path.is_dir():
                    for entry in os.scandir(path):
                        if _PART_NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                            Path(entry.path).unlink(missing_ok=True)

    def locate(self, path: str) -> Path:
        """Where a path of an image lies; never outside of the folder."""
        folder, _, name = path.rpartition("/")
        parent = self._inside.get(folder)
        if parent is not None and name not in {"", ".", ".."}:
            return parent / name
        final = self.root / path
        if not path or ".." in path.split("/"):
            raise StorageError(f"{path!r} is no path of an image in {self.root}")
        try:
            inside = final.parent.resolve().is_relative_to(self.root.resolve())
        except (OSError, RuntimeError, ValueError) as error:
            raise StorageError(f"{path!r} is no path of an image in {self.root}: {error}") from error
        if not inside:
            raise StorageError(f"{final} would lie outside {self.root}: a link in that folder leads out of it")
        # Unlike the method of a path, `isdir` says no to what is no name at all.
        if final.parent == self.root / folder and os.path.isdir(final.parent):  # noqa: PTH112
            # Followed once a run: it takes a look at every folder above, and many images have the same ones.
            if len(self._inside) >= MOST_KNOWN:
                self._inside.clear()
            self._inside[folder] = final.parent
        return final

    def _make(self, folder: Path) -> None:
        missing = []
        at = folder
        while not at.exists():
            missing.append(at)
            at = at.parent
        self._keep(at)
        for one in reversed(missing):
            one.mkdir(exist_ok=True)
            self._keep(one)

    def _keep(self, folder: Path) -> None:
        """Makes a folder's own name durable, once a run: it may have been made by a run that was killed right then.

        Those above it are durable: each was so before the next one was made.
        """
        if folder not in self._kept:
            sync_folder(folder.parent)
            if len(self._kept) >= MOST_KNOWN:
                self._kept.clear()
            self._kept.add(folder)

    def _drop_empty(self, folder: Path) -> None:
        while folder != self.root and folder.is_relative_to(self.root):
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                return
            self._kept.discard(folder)
            self._made.discard(folder.relative_to(self.root).as_posix())
            self._inside.pop(folder.relative_to(self.root).as_posix(), None)
            folder = folder.parent


def _opened(file: Path) -> BufferedReader | None:
    """An ordinary file to be read; None for anything else: a link is not followed, a pipe not waited for."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        # What Linux says of a link, and of a socket or a device without a driver.
        if error.errno in {errno.ELOOP, errno.ENXIO}:
            return None
        raise
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return os.fdopen(handle, "rb")
    os.close(handle)
    return None


def _give_name(part: Path, final: Path) -> None:
    """Renames without ever overwriting: a link is refused by the system itself where something has the name."""
    try:
        os.link(part, final)
    except FileExistsError:
        raise
    except OSError:
        # Not every file system has links; there a look beforehand has to do.
        if os.path.lexists(final):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final)) from None
        part.rename(final)
    else:
        part.unlink()


def _one_entry(one: Path, other: Path) -> bool:
    """Whether two names are one: on a file system without letter case, a name in another case is the file's own.

    A link to the file, of either kind, is an entry of its own that somebody else made.
    """
    if not os.path.lexists(one):
        return False
    status = one.lstat()
    return status.st_nlink == 1 and os.path.samestat(status, other.lstat())


def sync(stream: BinaryIO) -> None:
    """Brings the file's bytes to the disk. A failure is final: the file has to be written anew."""
    stream.flush()
    os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Brings the names in a folder to the disk."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        # One may make a name in a folder that one may not read, and such a folder cannot be synced.
        return
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems do not sync folders, and say so with EINVAL.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(handle)
