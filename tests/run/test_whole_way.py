"""A job file becomes verified images: the whole way, with the real client against the emulator."""

import json
import re

import pytest
from PIL import Image

from seedream_batch.pacing.poll_schedule import SOON

SUBJECTS = ("panda", "fox")
SIZES = ("1-1", "16-9", "9-16")

PIXELS = {
    "2K": {
        "1:1": (2048, 2048), "4:3": (2304, 1728), "3:4": (1728, 2304), "16:9": (2560, 1440), "9:16": (1440, 2560),
        "3:2": (2496, 1664), "2:3": (1664, 2496), "21:9": (3024, 1296), "9:21": (1296, 3024),
    },
    "4K": {
        "1:1": (4096, 4096), "4:3": (4694, 3520), "3:4": (3520, 4694), "16:9": (5404, 3040), "9:16": (3040, 5404),
        "3:2": (4992, 3328), "2:3": (3328, 4992), "21:9": (6198, 2656), "9:21": (2656, 6198),
    },
}  # fmt: skip
"""The service's own table of pixel sizes."""


def test_a_run_makes_every_image_once(bench, serve):
    serve()
    done = bench.run()
    assert done.code == 0, done
    assert set(bench.files()) == {
        f"{subject}/{size}.jpg" for subject in ("panda", "fox") for size in ("1-1", "16-9", "9-16")
    }
    assert bench.states() == {"succeeded": 6}
    assert len(bench.charges()) == 6
    assert "6 images (6 new, " in done.out
    assert "0.21 USD in this run" in done.out
    bench.check()


def test_a_second_run_makes_no_request(bench, serve):
    serve()
    bench.run()
    before = bench.requests()
    done = bench.run()
    assert done.code == 0
    assert "none new" in done.out
    assert bench.requests() == before


@pytest.mark.thorough
def test_tasks_that_wait_for_the_first_to_end_are_not_all_looked_at_when_it_does(bench, serve, monkeypatch):
    monkeypatch.setattr("seedream_batch.pacing.poll_schedule.SOON", SOON)
    serve(task_seconds="fixed:2")
    bench.write(
        f"version: 1\nmatrix: {{number: {list(range(80))}}}\n"
        'request: {prompt: "a fox, {{ number }}"}\n'
        "output: {dir: out}\nrun: {rate: 40/s, max_in_flight: 80}\n"
    )
    assert bench.run().code == 0
    # The scouts are looked at a few times each; the others when they can be expected to have ended, which is once.
    assert bench.emulator.stats()["poll"] < 80 + 6 * 4 + 20


@pytest.mark.thorough
def test_a_later_run_knows_how_long_tasks_take(bench, serve):
    serve(task_seconds="fixed:2")
    bench.write(
        "version: 1\nmatrix: {number: [1, 2, 3, 4, 5, 6]}\n"
        'request: {prompt: "a fox, {{ number }}"}\noutput: {dir: out}\n'
    )
    assert bench.run().code == 0
    before = bench.emulator.stats()["poll"]
    bench.edit("5, 6]", "5, 6, 7, 8, 9, 10]")
    assert bench.run().code == 0
    assert bench.emulator.stats()["poll"] - before <= 6


@pytest.mark.thorough
def test_all_ratios_arrive_in_their_exact_pixels(bench, serve):
    serve(image_size="exact", task_seconds="fixed:0.01")
    ratios = ", ".join(PIXELS["2K"])
    bench.write(
        "version: 1\n"
        f"matrix:\n  size: [{ratios}]\n  resolution: [2K, 4K]\n"
        'request: {prompt: a lighthouse}\noutput: {dir: out, path: "{{ resolution }}/{{ size }}"}\n'
    )
    assert bench.run().code == 0
    files = bench.files()
    assert len(files) == 18
    for resolution, sizes in PIXELS.items():
        for size, pixels in sizes.items():
            with Image.open(files[f"{resolution}/{size.replace(':', '-')}.jpg"]) as image:
                assert image.size == pixels
    bench.check()


def test_png_and_jpeg_get_the_extension_of_their_bytes(bench, serve):
    serve(image_format="mixed", url_extension="wrong")
    assert bench.run().code == 0
    for path in bench.files().values():
        with Image.open(path) as image:
            assert path.suffix == {"JPEG": ".jpg", "PNG": ".png"}[image.format]
    assert {path.suffix for path in bench.files().values()} == {".jpg", ".png"}


def test_several_images_of_one_task(bench, serve):
    serve()
    Image.new("RGB", (64, 48), "teal").save(bench.folder / "cup.png")
    bench.write(
        "version: 1\nmatrix: {mood: [calm, wild]}\n"
        'request: {prompt: "a cup, {{ mood }}", n: 3, image_urls: [cup.png]}\n'
        'output: {dir: out, path: "{{ mood }}"}\n'
    )
    assert bench.run().code == 0
    assert set(bench.files()) == {f"{mood}-{index}.jpg" for mood in ("calm", "wild") for index in (1, 2, 3)}
    assert bench.emulator.stats()["upload"] == 1
    bench.check()


