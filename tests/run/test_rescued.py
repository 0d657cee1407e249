"""Task ids that a worker could not write down: in the folder they wait for whoever takes them in, and once only."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from postgres import asked, url_of

from seedream_batch.errors import StorageError
from seedream_batch.manifest.task_store import TaskStore


@pytest.fixture
def place(postgres):
    return postgres.place()


@pytest.fixture
def unanswered(bench, serve, place, until, end):
    """A worker that has paid for a task, and hears of it only in a minute; its charge, its number, its process."""
    serve(honour_keys=False, task_seconds="fixed:3")

    def begin(seconds=60):
        delay = {"on": "submit", "action": "delay", "seconds": seconds, "at": "after_bill", "count": 1}
        bench.emulator.set_faults([delay])
        process = bench.start("--manifest", url_of(place), "--limit", "1")
        end(process)
        until(bench.charges)
        [charge] = bench.charges()
        [(run,)] = asked(place, "SELECT run FROM workers")
        return charge, run, process

    return begin


def leave(bench, place, charge, run):
    """As if the answer had come while the database was gone."""
    [(name,)] = asked(place, "SELECT value FROM facts WHERE name = 'manifest_id'")
    line = json.dumps({"key": charge["key"], "task_ids": [charge["task_id"]], "at": charge["at"]})
    (bench.out / f"manifest-{name}-{run}.rescue").write_text(line + "\n")


def all_is_there(bench):
    charges = bench.charges()
    assert len(charges) == len({charge["key"] for charge in charges}) == 6
    assert len(bench.files()) == 6
    assert list(bench.out.glob("*.rescue")) == []


def test_ids_that_a_killed_one_left_are_taken_in_by_the_living(bench, place, unanswered, until, end):
    charge, run, first = unanswered()
    second = bench.start("--manifest", url_of(place))
    end(second)
    until(lambda: len(bench.charges()) > 1)
    leave(bench, place, charge, run)
    first.kill()
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0, out + err
    all_is_there(bench)


def test_they_stay_until_they_are_in_the_manifest_durably(bench, place, unanswered, until, monkeypatch):
    """The line breaks between the change and its commit: a kill in this moment must not take them along."""
    charge, run, first = unanswered()
    genuine = TaskStore.import_ids
    there = []

    def import_ids(self, rescued, *args, **options):
        known = genuine(self, rescued, *args, **options)
        if rescued:
            there.append(len(list(bench.out.glob(f"manifest-*-{run}.rescue"))))
            if len(there) == 1:
                pid = self._connection._raw.info.backend_pid
                asked(place, f"SELECT pg_terminate_backend({pid}, 10000)")
        return known

    monkeypatch.setattr(TaskStore, "import_ids", import_ids)

    def kill():
        until(lambda: len(bench.charges()) > 1)
        leave(bench, place, charge, run)
        first.kill()
        first.wait()

    with ThreadPoolExecutor() as threads:
        killed = threads.submit(kill)
        done = bench.run("--manifest", url_of(place))
        killed.result()
    assert done.code == 0, done
    assert there == [1, 1]
    all_is_there(bench)


def test_one_that_was_taken_away_leaves_them_where_the_manifest_has_gone(bench, place, unanswered, postgres):
    """Nobody would look for them in the manifest that was left behind."""
    _, run, first = unanswered(seconds=8)
    os.kill(first.pid, signal.SIGSTOP)
    # Its lease would be over in ten minutes.
    asked(place, f"UPDATE workers SET until = 0 WHERE run = {run} RETURNING run")
    assert bench.run("--manifest", url_of(place), "--limit", "0").code == 4
    new = postgres.place()
    moved = subprocess.run(
        [sys.executable, "-m", "seedream_batch", "manifest", "copy", url_of(place), url_of(new)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert moved.returncode == 0, moved
    assert asked(new, "SELECT count(*) FROM tasks WHERE state = 'uncertain'") == [(1,)]
    os.kill(first.pid, signal.SIGCONT)
    out, err = first.communicate(timeout=60)
    assert first.returncode == 75, out + err
    assert len(list(bench.out.glob("manifest-*.rescue"))) == 1
    done = bench.run("--manifest", url_of(new))
    assert done.code == 0, done
    all_is_there(bench)


def test_a_folder_that_cannot_be_read_at_the_end_does_not_make_a_failure_of_it(bench, serve, place, monkeypatch):
    serve()

    def unread(*_):
        raise StorageError("out: Stale file handle")

    monkeypatch.setattr("seedream_batch.engine.session.import_rescued", unread)
    done = bench.run("--manifest", url_of(place))
    assert done.code == 0, done
    assert "out: Stale file handle" in done.err
    assert asked(place, "SELECT outcome FROM runs") == [("finished",)]
