"""A file that is being written: in memory while it is small, whole on the disk at its end, and gone if that fails."""

import hashlib
import resource
import threading
from contextlib import contextmanager

import pytest

from seedream_batch.errors import StorageError
from seedream_batch.files.temp_file import HELD_BACK, writing


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.part"


@pytest.mark.parametrize(
    "sizes", [[], [0], [5], [1, 2, 3], [HELD_BACK - 1], [HELD_BACK], [HELD_BACK + 1, 1], [HELD_BACK // 3] * 10]
)
def test_all_bytes_in_their_order(path, sizes):
    chunks = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
    with writing(path) as part:
        for chunk in chunks:
            part.take(chunk)
        part.finish()
    assert path.read_bytes() == b"".join(chunks)
    assert part.sha256 == hashlib.sha256(b"".join(chunks)).hexdigest()
    assert part.made


def test_a_small_file_is_made_at_its_end(path):
    with writing(path) as part:
        part.take(b"x" * (HELD_BACK - 1))
        assert not part.made
        assert not path.exists()
        part.finish()
        assert path.stat().st_size == HELD_BACK - 1


def test_a_large_file_does_not_wait_in_memory(path):
    with writing(path) as part:
        part.take(b"x" * HELD_BACK)
        assert part.made
        part.take(b"x")
        part.finish()
    assert path.stat().st_size == HELD_BACK + 1


def test_what_ended_before_it_was_written_leaves_nothing(path):
    with writing(path) as part:
        part.take(b"half")
    assert not part.made
    assert not path.exists()


@pytest.mark.parametrize("size", [4, HELD_BACK])
@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_part_goes_when_anything_goes_wrong(path, error, size):
    def fail():
        with writing(path) as part:
            part.take(b"x" * size)
            if size < HELD_BACK:
                part.finish()
            raise error

    with pytest.raises(StorageError if isinstance(error, OSError) else type(error)):
        fail()
    assert not path.exists()


def test_a_part_that_is_there_is_neither_written_nor_removed(path):
    path.write_bytes(b"of another writer")

    def write():
        with writing(path) as part:
            part.take(b"mine")
            part.finish()

    with pytest.raises(StorageError, match="File exists"):
        write()
    assert path.read_bytes() == b"of another writer"


def test_a_thread_that_comes_late_does_not_make_the_file_anew(path):
    # Whoever waits for the thread may be cancelled before it has begun.
    errors = []
    may_go = threading.Event()

    def late(part):
        may_go.wait()
        try:
            part.finish()
        except ValueError as error:
            errors.append(str(error))

    with writing(path) as part:
        part.take(b"x")
        thread = threading.Thread(target=late, args=(part,))
        thread.start()
    may_go.set()
    thread.join()
    assert errors == [f"{path} is closed"]
    assert not path.exists()


@contextmanager
def no_file_longer_than(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("chunks", [[150_000], [60_000, 60_000], [16_384] * 7, [99_999, 2], [HELD_BACK, 2]])
def test_a_write_that_takes_only_a_part_is_no_success(path, chunks):
    # At a limit, as on a disk that is nearly full, the kernel writes what fits and only says how much that was.
    def write():
        with writing(path) as part:
            for size in chunks:
                part.take(b"x" * size)
            part.finish()

    with no_file_longer_than(100_000), pytest.raises(StorageError, match="too large"):
        write()
    assert not path.exists()
