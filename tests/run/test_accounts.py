"""Which account a manifest belongs to: another key finds, sends and buys nothing while anything is open."""

import sqlite3
from contextlib import closing, contextmanager

import pytest
from PIL import Image

from seedream_batch.engine import submitter as submit
from seedream_batch.engine.manifest_checks import check_same_service
from seedream_batch.errors import UsageError
from seedream_batch.manifest import Manifest

ONE = """\
version: 1
matrix: {subject: [panda, fox]}
request: {prompt: "a {{ subject }}"}
output: {dir: out, path: "{{ subject }}"}
run: {on_unknown: resend}
"""


@contextmanager
def bench_rows(bench):
    """Changes the manifest by hand."""
    with closing(sqlite3.connect(bench.out / "manifest.db")) as connection:
        yield lambda sql, *values: connection.execute(sql, values)
        connection.commit()


@pytest.fixture
def open_task(bench, serve):
    """A job with tasks in a state, and how many requests there were so far."""

    def make(how):
        bench.write(ONE)
        serve()
        if how == "accepted":
            assert bench.run("--submit-only").code == 0
        else:
            bench.emulator.set_faults([{"on": "submit", "action": "reset_after_bill"}])
            assert bench.run().code == 4
            bench.emulator.set_faults([])
        return bench.requests()

    return make


# The commands that would ask the service something.
@pytest.mark.parametrize(
    ("how", "args"),
    [
        ("accepted", ["run"]),
        ("uncertain", ["run"]),
        ("accepted", ["run", "--collect"]),
        ("uncertain", ["run", "--collect"]),
        ("uncertain", ["resolve", "--resend"]),
        ("accepted", ["verify"]),
    ],
)
def test_another_key_does_nothing_while_anything_is_open(bench, open_task, monkeypatch, how, args):
    before = open_task(how)
    monkeypatch.setenv("APIMART_API_KEY", "another-account-0123456789")
    done = bench.call(*args)
    assert done.code == 2, done
    assert "2 of the tasks" in done.err
    assert "--same-account" in done.err
    assert bench.requests() == before
    assert bench.states() == {how: 2}


def test_a_lost_task_with_an_id_is_open(bench, open_task, monkeypatch):
    open_task("accepted")
    with bench_rows(bench) as change:
        change("UPDATE tasks SET state = 'lost'")
    monkeypatch.setenv("APIMART_API_KEY", "another-account-0123456789")
    assert bench.run().code == 2


def test_an_image_that_waits_to_be_fetched_is_open(bench, serve, monkeypatch):
    # Its link may have to be renewed, which only its own account can do.
    bench.write(ONE)
    serve()
    assert bench.run().code == 0
    with bench_rows(bench) as change:
        change("UPDATE images SET state = 'announced', path = NULL, sha256 = NULL WHERE task = 1")
    (bench.out / "panda.jpg").unlink()
    before = bench.requests()
    monkeypatch.setenv("APIMART_API_KEY", "another-account-0123456789")
    done = bench.run()
    assert done.code == 2, done
    assert "1 of the tasks" in done.err
    assert bench.requests() == before
    with closing(Manifest(bench.out / "manifest.db")) as manifest:
        manifest.facts.set({"service": "https://one.example"})
        with pytest.raises(UsageError, match=r"1 of the tasks in .* were submitted to https://one\.example"):
            check_same_service(manifest, "https://two.example", verifies=False)
        with pytest.raises(UsageError, match="2 of the tasks in"):
            check_same_service(manifest, "https://two.example", verifies=True)


@pytest.mark.parametrize("how", ["accepted", "uncertain"])
def test_a_new_key_of_the_same_account_goes_on_when_a_person_says_so(bench, open_task, monkeypatch, how):
    open_task(how)
    monkeypatch.setenv("APIMART_API_KEY", "a-rotated-key-0123456789")
    assert bench.run("--same-account").code == 0
    assert len(bench.charges()) == 2
    bench.check()
    assert bench.run().code == 0, "from there on it is known"


def test_both_keys_of_an_account_are_known(bench, open_task, monkeypatch):
    # Workers on several machines may have a key each.
    open_task("accepted")
    monkeypatch.setenv("APIMART_API_KEY", "a-rotated-key-0123456789")
    assert bench.run("--same-account", "--submit-only").code == 0
    monkeypatch.undo()
    bench.serve(bench.emulator)
    monkeypatch.chdir(bench.folder)
    assert bench.run().code == 0


def test_another_account_may_go_on_with_a_job_of_which_nothing_is_open(bench, serve, monkeypatch):
    bench.write(ONE)
    serve()
    assert bench.run("--limit", "1").code == 0
    monkeypatch.setenv("APIMART_API_KEY", "another-account-0123456789")
    assert bench.run("--submit-only").code == 0
    monkeypatch.setenv("APIMART_API_KEY", "a-third-account-0123456789")
    assert bench.run().code == 2


