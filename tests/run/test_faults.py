"""What the service and the network do wrong, and what has to happen then."""

import pytest

from seedream_batch.engine import service_health

ONE = """\
version: 1
matrix: {subject: [panda]}
request: {prompt: "a {{ subject }}"}
output: {dir: out, path: "{{ subject }}"}
run: {attempts: 3, on_unknown: %s}
"""

UNKNOWN = [
    {"action": "reset_after_bill"},
    {"action": "status", "status": 500},
    {"action": "status", "status": 502, "body": "html"},
    {"action": "status", "status": 200, "body": "empty"},
    {"action": "cut_body"},
    {"action": "no_task_id"},
    {"action": "reset_after"},
    {"action": "reset_during"},
    {"action": "status", "status": 500, "at": "after_bill"},
    {"action": "status", "status": 503, "body": "empty"},
    {"action": "status", "status": 504, "at": "after_bill"},
    {"action": "status", "status": 418},
    {"action": "empty_body"},
    {"action": "garbage_body"},
]


@pytest.fixture
def one(bench):
    bench.write(ONE % "hold")
    return bench


@pytest.mark.parametrize("fault", UNKNOWN, ids=lambda fault: "-".join(str(value) for value in fault.values()))
@pytest.mark.parametrize("honours", [True, False], ids=["keys", "no-keys"])
def test_an_unclear_answer_is_never_bought_again_by_itself(one, serve, fault, honours):
    serve(honour_keys=honours)
    one.emulator.set_faults([{"on": "submit", **fault, "count": 1}])
    assert one.run().code == 4
    assert one.run().code == 4
    assert one.states() == {"uncertain": 1}
    assert len(one.charges()) <= 1
    assert one.rows("SELECT reserved_images, reserved FROM totals") == [(1, 35000)]
    one.check()
    shown = one.call("status").out
    assert "may have been charged" in shown
    assert "panda" in shown


@pytest.mark.parametrize("fault", UNKNOWN, ids=lambda fault: "-".join(str(value) for value in fault.values()))
def test_where_keys_are_trusted_an_unclear_answer_is_asked_for_again(bench, serve, fault):
    bench.write(ONE % "resend")
    serve()
    bench.emulator.set_faults([{"on": "submit", **fault, "count": 1}])
    assert bench.run().code == 0
    assert len(bench.charges()) == 1
    assert len(bench.files()) == 1
    bench.check()


@pytest.mark.parametrize(
    "fault",
    [
        {"action": "rate_limit", "retry_after": "0.1"},
        {"action": "idempotency", "code": "unavailable", "retry_after": "0.1"},
    ],
    ids=["429", "503-idempotency_unavailable"],
)
def test_what_was_not_executed_is_sent_again_under_the_same_key(one, serve, fault):
    serve()
    one.emulator.set_faults([{"on": "submit", **fault, "count": 3}])
    assert one.run().code == 0
    keys = {request["key"] for request in one.emulator.requests() if request["endpoint"] == "submit"}
    assert len(keys) == 1
    assert one.emulator.stats()["submit"] == 4
    assert one.rows("SELECT attempt, failures FROM tasks") == [(1, 0)]
    one.check()


@pytest.mark.parametrize("retry_after", ["number", "date", "negative", "absurd-but-not-waited", "none"])
def test_any_retry_after_is_coped_with(one, serve, retry_after):
    serve()
    told = "0.05" if retry_after.startswith("absurd") else retry_after
    one.emulator.set_faults([{"on": "submit", "action": "rate_limit", "retry_after": told, "count": 1}])
    assert one.run().code == 0


def test_a_refused_parameter_is_a_definite_no(one, serve):
    serve()
    one.emulator.set_faults([{"on": "submit", "action": "status", "status": 400, "count": 1}])
    assert one.run().code == 3
    assert one.states() == {"failed": 1}
    assert one.run().code == 3, "left alone until somebody says otherwise"
    assert one.charges() == []
    assert one.rows("SELECT reserved, cost FROM totals") == [(0, 0)]


