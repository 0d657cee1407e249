"""What every destination of pictures promises: folders of files, and buckets of an object store."""

import dataclasses
import hashlib
import os
from itertools import count

import pytest

from seedream_batch.errors import StorageError
from seedream_batch.files.integrity import ExpectedFile, check
from seedream_batch.files.local_folder import Changed, Occupied, OutputFolder

DATA = b"a picture " * 500


class Folder:
    """A folder, and what stands in it for somebody who looks from outside."""

    def __init__(self, root):
        self.kept = OutputFolder(root)
        self.root = root

    def again(self):
        return OutputFolder(self.root)

    def all(self):
        files = [file for file in self.root.rglob("*") if file.is_file()]
        return {file.relative_to(self.root).as_posix(): file.read_bytes() for file in files}

    def put(self, path, data):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    def delete(self, path):
        (self.root / path).unlink()


class Bucket:
    """A bucket, and what is in it."""

    def __init__(self, stores, spool, environ=None):
        self.stores = stores
        self.place = stores.bucket()
        self.spool = spool
        self.environ = environ or stores.environ
        self.kept = self.again()

    def again(self):
        from seedream_batch.files.object_store import ObjectStore

        return ObjectStore(self.place, self.spool, self.environ)

    def all(self):
        return self.stores.objects(self.place)

    def put(self, path, data):
        self.stores.put(self.place, path, data)

    def delete(self, path):
        self.stores.delete(self.place, path)


@pytest.fixture(params=["folder", "moto", "seaweed"])
def outside(request, tmp_path, monkeypatch):
    if request.param == "folder":
        made = Folder(tmp_path / "out")
    else:
        stores = request.getfixturevalue(request.param)
        for name, value in stores.environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("seedream_batch.files.object_store.PAUSE", 0.01)
        made = Bucket(stores, tmp_path / "out")
    made.kept.prepare()
    return made


@pytest.fixture
def kept(outside):
    return outside.kept


@pytest.fixture
def store(kept):
    def place(path, data=DATA):
        part = kept.new_part(path)
        part.write_bytes(data)
        [error] = kept.place([(part, path)])
        if error is not None:
            raise error
        assert not part.exists()

    return place


def parts(kept):
    return list(kept.spool.rglob("*.part"))


def test_preparing_leaves_nothing(outside):
    outside.kept.prepare()
    assert outside.all() == {}
    assert parts(outside.kept) == []


def test_a_picture_is_there_when_it_was_placed(outside, kept):
    part = kept.new_part("panda/1-1.png")
    part.write_bytes(DATA)
    assert outside.all().get("panda/1-1.png") is None
    assert kept.existing(["panda/1-1.png"]) == []
    assert kept.look("panda/1-1.png") is None
    assert kept.sha256("panda/1-1.png") is None
    assert kept.place([(part, "panda/1-1.png")]) == [None]
    assert outside.all() == {"panda/1-1.png": DATA}
    assert parts(kept) == []
    assert kept.existing(["panda/1-1.jpg", "panda/1-1.png", "fox"]) == ["panda/1-1.png"]
    assert kept.look("panda/1-1.png").bytes == len(DATA)
    assert kept.sha256("panda/1-1.png") == hashlib.sha256(DATA).hexdigest()
    assert kept.read("panda/1-1.png", len(DATA) + 1) == DATA
    assert kept.read("panda/1-1.png", 5) == DATA[:5]
    again = outside.again()
    again.prepare()
    assert again.sha256("panda/1-1.png") == kept.sha256("panda/1-1.png")


@pytest.mark.parametrize("path", ["a b/c (1).png", "ü/ß-日本.png", "a+b/100%.png", "~/#1.png"])
def test_any_path_that_a_job_may_make(kept, store, path):
    store(path)
    assert kept.existing([path]) == [path]
    assert kept.sha256(path) == hashlib.sha256(DATA).hexdigest()
    kept.move(path, f"moved/{path}", kept.sha256(path))
    assert kept.existing([path, f"moved/{path}"]) == [f"moved/{path}"]


def test_nothing_is_overwritten(outside, kept):
    outside.put("1.png", b"of somebody else")
    part = kept.new_part("1.png")
    part.write_bytes(DATA)
    [error] = kept.place([(part, "1.png")])
    assert isinstance(error, Occupied)
    assert "1.png already exists and is not from this job" in str(error)
    assert outside.all()["1.png"] == b"of somebody else"
    assert part.read_bytes() == DATA
    kept.discard(part)
    kept.discard(part)
    assert parts(kept) == []


