"""Killed at any moment, a run goes on where it was; nothing is bought twice, nothing paid for is lost."""

import os
import signal
from collections import Counter

import pytest

TRUSTED = "run: {on_unknown: resend}\n"


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)


def finish(bench, most=20):
    """Runs until there is nothing left, as cron would."""
    for _ in range(most):
        done = bench.run()
        if done.code == 0:
            return done
    raise AssertionError(done)


@pytest.mark.parametrize("stored", [0, 1, 3])
def test_kill_in_the_middle_and_go_on(bench, serve, until, end, stored):
    serve(task_seconds="uniform:0.1,1.5", latency_seconds=0.05)
    bench.write(bench.job.read_text() + TRUSTED)
    process = bench.start()
    end(process)
    until(lambda: len(bench.charges()) >= 2 and len(bench.files()) >= stored)
    kill(process)
    bench.check()
    finish(bench)
    assert len(bench.files()) == 6
    assert len(bench.charges()) == 6
    bench.check()
    before = bench.requests()
    assert bench.run().code == 0
    assert bench.requests() == before


@pytest.mark.thorough
def test_killed_before_the_service_bills(bench, serve, until, end):
    serve()
    bench.emulator.set_faults([{"on": "submit", "action": "hang", "at": "before_bill", "count": 1}])
    bench.write(bench.job.read_text() + TRUSTED)
    process = bench.start()
    end(process)
    until(bench.emulator.waiting)
    kill(process)
    assert bench.rows("SELECT count(*) FROM tasks WHERE state = 'submitting'")[0][0] >= 1
    bench.emulator.release()
    finish(bench)
    assert len(bench.charges()) == 6
    bench.check()


@pytest.mark.thorough
def test_killed_after_the_service_billed(bench, serve, until, end):
    serve()
    bench.emulator.set_faults([{"on": "submit", "action": "hang", "at": "after_bill", "count": 1}])
    bench.write(bench.job.read_text() + TRUSTED)
    process = bench.start()
    end(process)
    until(bench.emulator.waiting)
    kill(process)
    bench.emulator.release()
    finish(bench)
    assert len(bench.charges()) == 6
    assert len(bench.files()) == 6
    bench.check()


@pytest.mark.thorough
def test_killed_after_the_bill_and_keys_not_trusted(bench, serve, until, end):
    serve(honour_keys=False)
    bench.emulator.set_faults([{"on": "submit", "action": "hang", "at": "after_bill", "count": 1}])
    process = bench.start()
    end(process)
    until(bench.emulator.waiting)
    kill(process)
    bench.emulator.release()
    done = bench.run()
    assert done.code == 4, done
    uncertain = bench.states()["uncertain"]
    assert uncertain >= 1
    # However often it runs again: what is in doubt is not bought again by itself.
    assert bench.run().code == 4
    assert len(bench.charges()) <= 6
    assert bench.states() == Counter(succeeded=6 - uncertain, uncertain=uncertain)
    bench.check()


@pytest.mark.thorough
def test_killed_in_the_middle_of_an_image(bench, serve, until, end):
    serve(image_size="exact")
    bench.emulator.set_faults([{"on": "image", "action": "hang", "at": "mid_body", "count": 2}])
    process = bench.start()
    end(process)
    until(lambda: len(bench.emulator.waiting()) == 2 and bench.states()["succeeded"] == 6)
    # What was sent need not have been read yet.
    until(lambda: list(bench.out.rglob(".seedream-*.part")))
    kill(process)
    assert list(bench.out.rglob(".seedream-*.part"))
    bench.check()
    bench.emulator.release()
    finish(bench)
    assert len(bench.files()) == 6
    assert list(bench.out.rglob(".seedream-*.part")) == []
    assert len(bench.charges()) == 6
    bench.check()


def test_a_file_that_got_its_name_just_before_the_kill_is_known_again(bench, serve):
    serve()
    bench.run()
    # The state that a kill between the rename and its record leaves.
    import sqlite3

    with sqlite3.connect(bench.out / "manifest.db") as connection:
        connection.execute("UPDATE images SET state = 'announced', url = 'http://127.0.0.1:1/gone' WHERE task = 1")
        connection.execute("UPDATE runs SET ended_at = NULL")
    before = bench.requests()
    done = bench.run()
    assert done.code == 0, done
    assert bench.requests() == before
    assert bench.states() == {"succeeded": 6}
    bench.check()


@pytest.mark.thorough
def test_the_embedded_emulator_and_a_kill(bench, until, end, monkeypatch):
    monkeypatch.delenv("APIMART_API_KEY", raising=False)
    out = bench.folder / "out-emulated"
    ledger = out / ".emulator" / "ledger.jsonl"
    process = bench.start("--emulate")
    end(process)
    until(lambda: ledger.exists() and ledger.read_text().count('"charge"') >= 2)
    kill(process)
    for _ in range(5):
        if bench.run("--emulate").code == 0:
            break
    assert len(list(out.rglob("*.jpg"))) == 6
    assert ledger.read_text().count('"charge"') == 6


def test_ctrl_c_once_drains_and_leaves_130(bench, serve, until, end):
    serve(task_seconds="fixed:4")
    process = bench.start()
    end(process)
    until(lambda: len(bench.charges()) == 6)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130, (out, err)
    assert "Traceback" not in err
    assert "6 tasks for the next run" in out
    assert bench.states() == {"accepted": 6}
    finish(bench)
    assert len(bench.charges()) == 6
    bench.check()


@pytest.mark.thorough
def test_sigterm_leaves_143(bench, serve, until, end):
    serve(task_seconds="fixed:2")
    process = bench.start()
    end(process)
    until(lambda: len(bench.charges()) >= 1)
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 143
    finish(bench)
    assert len(bench.charges()) == 6


@pytest.mark.thorough
def test_a_second_ctrl_c_leaves_at_once(bench, serve, until, end):
    serve()
    bench.emulator.set_faults([{"on": "submit", "action": "hang", "at": "after_bill"}])
    process = bench.start()
    end(process)
    until(bench.emulator.waiting)
    process.send_signal(signal.SIGINT)
    # The first one waits for the answer to what was sent; that never comes.
    until(lambda: "stopping: interrupted (SIGINT); finishing current requests; interrupt again" in _line(process))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130, (out, err)
    assert "Traceback" not in err
    bench.emulator.set_faults([])
    bench.emulator.release()
    bench.write(bench.job.read_text() + TRUSTED)
    finish(bench)
    assert len(bench.charges()) == 6
    bench.check()


def _line(process):
    return process.stderr.readline()
