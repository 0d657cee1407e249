"""The files for task ids that the manifest could not take: whose they are, and when they may go."""

import errno

import pytest

from seedream_batch.errors import ManifestLocked, StorageError
from seedream_batch.files.local_folder import sync_folder
from seedream_batch.manifest import rescue_log as module
from seedream_batch.manifest.rescue_log import SIZE, Rescued, RescueFile, name_of_worker, orphaned_logs
from seedream_batch.manifest.run_lock import lock_for_workers

NOW = 1_800_000_000.0


def ids(number):
    return Rescued(f"key-{number}", (f"task_{number}",), NOW)


def found(folder, manifest="ours", *, at_work=()):
    with orphaned_logs(folder, manifest, at_work=at_work) as left:
        return [one.key for file in left.files for one in file.rescued]


@pytest.fixture
def worker(tmp_path):
    file = RescueFile(tmp_path, sync_folder, name_of_worker("ours", 7))
    yield file
    file.close()


def test_one_at_work_keeps_its_own(tmp_path, worker):
    worker.prepare()
    assert found(tmp_path) == []
    assert worker.path.stat().st_size == SIZE
    worker.add(ids(1))
    # As others do who believe that it is gone.
    with orphaned_logs(tmp_path, "ours", at_work=()) as left:
        assert left.files == []
        assert left.held
    worker.add(ids(2))
    worker.close()
    assert found(tmp_path) == ["key-1", "key-2"]


def test_what_is_taken_away_does_not_come_back(tmp_path, worker):
    worker.add(ids(1))
    worker.close()
    with orphaned_logs(tmp_path, "ours", at_work=()) as left:
        assert not left.held
        with orphaned_logs(tmp_path, "ours", at_work=()) as others:
            assert others.files == [], "one takes it in, and nobody beside it"
        left.files[0].imported(1)
    assert found(tmp_path) == []
    worker.add(ids(2))
    worker.close()
    assert found(tmp_path) == ["key-2"]


def test_whoever_begins_waits_for_one_that_looks(tmp_path, worker, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    worker.add(ids(1))
    worker.close()
    with (
        orphaned_logs(tmp_path, "ours", at_work=()),
        pytest.raises(StorageError, match=r"manifest-ours-7\.rescue: another process is using it"),
    ):
        worker.prepare()
    worker.add(ids(2))
    worker.close()
    assert found(tmp_path) == ["key-1", "key-2"]


def test_those_of_another_manifest_are_left_alone(tmp_path, worker):
    worker.add(ids(1))
    worker.close()
    assert found(tmp_path, "theirs") == []
    assert found(tmp_path, at_work=None) == []
    assert found(tmp_path) == ["key-1"]


def test_without_locks_those_at_work_keep_theirs_and_lose_nothing(tmp_path, worker, monkeypatch):
    """A folder of another machine may have locks of its own, of which this one sees nothing."""
    monkeypatch.setattr(module, "lock_now", lambda _: True)
    worker.add(ids(1))
    assert found(tmp_path, at_work=[7]) == []
    assert found(tmp_path, at_work=[8]) == ["key-1"]
    worker.path.unlink()
    worker.add(ids(2))
    worker.add(ids(3))
    worker.close()
    assert found(tmp_path) == ["key-1", "key-2", "key-3"]


def test_a_lock_that_cannot_be_had_is_told(tmp_path, worker, monkeypatch):
    worker.add(ids(1))
    worker.close()

    def none(_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(module, "lock_now", none)
    with pytest.raises(StorageError, match="No locks available"):
        found(tmp_path)
    with pytest.raises(StorageError, match="No locks available"):
        worker.prepare()


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(StorageError, match="No space left"), lock_for_workers(tmp_path, "ours", "our manifest"):
        pass


def test_a_folder_is_that_of_one_manifest_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("seedream_batch.manifest.run_lock.PATIENCE", 0.02)
    folder = tmp_path / "not yet there"
    with lock_for_workers(folder, "ours", "our manifest"), lock_for_workers(folder, "ours", "our manifest"):
        others = lock_for_workers(folder, "another", "theirs")
        with pytest.raises(ManifestLocked, match=r"another manifest than theirs are using .*output\.dir"), others:
            pass
        with lock_for_workers(folder, "ours", "our manifest"):
            pass
    with lock_for_workers(folder, "another", "theirs"):
        pass
