"""Results that are not what was requested: fetched again where that helps, else stored and flagged until accepted."""

import json
import sqlite3
from contextlib import closing

import pytest
from PIL import Image

SERIES = """\
version: 1
name: test
matrix: {mood: [calm, wild]}
request: {prompt: "a cup, {{ mood }}", n: 3, image_urls: [cup.png]}
output: {dir: out, path: "{{ mood }}"}
"""


def words(text):
    return " ".join(text.split())


def small(bench, width=1024, height=1024, **rule):
    bench.emulator.set_faults([{"on": "image", "action": "wrong_size", "width": width, "height": height, **rule}])


def warnings(bench):
    return [row[0] for row in bench.rows("SELECT warning FROM images WHERE state = 'stored' ORDER BY task")]


@pytest.fixture
def one(bench, serve):
    serve()
    bench.edit("size: [1:1, 16:9, 9:16]", "size: [1:1]")
    bench.edit("    - {id: fox, text: a fox in the snow}\n", "")
    return bench


@pytest.fixture
def series(bench, serve):
    serve()
    Image.new("RGB", (2048, 2048), "teal").save(bench.folder / "cup.png")
    bench.write(SERIES)
    return bench


@pytest.mark.parametrize(("width", "height"), [(1024, 1024), (2560, 1440), (320, 200)])
def test_a_wrong_picture_is_stored_and_flagged_until_it_is_accepted(one, width, height):
    small(one, width, height)
    done = one.run("--summary", "s.json", "--metrics", "m.prom")
    assert done.code == 9, done
    assert f"flagged: panda/1-1: image 1: {width} x {height} pixels" in done.err
    assert ": 1 flagged\n" in done.out
    [warning] = warnings(one)
    summary = json.loads((one.folder / "s.json").read_text())
    assert (summary["exit_code"], summary["end"], summary["state"]["flagged"]) == (9, "failure", 1)
    assert summary["warnings"] == [f"panda/1-1.png: {warning}"]
    assert 'seedream_batch_tasks_flagged{job="test"} 1' in (one.folder / "m.prom").read_text()
    before = one.requests()
    assert one.run("--quiet").code == 9
    assert one.call("verify", "--deep").code == 9
    assert warning in words(one.call("status").out)
    told = json.loads(one.call("status", "--json").out)
    assert (told["flagged_tasks"], told["flagged"][0]["images"][0]["warning"]) == (1, warning)
    assert "flagged, differs from the request" in words(one.call("plan").out)
    assert one.requests() == before, "what is finished asks nothing"
    assert "1 task accepted as they are" in one.call("resolve", "--accept").out
    assert one.run().code == 0
    assert one.call("verify").code == 0
    assert "Flagged, differ from the request" not in one.call("status").out
    assert one.rows("SELECT reason FROM images") == [(f"accepted as it is: {warning}",)]
    assert "Nothing to do" in one.call("resolve", "--accept").out
    one.check()


def test_a_wrong_picture_that_gets_right_is_not_flagged(one):
    small(one, count=2)
    done = one.run()
    assert done.code == 0, done
    assert one.rows("SELECT width, height FROM images") == [(2048, 2048)]
    assert not list(one.out.rglob("*.part"))
    one.check()


@pytest.mark.thorough
def test_when_nothing_helps_others_are_not_fetched_again(bench, serve):
    serve()
    bench.edit("size: [1:1, 16:9, 9:16]\n", "size: [1:1, 16:9, 9:16]\nrepeat: 8\n")
    bench.edit('"{{ subject.id }}/{{ size }}"', '"{{ subject.id }}/{{ size }}-{{ sample }}"\nrun: {max_in_flight: 4}')
    small(bench)
    assert bench.run().code == 9
    assert bench.emulator.stats()["image"] < 3 * 48
    bench.check()


def test_a_placeholder_is_never_stored(one):
    small(one, 1, 1)
    done = one.run()
    assert done.code in {3, 7}, done
    assert "placeholder of 1 x 1 pixels" in done.err
    assert not one.files()
    one.emulator.set_faults([])
    one.call("verify")
    one.run()
    assert one.rows("SELECT state, width FROM images") == [("stored", 2048)]
    assert len(one.charges()) == 1


