"""Several runs at once on one manifest on a server: each has its own tasks, and what one leaves the others finish."""

import json
import os
import platform
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from crew import waits
from PIL import Image
from postgres import asked, url_of

from seedream_batch.client.secret import ApiKey
from seedream_batch.engine.manifest_checks import check_same_service, same_account
from seedream_batch.engine.startup import begin
from seedream_batch.errors import UsageError
from seedream_batch.manifest import Manifest


@pytest.fixture
def place(postgres):
    return postgres.place()


@pytest.fixture
def many(bench):
    """A job of sixty images, a few of which a worker has in flight."""
    bench.edit("request:", "repeat: 10\nrequest:")
    bench.edit("/{{ size }}", "/{{ size }}-{{ sample }}")
    bench.write(bench.job.read_text() + "run: {max_in_flight: 8, on_unknown: resend}\n")
    return bench


@pytest.fixture
def workers(many, place, end):
    """Starts workers."""

    def start(count, *args):
        started = [many.start("--manifest", url_of(place), *args) for _ in range(count)]
        for one in started:
            end(one)
        return started

    return start


def ended(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out + err


def paid_once(bench, place, count=60):
    charges = bench.charges()
    assert len(charges) == len({charge["key"] for charge in charges}) == count
    assert asked(place, "SELECT count(*) FROM attempts") == [(count,)]
    assert asked(place, "SELECT state, count(*) FROM tasks GROUP BY state") == [("succeeded", count)]
    assert len(bench.files()) == count
    sums = "SELECT sum(reserved_images)::int, sum(reserved)::int, sum(images)::int, sum(cost)::int FROM attempts"
    assert asked(place, sums) == asked(place, "SELECT reserved_images, reserved, images, cost FROM totals")
    assert asked(place, "SELECT count(*) FROM workers") == [(0,)]


@pytest.mark.quick
def test_each_has_its_own_tasks(many, serve, place, workers):
    serve(task_seconds="fixed:1")
    for process in workers(3):
        code, told = ended(process)
        assert code == 0, told
    paid_once(many, place)
    assert took_part(place) == 3


def test_what_a_killed_one_had_in_hand_the_others_finish(many, serve, place, workers, until):
    serve(task_seconds="fixed:1.5")
    first, *others = workers(3)
    until(lambda: len(many.charges()) >= 20)
    first.kill()
    for process in others:
        code, told = ended(process)
        assert code == 0, told
    first.wait()
    paid_once(many, place)
    assert asked(place, "SELECT count(*) FROM runs WHERE outcome = 'silent'") == [(1,)]


def test_what_was_just_being_sent_is_not_sent_anew_without_keys(many, serve, place, workers, until):
    serve(honour_keys=False)
    many.edit(", on_unknown: resend", "")
    many.emulator.set_faults([{"on": "submit", "action": "delay", "seconds": 30, "at": "after_bill", "count": 1}])
    [first] = workers(1, "--limit", "1")
    until(many.charges)
    [second] = workers(1)
    until(lambda: len(many.charges()) >= 10)
    first.kill()
    code, told = ended(second)
    assert code == 4, told
    assert len(many.charges()) == 60
    assert asked(place, "SELECT state, count(*) FROM tasks GROUP BY state ORDER BY state") == [
        ("succeeded", 59),
        ("uncertain", 1),
    ]


def test_the_budget_is_that_of_all(many, serve, workers):
    serve(task_seconds="fixed:0.3")
    many.write(many.job.read_text() + "budget: {max_images: 25}\n")
    for process in workers(3):
        code, told = ended(process)
        assert code == 5, told
    assert len(many.charges()) == len(many.files()) == 25


def test_the_rate_is_that_of_all(many, serve, place, workers):
    serve()
    many.edit("run: {", "run: {rate: 10/s, ")
    for process in workers(3):
        code, told = ended(process)
        assert code == 0, told
    paid_once(many, place)
    at = sorted(charge["at"] for charge in many.charges())
    assert at[-1] - at[0] > 0.9 * 59 / 10


def test_one_that_goes_by_another_job_is_turned_away(many, serve, place, workers, until):
    serve(task_seconds="fixed:60")
    [first] = workers(1)
    until(many.charges)
    many.edit("watercolour", "oil on canvas")
    refused = many.run("--manifest", url_of(place))
    assert refused.code == 75, refused
    assert "job.yaml differs from the one that other workers use" in refused.err
    assert f"pid {first.pid} on" in refused.err


def test_one_that_leaves_leaves_its_tasks_to_others(many, serve, place, workers, until):
    serve(task_seconds="fixed:2")
    first, second = workers(2)
    until(lambda: len(many.charges()) >= 20)
    first.send_signal(signal.SIGTERM)
    assert ended(first)[0] == 143
    code, told = ended(second)
    assert code == 0, told
    paid_once(many, place)


def test_one_that_was_stopped_for_too_long_hands_over(many, serve, place, workers, until):
    serve(task_seconds="fixed:1")
    first, second = workers(2)
    until(lambda: len(many.charges()) >= 20)
    [(run,)] = asked(place, f"SELECT id FROM runs WHERE pid = {first.pid}")

    def stopped():
        """Stops it outside of a transaction: in one it may hold a lock on the row."""
        os.kill(first.pid, signal.SIGSTOP)
        # Its lease would be over in ten minutes.
        free = f"SELECT run FROM workers WHERE run = {run} FOR UPDATE SKIP LOCKED"
        if asked(place, f"UPDATE workers SET until = 0 WHERE run IN ({free}) RETURNING run"):
            return True
        os.kill(first.pid, signal.SIGCONT)
        return False

    until(stopped)
    code, told = ended(second)
    assert code == 0, told
    os.kill(first.pid, signal.SIGCONT)
    code, told = ended(first)
    assert code == 75, told
    assert "other workers took over its tasks; run again" in told
    assert many.run("--manifest", url_of(place)).code == 0
    paid_once(many, place)


def test_one_that_found_a_mistake_is_no_worker_any_more(many, serve, place):
    serve()
    many.edit("{{ subject.text }}", "{{ subject.texts }}")
    assert many.run("--manifest", url_of(place)).code == 2
    assert asked(place, "SELECT count(*) FROM workers") == [(0,)]
    many.edit("{{ subject.texts }}", "{{ subject.text }}")
    assert many.run("--manifest", url_of(place), "--limit", "1").code == 0


def test_what_is_still_followed_is_not_given_to_others(many, serve, place, workers, until):
    serve(task_seconds="fixed:3")
    assert many.run("--manifest", url_of(place), "--limit", "8", "--submit-only").code == 0
    [first] = workers(1, "--collect")
    until(lambda: asked(place, "SELECT count(*) FROM tasks JOIN workers ON worker = run") == [(8,)])
    [second] = workers(1)
    code, told = ended(first)
    assert code in {0, 7}, told
    code, told = ended(second)
    assert code == 0, told
    paid_once(many, place)


def test_what_a_killed_one_had_in_hand_is_finished_by_those_that_may_buy_no_more(many, serve, place, workers, until):
    serve(task_seconds="fixed:10")
    many.write(many.job.read_text() + "budget: {max_images: 8}\n")
    [first] = workers(1)
    until(lambda: len(many.charges()) == 8)
    [second] = workers(1)
    until(lambda: asked(place, "SELECT count(*) FROM workers") == [(2,)])
    first.kill()
    code, told = ended(second)
    assert code == 5, told
    assert len(many.charges()) == len(many.files()) == 8


def test_one_that_has_read_another_job_is_turned_away_whatever_is_on_the_disk_by_now(
    many, serve, place, workers, until, monkeypatch
):
    serve(task_seconds="fixed:60")
    theirs = many.job.read_text()
    workers(1)
    until(many.charges)
    many.write(theirs + "budget: {max_images: 100}\n")

    def late(*arguments, **named):
        many.write(theirs)
        return begin(*arguments, **named)

    monkeypatch.setattr("seedream_batch.engine.session.begin", late)
    refused = many.run("--manifest", url_of(place))
    assert refused.code == 75, refused
    assert "job.yaml differs from the one that other workers use" in refused.err


def test_one_with_the_key_of_another_account_is_turned_away_before_anything_is_open(many, serve, place, monkeypatch):
    serve()
    assert many.run("--manifest", url_of(place)).code == 0
    known = asked(place, "SELECT value FROM facts WHERE name = 'account'")
    here = {"now": 1.8e9, "pid": os.getpid(), "host": platform.node(), "version": "1", "service": "http://127.0.0.1"}
    with closing(Manifest(place, shared=True)) as at_work:
        at_work.workers.begin_run(**here, account=1)
        assert many.run("--manifest", url_of(place)).code == 0
        monkeypatch.setenv("APIMART_API_KEY", "another-account-0123456789")
        refused = many.run("--manifest", url_of(place))
        assert refused.code == 2, refused
        assert "other workers on" in refused.err
        assert "--same-account" in refused.err
        assert asked(place, "SELECT value FROM facts WHERE name = 'account'") == known
        assert many.run("--manifest", url_of(place), "--same-account").code == 0
        at_work.facts.set({"service": "https://one.example"})
        with (
            closing(Manifest(place, shared=True)) as other,
            pytest.raises(UsageError, match=r"other workers on .* use https://one\.example, not https://two\.example"),
        ):
            check_same_service(other, "https://two.example", verifies=False)
        at_work.workers.end_run(now=1.8e9, outcome="finished")


def test_of_two_accounts_that_join_together_one_is_turned_away(place, until):
    here = {"now": 1.8e9, "pid": os.getpid(), "host": platform.node(), "version": "1", "service": "http://127.0.0.1"}

    def join(manifest, key):
        with manifest.group():
            manifest.workers.lock_joining()
            account = same_account(manifest, ApiKey(key), confirmed=False, verifies=False)
            manifest.workers.begin_run(**here, account=account)

    with closing(Manifest(place, shared=True)) as one, closing(Manifest(place, shared=True)) as other:
        with ThreadPoolExecutor(1) as thread:
            with one.group():
                join(one, "one-account-0123456789")
                second = thread.submit(join, other, "another-account-0123456789")
                until(lambda: waits(place))
            with pytest.raises(UsageError, match="use another API key"):
                second.result()
        one.workers.end_run(now=1.8e9, outcome="finished")


def test_two_manifests_in_one_folder(many, serve, postgres, workers, until):
    serve(task_seconds="fixed:60")
    workers(1)
    until(many.charges)
    refused = many.run("--manifest", url_of(postgres.place()))
    assert refused.code == 2, refused
    assert "belongs to the manifest postgresql://" in " ".join(refused.err.split())


def test_decisions_need_no_folder(many, serve, place):
    """On another machine than those of the workers there may be none."""
    serve()
    assert many.run("--manifest", url_of(place), "--limit", "1").code == 0
    shutil.rmtree(many.out)
    for command in (("retry",), ("resolve", "--forget"), ("prune",)):
        done = many.call(*command, "--manifest", url_of(place))
        assert done.code == 0, done


def test_one_that_is_stopped_while_it_begins_is_not_waited_for(many, serve, place, monkeypatch):
    serve()
    assert many.run("--manifest", url_of(place), "--limit", "1").code == 0
    at_work, stopped = Manifest(place, shared=True), Manifest(place, shared=True)
    try:
        at_work.workers.begin_run(now=0.0, pid=os.getpid(), host=platform.node(), version="1", service="")
        stopped.connection.workers.lock_startup(lambda: pytest.fail("nobody else does"))
        monkeypatch.setattr("seedream_batch.engine.startup.JOINING", 0.0)
        refused = many.run("--manifest", url_of(place))
        assert refused.code == 75, refused
        assert "if it is suspended, end it" in refused.err
        # As a worker it has a lease, and that is over.
        run = stopped.workers.begin_run(now=0.0, pid=os.getpid(), host="somewhere", version="1", service="")
        asked(place, f"UPDATE workers SET until = 0 WHERE run = {run} RETURNING run")
        at_work.workers.end_run(now=0.0, outcome="finished")
        done = many.run("--manifest", url_of(place), "--limit", "1")
        assert done.code == 0, done
    finally:
        stopped.close()
        at_work.close()


def test_status_tells_of_them(many, serve, place, workers, until):
    serve(task_seconds="fixed:60")
    started = workers(2)
    until(lambda: len({charge["key"] for charge in many.charges()}) >= 16)
    told = json.loads(many.call("status", "--json", "--manifest", url_of(place)).out)
    assert sorted(one["pid"] for one in told["workers"]) == sorted(one.pid for one in started)
    assert sum(one["in_flight"] for one in told["workers"]) >= 16
    text = many.call("status", "--manifest", url_of(place)).out
    assert "2 workers running" in text


def test_the_job_is_expanded_once(many, serve, place, workers, until, monkeypatch):
    """The second one goes by the files alone: a job of a million tasks takes a minute to be made."""
    serve(task_seconds="fixed:60")
    workers(1)
    until(many.charges)
    from seedream_batch.jobfile.load import LoadedJob

    monkeypatch.setattr(LoadedJob, "tasks", lambda _: iter(["no task at all"]))
    beside = many.run("--manifest", url_of(place), "--max-duration", "3s")
    assert beside.code == 7, beside
    assert took_part(place) == 2


def took_part(place):
    """How many workers sent anything."""
    return asked(place, "SELECT count(DISTINCT run) FROM events WHERE new = 'submitting'")[0][0]


def test_references_are_known_to_all(many, serve, place, workers):
    serve(task_seconds="fixed:1")
    picture(many.folder / "style.png")
    many.edit("request:", "request:\n  image_urls: [style.png]")
    for process in workers(2):
        code, told = ended(process)
        assert code == 0, told
    paid_once(many, place)
    assert took_part(place) == 2


def test_another_picture_is_another_job(many, serve, place, workers, until):
    serve(task_seconds="fixed:60")
    picture(many.folder / "style.png")
    many.edit("request:", "request:\n  image_urls: [style.png]")
    workers(1)
    until(many.charges)
    picture(many.folder / "style.png", "blue")
    refused = many.run("--manifest", url_of(place))
    assert refused.code == 75, refused
    assert "style.png differs from the one that other workers use" in refused.err


def picture(file, colour="red"):
    Image.new("RGB", (64, 64), colour).save(file)
