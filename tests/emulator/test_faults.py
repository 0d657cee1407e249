"""Faults of the API: each action does what it says, and the ledger has the charges."""

import socket
import threading
import time

import httpx
import pytest

GONE = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)


def bills(api):
    return len([entry for entry in api.emulator.ledger() if entry["event"] == "charge"])


def play(api, action, on="submit", **rule):
    api.emulator.set_faults([{"on": on, "action": action, **rule}])


def raw(api, request):
    """Open a connection and send these bytes."""
    connection = socket.create_connection(("127.0.0.1", api.emulator.port), timeout=5)
    connection.sendall(request)
    return connection


def held(api):
    for _ in range(2000):
        if waiting := api.emulator.waiting():
            return waiting
    raise AssertionError("nothing is held")


@pytest.mark.parametrize(("at", "billed"), [("before_bill", 0), ("after_bill", 1)])
@pytest.mark.parametrize("status", [400, 404, 500, 502, 503, 504])
def test_status_before_and_after_the_bill(api, at, billed, status):
    play(api, "status", status=status, at=at)
    answer = api.submit()
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == status
    assert bills(api) == billed


def test_status_with_details(api):
    play(api, "status", status=500, message="build_request_failed: size", code="odd", type="strange")
    error = api.submit().json()["error"]
    assert error == {"code": "odd", "message": "build_request_failed: size", "type": "strange"}


@pytest.mark.parametrize(
    ("body", "check"),
    [
        ("json", lambda answer: answer.json()["error"]["type"] == "bad_gateway"),
        ("html", lambda answer: answer.headers["content-type"].startswith("text/html") and b"<html>" in answer.content),
        ("empty", lambda answer: answer.content == b""),
        ("garbage", lambda answer: b"\xff" in answer.content),
        ("string", lambda answer: answer.json() == {"error": "bad gateway"}),
    ],
)
def test_kinds_of_error_bodies(api, body, check):
    play(api, "status", on="any", status=502, body=body)
    assert check(api.submit())
    assert check(api.poll("task_any"))


@pytest.mark.parametrize(
    ("style", "header"),
    [(7, "7"), (0.5, "0.5"), ("negative", "-5"), ("absurd", "31536000000"), ("none", None), ("soon", "soon")],
)
def test_retry_after(api, style, header):
    for rule in ({"action": "rate_limit"}, {"action": "status", "status": 429}):
        api.emulator.set_faults([{"on": "submit", "retry_after": style, **rule}])
        answer = api.submit()
        assert answer.status_code == 429
        assert answer.headers.get("Retry-After") == header
    assert bills(api) == 0


def test_retry_after_as_a_date(api):
    play(api, "rate_limit", retry_after="date")
    assert api.submit().headers["Retry-After"].endswith("GMT")


@pytest.mark.parametrize("action", ["reset_before", "reset_during", "reset_after"])
def test_resets_before_the_bill(api, action):
    play(api, action, count=1)
    with pytest.raises(GONE):
        api.submit()
    assert bills(api) == 0
    assert api.submit().status_code == 200


def test_reset_after_the_bill_and_the_retry_that_finds_its_task(api):
    play(api, "reset_after_bill", count=1)
    with pytest.raises(GONE):
        api.submit(key="k")
    assert bills(api) == 1
    answer = api.submit(key="k")
    assert answer.headers["Idempotency-Replayed"] == "true"
    assert api.ended(answer.json()["data"][0]["task_id"])["status"] == "completed"
    assert bills(api) == 1


def test_a_reset_is_a_reset_of_tcp(api):
    play(api, "reset_after", on="balance")
    request = b"GET /v1/balance HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\r\n\r\n"
    with raw(api, request) as connection, pytest.raises(ConnectionResetError):
        connection.recv(100)


def test_reset_during_strikes_before_the_body_has_come_whole(api):
    play(api, "reset_during", bytes=5)
    head = b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\r\nContent-Length: 1000\r\n\r\n"
    with raw(api, head + b'{"model') as connection, pytest.raises(ConnectionResetError):
        connection.recv(100)
    assert bills(api) == 0


def test_a_client_that_goes_away_within_its_body_buys_nothing(api):
    head = b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\r\nContent-Length: 1000\r\n\r\n"
    raw(api, head + b'{"model').close()
    assert api.submit().status_code == 200
    assert bills(api) == 1


