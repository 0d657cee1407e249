"""What a person decides: retry and resolve."""

import json
import time

import pytest


@pytest.fixture
def doubtful(bench, serve):
    """Two of six tasks were billed, and their answers lost."""
    serve()
    bench.emulator.set_faults([{"on": "submit", "action": "reset_after_bill", "prompt": "fox", "after": 1}])
    assert bench.run().code == 4
    bench.emulator.set_faults([])
    assert bench.states() == {"succeeded": 4, "uncertain": 2}
    return bench


def test_resend_under_the_same_key(doubtful):
    done = doubtful.call("resolve", "--resend")
    assert done.code == 0, done
    assert doubtful.states() == {"succeeded": 6}
    assert len(doubtful.charges()) == 6
    doubtful.check()


def test_resend_of_some(doubtful):
    sizes = [path.split("/")[1].replace("-", ":") for (path,) in _uncertain(doubtful)]
    done = doubtful.call("resolve", "--resend", "--select", "subject=fox", "--select", f"size={sizes[0]}")
    assert done.code == 4, done
    assert doubtful.states() == {"succeeded": 5, "uncertain": 1}
    assert len(doubtful.charges()) == 6


def test_a_task_id_that_was_found(doubtful):
    size = _uncertain(doubtful)[0][0].split("/")[1].replace("-", ":")
    known = {text for (text,) in doubtful.rows("SELECT task_ids FROM attempts WHERE task_ids IS NOT NULL")}
    lost = [charge for charge in doubtful.charges() if f'["{charge["task_id"]}"]' not in known]
    task_id = next(charge["task_id"] for charge in lost if charge["request"].get("size") == size)
    refused = doubtful.call("resolve", "--task-id", task_id)
    assert refused.code == 2
    assert "2 uncertain tasks are selected" in refused.err
    done = doubtful.call("resolve", "--task-id", task_id, "--select", f"size={size}")
    assert done.code == 0, done
    doubtful.run()
    assert doubtful.states() == {"succeeded": 5, "uncertain": 1}
    assert len(doubtful.charges()) == 6
    doubtful.check()


def test_forget_buys_again_and_says_so(doubtful):
    done = doubtful.call("resolve", "--forget")
    assert done.code == 0
    assert "submits them as new" in " ".join(done.out.split())
    assert doubtful.run().code == 0
    assert len(doubtful.charges()) == 8
    # What is in doubt stays held: it may have been paid.
    assert doubtful.rows("SELECT reserved_images, images FROM totals") == [(2, 6)]


def test_give_up_and_take_up_again(doubtful):
    assert doubtful.call("resolve", "--give-up").code == 0
    assert doubtful.states() == {"succeeded": 4, "failed": 2}
    assert doubtful.run().code == 3
    assert len(doubtful.charges()) == 6
    assert "given up" in doubtful.call("status").out
    done = doubtful.call("retry")
    assert "2 tasks queued again" in done.out
    assert doubtful.run().code == 0


def test_retry_of_what_failed(bench, serve):
    serve()
    bench.emulator.set_faults([{"on": "submit", "action": "fail", "prompt": "fox"}])
    assert bench.run().code == 3
    bench.emulator.set_faults([])
    assert bench.run().code == 3, "left alone until somebody says otherwise"
    done = bench.call("retry", "--select", "size=1:1,16:9")
    assert "2 tasks queued again" in done.out
    assert bench.run().code == 3
    assert bench.states() == {"succeeded": 5, "failed": 1}
    assert bench.call("retry", "--select", "subject=panda").out.startswith("Nothing to do: no failed or lost tasks")
    assert bench.call("retry").code == 0
    assert bench.run().code == 0
    bench.check()


@pytest.mark.parametrize("arguments", [(), ("--resend", "--task-id", "x")])
def test_one_decision_at_a_time(bench, serve, arguments):
    serve()
    done = bench.call("resolve", *arguments)
    assert done.code == 2
    assert "one of --resend, --task-id ID, --forget, --give-up" in done.err


@pytest.mark.parametrize("text", ["subject", "=fox", "subject="])
def test_a_selection_that_selects_nothing(bench, serve, text):
    serve()
    bench.run()
    done = bench.call("retry", "--select", text)
    assert done.code == 2
    assert "AXIS=VALUE" in done.err


def test_a_job_that_was_never_run(bench):
    assert bench.call("retry").code == 2
    assert bench.call("resolve", "--forget").code == 2
    assert not bench.out.exists()