def test_the_same_picture_for_two_tasks_is_flagged_for_both(bench, serve):
    serve()
    bench.edit("size: [1:1, 16:9, 9:16]", "size: [1:1]")
    small(bench, 2048, 2048)
    done = bench.run()
    assert done.code == 9, done
    assert sorted(warnings(bench)) == ["the same bytes as fox/1-1.png", "the same bytes as panda/1-1.png"]
    assert "the same bytes as another image" in words(bench.call("plan").out)
    bench.check()


@pytest.mark.thorough
def test_the_same_picture_twice_within_a_task(series):
    series.emulator.set_faults(
        [{"on": "image", "action": "wrong_size", "width": 2048, "height": 2048, "prompt": "calm", "after": 1}]
    )
    assert series.run().code in {0, 9}
    twins = series.rows("SELECT count(*) FROM images WHERE warning != '' AND state = 'stored'")
    same = series.rows("SELECT count(*) - count(DISTINCT sha256) FROM images WHERE state = 'stored'")
    assert (twins[0][0] > 0) == (same[0][0] > 0)
    series.check()


def test_an_error_in_the_place_of_an_image_is_told(series):
    series.emulator.set_faults([{"on": "poll", "action": "image_error", "image": 2, "prompt": "calm"}])
    done = series.run()
    assert done.code == 9, done
    assert dict(series.rows("SELECT paths, warning FROM tasks")) == {
        '["calm"]': "1 of 3 images missing: InternalServiceError: unexpected internal error",
        '["wild"]': "",
    }
    assert "1 of 3 images missing: InternalServiceError" in words(series.call("plan").out)
    assert "calm: 1 of 3 images missing" in words(series.call("status").out)
    before = series.requests()
    assert series.run("--quiet").code == 9
    assert series.requests() == before
    series.check()


@pytest.fixture
def short(series):
    """Two tasks of three images; the first image of one was an error when it completed, and is there by now."""
    series.emulator.set_faults([{"on": "poll", "action": "image_error", "prompt": "calm"}])
    assert series.run().code == 9
    assert len(series.files()) == 5
    series.emulator.set_faults([])
    return series


@pytest.mark.thorough
def test_images_that_come_a_moment_later_are_waited_for(series):
    assert series.run("--submit-only").code == 0
    series.emulator.set_faults([{"on": "poll", "action": "image_error", "prompt": "calm", "count": 1}])
    assert series.run().code == 0
    assert len(series.files()) == 6
    assert series.emulator.stats()["poll"] == 3, "what is complete is polled once"
    series.check()


@pytest.mark.thorough
@pytest.mark.parametrize("later", ["not_found", "fail"])
def test_images_that_were_shown_once_are_not_given_up_for_later_answers(series, monkeypatch, later):
    monkeypatch.setattr("seedream_batch.lifecycle.NOT_FOUND_GRACE", 0.0)
    series.emulator.configure(deliver=-1)
    assert series.run("--submit-only").code == 0
    series.emulator.set_faults([{"on": "poll", "action": later, "prompt": "calm", "after": 1}])
    done = series.run("--max-duration", "60s")
    assert done.code == 9, done
    assert series.states() == {"succeeded": 2}
    assert len(series.files()) == 4
    series.check()


@pytest.mark.parametrize("command", [("verify",), ("verify", "--flagged"), ("retry", "--flagged")], ids=" ".join)
def test_images_that_come_later_are_fetched_and_not_paid_for(short, command):
    done = short.call(*command)
    assert done.code == 0, done
    assert len(short.files()) == 6
    assert short.rows("SELECT count(DISTINCT sha256) FROM images WHERE state = 'stored'") == [(6,)]
    assert short.rows("SELECT reserved_images, images FROM totals") == [(0, 6)]
    assert short.rows("SELECT DISTINCT warning FROM tasks UNION SELECT warning FROM images") == [("",)]
    before = short.requests()
    assert short.run("--quiet").code == 0
    assert short.requests() == before
    assert len(short.charges()) == 2
    short.check()


