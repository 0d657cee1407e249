"""`--select`: what is bought, and what is not."""

import json

import pytest


def words(text):
    return " ".join(text.split())


def prompts(bench):
    return [charge["request"]["prompt"] for charge in bench.charges()]


def test_a_run_of_some(bench, serve):
    serve()
    done = bench.run("--select", "subject=fox", "--select", "size=1:1,16:9")
    assert done.code == 0, done
    assert "4 tasks for the next run" in done.out
    assert set(bench.files()) == {"fox/1-1.jpg", "fox/16-9.jpg"}
    assert len(bench.charges()) == 2
    before = bench.requests()
    assert bench.run("--select", "subject.text=a fox in the snow", "--select", "size=1:1").code == 0
    assert bench.requests() == before
    assert bench.run().code == 0
    assert len(bench.charges()) == 6
    bench.check()


def test_a_plan_of_some(bench, serve):
    shown = words(bench.call("plan", "--select", "subject=fox").out)
    assert "submit 3 tasks, 3 images, 0.105 USD" in shown
    assert "3 tasks not selected by --select" in shown
    assert "panda" not in shown
    serve()
    bench.run("--limit", "1")
    found = json.loads(bench.call("plan", "--select", "subject=fox", "--json").out)
    assert (found["tasks"], found["left_out"], found["to_buy"]["images"]) == (6, 3, 3)
    assert words(bench.run("--dry-run", "--select", "subject=fox").out).count("3 images for about") == 1


def test_what_is_in_flight_is_collected_whole(bench, serve):
    serve()
    bench.run("--submit-only", "--limit", "2", "--select", "subject=panda")
    assert "poll 2 tasks" in words(bench.call("plan", "--select", "subject=fox").out)
    assert bench.run("--select", "subject=fox").code == 0
    assert bench.states() == {"succeeded": 5, "planned": 1}
    assert len(bench.files()) == 5


def test_only_what_is_chosen_is_sent_again(bench, serve):
    serve()
    bench.edit("output:", "run: {on_unknown: hold}\noutput:")
    bench.emulator.set_faults([{"on": "submit", "action": "reset_after_bill", "count": 2}])
    assert bench.run("--limit", "2").code == 4
    assert bench.states()["uncertain"] == 2
    bench.emulator.set_faults([])
    bench.edit("hold", "resend")
    (first,) = bench.rows("SELECT json_extract(cell, '$.size') FROM tasks WHERE state = 'uncertain' LIMIT 1")[0]
    shown = json.loads(bench.call("plan", "--json", "--select", f"size={first}", "--select", "subject=panda").out)
    assert [group["tasks"] for group in shown["groups"] if group["action"] == "resend"] == [1]
    assert bench.run("--select", "subject=panda", "--select", f"size={first}").code == 4
    assert bench.states() == {"succeeded": 1, "uncertain": 1, "planned": 4}
    bench.check()


def test_what_fails_is_tried_again_only_if_it_was_chosen(bench, serve):
    serve()
    bench.emulator.set_faults([{"on": "submit", "action": "fail", "count": 2}])
    assert bench.run("--select", "subject=fox", "--select", "size=1:1").code == 0
    assert bench.states() == {"succeeded": 1, "planned": 5}
    assert len(bench.charges()) == 3


def test_limit_and_budget_count_what_is_chosen(bench, serve):
    serve(balance_usd=0.08)
    bench.write(bench.job.read_text() + "budget: {max_images: 2}\n")
    done = bench.run("--select", "subject=fox", "--limit", "2")
    assert done.code == 0, done
    assert "the account has" not in done.err, "two images are paid for by what is left"
    assert all("fox" in prompt for prompt in prompts(bench))
    assert bench.run("--select", "subject=panda").code == 5
    assert len(bench.charges()) == 2


@pytest.mark.parametrize("verb", ["run", "plan", "verify", "retry", "resolve"])
@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["subjekt=fox"], "no axis `subjekt` in the job (did you mean `subject`?)"),
        (["colour=red"], "no axis `colour` in the job (axes: subject, size)"),
        (["subject=wolf"], "no cell of the job has wolf"),
        (["size=1:1,4:3"], "no cell of the job has 4:3"),
        (["subject.kind=x"], "no cell of the job has x"),
        (["size"], "AXIS=VALUE"),
        (["subject=fox", "size=9:16"], "no cell of the job matches all of"),
    ],
    ids=["slip", "unknown", "value", "one-of-two", "key", "no-value", "together"],
)
def test_a_selection_that_chooses_nothing_is_a_mistake(bench, serve, verb, texts, told):
    serve()
    bench.edit("request:", "exclude:\n  - {subject: fox, size: 9:16}\nrequest:")
    bench.run("--limit", "0")
    more = ["--forget"] if verb == "resolve" else []
    done = bench.call(verb, *more, *(part for text in texts for part in ("--select", text)))
    assert done.code == 2, done
    assert told in done.err
    assert bench.charges() == []


def test_values_of_included_cells_can_be_chosen(bench, serve):
    serve()
    bench.edit("request:", "include:\n  - {subject: {id: wide, text: mountains}, size: 21:9}\nrequest:")
    assert bench.run("--select", "subject=wide").code == 0
    assert set(bench.files()) == {"wide/21-9.jpg"}
    assert bench.call("plan", "--select", "subject=wide", "--select", "size=1:1").code == 2


def test_a_task_in_doubt_that_the_job_no_longer_has_can_be_chosen(bench, serve):
    serve()
    bench.emulator.set_faults([{"on": "submit", "action": "reset_after_bill", "prompt": "fox"}])
    bench.run()
    bench.emulator.set_faults([])
    bench.write(bench.job.read_text().replace("    - {id: fox, text: a fox in the snow}\n", ""))
    done = bench.call("resolve", "--give-up", "--select", "subject=fox")
    assert done.code == 0, done
    assert "3 tasks marked as failed" in done.out


def test_the_choice_finds_what_is_due_without_looking_at_the_rest(tmp_path):
    from seedream_batch.manifest import Manifest
    from seedream_batch.model.task import TaskSpec

    def spec(number):
        return TaskSpec(
            f"{number:064}", number, 1, "{}", 1, (f"{number}",), json.dumps({"n": number}), "m", "1:1", "2K", 1
        )

    manifest = Manifest(tmp_path / "manifest.db")
    manifest.sync_job(map(spec, range(1000)), 0.0)
    assert manifest.queue.select(lambda cell: cell["n"] >= 900) == 100
    assert [task.ordinal for task in manifest.queue.due(3, 1.0)] == [900, 901, 902]
    assert manifest.queue.planned_cost(None) == (100, 100)
    assert manifest.queue.planned_cost(7) == (7, 7)
    assert manifest.queue.next_due() == 0.0
    rows = manifest.connection.rows(
        f"EXPLAIN QUERY PLAN SELECT id FROM {manifest.queue._planned} ORDER BY {manifest.queue._order} LIMIT 5"
    )
    plan = " ".join(str(row[-1]) for row in rows)
    assert "chosen_waiting" in plan
    assert "TEMP B-TREE" not in plan
    # Pages of images begin where the last one ended.
    told = []
    manifest.connection.sql.set_trace_callback(told.append)
    manifest.upkeep.to_check((500, 1), 10)
    manifest.connection.sql.set_trace_callback(None)
    rows = manifest.connection.rows(f"EXPLAIN QUERY PLAN {told[-1]}")
    assert "SEARCH images USING PRIMARY KEY ((task,index)>" in rows[0][-1]
    manifest.close()