def test_index_in_the_path_names_each_image(bench, serve):
    serve()
    Image.new("RGB", (64, 48), "teal").save(bench.folder / "cup.png")
    bench.write(
        'version: 1\nmatrix: {mood: [calm]}\nrequest: {prompt: "{{ mood }}", n: 2, image_urls: [cup.png]}\n'
        "references: {send: inline}\noutput: {dir: out, path: \"{{ mood }}/view {{ '%02d' % index }}\"}\n"
    )
    assert bench.run().code == 0
    assert set(bench.files()) == {"calm/view 01.jpg", "calm/view 02.jpg"}
    assert "upload" not in {name for name, count in bench.emulator.stats().items() if count}
    bench.check()


def test_repeat_buys_only_the_new_samples(bench, serve):
    serve()
    bench.edit('"{{ subject.id }}/{{ size }}"', '"{{ subject.id }}/{{ size }}-{{ sample }}"')
    bench.run()
    bench.edit("request:", "repeat: 2\nrequest:")
    assert bench.run().code == 0
    assert len(bench.charges()) == 12
    assert len(bench.files()) == 12


def test_limit_and_then_the_rest(bench, serve):
    serve()
    done = bench.run("--limit", "2")
    assert done.code == 0
    assert len(bench.charges()) == 2
    assert "4 tasks for the next run" in done.out
    assert bench.run("--limit", "0").code == 0
    assert len(bench.charges()) == 2
    assert bench.run().code == 0
    assert len(bench.charges()) == 6


def test_submit_now_collect_later(bench, serve):
    serve()
    assert bench.run("--submit-only").code == 0
    assert bench.states() == {"accepted": 6}
    assert bench.files() == {}
    assert bench.run("--collect").code == 0
    assert len(bench.files()) == 6
    assert len(bench.charges()) == 6
    bench.check()


def test_collect_buys_nothing(bench, serve):
    serve()
    done = bench.run("--collect")
    assert done.code == 0
    assert bench.charges() == []
    assert bench.states() == {"planned": 6}


class TestEdits:
    """What an edit of the job costs."""

    @pytest.fixture(autouse=True)
    def made(self, bench, serve):
        serve()
        assert bench.run().code == 0

    def test_one_text_costs_its_cells(self, bench):
        bench.edit("a fox in the snow", "a fox on a hill")
        plan = json.loads(bench.call("plan", "--json").out)
        submit = next(group for group in plan["groups"] if group["action"] == "submit")
        assert submit["tasks"] == 3
        assert submit["axes"]["subject"] == {"fox": 3}
        assert submit["why"] == "the request changed (prompt)"
        assert plan["to_buy"] == {"images": 3, "cost_usd": 0.105}
        assert bench.run().code == 0
        assert len(bench.charges()) == 9
        # What was paid for is not lost: the old pictures stepped aside.
        aside = [name for name in bench.files() if name.startswith("superseded/fox/")]
        assert len(aside) == 3
        assert len(bench.files()) == 9
        bench.check()

    def test_taking_an_edit_back_costs_nothing(self, bench):
        before = {name: path.read_bytes() for name, path in bench.files().items()}
        bench.edit("a fox in the snow", "a fox on a hill")
        bench.run()
        bench.edit("a fox on a hill", "a fox in the snow")
        assert bench.run().code == 0
        assert len(bench.charges()) == 9
        after = bench.files()
        for name, data in before.items():
            assert after[name].read_bytes() == data
        bench.check()

    def test_another_path_moves_the_files(self, bench):
        before = {path.read_bytes() for path in bench.files().values()}
        requests = bench.requests()
        bench.edit('"{{ subject.id }}/{{ size }}"', '"{{ size }}/{{ subject.id }}"')
        plan = json.loads(bench.call("plan", "--json").out)
        assert [(group["action"], group["tasks"]) for group in plan["groups"]] == [("move", 6)]
        done = bench.run()
        assert done.code == 0
        assert "6 files" in done.out
        assert set(bench.files()) == {
            f"{size}/{subject}.jpg" for subject in ("panda", "fox") for size in ("1-1", "16-9", "9-16")
        }
        assert {path.read_bytes() for path in bench.files().values()} == before
        assert not (bench.out / "panda").exists()
        assert bench.requests() == requests
        bench.check()

    def test_two_names_swapped(self, bench):
        panda, fox = (bench.files()[f"{name}/1-1.jpg"].read_bytes() for name in ("panda", "fox"))
        bench.write(
            bench.job.read_text()
            .replace("id: panda", "id: x")
            .replace("id: fox", "id: panda")
            .replace("id: x", "id: fox")
        )
        assert bench.run().code == 0
        assert bench.files()["panda/1-1.jpg"].read_bytes() == fox
        assert bench.files()["fox/1-1.jpg"].read_bytes() == panda
        assert len(bench.files()) == 6
        assert len(bench.charges()) == 6
        bench.check()

    def test_name_order_and_comments_cost_nothing(self, bench):
        text = bench.job.read_text()
        matrix = text[text.index("matrix:") : text.index("request:")]
        subjects, sizes = matrix[matrix.index("  subject") : matrix.index("  size")], "  size: [9:16, 1:1, 16:9]\n"
        bench.write(
            "# a comment\n" + text.replace(matrix, "matrix:\n" + sizes + subjects).replace("name: test", "name: other")
        )
        requests = bench.requests()
        plan = bench.call("plan", "--detailed-exitcode")
        assert plan.code == 0, plan
        assert "Nothing to do." in plan.out
        assert bench.run().code == 0
        assert bench.requests() == requests

    def test_defaults_written_out_cost_nothing(self, bench):
        bench.edit(
            "request:\n", "request:\n  watermark: false\n  resolution: 2K\n  n: 1\n  model: doubao-seedance-4-5\n"
        )
        assert "Nothing to do." in bench.call("plan").out

    def test_fewer_cells_keep_their_files(self, bench):
        bench.edit("size: [1:1, 16:9, 9:16]", "size: [1:1]")
        done = bench.call("plan")
        assert "4 earlier tasks are no longer in the job" in done.out
        assert bench.run().code == 0
        assert len(bench.files()) == 6