def test_build_request_failed_is_a_definite_no(one, serve):
    serve()
    fault = {"action": "status", "status": 500, "message": "build_request_failed: bad size", "count": 1}
    one.emulator.set_faults([{"on": "submit", **fault}])
    assert one.run().code == 3
    assert one.states() == {"failed": 1}


def test_a_failed_task_is_tried_again_under_a_new_key(one, serve):
    serve()
    one.emulator.set_faults([{"on": "submit", "action": "fail", "count": 2}])
    assert one.run().code == 0
    assert len({charge["key"] for charge in one.charges()}) == 3
    assert one.rows("SELECT attempt, failures FROM tasks") == [(3, 2)]
    # Failed tasks were refunded: one picture is paid for.
    assert one.rows("SELECT images, cost FROM totals") == [(1, 35000)]
    one.check()


def test_attempts_end(one, serve):
    serve()
    one.emulator.set_faults([{"on": "submit", "action": "fail"}])
    assert one.run().code == 3
    assert len(one.charges()) == 3
    assert one.states() == {"failed": 1}
    assert one.run().code == 3
    assert len(one.charges()) == 3


def test_what_moderation_refused_is_not_tried_again(one, serve):
    serve()
    one.emulator.set_faults([{"on": "submit", "action": "fail", "code": "OutputImageSensitiveContentDetected"}])
    done = one.run()
    assert done.code == 3
    assert len(one.charges()) == 1
    assert "OutputImageSensitiveContentDetected" in one.call("status").out


def test_a_balance_for_nothing_buys_nothing(bench, serve):
    serve(balance_usd=0.03)
    done = bench.run()
    assert done.code == 5, done
    assert "the account has 0.03 USD, but the planned images (6) cost about 0.21 USD" in done.err
    assert bench.emulator.stats().get("submit", 0) == 0


@pytest.mark.parametrize(
    "fault", [{"action": "status", "status": 404}, {"action": "reset_after"}, {"action": "garbage_body"}]
)
def test_a_balance_that_is_not_told_stops_nothing(bench, serve, fault):
    serve()
    bench.emulator.set_faults([{"on": "balance", **fault}])
    done = bench.run()
    assert done.code == 0, done
    assert "cannot check the balance" in done.err


def test_a_wrong_key_is_found_before_anything_is_sent(bench, serve, monkeypatch):
    serve()
    monkeypatch.setenv("APIMART_API_KEY", "wrong-key")
    done = bench.run()
    assert done.code == 6, done
    assert bench.emulator.stats().get("submit", 0) == 0
    assert bench.states() == {"planned": 6}
    shown = bench.call("balance")
    assert shown.code == 2, "balance takes no job"


def test_an_answer_with_a_task_id_counts_whatever_follows_it(one, serve):
    serve()
    one.emulator.set_faults([{"on": "submit", "action": "huge_body", "count": 1}])
    assert one.run().code == 0
    assert len(one.charges()) == len(one.files()) == 1
    [(why,)] = one.rows("SELECT why FROM answers")
    assert why == "the task id is not where the service documents it"
    one.check()


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_stops_submitting(bench, serve, status):
    serve()
    # The first question for the balance is answered: else nothing would be submitted.
    bench.emulator.set_faults(
        [
            {"on": "submit", "action": "status", "status": status},
            {"on": "balance", "action": "status", "status": status, "after": 1},
        ]
    )
    done = bench.run()
    assert done.code == 6, done
    assert bench.states() == {"planned": 6}
    assert bench.emulator.stats()["submit"] <= 4
    assert "Check APIMART_API_KEY" in done.out
    bench.emulator.set_faults([])
    assert bench.run().code == 0
    assert len(bench.charges()) == 6