def test_of_many_each_is_placed_or_told_by_itself(outside, kept):
    outside.put("a/2.png", b"of somebody else")
    paths = [f"{folder}/{number}.png" for folder in "ab" for number in range(1, 11)]
    files = []
    for path in paths:
        part = kept.new_part(path)
        part.write_bytes(path.encode())
        files.append((part, path))
    files.append((kept.spool / "nothing.part", "a/99.png"))
    errors = kept.place(files)
    wrong = {path: type(error) for (_, path), error in zip(files, errors, strict=True) if error}
    assert wrong == {"a/2.png": Occupied, "a/99.png": StorageError}
    found = outside.all()
    assert {path: found.get(path) for path in paths if path != "a/2.png"} == {
        path: path.encode() for path in paths if path != "a/2.png"
    }
    assert kept.place([]) == []


def test_moving(outside, kept, store):
    store("a/1.png")
    store("b/1.png", b"another")
    kept.move("a/1.png", "c/d/2.png", kept.sha256("a/1.png"))
    assert {path: data for path, data in outside.all().items() if ".part" not in path} == {
        "c/d/2.png": DATA,
        "b/1.png": b"another",
    }
    with pytest.raises(Occupied, match=r"b/1\.png already exists"):
        kept.move("c/d/2.png", "b/1.png", kept.sha256("c/d/2.png"))
    assert outside.all()["b/1.png"] == b"another"
    assert outside.all()["c/d/2.png"] == DATA
    with pytest.raises(StorageError):
        kept.move("nothing.png", "e.png", "0" * 64)
    outside.put("b/2.png", b"retouched")
    with pytest.raises(Changed):
        kept.move("b/2.png", "e.png", hashlib.sha256(b"as it was").hexdigest())
    assert outside.all()["b/2.png"] == b"retouched"
    assert "e.png" not in outside.all()
    kept.end_move("a/1.png", "c/d/2.png")
    assert outside.all()["c/d/2.png"] == DATA


def test_deleting(outside, kept, store):
    store("a/1.png")
    store("a/2.png")
    kept.unlink("a/1.png")
    kept.unlink("a/1.png")
    kept.settle(["a/1.png"])
    assert set(outside.all()) == {"a/2.png"}
    kept.drop_if_empty("a")
    assert set(outside.all()) == {"a/2.png"}


def test_parts_of_a_killed_run_are_swept(outside, kept, store):
    store("a/1.png")
    for path in ("a/2.png", "3.png"):
        kept.new_part(path).write_bytes(b"half")
    other = kept.spool / "notes.txt"
    other.write_text("of somebody else")
    outside.again().sweep()
    assert parts(kept) == []
    assert other.exists()
    assert outside.all()["a/1.png"] == DATA


def test_what_was_changed_is_seen(outside, kept, picture, store):
    data = picture()
    store("1.png", data)
    recorded = ExpectedFile("1.png", len(data), hashlib.sha256(data).hexdigest(), 20, 20)
    assert not check(kept, recorded, deep=True).wrong
    assert check(kept, dataclasses.replace(recorded, bytes=5), deep=False).wrong == (
        f"the file was changed on disk ({len(data)} bytes instead of 5)"
    )
    outside.delete("1.png")
    assert not check(kept, recorded, deep=True).there
    outside.put("1.png", picture(color="blue")[: len(data)].ljust(len(data), b"x"))
    assert check(kept, recorded, deep=True).wrong == "the file was changed on disk"


def test_room_is_that_of_this_machine(kept):
    kept.new_part("1.png")
    assert kept.knows("1.png")
    assert kept.free_bytes() <= os.statvfs(kept.spool).f_frsize * os.statvfs(kept.spool).f_blocks


# An object store alone


@pytest.fixture(params=["moto", "seaweed"])
def bucket(request, tmp_path, monkeypatch, line):
    """A bucket at the end of a line that can be cut."""
    stores = request.getfixturevalue(request.param)
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("seedream_batch.files.object_store.PAUSE", 0.01)
    laid = line(stores)
    environ = {**stores.environ, "AWS_ENDPOINT_URL": laid.url}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    made = Bucket(stores, tmp_path / "out", environ)
    made.line = laid
    made.kept.prepare()
    return made


numbers = count()


def placed(bucket, data):
    path = f"{next(numbers)}.png"
    part = bucket.kept.new_part(path)
    part.write_bytes(data)
    [error] = bucket.kept.place([(part, path)])
    return path, part, error