@pytest.mark.thorough
def test_what_could_not_be_stored_comes_with_what_was_lacking(series, monkeypatch):
    monkeypatch.setattr("seedream_batch.engine.downloader.TRYING", 60.0)
    faults = [{"on": "poll", "action": "image_error"}, {"on": "image", "action": "truncated_image"}]
    series.emulator.set_faults([{**fault, "prompt": "calm"} for fault in faults])
    assert series.run().code in {3, 9}
    assert series.rows("SELECT count(*) FROM images WHERE state = 'rejected'") == [(2,)]
    series.emulator.set_faults([])
    assert series.call("verify").code == 0
    assert series.rows("SELECT count(DISTINCT sha256) FROM images WHERE state = 'stored'") == [(6,)]
    assert len(series.charges()) == 2
    series.check()


@pytest.mark.thorough
def test_what_stays_incomplete_is_planned_again_with_its_price(short):
    short.emulator.set_faults([{"on": "poll", "action": "image_error", "prompt": "calm"}])
    assert short.call("verify").code == 9
    done = short.call("retry", "--flagged")
    assert done.code == 0, done
    assert "1 task queued again, 3 images for about 0.105 USD" in words(done.out)


@pytest.mark.parametrize("why", ["no answer", "at work", "no key"])
def test_without_a_clear_answer_an_incomplete_task_is_planned_only_when_that_is_said(short, monkeypatch, why):
    if why == "no key":
        monkeypatch.delenv("APIMART_API_KEY")
    else:
        fault = {"action": "never_end"} if why == "at work" else {"action": "status", "status": 500}
        short.emulator.set_faults([{"on": "poll", **fault}])
    done = short.call("retry", "--flagged")
    assert done.code == 7, done
    assert "1 flagged task skipped" in words(done.out)
    assert short.states() == {"succeeded": 2}
    done = short.call("retry", "--flagged", "--no-poll")
    assert done.code == 0, done
    assert short.states() == {"succeeded": 1, "planned": 1}


def test_more_images_than_requested_are_flagged(series):
    series.emulator.configure(deliver=1)
    assert series.run().code == 9
    assert [row[0] for row in series.rows("SELECT warning FROM tasks")] == ["4 images delivered instead of 3"] * 2
    series.check()


def test_flagged_tasks_are_made_anew_and_their_files_step_aside(series):
    series.emulator.configure(deliver=-1)
    assert series.run().code == 9
    series.emulator.configure(deliver=0)
    assert len(series.files()) == 4
    done = series.call("retry", "--flagged", "--select", "mood=calm")
    assert "1 task queued again, 3 images for about 0.105 USD" in words(done.out)
    assert series.run().code == 9, "the other one is flagged still"
    assert {name for name in series.files() if name.startswith("calm")} == {"calm-1.jpg", "calm-2.jpg", "calm-3.jpg"}
    assert len([name for name in series.files() if name.startswith("superseded/calm")]) == 2
    assert series.call("retry", "--flagged").code == 0
    assert series.run().code == 0
    assert len(series.charges()) == 4
    series.check()


def test_a_task_id_of_another_task_is_held(bench, serve):
    serve()
    bench.emulator.set_faults([{"on": "submit", "action": "same_id", "prompt": "fox", "after": 1, "count": 1}])
    done = bench.run()
    assert done.code == 4, done
    assert bench.states() == {"succeeded": 5, "uncertain": 1}
    [(reason, code, held)] = bench.rows("SELECT reason, code, held FROM tasks WHERE state = 'uncertain'")
    assert "which belongs to panda/1-1" in reason
    assert (code, held) == ("same_task_id", 1)
    assert len({row[0] for row in bench.rows("SELECT sha256 FROM images")}) == 5
    [(first,)] = bench.rows("SELECT task_ids FROM tasks WHERE paths LIKE '%panda/1-1%'")
    kept = bench.rows(
        "SELECT paths, state, answers.body, why FROM answers JOIN tasks ON tasks.id = task ORDER BY answers.id"
    )
    assert [row[1] for row in kept] == ["succeeded", "uncertain"], "the answer is kept for both"
    assert all(json.loads(first)[0] in body for _, _, body, _ in kept)
    status = " ".join(bench.call("status").out.split())
    assert all(" ".join(why.split()[:6]) in status for *_, why in kept), "and status shows it"
    bench.check()