def test_an_empty_account_stops_submitting_and_collects(bench, serve):
    serve(balance_usd=0.08)
    done = bench.run()
    assert done.code == 5, done
    assert "enough for about 2 of them" in done.err
    assert bench.states() == {"succeeded": 2, "planned": 4}
    assert len(bench.files()) == 2
    bench.emulator.configure(balance_usd=1.0)
    assert bench.run().code == 0
    assert len(bench.charges()) == 6
    bench.check()


@pytest.mark.parametrize(
    "fault",
    [
        {"action": "status", "status": 500},
        {"action": "status", "status": 502, "body": "html"},
        {"action": "rate_limit", "retry_after": "0.05"},
        {"action": "reset_before"},
        {"action": "reset_after"},
        {"action": "cut_body"},
        {"action": "garbage_body"},
        {"action": "huge_body"},
        {"action": "status", "status": 401},
        {"action": "not_found"},
        {"action": "unknown_status"},
    ],
    ids=lambda fault: "-".join(str(value) for value in fault.values()),
)
def test_polling_goes_on_whatever_comes(one, serve, fault):
    serve()
    one.emulator.set_faults([{"on": "poll", **fault, "count": 2}])
    done = one.run()
    # One refused poll does not speak for the key: the balance endpoint takes it.
    assert done.code == 0, done
    assert one.states() == {"succeeded": 1}
    assert len(one.files()) == 1
    assert len(one.charges()) == 1
    one.check()


def test_an_unknown_task_id_is_lost_not_bought_again(one, serve, monkeypatch):
    monkeypatch.setattr("seedream_batch.lifecycle.NOT_FOUND_GRACE", 0.2)
    serve()
    one.emulator.set_faults([{"on": "submit", "action": "not_found", "polls": 1000}])
    done = one.run()
    assert done.code == 3
    assert one.states() == {"lost": 1}
    assert len(one.charges()) == 1
    assert one.rows("SELECT reserved_images FROM totals") == [(1,)], "it may have been paid for"
    assert one.run().code == 3
    assert len(one.charges()) == 1


def test_a_task_that_never_ends_is_lost_at_its_deadline(one, serve):
    one.edit("attempts: 3", "attempts: 3, task_timeout: 1s")
    serve()
    one.emulator.set_faults([{"on": "submit", "action": "never_end"}])
    assert one.run().code == 3
    assert one.states() == {"lost": 1}
    assert len(one.charges()) == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"action": "short_length"},
        {"action": "long_length"},
        {"action": "cut_chunked"},
        {"action": "truncated_image"},
        {"action": "html_200"},
        {"action": "gzip"},
        {"action": "redirect_loop"},
        {"action": "status", "status": 500},
        {"action": "status", "status": 403},
        {"action": "status", "status": 404},
        {"action": "status", "status": 410},
        {"action": "reset_before"},
        {"action": "reset_after"},
        {"action": "expired"},
        {"action": "empty_body"},
        {"action": "garbage_body"},
    ],
    ids=lambda fault: "-".join(str(value) for value in fault.values()),
)
def test_a_bad_download_is_fetched_again_and_never_bought_again(one, serve, fault):
    serve()
    one.emulator.set_faults([{"on": "image", **fault, "count": 1}])
    done = one.run()
    assert done.code == 0, done
    assert len(one.files()) == 1
    assert len(one.charges()) == 1
    assert one.emulator.stats()["leaked_credentials"] == 0
    one.check()


def test_bytes_that_stay_bad_are_rejected(one, serve, monkeypatch):
    monkeypatch.setattr("seedream_batch.engine.downloader.TRYING", 60.0)
    serve()
    one.emulator.set_faults([{"on": "image", "action": "truncated_image"}])
    done = one.run()
    assert done.code == 3, done
    assert one.files() == {}
    assert one.rows("SELECT state FROM images") == [("rejected",)]
    assert list(one.out.rglob(".seedream-*")) == []
    assert len(one.charges()) == 1