@pytest.mark.parametrize("after", [100, 5_000, 150_000])
@pytest.mark.parametrize("times", [1, 3])
def test_an_upload_that_is_cut_is_made_again(bucket, after, times):
    data = os.urandom(200_000)
    bucket.line.cut, bucket.line.after = times, after
    path, part, error = placed(bucket, data)
    assert error is None
    assert bucket.line.cut == 0
    assert bucket.all() == {path: data}
    assert not part.exists()


def test_uploads_that_are_always_cut_leave_nothing(bucket):
    bucket.line.cut, bucket.line.after = 1000, 150_000
    path, part, error = placed(bucket, os.urandom(200_000))
    assert isinstance(error, StorageError)
    assert not isinstance(error, Occupied)
    assert bucket.place.url in str(error)
    assert bucket.all() == {}
    assert part.exists()
    bucket.line.cut = 0
    assert bucket.kept.place([(part, path)]) == [None]


@pytest.mark.parametrize("times", [1, 2, 4])
def test_an_upload_whose_answer_is_lost_is_known_to_be_ours(bucket, times):
    data = os.urandom(50_000)
    bucket.line.lost = times
    path, _, error = placed(bucket, data)
    assert error is None
    assert bucket.all() == {path: data}


def test_a_move_that_is_cut_off_between_its_two_steps(bucket, monkeypatch):
    path, _, _ = placed(bucket, DATA)

    def killed(_path):
        raise StorageError("killed")

    monkeypatch.setattr(bucket.kept, "unlink", killed)
    with pytest.raises(StorageError, match="killed"):
        bucket.kept.move(path, "new.png", hashlib.sha256(DATA).hexdigest())
    assert bucket.all() == {path: DATA, "new.png": DATA}
    again = bucket.again()
    again.end_move(path, "new.png")
    assert bucket.all() == {"new.png": DATA}
    again.end_move(path, "new.png")
    assert bucket.all() == {"new.png": DATA}


def test_a_line_that_is_gone_is_told(bucket):
    bucket.line.dead = True
    for call in (bucket.kept.prepare, lambda: bucket.kept.look("1.png"), lambda: bucket.kept.sha256("1.png")):
        with pytest.raises(StorageError, match="cannot use the store") as caught:
            call()
        assert "Debug" not in str(caught.value)


def test_objects_say_what_they_are(bucket):
    path, _, _ = placed(bucket, DATA)
    head = bucket.stores.client.head_object(Bucket=bucket.place.bucket, Key=f"{bucket.place.prefix}/{path}")
    assert head["ContentType"] == "image/png"
    assert head["Metadata"]["sha256"] == hashlib.sha256(DATA).hexdigest()


@pytest.mark.parametrize(
    ("left", "sha256", "code"),
    [
        (DATA[:100], hashlib.sha256(DATA).hexdigest(), None),
        (DATA[:100], "of another", Occupied),
        (b"x" * 100, hashlib.sha256(DATA).hexdigest(), Occupied),
        (DATA + b"more", hashlib.sha256(DATA).hexdigest(), Occupied),
    ],
)
def test_what_is_left_of_a_torn_upload_gives_way_and_nothing_else_does(bucket, left, sha256, code):
    path = f"{next(numbers)}.png"
    key = f"{bucket.place.prefix}/{path}"
    bucket.stores.client.put_object(Bucket=bucket.place.bucket, Key=key, Body=left, Metadata={"sha256": sha256})
    part = bucket.kept.new_part(path)
    part.write_bytes(DATA)
    [error] = bucket.kept.place([(part, path)])
    assert type(error) is (code or type(None))
    assert bucket.all() == {path: DATA if code is None else left}


def test_a_store_that_tears_uploads(s3rver, line, tmp_path, monkeypatch):
    """It keeps what came of an upload that was cut, and knows no conditions: it is refused, and never believed."""
    from seedream_batch.errors import UsageError

    monkeypatch.setattr("seedream_batch.files.object_store.PAUSE", 0.01)
    laid = line(s3rver)
    for name, value in {**s3rver.environ, "AWS_ENDPOINT_URL": laid.url}.items():
        monkeypatch.setenv(name, value)
    torn = Bucket(s3rver, tmp_path / "out", {**s3rver.environ, "AWS_ENDPOINT_URL": laid.url})
    with pytest.raises(UsageError, match="does not support conditional uploads"):
        torn.kept.prepare()
    data = os.urandom(300_000)
    laid.cut, laid.after = 1000, 150_000
    path, part, error = placed(torn, data)
    assert isinstance(error, StorageError)
    assert 0 < len(torn.all()[path]) < len(data), "the adversary has done its work"
    assert part.exists()
    laid.cut = 2
    assert torn.kept.place([(part, path)]) == [None]
    assert torn.all() == {path: data}