def test_a_held_task_is_found_by_an_id_in_the_answer_that_named_another_one(bench, serve):
    serve()
    again = {"on": "submit", "action": "same_id", "after": 1, "count": 1, "prompt": "fox"}
    bench.emulator.set_faults([again, {"on": "submit", "action": "reset_after_bill", "after": 2, "prompt": "panda"}])
    assert bench.run().code == 4
    assert bench.states()["uncertain"] == 2
    [(number, body)] = bench.rows(
        "SELECT task, answers.body FROM answers JOIN tasks ON tasks.id = task WHERE state = 'uncertain'"
    )
    other = f"task_{'7' * 24}"
    with closing(sqlite3.connect(bench.out / "manifest.db")) as connection:
        # As a gateway would answer that repeats an id beside the one that it has given.
        connection.execute("UPDATE answers SET body = ? WHERE task = ?", (f'{body[:-1]}, "id": "{other}"}}', number))
        connection.commit()
    assert bench.call("resolve", "--task-id", other).code == 0
    assert bench.rows("SELECT id FROM tasks WHERE state = 'accepted'") == [(number,)]


def test_one_task_id_for_all_stops_buying(bench, serve):
    serve()
    bench.edit("size: [1:1, 16:9, 9:16]\n", "size: [1:1, 16:9, 9:16]\nrepeat: 8\n")
    bench.edit('"{{ subject.id }}/{{ size }}"', '"{{ subject.id }}/{{ size }}-{{ sample }}"\nrun: {max_in_flight: 4}')
    bench.emulator.set_faults([{"on": "submit", "action": "same_id", "after": 1}])
    done = bench.run()
    assert done.code == 4, done
    assert "the same task id for several tasks" in words(done.out)
    assert len(bench.charges()) < 24
    bench.check()


def test_flagged_results_are_chosen_and_left_out(bench, serve):
    serve()
    bench.edit("size: [1:1, 16:9, 9:16]", "size: [1:1]")
    refused = bench.call("export", "--format", "csv", "--to", "none.csv", "--flagged")
    assert refused.code == 2
    small(bench, prompt="fox")
    assert bench.run().code == 9
    assert "1 image checked" in bench.call("verify", "--flagged").out
    assert "1 cell (1 image)" in words(bench.call("report", "--flagged", "--to", "page").out)
    for option, image in (("--flagged", "fox/1-1.png"), ("--no-flagged", "panda/1-1.jpg")):
        done = bench.call("export", "--format", "jsonl", "--to", option.strip("-"), option)
        assert done.code == 0, done
        text = "".join(path.read_text() for path in (bench.folder / option.strip("-")).rglob("*.jsonl"))
        assert image in text
        assert text.count("\n") == 1
    bench.emulator.set_faults([])
    assert bench.call("resolve", "--accept").code == 0
    assert bench.call("export", "--format", "jsonl", "--to", "again", "--flagged").code == 2
    assert "0 images checked" in bench.call("verify", "--flagged").out


@pytest.mark.parametrize("edit", ["n: 3 -> n: 2", "n: 3 -> n: 1", "a cup -> a mug"])
def test_old_images_do_not_stay_beside_the_new_ones(series, edit):
    assert series.run().code == 0
    assert len(series.files()) == 6
    old, new = edit.split(" -> ")
    series.edit(old, new)
    delivered = {"n: 2": 2, "n: 1": 1}.get(new, 2)
    if new == "a mug":
        series.emulator.configure(deliver=-1)
    assert series.run().code == (9 if new == "a mug" else 0)
    calm = {name for name in series.files() if name.startswith("calm")}
    assert calm == ({"calm.jpg"} if delivered == 1 else {"calm-1.jpg", "calm-2.jpg"})
    aside = [name for name in series.files() if name.startswith("superseded/calm")]
    assert len(aside) == 3
    series.check()


@pytest.mark.thorough
def test_images_of_a_cell_that_was_dropped_stay_where_they_are(series):
    assert series.run().code == 0
    series.edit("mood: [calm, wild]", "mood: [calm]")
    series.edit("a cup", "a mug")
    assert series.run().code == 0
    assert {name for name in series.files() if name.startswith("wild")} == {"wild-1.jpg", "wild-2.jpg", "wild-3.jpg"}