@pytest.mark.parametrize("action", ["html_200", "empty_body", "garbage_body"])
def test_what_a_host_gives_in_place_of_an_image_is_asked_for_until_the_link_expires(one, serve, monkeypatch, action):
    monkeypatch.setattr("seedream_batch.engine.downloader.TRYING", 60.0)
    serve()
    one.emulator.set_faults([{"on": "image", "action": action}])
    assert one.run().code == 7
    assert one.rows("SELECT state FROM images") == [("announced",)]
    # Nor does that keep other tasks from being bought.
    one.edit("subject: [panda]", "subject: [panda, fox]")
    one.emulator.set_faults([{"on": "image", "action": action, "task": 1}])
    assert one.run().code == 7
    assert one.rows("SELECT state, count(*) FROM images GROUP BY state") == [("announced", 1), ("stored", 1)]
    one.emulator.set_faults([])
    assert one.run().code == 0
    assert len(one.charges()) == len(one.files()) == 2


@pytest.mark.parametrize("fault", [{"action": "expired"}, {"action": "html_200"}, {"action": "status", "status": 404}])
def test_an_image_that_its_host_publishes_only_after_a_while_comes(one, serve, monkeypatch, fault):
    monkeypatch.setattr("seedream_batch.engine.downloader.TRYING", 60.0)
    monkeypatch.setattr("seedream_batch.engine.downloader.SETTLING", 60.0)
    serve(renew_links=False)
    one.emulator.set_faults([{"on": "image", **fault, "count": 7}])
    done = one.run()
    assert done.code == 0, done
    assert len(one.charges()) == 1
    one.check()


def test_links_that_stay_dead_before_their_time_are_tried_again_later(one, serve):
    serve(renew_links=False)
    one.emulator.set_faults([{"on": "image", "action": "expired"}])
    done = one.run()
    assert done.code == 7, done
    assert one.rows("SELECT state FROM images") == [("announced",)]
    one.emulator.set_faults([])
    assert one.run().code == 0
    assert len(one.charges()) == 1


@pytest.mark.parametrize(("action", "state"), [("expired", "expired"), ("html_200", "rejected")])
def test_links_that_stay_dead_expire(one, serve, monkeypatch, action, state):
    monkeypatch.setattr("seedream_batch.engine.downloader.TRYING", 60.0)
    serve(renew_links=False, link_seconds=0.3)
    one.emulator.set_faults([{"on": "image", "action": "delay", "seconds": 0.5}, {"on": "image", "action": action}])
    done = one.run()
    assert done.code == 3, done
    assert one.rows("SELECT state FROM images") == [(state,)]
    assert one.run().code == 3
    assert len(one.charges()) == 1


def test_links_that_expired_before_the_next_run_are_renewed(one, serve):
    serve(link_seconds=0.2)
    assert one.run("--submit-only").code == 0
    assert one.run().code == 0
    assert len(one.files()) == 1


@pytest.mark.parametrize("deliver", [-1, 1])
def test_fewer_or_more_images_than_asked_for(bench, serve, deliver):
    from PIL import Image

    serve(deliver=deliver)
    Image.new("RGB", (64, 48), "teal").save(bench.folder / "cup.png")
    bench.write(
        'version: 1\nmatrix: {mood: [calm]}\nrequest: {prompt: "{{ mood }}", n: 3, image_urls: [cup.png]}\n'
        'output: {dir: out, path: "{{ mood }}"}\n'
    )
    done = bench.run()
    assert done.code == 9, done
    told = "1 of 3 images missing" if deliver < 0 else "4 images delivered instead of 3"
    assert f"flagged: calm: {told}" in done.err
    # A picture more than asked for gets a name that no other cell can have.
    assert sorted(name[:6] for name in bench.files()) == [f"calm-{index}" for index in range(1, 4 + deliver)]
    assert bench.rows("SELECT images FROM totals") == [(3 + deliver,)]
    bench.check()