def test_resets_on_reading_endpoints_can_select_a_task(api):
    first, second = api.task(prompt="one"), api.task(prompt="two")
    api.emulator.set_faults([{"on": "poll", "action": "reset_before", "prompt": "two"}])
    assert api.poll(first).status_code == 200
    with pytest.raises(GONE):
        api.poll(second)


@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_a_cut_body(api, keep):
    play(api, "cut_body", keep=keep)
    with pytest.raises(GONE):
        api.submit()
    assert bills(api) == 1


def test_empty_and_garbage_bodies_and_no_task_id(api):
    play(api, "empty_body")
    assert (api.submit().status_code, api.submit().content) == (200, b"")
    play(api, "garbage_body")
    assert api.submit().content.startswith(b'{"code": 200, "data": [{"task\x00')
    play(api, "no_task_id")
    assert api.submit().json() == {"code": 200, "data": [{"status": "submitted"}]}
    versioned = api.submit(headers={"X-APIMart-Response-Version": "2026-07-27"}).json()
    assert "id" not in versioned["data"]
    assert bills(api) == 5


def test_a_huge_body_is_still_json(api):
    play(api, "huge_body", bytes=3_000_000)
    answer = api.submit()
    assert len(answer.content) > 3_000_000
    assert answer.json()["code"] == 200


def test_a_redirect_of_a_call_is_not_executed(api):
    play(api, "redirect", url="http://localhost:1/", status=307)
    answer = api.submit()
    assert (answer.status_code, answer.headers["location"]) == (307, "http://localhost:1/")
    assert bills(api) == 0


@pytest.mark.parametrize(("at", "billed"), [("before_bill", 0), ("after_bill", 1), ("mid_body", 1)])
def test_hang_until_released(api, at, billed):
    play(api, "hang", at=at)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(api.submit(key="k")))
    thread.start()
    [about] = held(api)
    assert (about["endpoint"], about["held_at"], about["key"], about["rule"]) == ("submit", at, "k", 1)
    assert bills(api) == billed
    assert api.bare.get(api.emulator.url + "/emulator/waiting").json() == [about]
    assert api.bare.delete(api.emulator.url + "/emulator/waiting").json() == {"released": 1}
    thread.join()
    assert answers[0].json()["data"][0]["task_id"]
    assert bills(api) == 1
    assert api.emulator.waiting() == []


@pytest.mark.parametrize(("at", "billed"), [("before_bill", 0), ("after_bill", 1), ("mid_body", 1)])
def test_hang_until_the_client_goes_away(api, at, billed):
    play(api, "hang", at=at)
    with pytest.raises(httpx.ReadTimeout):
        api.http.post(
            "/v1/images/generations",
            json={"model": "doubao-seedance-4-5", "prompt": "a fox"},
            timeout=0.1,
        )
    deadline = time.monotonic() + 5
    while api.emulator.waiting() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert api.emulator.waiting() == []
    assert bills(api) == billed


@pytest.mark.parametrize("at", ["before_bill", "after_bill"])
def test_delay(api, at):
    play(api, "delay", seconds=0.1, at=at)
    started = time.monotonic()
    assert api.submit().status_code == 200
    assert time.monotonic() - started >= 0.1


def test_latency_and_faults_on_every_endpoint(emulate, picture):
    api = emulate(latency_seconds=0.01)
    play(api, "status", on="any", status=503)
    calls = [
        api.submit(),
        api.poll("task_any"),
        api.http.post("/v1/uploads/images", files={"file": ("a.png", picture())}),
        api.http.get("/v1/balance"),
        api.http.get("/v1/models"),
        api.fetch(api.emulator.url + "/results/task_any/0.png"),
    ]
    assert [call.status_code for call in calls] == [503] * 6
    assert api.emulator.stats()["faults"] == 6


def test_a_task_that_fails_is_refunded(api):
    play(api, "fail", code="OutputImageSensitiveContentDetected", message="unsafe", prompt="sword")
    good, bad = api.task(prompt="a fox"), api.task(prompt="a sword")
    assert api.ended(good)["status"] == "completed"
    data = api.ended(bad)
    assert (data["status"], data["cost"]) == ("failed", 0)
    assert data["error"]["code"] == "OutputImageSensitiveContentDetected"
    assert data["error"]["message"] == "unsafe"
    assert "result" not in data
    assert [entry["event"] for entry in api.emulator.ledger()] == ["charge", "charge", "refund"]
    assert api.balance()["used_balance"] == 0.035


