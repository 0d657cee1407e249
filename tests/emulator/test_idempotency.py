"""The service's table of Idempotency-Key, row by row."""

import threading

import httpx
import pytest


def bills(api):
    return [entry for entry in api.emulator.ledger() if entry["event"] == "charge"]


def wait_for_hold(api):
    """Wait until the emulator holds a request."""
    for _ in range(2000):
        if held := api.emulator.waiting():
            return held
    raise AssertionError("nothing is held")


def test_a_finished_original_is_answered_again(api):
    first = api.submit(key="k-1")
    again = api.submit(key="k-1")
    assert again.content == first.content
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert len(bills(api)) == 1
    assert api.emulator.stats()["replayed"] == 1


def test_other_keys_and_no_keys_are_other_tasks(api):
    ids = {api.task(key="k-1"), api.task(key="k-2"), api.task(), api.task()}
    assert len(ids) == len(bills(api)) == 4


def test_an_original_in_flight(api):
    api.emulator.set_faults([{"on": "submit", "action": "hang", "count": 1}])
    answers = []
    thread = threading.Thread(target=lambda: answers.append(api.submit(key="k")))
    thread.start()
    wait_for_hold(api)
    with httpx.Client(base_url=api.emulator.url, headers={"Authorization": "Bearer a"}) as other:
        body = {"model": "doubao-seedance-4-5", "prompt": "a fox in the snow"}
        answer = other.post("/v1/images/generations", json=body, headers={"Idempotency-Key": "k"})
        assert answer.status_code == 409
        assert answer.json()["error"]["code"] == "idempotency_in_progress"
        assert answer.headers["Retry-After"] == "1"
        another = other.post("/v1/images/generations", json={**body, "n": 1}, headers={"Idempotency-Key": "k"})
        assert another.json()["error"]["code"] == "idempotency_key_reused"
    assert api.emulator.release() == 1
    thread.join()
    assert answers[0].status_code == 200
    assert len(bills(api)) == 1


def test_the_same_key_for_another_body(api):
    api.submit(key="k", prompt="one")
    answer = api.submit(key="k", prompt="two")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "idempotency_key_reused")
    assert len(bills(api)) == 1


@pytest.mark.parametrize(
    ("code", "status", "shown"),
    [
        ("in_progress", 409, "idempotency_in_progress"),
        ("indeterminate", 409, "idempotency_result_indeterminate"),
        ("unavailable", 503, "idempotency_unavailable"),
        ("key_reused", 409, "idempotency_key_reused"),
    ],
)
def test_refusals_by_fault_are_not_executed_unless_the_rule_says_so(api, code, status, shown):
    api.emulator.set_faults([{"on": "submit", "action": "idempotency", "code": code, "count": 1, "retry_after": 3}])
    answer = api.submit(key="k")
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, shown)
    assert answer.headers["Retry-After"] == "3"
    assert bills(api) == []
    assert api.submit(key="k").status_code == 200

    api.emulator.set_faults([{"on": "submit", "action": "idempotency", "code": code, "at": "after_bill"}])
    assert api.submit(key="k-2").status_code == status
    assert len(bills(api)) == 2


def test_refused_requests_leave_their_key_free(emulate):
    api = emulate(balance_usd=0.03)
    assert api.submit(key="k", n="1").status_code == 400
    assert api.submit(key="k").status_code == 402
    api.emulator.configure(balance_usd=1.0)
    assert api.submit(key="k").status_code == 200


def test_keys_that_are_not_honoured(emulate):
    api = emulate(honour_keys=False)
    first, second = api.submit(key="k"), api.submit(key="k")
    assert first.json() != second.json()
    assert "Idempotency-Replayed" not in second.headers
    assert [entry["key"] for entry in bills(api)] == ["k", "k"]
    assert api.submit(key="k", prompt="another").status_code == 200


@pytest.mark.parametrize(("key", "status"), [("k" * 191, 200), ("k" * 192, 400), ("", 400), ("a b", 400)])
def test_the_form_of_keys(api, key, status):
    assert api.submit(key=key).status_code == status