@pytest.mark.parametrize(
    "oddity",
    [
        {"submit_status": 202},
        {"submit_entries": 2},
        {"url_form": "string"},
        {"image_grouping": "one_entry"},
        {"duplicate_urls": True},
        {"numbers_as_strings": True},
        {"submitted_word": "pending", "processing_word": "in_progress"},
        {"processing_word": "reticulating"},
        {"omit": ("expires_at", "cost", "credits_cost", "progress")},
        {"omit": ("cost",)},
        {"image_host": "localhost"},
        {"error_form": "string"},
        {"error_form": "absent"},
        {"error_code_form": "string"},
    ],
    ids=str,
)
def test_the_ways_answers_differ(bench, serve, oddity):
    from PIL import Image

    serve(**oddity)
    Image.new("RGB", (64, 48), "teal").save(bench.folder / "cup.png")
    bench.write(
        'version: 1\nmatrix: {mood: [calm, wild]}\nrequest: {prompt: "{{ mood }}", n: 4, image_urls: [cup.png]}\n'
        'output: {dir: out, path: "{{ mood }}"}\n'
    )
    done = bench.run()
    assert done.code == 0, done
    assert len(bench.files()) == 8
    assert bench.rows("SELECT images, cost FROM totals") == [(8, 280000)]
    bench.check()


def test_many_unclear_answers_stop_the_run(bench, serve):
    serve()
    bench.edit("size: [1:1, 16:9, 9:16]", "size: [1:1, 16:9, 9:16, 4:3, 3:4, 3:2, 2:3]\n  resolution: [2K, 4K]")
    bench.edit('{{ size }}"', '{{ size }}-{{ resolution }}"')
    bench.emulator.set_faults([{"on": "submit", "action": "status", "status": 500}])
    done = bench.run()
    assert done.code == 4
    assert "in a row got no clear answer" in done.err
    assert bench.states()["uncertain"] < 10
    assert bench.states()["planned"] > 18