@pytest.mark.parametrize(
    ("form", "check"),
    [
        ("object", lambda data: data["error"]["code"] == "task_failed"),
        ("string", lambda data: data["error"].startswith("task_failed: ")),
        ("absent", lambda data: "error" not in data),
    ],
)
def test_forms_of_a_failure(emulate, form, check):
    api = emulate(error_form=form)
    play(api, "fail")
    assert check(api.ended(api.task()))


def test_the_language_of_a_failure(api):
    play(api, "fail")
    task_id = api.task()
    api.ended(task_id)
    messages = {
        language: api.poll(task_id, language=language).json()["data"]["error"]["message"]
        for language in ("en", "zh", "xx")
    }
    assert messages["en"] == messages["xx"] != messages["zh"]


def test_a_cancelled_task(api):
    play(api, "fail", status="cancelled")
    assert api.ended(api.task())["status"] == "cancelled"
    assert api.balance()["used_balance"] == 0


def test_a_task_that_never_ends(emulate):
    api = emulate(task_seconds="fixed:0.001")
    play(api, "never_end")
    task_id = api.task()
    time.sleep(0.01)
    assert api.poll(task_id).json()["data"]["status"] == "processing"


def test_a_failure_after_completion_is_refunded_too(api):
    play(api, "late_failure", polls=2)
    task_id = api.task()
    assert api.ended(task_id)["status"] == "completed"
    assert api.poll(task_id).json()["data"]["status"] == "completed"
    assert api.poll(task_id).json()["data"]["status"] == "failed"
    assert api.poll(task_id).json()["data"]["status"] == "failed"
    assert [entry["event"] for entry in api.emulator.ledger()] == ["charge", "refund"]
    assert api.balance()["used_balance"] == 0


def test_a_late_failure_of_a_partial_delivery_pays_back_only_what_was_paid(api):
    api.emulator.set_faults(
        [
            {"on": "submit", "action": "late_failure"},
            {"on": "submit", "action": "oddity", "set": {"deliver": -1}},
        ]
    )
    task_id = api.task(n=3, image_urls=["https://example.com/a.png"])
    assert api.ended(task_id)["cost"] == 0.07
    assert api.poll(task_id).json()["data"]["status"] == "failed"
    assert [entry["usd"] for entry in api.emulator.ledger()] == [0.105, -0.035, -0.07]


def test_a_task_that_is_not_found_at_first(api):
    play(api, "not_found", polls=2)
    task_id = api.task()
    assert [api.poll(task_id).status_code for _ in range(3)] == [404, 404, 200]


def test_unknown_status_words(emulate):
    api = emulate(task_seconds="fixed:0.001")
    play(api, "unknown_status", word="dreaming", polls=2)
    task_id = api.task()
    time.sleep(0.01)
    words = [api.poll(task_id).json()["data"]["status"] for _ in range(3)]
    assert words == ["dreaming", "dreaming", "completed"]
    play(api, "unknown_status", word="dreaming")
    api.emulator.configure(task_seconds="fixed:30")
    assert api.poll(api.task()).json()["data"]["status"] == "dreaming"


def test_outcomes_on_a_poll_are_for_that_answer_only(api):
    task_id = api.task()
    api.ended(task_id)
    for action, status in (("fail", "failed"), ("never_end", "processing"), ("unknown_status", "reticulating")):
        play(api, action, on="poll", count=1)
        assert api.poll(task_id).json()["data"]["status"] == status
        assert api.poll(task_id).json()["data"]["status"] == "completed"
    play(api, "not_found", on="poll", count=1)
    assert [api.poll(task_id).status_code for _ in range(2)] == [404, 200]
    assert api.balance()["used_balance"] == 0.035


def test_oddities_of_one_poll_and_of_the_balance(api):
    task_id = api.task()
    api.ended(task_id)
    play(api, "oddity", on=["poll", "balance"], set={"numbers_as_strings": True, "omit": ["cost"]}, count=2)
    assert api.poll(task_id).json()["data"]["progress"] == "100"
    assert api.balance()["remain_balance"] == "99.965"
    assert api.poll(task_id).json()["data"]["cost"] == 0.035


def test_the_time_of_some_tasks_by_oddity(api):
    play(api, "oddity", set={"task_seconds": "fixed:60"}, task=2)
    api.task()
    api.task()
    assert [entry["tasks"][0]["seconds"] for entry in api.emulator.ledger()] == [0.02, 60]
