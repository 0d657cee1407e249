"""Lost tasks: polled again for free by every command that could pay for them anew."""

import os

import pytest

JOB = """\
version: 1
name: test
matrix: {mood: [calm, wild]}
request: {prompt: "a cup, {{ mood }}"}
output: {dir: out, path: "{{ mood }}"}
run: {task_timeout: 1s, attempts: 1}
"""


def words(text):
    return " ".join(text.split())


def forget(bench, **rule):
    """The service says that it does not know tasks."""
    bench.emulator.set_faults([{"on": "poll", "action": "not_found", **rule}])


def polls(bench):
    return bench.emulator.stats().get("poll", 0)


@pytest.fixture(autouse=True)
def no_grace(monkeypatch):
    monkeypatch.setattr("seedream_batch.lifecycle.NOT_FOUND_GRACE", 0.0)
    monkeypatch.setattr("seedream_batch.engine.collector.GRACE_AFTER_START", 0.2)


@pytest.fixture
def lost(bench, serve):
    """Two tasks that the service had not completed when their time was over; both are charged."""
    serve()
    bench.write(JOB)
    bench.emulator.set_faults([{"on": "poll", "action": "never_end"}])
    assert bench.run().code == 3
    assert bench.states() == {"lost": 2}
    assert len(bench.charges()) == 2
    bench.emulator.set_faults([])
    return bench


@pytest.mark.parametrize("command", [("run",), ("run", "--collect"), ("verify",), ("retry",)])
def test_what_ended_late_is_found_and_not_bought_again(lost, command):
    before = lost.rows("SELECT reserved_images FROM totals")
    assert before == [(2,)]
    assert "poll 2 tasks: lost; polled again for free" in words(lost.call("plan").out)
    done = lost.call(*command)
    assert done.code == 0, done
    assert lost.states() == {"succeeded": 2}
    assert len(lost.files()) == 2
    assert len(lost.charges()) == 2
    assert lost.rows("SELECT reserved_images, images FROM totals") == [(0, 2)]
    assert lost.rows("SELECT DISTINCT old, new FROM events WHERE old = 'lost'") == [("lost", "accepted")]
    seen = lost.requests()
    assert lost.run("--quiet").code == 0
    assert lost.requests() == seen
    lost.check()


def test_a_task_that_the_service_does_not_know_stays_lost_until_retry(lost):
    forget(lost)
    for _ in range(2):
        before = polls(lost)
        assert lost.run().code == 3
        assert 2 <= polls(lost) - before <= 10
    assert lost.states() == {"lost": 2}
    done = lost.call("retry")
    assert done.code == 0, done
    assert "2 tasks queued again, 2 images for about 0.07 USD" in words(done.out)
    lost.emulator.set_faults([])
    assert lost.run().code == 0
    assert len(lost.charges()) == 4
    lost.check()


def test_only_what_is_lost_for_good_is_planned_again(lost):
    forget(lost, prompt="calm")
    done = lost.call("retry")
    assert done.code == 0, done
    assert "1 lost task found at the service" in done.out
    assert "1 task queued again, 1 image for about 0.035 USD" in words(done.out)
    assert lost.states() == {"succeeded": 1, "planned": 1}


def test_what_is_at_work_is_not_bought_again(lost):
    lost.emulator.set_faults([{"on": "poll", "action": "never_end"}])
    assert lost.run().code == 3, "no more time was given to it"
    done = lost.call("retry")
    assert done.code == 0, done
    assert "2 lost tasks are still running at the service; the next run downloads" in words(done.out)
    assert "for free" in done.out
    assert "found at the service" not in done.out
    assert "Nothing to do" in done.out
    assert lost.states() == {"accepted": 2}
    lost.emulator.set_faults([])
    assert lost.run().code == 0
    assert len(lost.charges()) == 2
    lost.check()


def test_a_longer_timeout_gives_a_lost_task_more_time(lost):
    lost.edit("task_timeout: 1s", "task_timeout: 1h")
    lost.emulator.set_faults([{"on": "poll", "action": "never_end", "count": 6}])
    assert lost.run().code == 0
    assert len(lost.charges()) == 2
    lost.check()


@pytest.mark.parametrize("fault", [{"action": "status", "status": 500}, {"action": "garbage_body"}])
def test_without_a_clear_answer_nothing_is_planned(lost, fault):
    lost.emulator.set_faults([{"on": "poll", **fault}])
    done = lost.call("retry")
    assert done.code == 7, done
    assert "2 lost tasks skipped" in done.out
    assert lost.states() == {"lost": 2}


def test_without_a_key_lost_tasks_are_planned_only_when_that_is_said(lost, monkeypatch):
    monkeypatch.delenv("APIMART_API_KEY")
    done = lost.call("retry")
    assert done.code == 7, done
    assert "APIMART_API_KEY" in done.out
    assert "--no-poll" in done.out
    assert lost.states() == {"lost": 2}
    done = lost.call("retry", "--no-poll")
    assert done.code == 0, done
    assert lost.states() == {"planned": 2}


def test_a_refused_key_plans_nothing(lost):
    lost.emulator.configure(bad_keys=frozenset({os.environ["APIMART_API_KEY"]}))
    assert lost.call("retry").code == 6
    assert lost.states() == {"lost": 2}


def test_the_key_of_another_account_plans_nothing(lost, monkeypatch):
    monkeypatch.setenv("APIMART_API_KEY", "another-key")
    before = lost.requests()
    assert lost.call("retry").code == 2
    assert lost.states() == {"lost": 2}
    assert lost.requests() == before


