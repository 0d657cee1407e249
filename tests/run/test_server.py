"""A run whose manifest is on a PostgreSQL server: the whole way, and a server that goes while it is used."""

import json
import os
import signal
import subprocess
import sys

import pytest
from postgres import asked, url_of


@pytest.fixture
def place(postgres):
    return postgres.place()


@pytest.mark.quick
def test_the_whole_way(bench, serve, place):
    serve()
    there = ("--manifest", url_of(place))
    assert "A run would generate 6 images" in bench.call("plan", *there).out
    done = bench.run(*there, "--limit", "2")
    assert done.code == 0, done
    assert len(bench.files()) == 2
    assert bench.run(*there).code == 0
    stored = {path for (path,) in asked(place, "SELECT path FROM images WHERE state = 'stored'")}
    assert set(bench.files()) == stored
    assert len(stored) == len(bench.charges()) == 6
    assert not (bench.out / "manifest.db").exists()
    before = bench.requests()
    assert bench.run(*there).code == 0
    assert bench.requests() == before


def test_every_command_finds_it(bench, serve, place, tmp_path):
    serve()
    there = ("--manifest", url_of(place))
    never = bench.call("status", *there)
    assert never.code == 2, never
    assert f"schema {place.schema}" in never.err
    assert bench.run(*there).code == 0
    assert json.loads(bench.call("status", "--json", *there).out)["tasks"]["succeeded"] == 6
    assert "6 of 6" in bench.call("status", *there).out
    assert bench.call("verify", "--deep", *there).code == 0
    assert json.loads(bench.call("report", "--json", *there).out)["images"] == 6
    told = bench.call("export", "--format", "jsonl", "--to", str(tmp_path / "set"), "--json", *there)
    assert told.code == 0, told
    assert json.loads(told.out)["images"] == 6
    for command in (("retry",), ("resolve", "--forget"), ("prune",)):
        assert bench.call(*command, *there).code == 0
    # The output folder says nothing of it.
    assert bench.call("status").code == 2


def test_the_job_names_the_server(bench, serve, place):
    serve()
    bench.write(bench.job.read_text() + f"manifest: {url_of(place)}\n")
    assert bench.run().code == 0
    assert "6 of 6" in bench.call("status").out
    # A rehearsal needs no server.
    assert bench.run("--emulate", "--limit", "1").code == 0
    assert (bench.folder / "out-emulated" / "manifest.db").exists()


def test_what_is_chosen_is_bought(bench, serve, place):
    serve()
    there = ("--manifest", url_of(place))
    assert bench.run(*there, "--select", "subject=fox", "--limit", "2").code == 0
    assert len(bench.files()) == 2
    assert bench.run(*there, "--select", "subject=fox").code == 0
    assert sorted(path.partition("/")[0] for path in bench.files()) == ["fox"] * 3
    assert len(bench.charges()) == 3


def test_decisions(bench, serve, place):
    serve(honour_keys=False)
    there = ("--manifest", url_of(place))
    bench.emulator.set_faults(
        [
            {"on": "submit", "action": "reset_after_bill", "count": 1},
            {"on": "submit", "action": "fail", "count": 3},
        ]
    )
    assert bench.run(*there).code in {3, 4}
    states = dict(asked(place, "SELECT state, count(*) FROM tasks GROUP BY state"))
    assert states["uncertain"] == 1
    charged = len(bench.charges())
    given_up = bench.call("resolve", "--give-up", *there)
    assert given_up.code == 0, given_up
    assert bench.call("retry", *there).code == 0
    assert bench.run(*there).code == 0
    assert len(bench.files()) == 6
    assert len(bench.charges()) == charged + 1, "the one that was given up is bought anew"
    bench.edit("size: [1:1, 16:9, 9:16]", "size: [1:1]")
    assert bench.run(*there).code == 0
    assert bench.call("prune", "--yes", *there).code == 0
    assert len(bench.files()) == 2


def test_a_person_decides_alone(bench, serve, place, tmp_path, until, end):
    serve(task_seconds="fixed:60")
    there = ("--manifest", url_of(place))
    process = bench.start(*there)
    end(process)
    until(bench.charges)
    for command in (("retry",), ("prune",), ("verify",)):
        refused = bench.call(*command, *there)
        assert refused.code == 75, refused
    assert f"pid {process.pid} on" in refused.err
    assert json.loads(bench.call("status", "--json", *there).out)["running"]
    twin = tmp_path / "elsewhere" / "job.yaml"
    twin.parent.mkdir()
    twin.write_text(bench.job.read_text().replace("watercolour", "oil on canvas"))
    command = [sys.executable, "-m", "seedream_batch", "run", str(twin), *there]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 2, second
    assert "belongs to the job" in second.stderr
    process.kill()
    process.wait()
    # The server lets go of what a dead run held.
    assert bench.call("retry", *there).code == 0
    assert bench.run(*there, "--max-duration", "0.2s").code == 7


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGINT], ids=["a crash", "a restart"])
def test_a_server_that_goes_and_comes_back(bench, serve, own_postgres, until, end, number):
    serve(task_seconds="fixed:0.5")
    bench.edit("request:", "repeat: 10\nrequest:")
    bench.edit("/{{ size }}", "/{{ size }}-{{ sample }}")
    place = own_postgres.place()
    process = bench.start("--manifest", url_of(place))
    end(process)
    for count in (3, 20, 40):
        until(lambda count=count: len(bench.charges()) >= count)
        own_postgres.stop(number)
        own_postgres.start()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    assert "waiting for it before submitting more" in err
    assert len(bench.files()) == 60
    assert len(bench.charges()) == len({charge["key"] for charge in bench.charges()}) == 60
    assert asked(place, "SELECT state, count(*) FROM tasks GROUP BY state") == [("succeeded", 60)]
    assert asked(place, "SELECT count(*) FROM attempts") == [(60,)]
    assert list(bench.out.glob("*.rescue")) == []