def test_a_service_that_is_not_there(bench, monkeypatch):
    monkeypatch.setattr(service_health, "OUTAGE_LIMIT", 1.0)
    monkeypatch.setenv("APIMART_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("APIMART_API_KEY", "some-key")
    done = bench.run()
    assert done.code == 7, done
    assert "cannot connect to 127.0.0.1:9" in done.out + done.err
    assert bench.states() == {"planned": 6}


def test_a_file_in_the_way_is_not_touched(bench, serve):
    serve()
    stranger = bench.out / "fox" / "1-1.jpg"
    stranger.parent.mkdir(parents=True)
    stranger.write_bytes(b"mine")
    done = bench.run()
    assert done.code == 8, done
    assert stranger.read_bytes() == b"mine"
    assert "fox/1-1.jpg already exists, but the manifest had no images yet" in done.err
    stranger.unlink()
    assert bench.run().code == 0
    assert len(bench.charges()) == 6
    bench.check()


def test_max_duration_leaves_in_good_order(bench, serve):
    serve(task_seconds="fixed:2")
    done = bench.run("--max-duration", "0.7s")
    assert done.code == 7, done
    assert "6 tasks for the next run" in done.out
    assert bench.run().code == 0
    assert len(bench.charges()) == 6


def test_a_quiet_run_whose_time_is_over_says_nothing_unless_something_is_wrong(bench, serve):
    serve(task_seconds="fixed:2")
    done = bench.run("--quiet", "--max-duration", "0.7s")
    assert (done.code, done.out, done.err) == (7, "", "")
    bench.emulator.set_faults([{"on": "submit", "action": "status", "status": 400, "count": 1}])
    bench.edit("watercolour", "in oil")
    done = bench.run("--quiet", "--max-duration", "0.7s")
    assert done.code == 7
    assert "failed" in done.out


@pytest.mark.parametrize("cap", ["max_cost_usd: 1.00", "max_images: 28"])
def test_the_budget_is_a_hard_cap(bench, serve, cap):
    serve(latency_seconds=0.01)
    bench.emulator.set_faults(
        [
            {"on": "submit", "action": "fail", "every": 5},
            {"on": "submit", "action": "status", "status": 500, "at": "after_bill", "every": 11},
        ]
    )
    bench.write(
        "version: 1\nmatrix:\n  subject: {file: subjects.txt}\n  size: [1:1, 16:9]\n"
        'request: {prompt: "{{ subject }}"}\noutput: {dir: out, path: "{{ subject }}/{{ size }}"}\n'
        f"budget: {{{cap}, price_per_image_usd: 0.035}}\nrun: {{max_in_flight: 64}}\n"
    )
    (bench.folder / "subjects.txt").write_text("".join(f"subject {number}\n" for number in range(40)))
    done = bench.run()
    assert done.code == 5, done
    ledger = bench.emulator.ledger()
    paid = sum(entry["usd"] for entry in ledger)
    assert paid <= 1.00
    held, reserved, images, cost = bench.rows("SELECT reserved_images, reserved, images, cost FROM totals")[0]
    assert held + images <= 28
    assert paid * 1_000_000 <= reserved + cost + 1
    assert bench.run().code == 5
    assert sum(entry["usd"] for entry in bench.emulator.ledger()) <= 1.00
    bench.check()


def test_real_prices_win_over_the_estimate(bench, serve):
    serve(price_usd=0.042)
    assert bench.run("--limit", "1").code == 0
    assert bench.rows("SELECT cost FROM totals") == [(42000,)]
    plan = bench.call("plan")
    assert "5 images, 0.21 USD" in plan.out
    bench.write(bench.job.read_text() + "budget: {max_cost_usd: 0.16, price_per_image_usd: 0.035}\n")
    done = bench.run()
    assert done.code == 5, done
    # Three at the real price fit under the cap, four at the stated one would have.
    assert len(bench.charges()) == 3
    assert "budget.max_cost_usd (0.16" in done.out


@pytest.mark.thorough
def test_a_reference_of_many_tasks_is_uploaded_once(bench, serve):
    from PIL import Image

    serve()
    Image.new("RGB", (64, 48), "teal").save(bench.folder / "cup.png")
    (bench.folder / "moods.txt").write_text("".join(f"mood {number}\n" for number in range(100)))
    bench.write(
        "version: 1\nmatrix: {mood: {file: moods.txt}}\n"
        'request: {prompt: "a cup, {{ mood }}", image_urls: [cup.png]}\noutput: {dir: out, path: "{{ mood }}"}\n'
    )
    assert bench.run().code == 0
    assert len(bench.charges()) == 100
    assert bench.emulator.stats()["upload"] == 1
    bench.check()


@pytest.mark.parametrize(("seconds", "soon"), [(1800, True), (7200, False)])
def test_status_warns_of_links_that_expire_within_the_hour(one, serve, seconds, soon):
    serve(link_seconds=seconds)
    one.emulator.set_faults([{"on": "image", "action": "status", "status": 500}])
    assert one.run().code == 7
    shown = one.call("status").out
    assert "to fetch   1 image; the first download link expires in" in shown
    assert ("run now" in shown) is soon


def test_an_upload_is_made_anew_before_its_time_is_over(bench, serve, monkeypatch):
    from PIL import Image

    from seedream_batch.engine import reference_sender as references

    serve()
    Image.new("RGB", (64, 48), "teal").save(bench.folder / "cup.png")
    bench.edit("request:\n", "request:\n  image_urls: [cup.png]\n")
    bench.run("--limit", "1")
    bench.run("--limit", "1")
    assert bench.emulator.stats()["upload"] == 1
    # With less than the margin of its 72 hours left, it counts as gone.
    monkeypatch.setattr(references, "UPLOAD_MARGIN", 72 * 3600.0)
    bench.run("--limit", "1")
    assert bench.emulator.stats()["upload"] == 2