def test_after_a_week_nobody_polls_any_more(lost):
    import sqlite3

    with sqlite3.connect(lost.out / "manifest.db") as connection:
        connection.execute("UPDATE tasks SET submitted_at = submitted_at - 7 * 86400")
    before = lost.requests()
    assert lost.run().code == 3
    assert lost.requests() == before
    assert lost.call("plan").out.count("leave ") > 0
    assert "2 tasks queued again" in lost.call("retry").out
    assert lost.requests() == before


def test_verify_without_a_key_polls_nothing(lost, monkeypatch):
    monkeypatch.delenv("APIMART_API_KEY")
    before = lost.requests()
    assert lost.call("verify").code == 0
    assert lost.requests() == before


# One odd answer, and odd answers for all


@pytest.fixture
def waiting(bench, serve):
    """Two tasks that an earlier run has submitted."""
    serve()
    bench.write(JOB.replace("1s", "1h"))
    assert bench.run("--submit-only").code == 0
    return bench


@pytest.mark.parametrize(
    "fault",
    [
        {"action": "not_found"},
        {"action": "oddity", "set": {"deliver": -15}},
    ],
    ids=["not known", "no images"],
)
def test_the_same_odd_answer_for_all_tasks_is_an_outage(bench, serve, fault):
    serve()
    bench.write(JOB.replace("1s", "1h"))
    if fault["action"] == "oddity":
        bench.emulator.configure(deliver=-15)
    assert bench.run("--submit-only").code == 0
    if fault["action"] == "not_found":
        forget(bench)
    for _ in range(2):
        done = bench.run()
        assert done.code == 7, done
        assert "Nothing was changed" in done.out
        assert bench.states() == {"accepted": 2}
    assert len(bench.charges()) == 2
    assert "2 tasks marked as lost" in bench.call("resolve", "--lost").out
    assert bench.states() == {"lost": 2}
    bench.check()


def test_after_an_outage_everything_is_there(waiting):
    forget(waiting)
    assert waiting.run().code == 7
    waiting.emulator.set_faults([])
    assert waiting.run().code == 0
    assert len(waiting.charges()) == 2
    waiting.check()


def test_one_unknown_task_among_good_ones_is_lost(waiting):
    forget(waiting, prompt="calm")
    assert waiting.run().code == 3
    assert waiting.states() == {"succeeded": 1, "lost": 1}
    assert "the service does not know this task id (HTTP 404)" in words(waiting.call("status").out)


def test_an_odd_answer_is_watched_for_a_while(waiting):
    waiting.emulator.set_faults([{"on": "poll", "action": "not_found", "prompt": "calm", "count": 2}])
    assert waiting.run().code == 0
    assert waiting.states() == {"succeeded": 2}


def test_a_failure_that_is_taken_back_buys_nothing(bench, serve):
    serve()
    bench.write(JOB.replace("attempts: 1", "attempts: 3").replace("1s", "1h"))
    bench.emulator.set_faults([{"on": "poll", "action": "fail", "prompt": "calm", "count": 1}])
    assert bench.run().code == 0
    assert len(bench.charges()) == 2
    bench.check()


# Answers that alternate, so that none of them is ever repeated


UNCLEAR = {
    "not known": {"action": "not_found"},
    "bad gateway": {"action": "status", "status": 502},
    "too many requests": {"action": "rate_limit", "retry_after": 0},
    "garbage": {"action": "garbage_body"},
    "failed": {"action": "fail"},
}


@pytest.mark.parametrize("fault", [*UNCLEAR.values()], ids=UNCLEAR)
def test_a_task_whose_answers_alternate_is_lost_after_its_deadline(bench, serve, fault):
    serve()
    bench.write(JOB.replace("[calm, wild]", "[calm]"))
    at_work = {"on": "poll", "action": "never_end"}
    bench.emulator.set_faults([{"on": "poll", "every": 2, **fault}, at_work])
    done = bench.run("--max-duration", "30s")
    assert done.code == 3, done
    assert bench.states() == {"lost": 1}
    assert bench.run("--max-duration", "30s").code == 3, "nothing buys it again by itself"
    bench.emulator.set_faults([])
    assert bench.run().code == 0
    assert len(bench.charges()) == 1
    bench.check()


def test_answers_that_alternate_and_say_nothing_leave_a_task_to_the_next_run(bench, serve):
    serve()
    bench.write(JOB.replace("[calm, wild]", "[calm]"))
    silent = [{"action": "status", "status": 502, "every": 2}, {"action": "rate_limit", "retry_after": 0}]
    assert bench.run("--submit-only").code == 0
    bench.emulator.set_faults([{"on": "poll", **rule} for rule in silent])
    assert bench.run("--max-duration", "30s").code == 7
    assert bench.states() == {"accepted": 1}


def test_a_clock_that_was_set_back_does_not_keep_a_run_alive(bench, serve):
    import sqlite3

    serve()
    bench.write(JOB.replace("[calm, wild]", "[calm]"))
    bench.emulator.set_faults([{"on": "poll", "action": "never_end"}])
    assert bench.run("--submit-only").code == 0
    with sqlite3.connect(bench.out / "manifest.db") as connection:
        connection.execute("UPDATE tasks SET deadline = deadline + 6 * 86400")
    assert bench.run("--max-duration", "30s").code == 3
    assert bench.states() == {"lost": 1}