def test_ids_that_come_while_the_server_is_gone_survive_a_kill(bench, serve, own_postgres, until, end):
    serve()
    # The answer comes once the server has gone.
    bench.emulator.set_faults([{"on": "submit", "action": "delay", "seconds": 2, "at": "after_bill"}])
    place = own_postgres.place()
    process = bench.start("--manifest", url_of(place), "--limit", "1")
    end(process)
    until(bench.charges)
    own_postgres.stop(signal.SIGQUIT)
    until(lambda: any(b"task_" in one.read_bytes() for one in bench.out.glob("*.rescue")))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    own_postgres.start()
    assert bench.run("--manifest", url_of(place), "--collect").code in {0, 7}
    assert len(bench.charges()) == len(bench.files()) == 1
    assert list(bench.out.glob("*.rescue")) == []


@pytest.fixture
def waiting(bench, serve, own_postgres, until, end):
    """A manifest on that server, and a run that has one task there, and waits for it."""
    serve(task_seconds="fixed:60")
    place = own_postgres.place()
    assert bench.run("--manifest", url_of(place), "--limit", "0").code == 0
    process = bench.start("--manifest", url_of(place), "--limit", "1")
    end(process)
    until(lambda: asked(place, "SELECT 1 FROM tasks WHERE state = 'accepted'"))
    return place, process


def test_a_worker_that_was_taken_away_ends(bench, own_postgres, waiting):
    place, process = waiting
    own_postgres.stop()
    own_postgres.start()
    # As if another machine had been quicker to come back, and had taken over.
    asked(place, "DELETE FROM workers RETURNING run")
    bench.emulator.set_faults([{"on": "poll", "action": "fail"}])
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75, out + err
    assert "other workers took over its tasks; run again" in err


def test_leaving_at_once_does_not_wait_for_a_server_that_is_gone(own_postgres, waiting):
    place, process = waiting
    own_postgres.stop(signal.SIGQUIT)
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() != ""
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode in {130, 8}
    own_postgres.start()
    assert asked(place, "SELECT count(*) FROM tasks WHERE state = 'accepted'") == [(1,)]


def test_what_is_no_server(bench, serve):
    serve()
    gone = bench.run("--manifest", "postgresql://somebody:secret@127.0.0.1:1/db")
    assert gone.code == 8
    assert "127.0.0.1:1/db" in gone.err
    assert "secret" not in gone.err + gone.out
    assert "refused" in gone.err
    assert bench.run("--manifest", "mysql://h/db").code == 2
    bench.write(bench.job.read_text() + "manifest: postgresql://somebody:secret@h/db\n")
    told = bench.call("validate")
    assert told.code == 2
    assert "contains a password" in told.out + told.err
    assert "secret" not in told.out + told.err


def test_a_job_moves_in_the_middle_of_its_work(bench, serve, place):
    serve()
    assert bench.run("--limit", "2").code == 0
    assert bench.run("--limit", "2", "--submit-only").code in {0, 7}
    url = url_of(place)
    file = str(bench.out / "manifest.db")
    copied = copy("copy", file, url)
    assert copied.returncode == 0, copied
    assert copied.stdout.startswith("6 tasks copied to postgresql://")
    refused = bench.run()
    assert refused.code == 2, refused
    assert "was moved to postgresql://" in refused.err
    assert bench.call("retry").code == 2
    done = bench.run("--manifest", url)
    assert done.code == 0, done
    assert len(bench.files()) == len(bench.charges()) == 6
    # And back, into another file.
    (bench.folder / "back").mkdir()
    assert copy("copy", url, str(bench.folder / "back" / "manifest.db")).returncode == 0
    assert "was moved to" in bench.run("--manifest", url).err


def test_copies_that_make_no_sense(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for source, target, told in (
        ("none.db", url_of(place), "no manifest found"),
        (place.url, "some.db", "?schema=NAME"),
        ("mysql://h/db?schema=s", "some.db", "not a manifest URL"),
    ):
        done = copy("copy", source, target)
        assert done.returncode == 2, done
        assert told in done.stderr
        assert "Traceback" not in done.stderr


def copy(*arguments):
    command = [sys.executable, "-m", "seedream_batch", "manifest", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_doubts_are_chosen_by_their_axes(bench, serve, place):
    serve(honour_keys=False)
    there = ("--manifest", url_of(place))
    bench.emulator.set_faults([{"on": "submit", "action": "reset_after_bill", "count": 2}])
    assert bench.run(*there).code == 4
    assert bench.call("resolve", "--give-up", "--select", "subject=panda", *there).code == 0
    assert bench.call("resolve", "--give-up", "--select", "subject=fox", *there).code == 0
    assert asked(place, "SELECT count(*) FROM tasks WHERE state = 'uncertain'") == [(0,)]
