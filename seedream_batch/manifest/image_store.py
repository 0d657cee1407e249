"""Images from announced to stored, their moves, and uploads of reference images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from seedream_batch.errors import StaleTransition
from seedream_batch.manifest.database import OneByOne, Part, expect_rows
from seedream_batch.manifest.db.connection import Sql, insert, marks
from seedream_batch.manifest.rows import IMAGE_COLUMNS, image_record, read_images
from seedream_batch.model.outcome import ImageUrl
from seedream_batch.model.task import IMAGE_EDGES, SAME_BYTES, ImageRecord, ImageState, TaskRecord


@dataclass(frozen=True, slots=True)
class StoredFile:
    """The properties of a verified file; if `turned`, programs show it turned by a quarter."""

    bytes: int
    sha256: str
    width: int
    height: int
    format: str
    turned: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """A verified file about to get its final name; images of other tasks at one of the `places` have to move first."""

    image: ImageRecord
    path: str
    file: StoredFile
    now: float
    places: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ImageMove:
    """A transition of an image: why, when (unix seconds), and columns to set."""

    image: ImageRecord
    why: str
    now: float
    columns: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Storing:
    """An announced image whose file is in place; `warning` says why it differs from the request."""

    image: ImageRecord
    file: StoredFile
    why: str
    warning: str
    now: float


ACCEPTED_AS_IS = "accepted as it is: "
"""Prefix of the reason of a stored image that differs from the request and that a person accepted."""

_THIS = 'WHERE task = ? AND "index" = ?'
_UNFLAGGED = f"warning = '' AND substr(reason, 1, {len(ACCEPTED_AS_IS)}) != '{ACCEPTED_AS_IS}'"


class ImageStore(Part):
    """Images, their files, and uploads."""

    def of_task(self, task: int) -> list[ImageRecord]:
        return read_images(self._connection, 'images WHERE task = ? ORDER BY "index"', (task,))

    def exist(self) -> bool:
        """Return whether the manifest has any image, of any task."""
        return bool(self._connection.rows("SELECT 1 FROM images LIMIT 1"))

    def delivered(self, task: int) -> int:
        """Return the number of images, and so of links, of the task's last succeeded attempt."""
        sql = "SELECT images FROM attempts WHERE task = ? AND outcome = 'succeeded' ORDER BY number DESC LIMIT 1"
        row = self._connection.row(sql, (task,))
        return int(row[0]) if row else 0

    def moving(self, after: tuple[int, int] = (0, 0), limit: int = 1000) -> list[ImageRecord]:
        """Return up to `limit` stored images whose file has to move, after this task and index."""
        return read_images(
            self._connection,
            "images WHERE target IS NOT NULL AND state = 'stored' AND (task, \"index\") > (?, ?)"
            ' ORDER BY task, "index" LIMIT ?',
            (*after, limit),
        )

    def interrupted_moves(self) -> list[ImageRecord]:
        """Return the images whose file was being moved when a run was killed."""
        return read_images(self._connection, "images WHERE via IS NOT NULL")

    def owner(self, path: str) -> tuple[ImageRecord, bool] | None:
        """Return the stored image with this path, and whether the job still asks for it."""
        return next(iter(self.owners([path])), None)

    def belongs_to_another(self, image: ImageRecord, path: str) -> bool:
        """Return whether an image other than this one is stored at a path."""
        owner = self.owner(path)
        return owner is not None and (owner[0].task, owner[0].index) != (image.task, image.index)

    def owners(self, paths: Sequence[str]) -> list[tuple[ImageRecord, bool]]:
        """Return the stored images with these paths, and whether the job still asks for them."""
        rows = self._connection.rows(
            f"SELECT {IMAGE_COLUMNS}, tasks.ordinal FROM images JOIN tasks ON tasks.id = images.task"
            f" WHERE images.path IN ({marks(paths)}) AND images.state = 'stored'",
            paths,
        )
        return [(image_record(row[:-1]), row[-1] is not None) for row in rows]

    def place_all(self, placements: Sequence[Placement]) -> list[tuple[ImageRecord, bool] | None]:
        """Record the path of each image before its rename, or return the image that is in its way, see `owner`."""
        owners = {owner[0].path: owner for owner in self.owners([path for at in placements for path in at.places])}
        blocked: list[tuple[ImageRecord, bool] | None] = []
        for at in placements:
            others = [owners[path] for path in at.places if path in owners and owners[path][0].task != at.image.task]
            blocked.append(next((other for other in others if gives_way(*other) or other[0].path == at.path), None))
        free = [at for at, other in zip(placements, blocked, strict=True) if other is None]
        if free:
            self.record_paths(free)
        return blocked

    def left_over(self, wanted: Sequence[tuple[TaskRecord, list[str]]]) -> list[list[ImageRecord]]:
        """Return for each task the images at these paths that belong to an earlier task of its place in the job."""
        paths = [path for _, paths in wanted for path in paths]
        rows = self._connection.rows(
            f"SELECT {IMAGE_COLUMNS}, tasks.paths FROM images JOIN tasks ON tasks.id = images.task WHERE images.path IN"
            f" ({marks(paths)}) AND images.state = 'stored' AND tasks.ordinal IS NULL",
            paths,
        )
        left = [(image_record(row[:-1]), json.loads(row[-1])[0]) for row in rows]
        return [
            [image for image, place in left if image.path in paths and image.task != task.id and place == task.paths[0]]
            for task, paths in wanted
        ]

    def record_paths(self, placements: Sequence[Placement]) -> None:
        """Record paths and hashes before the renames, so that a crash in between can be recovered."""
        with self._group() as sql:
            for placement in placements:
                self._check_edge(placement.image, ImageState.STORED)
            # Each file goes to its present path in the job, so no further move is due.
            cursor = sql.executemany(
                "UPDATE images SET target = NULL, path = ?, bytes = ?, sha256 = ?, width = ?, height = ?, format = ?,"
                ' updated_at = ? WHERE task = ? AND "index" = ? AND state = ?',
                [
                    (at.path, at.file.bytes, at.file.sha256, at.file.width, at.file.height, at.file.format,
                     at.now, at.image.task, at.image.index, at.image.state)
                    for at in placements
                ],
            )  # fmt: skip
            expect_rows(cursor, len(placements), _in_state(placements[0].image))

    def move(
        self, image: ImageRecord, to: ImageState, why: str, now: float, columns: Mapping[str, object] | None = None
    ) -> None:
        """Call `move_all` for one image."""
        self.move_all(to, [ImageMove(image, why, now, columns or {})])

    def move_all(self, to: ImageState, moves: Sequence[ImageMove]) -> None:
        """Move each image, or none, from its state to another; all moves set the same columns.

        Raises `StaleTransition` if an image is not in its state any more, or there is no such transition.
        """
        with self._group() as sql:
            for move in moves:
                self._check_edge(move.image, to)
            rows = [
                {"state": to, "reason": "" if to is ImageState.STORED else move.why, "updated_at": move.now}
                | dict(move.columns)
                for move in moves
            ]
            assignments = ", ".join(f"{name} = ?" for name in rows[0])
            cursor = sql.executemany(
                f'UPDATE images SET {assignments} WHERE task = ? AND "index" = ? AND state = ?',
                [
                    (*row.values(), move.image.task, move.image.index, move.image.state)
                    for row, move in zip(rows, moves, strict=True)
                ],
            )
            expect_rows(cursor, len(moves), _in_state(moves[0].image))
            self._database.log(
                sql, [(move.now, move.image.task, move.image.index, move.image.state, to, move.why) for move in moves]
            )

    @staticmethod
    def _check_edge(image: ImageRecord, to: ImageState) -> None:
        if to not in IMAGE_EDGES[image.state]:
            raise StaleTransition(f"an image does not go from {image.state} to {to}")

    def store_all(self, stored: Sequence[Storing]) -> list[str]:
        """Record that the images' files are in place; return why each differs from the request, empty if it does not.

        If another image has the same bytes, both get a warning: one of them is wrong, and nobody knows which. Raises
        `OneByOne` for several images then.
        """
        with self._group() as sql:
            moves = [
                ImageMove(at.image, at.why, at.now, {"warning": at.warning, "url": self._link_to_keep(at.image)})
                for at in stored
            ]
            self.move_all(ImageState.STORED, moves)
            same = next(filter(None, self.same_bytes([(at.image, at.file.sha256) for at in stored])), None)
            if same is None:
                return [at.warning for at in stored]
            storing = stored[0]
            warning = f"{SAME_BYTES}{same.path}" + (f"; {storing.warning}" if storing.warning else "")
            this = (storing.image.task, storing.image.index)
            sql.execute(f"UPDATE images SET warning = ? {_THIS}", (warning, *this))
            path = self.of_task(storing.image.task)[storing.image.index - 1].path
            sql.execute(
                f"UPDATE images SET warning = ? WHERE sha256 = ? AND state = 'stored' AND {_UNFLAGGED}",
                (f"{SAME_BYTES}{path}", storing.file.sha256),
            )
        return [warning]

    def _link_to_keep(self, image: ImageRecord) -> str:
        """Return the link of a stored image; of a data URI only the head, since the file has the rest.

        Images that are delivered late are identified by the full links of the earlier ones.
        """
        if image.url[:5].lower() != "data:":
            return image.url
        sql = "SELECT 1 FROM tasks WHERE id = ? AND images > (SELECT count(*) FROM images WHERE task = tasks.id)"
        return image.url if self._connection.row(sql, (image.task,)) else image.url.partition(",")[0]

    def same_bytes(self, images: Sequence[tuple[ImageRecord, str]]) -> list[ImageRecord | None]:
        """Return, for each image and hash, another stored image with these bytes, if there is one.

        Raises `OneByOne` for several images then.
        """
        hashes = {sha256 for _, sha256 in images}
        # One row more than these images have: that is enough, and thousands may have the same bytes.
        stored = read_images(
            self._connection,
            f"images WHERE sha256 IN ({marks(hashes)}) AND state = 'stored' LIMIT ?",
            (*hashes, len(images) + 1),
        )
        same = [next((other for other in stored if _is_other(other, *image)), None) for image in images]
        if len(images) > 1 and any(same):
            raise OneByOne
        return same

    def with_hash(self, sha256: str) -> ImageRecord | None:
        """Return an image with these bytes that is stored or missing; one that is missing is preferred."""
        found = read_images(
            self._connection,
            "images WHERE sha256 = ? AND state IN ('stored', 'missing') ORDER BY state LIMIT 1",
            (sha256,),
        )
        return found[0] if found else None

    def insert(self, sql: Sql, images: Sequence[Sequence[object]]) -> None:
        """Insert new images: task, index, state, link, its expiry and the present time of each."""
        insert(sql, 'images (task, "index", state, url, expires_at, updated_at)', images)

    def renew_link(
        self,
        image: ImageRecord,
        link: ImageUrl,
        *,
        default_expiry: float,
        now: float,
        why: str = "the service provided a link again",
    ) -> None:
        """Record a new link for an image that is not stored, so that it is fetched again."""
        expires_at = link.expires_at or default_expiry
        columns = {"url": link.url, "expires_at": expires_at, "tries": 0, "reason": ""}
        self.move(image, ImageState.ANNOUNCED, why, now, columns)

    def update_reason(self, image: ImageRecord, why: str, now: float, *, link: bool = True) -> None:
        """Update why an image is missing; without `link`, the service was asked and has none."""
        with self._group() as sql:
            sql.execute(
                f"UPDATE images SET reason = ?, url = ?, updated_at = ? {_THIS} AND state = 'missing'",
                (why, image.url if link else "", now, image.task, image.index),
            )

    def retry_download(
        self, image: ImageRecord, *, why: str, url: str | None, expires_at: float | None, now: float
    ) -> ImageRecord:
        """Record a failed download that is to be repeated, with a new URL if there is one."""
        with self._group() as sql:
            cursor = sql.execute(
                "UPDATE images SET tries = tries + 1, reason = ?, url = coalesce(?, url), expires_at ="
                f" coalesce(?, expires_at), updated_at = ? {_THIS} AND state = 'announced'",
                (why, url, expires_at, now, image.task, image.index),
            )
            expect_rows(cursor, 1, f"image {image.index} of task {image.task} in state {ImageState.ANNOUNCED}")
        return self.of_task(image.task)[image.index - 1]

    def relocate(self, image: ImageRecord, path: str, *, target: str | None, now: float) -> None:
        """Record that a stored file is now at `path`; `target` is where it still has to move, if anywhere."""
        with self._group() as sql:
            cursor = sql.execute(
                "UPDATE images SET path = ?, target = ?, via = NULL, updated_at = ?"
                f" {_THIS} AND path = ? AND state = 'stored'",
                (path, target, now, image.task, image.index, image.path),
            )
            expect_rows(cursor, 1, f"image {image.index} of task {image.task} stored at {image.path}")

    def begin_move(self, image: ImageRecord, path: str | None) -> None:
        """Record a rename in progress; None clears it."""
        with self._group() as sql:
            statement = f"UPDATE images SET via = ? {_THIS} AND path = ?"
            cursor = sql.execute(statement, (path, image.task, image.index, image.path))
            expect_rows(cursor, 1, f"image {image.index} of task {image.task} at {image.path}")

    def upload(self, sha256: str, service: str, good_until: float) -> str | None:
        """Return the URL of an uploaded reference image that is valid until then, if there is one."""
        row = self._connection.row(
            "SELECT url FROM uploads WHERE sha256 = ? AND service = ? AND expires_at > ?", (sha256, service, good_until)
        )
        return str(row[0]) if row else None

    def uploaded(self, sha256: str, service: str, url: str, expires_at: float) -> None:
        with self._group() as sql:
            sql.execute(
                "INSERT INTO uploads VALUES (?, ?, ?, ?) ON CONFLICT (sha256, service)"
                " DO UPDATE SET url = excluded.url, expires_at = excluded.expires_at",
                (sha256, service, url, expires_at),
            )

    def forget_upload(self, sha256: str, service: str) -> None:
        """Forget an upload that the service has lost, so that it is uploaded again."""
        with self._group() as sql:
            sql.execute("DELETE FROM uploads WHERE sha256 = ? AND service = ?", (sha256, service))


def gives_way(image: ImageRecord, wanted: bool) -> bool:  # noqa: FBT001 - as `owner` returns them
    """Return whether an image may leave its path: the job does not ask for it, or has another path for it."""
    return not wanted or image.target is not None


def _in_state(image: ImageRecord) -> str:
    return f"image {image.index} of task {image.task} in state {image.state}"


def _is_other(other: ImageRecord, image: ImageRecord, sha256: str) -> bool:
    return other.sha256 == sha256 and (other.task, other.index) != (image.task, image.index)
