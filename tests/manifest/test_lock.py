"""One run at a time: the lock of a manifest, and what others are told."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from seedream_batch.errors import ManifestLocked, StorageError
from seedream_batch.manifest import Manifest
from seedream_batch.manifest.run_lock import LOCK, is_locked, run_lock
from seedream_batch.model.locations import MANIFEST

HOLD = """
import sys
from pathlib import Path
from seedream_batch.manifest.run_lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of the folder."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        if process.poll() is None:
            process.kill()


def acquired(folder):
    with run_lock(folder):
        return True


def test_a_free_lock(tmp_path):
    with run_lock(tmp_path):
        assert is_locked(tmp_path / MANIFEST)
    assert not is_locked(tmp_path / MANIFEST)
    assert acquired(tmp_path)
    assert (tmp_path / LOCK).stat().st_mode & 0o777 == 0o600


def test_a_second_run_is_refused(tmp_path, holder):
    assert is_locked(tmp_path / MANIFEST)
    with pytest.raises(ManifestLocked, match="it has just started"):
        acquired(tmp_path)
    assert holder.poll() is None


def test_a_second_run_learns_who_holds_it(tmp_path, holder):
    manifest = Manifest(tmp_path / "manifest.db")
    started = time.mktime((2026, 5, 6, 7, 8, 9, 0, 0, -1))
    manifest.workers.begin_run(now=started, pid=holder.pid, host="box", version="1", service="https://x")
    with pytest.raises(ManifestLocked) as told:
        acquired(tmp_path)
    manifest.close()
    assert f"pid {holder.pid} on box, started 2026-05-06 07:08:09" in str(told.value)
    assert str(tmp_path) in str(told.value)


def test_a_run_that_ended_is_not_named(tmp_path, holder):
    manifest = Manifest(tmp_path / "manifest.db")
    manifest.workers.begin_run(now=1.0, pid=4711, host="box", version="1", service="https://x")
    manifest.workers.end_run(now=2.0, outcome="finished")
    manifest.close()
    with pytest.raises(ManifestLocked) as told:
        acquired(tmp_path)
    assert "4711" not in str(told.value)
    assert holder.poll() is None


def test_a_manifest_that_cannot_be_read_does_not_hide_the_lock(tmp_path, holder):
    (tmp_path / "manifest.db").write_text("these are my notes\n" * 100)
    with pytest.raises(ManifestLocked):
        acquired(tmp_path)
    assert holder.poll() is None


def test_a_killed_run_frees_its_lock(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait(10)
    assert not is_locked(tmp_path / MANIFEST)
    assert acquired(tmp_path)


def test_a_run_that_ends_frees_its_lock(tmp_path, holder):
    holder.stdin.close()
    holder.wait(10)
    assert acquired(tmp_path)


def test_an_error_inside_frees_the_lock(tmp_path):
    def fail():
        with run_lock(tmp_path):
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        fail()
    assert acquired(tmp_path)


def test_a_second_holder_in_the_same_process(tmp_path):
    with run_lock(tmp_path), pytest.raises(ManifestLocked):
        acquired(tmp_path)
    failures = []

    def other():
        try:
            acquired(tmp_path)
        except ManifestLocked as error:
            failures.append(error)

    with run_lock(tmp_path):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(failures) == 1


def test_two_folders_have_two_locks(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with run_lock(tmp_path / "a"):
        assert acquired(tmp_path / "b")


def test_looking_makes_nothing(tmp_path):
    assert not is_locked(tmp_path / MANIFEST)
    assert not is_locked(tmp_path / "none" / MANIFEST)
    assert list(tmp_path.iterdir()) == []


def test_a_look_turns_no_run_away(tmp_path):
    acquired(tmp_path)
    done = threading.Event()

    def look():
        while not done.is_set():
            is_locked(tmp_path / MANIFEST)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        assert all(acquired(tmp_path) for _ in range(80))
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_a_folder_that_cannot_have_a_lock(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "taken" / LOCK).mkdir(parents=True)
    for folder in (tmp_path / "file", tmp_path / "taken"):
        with pytest.raises(StorageError, match=r"manifest\.lock"):
            acquired(folder)
    assert not is_locked(tmp_path / "taken" / MANIFEST)