def _uncertain(bench):
    return [
        (json_paths.strip('["]'),) for (json_paths,) in bench.rows("SELECT paths FROM tasks WHERE state = 'uncertain'")
    ]


def test_a_rescued_id_is_known_before_anything_is_decided(bench, serve):
    import sqlite3

    serve()
    bench.run("--limit", "0")
    with sqlite3.connect(bench.out / "manifest.db") as connection:
        connection.execute(
            "CREATE TRIGGER broken BEFORE UPDATE OF task_ids ON tasks BEGIN SELECT RAISE(ABORT, 'broken'); END"
        )
    bench.run()
    paid = len(bench.charges())
    assert paid
    with sqlite3.connect(bench.out / "manifest.db") as connection:
        connection.execute("DROP TRIGGER broken")
    bench.call("resolve", "--forget")
    assert bench.run().code == 0
    assert len(bench.charges()) == 6
    bench.check()


def test_a_task_id_of_another_task_is_refused(doubtful):
    (known,) = doubtful.rows("SELECT json_extract(task_ids, '$[0]') FROM attempts WHERE task_ids IS NOT NULL LIMIT 1")[
        0
    ]
    size = _uncertain(doubtful)[0][0].split("/")[1].replace("-", ":")
    for task_id in (known, " "):
        done = doubtful.call("resolve", "--task-id", task_id, "--select", f"size={size}", "--select", "subject=fox")
        assert done.code == 2, done


@pytest.mark.thorough
def test_retry_leaves_tasks_alone_that_the_job_no_longer_has(bench, serve):
    serve()
    bench.emulator.set_faults([{"on": "submit", "action": "fail", "prompt": "fox"}])
    bench.run()
    bench.edit("size: [1:1, 16:9, 9:16]", "size: [1:1]")
    bench.run()
    assert "1 task queued again" in bench.call("retry").out


def test_status_says_what_is_needed_to_decide(doubtful):
    shown = doubtful.call("status").out
    place = _uncertain(doubtful)[0][0]
    size = place.split("/")[1].replace("-", ":")
    opened = doubtful.rows(
        "SELECT opened_at FROM attempts JOIN tasks ON tasks.id = task WHERE outcome = 'uncertain' ORDER BY ordinal"
    )[0][0]
    sent = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(opened))
    assert "Uncertain, may have been charged (2):" in shown
    assert f"  {place}\n    cell   subject=fox size={size}\n    prompt a fox in the snow, watercolour\n" in shown
    assert f"    sent   {sent}; may have cost 0.035 USD\n    error  the connection was" in shown
    assert f"`seedream-batch resolve {doubtful.job}` with" in " ".join(shown.split())
    assert all(len(line) <= 80 for line in shown.splitlines() if str(doubtful.job) not in line)


def test_status_tells_machines_what_is_needed_to_decide(doubtful):
    found = json.loads(doubtful.call("status", "--json").out)["uncertain"]
    rows = doubtful.rows(
        "SELECT key, opened_at FROM attempts JOIN tasks ON tasks.id = task WHERE outcome = 'uncertain' ORDER BY ordinal"
    )
    assert [(one["key"], one["sent_at"], one["may_have_cost_usd"]) for one in found] == [(*row, 0.035) for row in rows]
    assert found[0]["prompt"] == "a fox in the snow, watercolour"


def test_status_cuts_long_prompts(bench, serve):
    serve()
    bench.edit("a fox in the snow", '"a fox ' + "in the deep snow " * 40 + '"')
    bench.emulator.set_faults([{"on": "submit", "action": "reset_after_bill"}])
    assert bench.run("--limit", "4").code == 4
    shown = bench.call("status").out
    assert "in the deep snow" in shown
    assert shown.count("deep snow") < 20
    assert " ..." in shown


@pytest.mark.thorough
def test_status_names_twenty_of_those_in_doubt(bench, serve):
    serve()
    bench.edit("size: [1:1, 16:9, 9:16]\n", "size: [1:1, 16:9, 9:16]\nrepeat: 4\n")
    bench.edit("{{ size }}", "{{ size }}-{{ sample }}")
    bench.emulator.set_faults([{"on": "submit", "action": "reset_after_bill"}])
    for _ in range(12):
        bench.run()
        if bench.states()["uncertain"] == 24:
            break
    shown = bench.call("status").out
    assert shown.count("may have cost") == 20
    assert "and 4 more" in shown
    assert "sample=2" in shown