def test_plan_before_any_run(bench):
    done = bench.call("plan", "--detailed-exitcode")
    assert done.code == 10
    assert "6 tasks, 6 images, 0.21 USD: not generated yet" in done.out
    assert not bench.out.exists()


@pytest.mark.thorough
def test_status_before_during_and_after(bench, serve, until, end):
    serve(task_seconds="fixed:3")
    never = bench.call("status")
    assert never.code == 2
    assert "has not been run" in never.err
    process = bench.start()
    end(process)
    until(lambda: len(bench.charges()) == 6)
    during = bench.call("status")
    assert during.code == 0, during
    assert f"pid {process.pid}" in during.out
    assert "0 of 6 stored" in during.out
    assert re.search(r"\d accepted", during.out)
    assert process.wait(30) == 0
    after = json.loads(bench.call("status", "--json").out)
    assert after["running"] is False
    assert after["tasks"]["succeeded"] == 6
    assert after["images"]["stored"] == 6
    assert after["spent_usd"] == pytest.approx(0.21)
    assert after["last_run"]["outcome"] == "finished"


@pytest.mark.thorough
def test_a_second_run_is_told_who_is_at_work(bench, serve, until, end):
    serve(task_seconds="fixed:3")
    process = bench.start()
    end(process)
    until(lambda: bench.charges() != [])
    second = bench.run()
    assert second.code == 75
    assert f"pid {process.pid}" in second.err
    assert re.search(r"started \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", second.err)


def test_emulated_and_real_do_not_mix(bench, serve, monkeypatch):
    serve()
    bench.run()
    monkeypatch.setenv("APIMART_BASE_URL", "https://api.example.com")
    done = bench.run()
    assert done.code == 2
    assert "belongs to http://127.0.0.1" in done.err


def test_the_embedded_emulator_needs_no_key(bench, monkeypatch):
    monkeypatch.delenv("APIMART_API_KEY", raising=False)
    bench.edit("size: [1:1, 16:9, 9:16]", "size: [1:1]")
    done = bench.run("--emulate")
    assert done.code == 0, done
    assert "out-emulated" in done.out
    assert len(list((bench.folder / "out-emulated").rglob("*.jpg"))) == 2
    assert not bench.out.exists()
    shown = bench.call("status")
    assert "of the emulated run" in shown.out
    assert "2 of 2 stored" in shown.out
    assert bench.call("plan", "--detailed-exitcode").code == 10
    assert bench.call("plan", "--emulate", "--detailed-exitcode").code == 0


def test_without_a_key(bench, monkeypatch):
    monkeypatch.delenv("APIMART_API_KEY", raising=False)
    monkeypatch.delenv("APIMART_API_KEY_FILE", raising=False)
    done = bench.run()
    assert done.code == 2
    assert "APIMART_API_KEY" in done.err
    assert "--emulate" in done.err


def test_the_key_from_a_file(bench, serve, monkeypatch, tmp_path):
    serve()
    (tmp_path / "key").write_text("file-key\n")
    monkeypatch.delenv("APIMART_API_KEY")
    monkeypatch.setenv("APIMART_API_KEY_FILE", str(tmp_path / "key"))
    assert bench.run().code == 0


def test_json_events_and_quiet(bench, serve):
    serve()
    done = bench.run("--log-format", "json", "--quiet")
    assert done.code == 0
    assert done.out == ""
    events = [json.loads(line) for line in done.err.splitlines()]
    assert events[0]["event"] == "started"
    kinds = [event["event"] for event in events]
    assert kinds.count("submitted") == 6
    assert kinds.count("stored") == 6
    assert bench.run("--quiet").out == ""