def test_each_account_keeps_the_tasks_that_it_has_sent(bench, serve, monkeypatch):
    bench.write(ONE)
    serve()
    monkeypatch.setenv("APIMART_API_KEY", "one-account-0123456789")
    assert bench.run("--limit", "1").code == 0
    monkeypatch.setenv("APIMART_API_KEY", "another-account-0123456789")
    assert bench.run().code == 0
    (bench.out / "panda.jpg").unlink()
    (bench.out / "fox.jpg").unlink()
    done = bench.call("verify")
    assert done.code == 3, done
    assert "belongs to another account" in " ".join((done.out + done.err).split())
    assert set(bench.files()) == {"fox.jpg"}, "the service was asked for its own task alone"
    assert "no image is known to be lost for good" in bench.call("retry", "--missing").out
    monkeypatch.setenv("APIMART_API_KEY", "one-account-0123456789")
    assert bench.call("verify").code == 0, "its key is still known"
    assert set(bench.files()) == {"panda.jpg", "fox.jpg"}
    assert len(bench.charges()) == 2


def test_an_incomplete_result_of_another_account_is_not_bought_again(bench, serve, monkeypatch):
    Image.new("RGB", (2048, 2048), "teal").save(bench.folder / "cup.png")
    bench.write(ONE.replace('{{ subject }}"}', '{{ subject }}", n: 2, image_urls: [cup.png]}', 1))
    serve(deliver=-1)
    assert bench.run().code == 9
    monkeypatch.setenv("APIMART_API_KEY", "another-account-0123456789")
    before = bench.requests()
    done = bench.call("retry", "--flagged")
    assert done.code == 7, done
    assert "2 flagged tasks skipped" in " ".join(done.out.split())
    assert bench.requests() == before
    assert bench.states() == {"succeeded": 2}


def test_a_known_key_of_another_account_does_nothing_while_anything_is_open(bench, serve, monkeypatch):
    bench.write(ONE)
    serve()
    assert bench.run("--limit", "1").code == 0
    monkeypatch.setenv("APIMART_API_KEY", "another-account-0123456789")
    assert bench.run("--submit-only").code == 0
    monkeypatch.undo()
    bench.serve(bench.emulator)
    monkeypatch.chdir(bench.folder)
    refused = bench.run()
    assert refused.code == 2, refused
    assert "1 of the tasks" in refused.err
    assert bench.run("--same-account").code == 0
    monkeypatch.setenv("APIMART_API_KEY", "another-account-0123456789")
    assert bench.run().code == 0, "all of them are one account from there on"
    assert bench.rows("SELECT DISTINCT account FROM tasks") == [(2,)]


def test_a_manifest_of_an_earlier_version_learns_its_account(bench, open_task, monkeypatch):
    open_task("accepted")
    with bench_rows(bench) as change:
        change("DELETE FROM facts WHERE name = 'account'")
    assert bench.run("--submit-only").code == 0
    monkeypatch.setenv("APIMART_API_KEY", "another-account-0123456789")
    assert bench.run().code == 2


def test_the_key_cannot_be_read_from_its_hash(bench, open_task):
    open_task("accepted")
    [(fact,)] = bench.rows("SELECT value FROM facts WHERE name = 'account'")
    salt, digest, number = fact.replace("=", " ").split()
    assert (len(salt), len(digest), number) == (16, 32, "1")
    first = fact
    (bench.out / "manifest.db").unlink()
    bench.run("--submit-only")
    assert bench.rows("SELECT value FROM facts WHERE name = 'account'") != [(first,)], "another salt, another hash"


# The age of an Idempotency-Key


@pytest.mark.parametrize("hours", [-1, -24 * 365, 21])
def test_a_key_without_a_possible_age_counts_as_expired(bench, open_task, hours):
    open_task("uncertain")
    with bench_rows(bench) as change:
        change("UPDATE attempts SET opened_at = opened_at - ?", 3600.0 * hours)
    done = bench.run()
    assert done.code == 4, done
    assert bench.rows("SELECT sum(held) FROM tasks") == [(2,)]
    assert len(bench.charges()) == 2
    assert "may no longer know the Idempotency-Key" in " ".join(bench.call("status").out.split())


def test_a_clock_that_was_set_back_behind_an_earlier_run_says_nothing_of_ages(bench, open_task):
    open_task("uncertain")
    with bench_rows(bench) as change:
        change("UPDATE attempts SET opened_at = opened_at - 3600")
        change("UPDATE runs SET ended_at = ended_at + 7200")
    assert bench.run().code == 4
    assert bench.rows("SELECT sum(held) FROM tasks") == [(2,)]


def test_a_key_within_its_lifetime_is_trusted(bench, open_task):
    open_task("uncertain")
    with bench_rows(bench) as change:
        change("UPDATE attempts SET opened_at = opened_at - ?", submit.KEY_LIFETIME - 600)
    assert bench.run().code == 0
    assert len(bench.charges()) == 2
