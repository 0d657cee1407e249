"""Answers of the service in every form that is known, and in forms that nobody has seen."""

import base64
import email.utils
import html
import json
import sys
import time
from dataclasses import replace

import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from seedream_batch.client import error_details as faults
from seedream_batch.client import wire
from seedream_batch.client.wire import Answer, Balance
from seedream_batch.model.outcome import ImageUrl, Poll, Polled, Submission, Submitted

NOW = 1_800_000_000.0
LATER = 1_800_086_400


def answer(body, status=200, headers=None, *, whole=True):
    return Answer(status, headers or {}, body if isinstance(body, bytes) else json.dumps(body).encode(), whole)


def submitted(body, status=200, headers=None, *, whole=True):
    return wire.submission(answer(body, status, headers, whole=whole), NOW)


def polled(body, status=200, headers=None):
    return wire.poll(answer(body, status, headers), NOW)


def task(**fields):
    return {"code": 200, "data": {"id": "task_1", "status": "completed", **fields}}


def images(*entries, **fields):
    return task(result={"images": list(entries)}, **fields)


# TaskStore


@pytest.mark.parametrize(
    ("document", "ids"),
    [
        ({"code": 200, "data": [{"status": "submitted", "task_id": "task_1"}]}, ("task_1",)),
        ({"code": "200", "data": [{"task_id": "task_1"}, {"task_id": "task_2"}]}, ("task_1", "task_2")),
        (
            {"data": [{"task_id": "task_1"}, {"status": "submitted"}, None, "x", {"task_id": "task_2"}]},
            ("task_1", "task_2"),
        ),
        ({"data": [{"task_id": "task_1"}, {"task_id": "task_1"}]}, ("task_1",)),
        ({"data": {"task_id": "task_1"}}, ("task_1",)),
        ({"data": {"id": "task_1", "status": "pending"}}, ("task_1",)),
        ({"request_id": "r", "data": {"object": "generation.task", "id": "task_1", "status": "pending"}}, ("task_1",)),
        ({"data": {"request_id": "r", "data": {"id": "task_1"}}}, ("task_1",)),
        ({"data": [{"task_id": "task_1", "id": "other"}]}, ("task_1",)),
        ({"data": [{"task_id": " task_1 "}]}, ("task_1",)),
        ({"data": [{"task_id": 12345}]}, ("12345",)),
        ({"data": [{"task_id": "", "id": "task_1"}]}, ("task_1",)),
        ({"data": [{"task_id": None}]}, ()),
        ({"data": [{"task_id": True}]}, ()),
        ({"data": [{"task_id": 1.5}]}, ()),
        ({"data": [{"task_id": ["task_1"]}]}, ("task_1",)),
        ({"data": [{"task_id": "x" * 257}]}, ()),
        ({"data": [{"task_id": "a\nb"}]}, ()),
        ({"data": [{"task_id": "a\ud800b"}]}, ()),
        ({"data": []}, ()),
        ({"data": None}, ()),
        ({}, ()),
        ([{"task_id": "task_1"}], ("task_1",)),
        ("task_1", ("task_1",)),
        ("done", ()),
        (None, ()),
    ],
)
@pytest.mark.parametrize("status", [200, 202])
def test_task_ids(document, ids, status):
    outcome = submitted(document, status)
    assert outcome.task_ids == ids
    assert outcome.kind is (Submitted.ACCEPTED if ids else Submitted.UNKNOWN)


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        ({"error": {"code": 400, "message": "bad n", "type": "invalid_request_error"}}, "bad n", "400"),
        ({"error": {"code": "bad_n", "message": "bad n", "param": "n", "request_id": "r"}}, "bad n", "bad_n"),
        ({"error": {"message": "bad n", "type": "invalid_request_error"}}, "bad n", "invalid_request_error"),
        ({"error": "bad n"}, "bad n", ""),
        ({"error": "bad n", "code": 1234}, "bad n", "1234"),
        ({"success": False, "message": "bad n"}, "bad n", ""),
        ({"code": 400, "message": "bad n"}, "bad n", "400"),
        ({"code": "invalid", "message": "bad n", "data": None}, "bad n", "invalid"),
        ({"detail": "bad n"}, "bad n", ""),
        ({"error": None}, "", ""),
        ({"error": []}, "", ""),
        ({"error": {"code": True, "message": 5}}, "", ""),
        ({"error": {"message": "a\x1b[31m\nb\u202ec\ud800"}}, "a [31m b c", ""),
        ({"error": {"message": "x" * 5000}}, "x" * 500, ""),
        ({"error": {"code": 10**30, "message": ""}}, "", ""),
        ({"error": {"code": "c" * 300}}, "", "c" * 100),
        (b"<html>\n<body>502</body>", "a web page instead of an answer", ""),
        (b"  <!DOCTYPE html>", "a web page instead of an answer", ""),
        (b"", "an empty answer", ""),
        (b"\x00\xff", "an answer that is not a JSON object", ""),
        (b"[]", "an answer that is not a JSON object", ""),
        (b'{"error": ', "an answer that is not a JSON object", ""),
    ],
)
def test_what_an_error_says(body, message, code):
    outcome = submitted(body, 400)
    assert (outcome.kind, outcome.message, outcome.code) == (Submitted.REFUSED, message, code)


def test_an_answer_that_was_cut():
    whole = json.dumps({"code": 200, "data": [{"task_id": "task_1"}]}).encode()
    assert submitted(whole, whole=False).task_ids == ("task_1",), "nothing is missing in it"
    for cut in range(len(whole)):
        outcome = submitted(whole[:cut], whole=False)
        # A string that is closed cannot go on.
        known = cut >= whole.index(b"task_1") + len(b'task_1"')
        assert outcome.task_ids == (("task_1",) if known else ())
        assert outcome.kept.body == whole[:cut].decode()
    # A number or a word can go on after the cut, an object can't.
    assert wire.parse(answer(b"12", whole=False)) is None
    assert wire.parse(answer(b"12")) == 12


@pytest.mark.parametrize(
    ("text", "wait"),
    [
        ("0", 0.0),
        ("3", 3.0),
        (" 3 ", 3.0),
        ("2.5", 2.5),
        ("-5", 0.0),
        ("600", 600.0),
        ("601", 600.0),
        ("31536000000", 600.0),
        ("1e400", None),
        ("nan", None),
        ("inf", None),
        ("", None),
        ("soon", None),
        ("5, 5", None),
        (email.utils.formatdate(NOW + 90, usegmt=True), 90.0),
        (email.utils.formatdate(NOW - 90, usegmt=True), 0.0),
        (email.utils.formatdate(NOW + 10**7, usegmt=True), 600.0),
        # The old forms of an HTTP date, which are in GMT, too.
        ("Friday, 15-Jan-27 08:01:30 GMT", 90.0),
        ("Fri Jan 15 08:01:30 2027", 90.0),
        ("Fri, 15 Jan 2027 08:01:30", 90.0),
        ("Fri, 15 Jan 2027 08:01:30 -0000", 90.0),
        ("Fri, 15 Jan 99999 08:01:30 GMT", None),
        ("Fri, 99 Jan 2027 08:01:30 GMT", None),
    ],
)
def test_retry_after(text, wait, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    assert wire.retry_after({"retry-after": text}, NOW) == wait


# Looks at a task


@pytest.mark.parametrize("word", ["submitted", "pending", "processing", "in_progress", " Processing "])
def test_words_for_not_ended(word):
    poll = polled(task(status=word))
    assert (poll.kind, poll.notes) == (Polled.RUNNING, ())


@pytest.mark.parametrize("word", ["", "reticulating", "not finished", "\x1b[2J", "x" * 10_000])
def test_unknown_words_mean_not_ended(word):
    poll = polled(task(status=word))
    assert poll.kind is Polled.RUNNING
    assert len(poll.notes) == 1
    assert poll.notes[0].isprintable()
    assert len(poll.notes[0]) < 120


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ({"error": {"code": "task_failed", "message": "no luck", "type": "t"}}, "task_failed", "no luck"),
        ({"error": {"type": "OutputImageSensitiveContentDetected"}}, "OutputImageSensitiveContentDetected", "failed"),
        ({"error": {"code": 1301, "message": "no"}}, "1301", "no"),
        ({"error": "no luck"}, "failed", "no luck"),
        ({"message": "no luck"}, "failed", "no luck"),
        ({"error": None}, "failed", "failed"),
        ({}, "failed", "failed"),
        ({"error": ["x"]}, "failed", "x"),
        ({"error": [5]}, "failed", "failed"),
        ({"fail_reason": "no luck"}, "failed", "no luck"),
    ],
)
def test_a_failed_task(fields, code, message):
    poll = polled(task(status="failed", **fields))
    assert (poll.kind, poll.code, poll.message) == (Polled.FAILED, code, message)


def test_a_cancelled_task_is_a_failed_one():
    assert polled(task(status="cancelled")).kind is Polled.FAILED


A, B, C = "https://img.example.com/a.png", "https://img.example.com/b.png", "http://img.example.com/c"


@pytest.mark.parametrize(
    ("entries", "found", "notes"),
    [
        ([{"url": [A], "expires_at": LATER}], [(A, LATER)], 0),
        ([{"url": A, "expires_at": LATER}], [(A, LATER)], 0),
        ([{"url": [A]}], [(A, None)], 0),
        ([{"url": [A], "expires_at": None}], [(A, None)], 0),
        ([{"url": [A], "expires_at": str(LATER)}], [(A, LATER)], 0),
        ([{"url": [A, B], "expires_at": LATER}], [(A, LATER), (B, LATER)], 0),
        ([{"url": [A], "expires_at": LATER}, {"url": B}], [(A, LATER), (B, None)], 0),
        ([{"url": [A, A]}], [(A, None)], 1),
        ([{"url": [A], "expires_at": LATER}, {"url": [A], "expires_at": 1.9e9}], [(A, LATER)], 1),
        ([A, {"url": C}], [(A, None), (C, None)], 0),
        ([{"url": []}], [], 1),
        ([{"url": None}], [], 1),
        ([{}], [], 1),
        ([None, 5, [A]], [(A, None)], 2),
        ([{"url": ["ftp://x/a.png", "", 5, None, {}, [A], A]}], [(A, None)], 6),
        ([{"url": "javascript:alert(1)"}], [], 1),
        ([{"url": "https://x/" + "y" * 9000}], [], 1),
        ([{"url": "https://x/a\r\nHost: y"}], [], 1),
        ([{"url": "https://x/\ud800"}], [], 1),
        ([{"url": A, "expires_at": "tomorrow"}], [(A, None)], 1),
        ([{"url": A, "expires_at": 0}], [(A, None)], 1),
        ([{"url": A, "expires_at": -1}], [(A, None)], 1),
        ([{"url": A, "expires_at": 1763174708000}], [(A, 1763174708)], 0),
        ([{"url": A, "expires_at": 1763174708000000}], [(A, 1763174708)], 0),
        ([{"url": A, "expires_at": "2025-11-15T02:45:08Z"}], [(A, 1763174708)], 0),
        ([{"url": A, "expires_at": "2025-11-15T10:45:08+08:00"}], [(A, 1763174708)], 0),
        ([{"url": A, "expiresAt": "2025-11-15 02:45:08"}], [(A, 1763174708)], 0),
        ([{"url": A, "expires_at": 10**400}], [(A, None)], 1),
        ([{"url": A, "expires_at": True}], [(A, None)], 1),
        ([{"url": A, "expires_at": [LATER]}], [(A, None)], 1),
    ],
)
def test_delivered_images(entries, found, notes):
    poll = polled(images(*entries))
    assert poll.kind is Polled.COMPLETED
    assert poll.images == tuple(ImageUrl(url, expires) for url, expires in found)
    assert len(poll.notes) == notes
    assert all(note.isprintable() and len(note) < 120 for note in poll.notes)


@pytest.mark.parametrize(
    ("result", "found"),
    [
        ({"images": {"url": [A]}}, 1),
        ({"images": A}, 1),
        ({"images": []}, 0),
        ({"images": None}, 0),
        ({"images": 3}, 0),
        ({}, 0),
        ([], 0),
        (None, 0),
        ("x", 0),
    ],
)
def test_other_forms_of_a_result(result, found):
    poll = polled(task(result=result))
    assert (poll.kind, len(poll.images)) == (Polled.COMPLETED, found)


@pytest.mark.parametrize(
    ("fields", "cost", "notes"),
    [
        ({"cost": 0.035, "credits_cost": 0.35}, 35_000, 0),
        ({"cost": "0.035"}, 35_000, 0),
        ({"cost": 0}, 0, 0),
        ({"credits_cost": 0.35}, 35_000, 0),
        ({"credits_cost": "0.35"}, 35_000, 0),
        ({"cost": None, "credits_cost": 1}, 100_000, 0),
        ({"cost": "free", "credits_cost": 0.35}, 35_000, 1),
        ({"cost": -1}, None, 1),
        ({"cost": 1e9}, None, 1),
        ({"cost": True}, None, 1),
        ({"cost": "nan"}, None, 1),
        ({"cost": {}}, None, 1),
        ({}, None, 0),
    ],
)
def test_what_it_cost(fields, cost, notes):
    poll = polled(images({"url": [A]}, **fields))
    assert poll.cost == cost
    assert len(poll.notes) == notes


@pytest.mark.parametrize(
    ("fields", "took"),
    [
        ({"created": 1763088289, "completed": 1763088308, "actual_time": 7}, 19),
        ({"created": "1763088289", "completed": "1763088308.5"}, 19.5),
        ({"actual_time": 19}, 19),
        ({"created": 1763088289, "completed": None, "actual_time": 19}, 19),
        ({"created": 1763088289, "completed": 0, "actual_time": 19}, 19),
        ({"created": 1763088308, "completed": 1763088289, "actual_time": 19}, None),
        ({"created": 1763088289, "completed": 1763088308000}, None),
        ({"created": [], "completed": "soon", "actual_time": True}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("word", ["completed", "failed"])
def test_how_long_it_was_at_work(word, fields, took):
    assert polled(images({"url": [A]}, **{**fields, "status": word})).took == took


@pytest.mark.parametrize("leave_out", ["progress", "created", "completed", "estimated_time", "actual_time", "id"])
def test_fields_that_nobody_needs(leave_out):
    fields = {"progress": "100", "created": "1", "completed": 2, "estimated_time": 60, "actual_time": None}
    fields.pop(leave_out, None)
    document = images({"url": [A]}, **fields)
    if leave_out == "id":
        del document["data"]["id"]
    assert polled(document).images == (ImageUrl(A, None),)


@pytest.mark.parametrize(
    "wrapped",
    [
        {"status": "processing"},
        {"data": {"status": "processing"}},
        {"data": [{"status": "processing"}]},
        {"code": "success", "status": "success", "data": {"status": "processing"}},
        {"request_id": "r", "data": {"data": {"status": "processing"}}},
        [{"status": "processing"}],
    ],
)
def test_wrappings_of_a_task(wrapped):
    assert polled(wrapped).kind is Polled.RUNNING


@pytest.mark.parametrize(
    ("document", "ours"),
    [
        ({"data": {"id": "task_1", "status": "processing"}}, True),
        ({"data": {"id": " task_1 ", "status": "processing"}}, True),
        ({"data": {"task_id": "task_1", "status": "processing"}}, True),
        ({"data": {"id": 77, "task_id": "task_1", "status": "processing"}}, True),
        ({"data": {"id": None, "status": "processing"}}, True),
        ({"data": {"status": "processing"}}, True),
        ({"data": {"id": "task_2", "status": "processing"}}, False),
        ({"data": {"id": "task_2", "status": "failed"}}, False),
        ({"id": "task_1", "status": "processing"}, True),
        ({"id": "task_2", "status": "processing"}, False),
        ({"status": "failed", "message": "gateway"}, False),
    ],
)
def test_only_the_document_of_the_task_itself_counts(document, ours):
    poll = wire.poll(answer(document), NOW, "task_1")
    assert poll.kind is (Polled.RUNNING if ours else Polled.NO_ANSWER)


def test_a_task_id_that_is_a_number():
    document = {"data": {"id": 12345, "status": "processing"}}
    assert wire.poll(answer(document), NOW, "12345").kind is Polled.RUNNING


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, b"", Polled.NO_ANSWER),
        (404, b"<html>nginx</html>", Polled.NO_ANSWER),
        (404, b"", Polled.NO_ANSWER),
        (200, b"<html>", Polled.NO_ANSWER),
        (200, b"{}", Polled.NO_ANSWER),
        (200, b'{"data": []}', Polled.NO_ANSWER),
        (200, b'{"data": {"status": 3}}', Polled.NO_ANSWER),
        (200, b'{"success": false, "message": "try later"}', Polled.NO_ANSWER),
        (400, b"{}", Polled.NO_ANSWER),
        (401, b"", Polled.UNAUTHORIZED),
        (402, b"", Polled.NO_ANSWER),
        (403, b"", Polled.UNAUTHORIZED),
        (404, b"{}", Polled.NOT_FOUND),
        (429, b"", Polled.RATE_LIMITED),
        (500, json.dumps(task(status="failed")).encode(), Polled.NO_ANSWER),
        (502, b"<html>", Polled.NO_ANSWER),
        (503, b"", Polled.NO_ANSWER),
        (504, b"", Polled.NO_ANSWER),
    ],
)
def test_looks_that_show_no_task(status, body, kind):
    poll = polled(body, status, {"retry-after": "4"})
    assert (poll.kind, poll.status) == (kind, status)
    assert poll.retry_after == (4.0 if kind in {Polled.NO_ANSWER, Polled.RATE_LIMITED} else None)


# Balance and uploads


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ({"remain_balance": 10.5, "used_balance": 1.2}, Balance(10_500_000, 1_200_000)),
        ({"remain_balance": "10.5", "used_balance": None}, Balance(10_500_000, None)),
        ({"success": True, "data": {"remain_balance": 1}}, Balance(1_000_000, None)),
        ({"remain_balance": -1, "used_balance": 2}, Balance(None, 2_000_000)),
        ({"remain_balance": 0, "unlimited_quota": True}, Balance(None, None)),
        ({"remain_balance": 0}, Balance(0, None)),
        ({"remain_balance": -0.5}, Balance(-500_000, None)),
        ({"remain_balance": 1e300}, None),
        ({"remain_balance": "much"}, None),
        ({"data": []}, None),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
def test_balances(document, found):
    assert wire.balance(document) == found


@pytest.mark.parametrize(
    ("document", "url"),
    [
        ({"url": A, "filename": "a.png"}, A),
        ({"data": {"url": A}}, A),
        ({"url": None, "data": {"url": A}}, A),
        ({"url": "a.png"}, None),
        ({"url": " https://x/\n"}, "https://x/"),
        ({"url": "https://x/\n/"}, "https://x//"),
        ({"url": "https://" + "x" * 9000}, None),
        ({"data": [A]}, A),
        ({"data": [{"url": A}]}, A),
        ({"success": True, "file_url": A, "task_url": B}, A),
        ({"url": "/up/a.png"}, "https://api.example.com/up/a.png"),
        ({"url": "data:image/png;base64,iVBORw0KGgo="}, None),
        ([], None),
        (None, None),
    ],
)
def test_uploads(document, url):
    assert wire.upload_url(document, "https://api.example.com") == url


# Ids and images wherever they are

TASK_ID = "task_01K8SGYNNNVBQTXNR4MM964S7K"
NOTHING = st.none() | st.booleans() | st.floats() | st.sampled_from(["", "ok", "submitted", 200, {}, []])
NAMES = st.sampled_from(["data", "result", "task", "output", "payload", "item", "response", "Body", "x"])


def wrapped(inner):
    """Something in objects and lists, beside what says nothing."""
    in_list = st.tuples(st.lists(NOTHING, max_size=2), st.just(inner), st.lists(NOTHING, max_size=2)).map(
        lambda parts: [*parts[0], parts[1], *parts[2]]
    )
    beside = st.dictionaries(st.sampled_from(["code", "msg", "trace", "request_id"]), NOTHING, max_size=2)
    in_object = st.tuples(beside, NAMES).map(lambda parts: {**parts[0], parts[1]: inner})
    return in_list | in_object


def nested(inner):
    return st.integers(0, 4).flatmap(
        lambda depth: st.just(inner) if not depth else wrapped(inner).flatmap(lambda one: nested_by(one, depth - 1))
    )


def nested_by(inner, depth):
    return wrapped(inner).flatmap(lambda one: nested_by(one, depth - 1)) if depth else st.just(inner)


ONE_ID = st.sampled_from(
    [{"task_id": TASK_ID}, {"taskId": TASK_ID}, {"Task-ID": [TASK_ID]}, {"id": TASK_ID}, {"id": TASK_ID, "status": "x"},
     {"task_id": TASK_ID, "id": "req_1"}, {"id": TASK_ID, "status": "pending", "request_id": "req_1"},
     {"task_id": TASK_ID, "data": {"task_id": "upstream_1"}}]
).flatmap(nested)  # fmt: skip
WAYS = {
    "plain": lambda text: text.encode(),
    "with a mark": lambda text: text.encode("utf-8-sig"),
    "UTF-16": lambda text: text.encode("utf-16"),
    "in other letters": lambda text: text.encode()[:-1] + b" " + text.encode()[-1:] if text else b"",
    "behind a prefix": lambda text: b")]}',\n" + text.encode(),
    "before a comment": lambda text: text.encode() + b"\n<!-- cache: miss -->",
    "as events": lambda text: b"event: message\ndata: " + text.encode() + b"\n\ndata: [DONE]\n\n",
    "as a string": lambda text: json.dumps(text).encode(),
    "behind a warning": lambda text: b"<b>Warning</b>: Undefined index<br />\n" + text.encode(),
}


@settings(max_examples=examples(400))
@given(document=ONE_ID, way=st.sampled_from(sorted(WAYS)))
def test_one_task_id_is_found_wherever_it_is(document, way):
    body = WAYS[way](json.dumps(document))
    assert wire.submission(Answer(200, {}, body), NOW).task_ids == (TASK_ID,)


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({"x-task-id": TASK_ID}, True),
        ({"Task-Id": f" {TASK_ID} "}, True),
        ({"location": f"/v1/tasks/{TASK_ID}"}, True),
        ({"Content-Location": f"https://api.example.com/v1/tasks/{TASK_ID}/"}, True),
        ({"location": "https://[oops"}, False),
        ({"location": "/login"}, False),
        ({"x-request-id": TASK_ID}, False),
        ({"x-trace-id": TASK_ID}, False),
    ],
)
@pytest.mark.parametrize("body", [b"", b"{}", b'{"request_id": "req_1"}', b"<html>created</html>"])
def test_a_task_id_in_a_header(headers, found, body):
    outcome = wire.submission(Answer(201, headers, body), NOW)
    assert outcome.task_ids == ((TASK_ID,) if found else ())


@pytest.mark.parametrize(
    "document",
    [
        {"request_id": "req_1"},
        {"data": {"user": {"id": "u_1"}, "model": {"id": "seedream"}}},
        {"id": "req_1", "error": {"code": 500, "message": "no"}},
        {"id": "req_1", "success": False, "message": "no"},
        {"data": "ok"},
        {"message": "the task task_12345678 was seen"},
    ],
)
def test_ids_of_something_else_are_none_of_a_task(document):
    outcome = submitted(document)
    assert (outcome.kind, outcome.task_ids) == (Submitted.UNKNOWN, ())
    assert json.loads(outcome.kept.body) == document


def test_several_ids_of_one_submission():
    ids = ("task_1", "task_2", "task_3")
    for document in ({"task_ids": [*ids]}, [{"id": one} for one in ids], {"data": {"tasks": [*ids]}}, {"data": [*ids]}):
        assert submitted(document).task_ids == ids


DOCUMENT = '{"code": 200, "data": [{"status": "submitted", "task_id": "task_01AB"}]}'


@pytest.mark.parametrize(
    "body",
    [
        "{'code': 200, 'ok': True, 'data': {'task_id': 'task_01AB'}}",
        "{data: {task_id: 'task_01AB'}}",
        '{"data": {/* new */ "taskId": "task_01AB"}}',
        '{"data": {"task_id": "task_01AB"}, "data": null}',
        "code=200&task_id=task_01AB&status=submitted",
        "data:\n  - task_id: task_01AB\n",
        "<response><task_id>task_01AB</task_id></response>",
        "task_01AB\n",
        "log\n" * 100_000 + DOCUMENT,
        '{"a":' * 2000 + DOCUMENT + "}" * 2000,
        f"<html><head><title>200</title></head><body><pre>{DOCUMENT}</pre></body></html>",
        f"<!DOCTYPE html><p>{html.escape(DOCUMENT)}</p>",
        base64.b64encode(DOCUMENT.encode()).decode(),
    ],
    ids=lambda body: body[:30],
)
def test_an_id_that_a_text_names_as_that_of_a_task(body):
    outcome = submitted(body.encode())
    assert (outcome.kind, outcome.task_ids) == (Submitted.ACCEPTED, ("task_01AB",))
    assert outcome.kept is not None


@pytest.mark.parametrize(
    "body",
    [
        '<html><script>var state = {"task_id": "task_01AB"}</script><p>Please sign in</p></html>',
        "<!DOCTYPE html><h1>API</h1><code>task_id: task_01AB</code>",
        "task_id: missing",
        "{'task_id': None, 'request_id': 'task_req_0001'}",
        '{"success": false, "message": "like task_id: task_01AB"}',
    ],
)
def test_a_text_that_names_no_task_of_this_submission(body):
    assert submitted(body.encode()).kind is Submitted.UNKNOWN


@pytest.mark.parametrize("text", ["{'task_id': 'task_01AB'}", "task_id=task_01AB", "task_01AB"])
def test_an_id_at_the_end_of_what_was_cut_may_not_be_whole(text):
    for cut in range(len(text) + 1):
        ids = submitted(text[:cut].encode(), whole=False).task_ids
        assert ids == (("task_01AB",) if text[:cut].partition("task_01AB")[2] else ())


@pytest.mark.parametrize(
    "form",
    [
        lambda text: f"<html><pre>{text}</pre></html>",
        lambda text: base64.b64encode(text.encode()).decode(),
        lambda text: repr({**json.loads(text), "ok": True, "nothing": None}),
        lambda text: text[:-1] + ", }",
        lambda text: text[:-1] + ', "log": ["a,]", "//",], /* odd\n */ } // end',
    ],
)
def test_a_task_document_in_a_page_as_a_file_or_in_almost_json(form):
    poll = polled(form(json.dumps(images({"url": A}))).encode())
    assert [image.url for image in poll.images] == [A]


@pytest.mark.parametrize(
    "body", [b"{'a': {1, 2}}", b"{'a': b'x'}", b"{'a': __import__('os')}", b"{'a': " + b"[" * 10**5]
)
def test_what_only_python_can_say_is_no_document(body):
    assert wire.parse(answer(body)) is None


@pytest.mark.timeout(30)
@pytest.mark.parametrize("piece", ["<", "/* ", "task_id:", "task_a-", "{'", '{"', "data: {\n", "](", "&#", "a-", ", "])
def test_no_text_takes_time_with_the_square_of_its_length(piece):
    """With the square, each of these takes minutes."""
    text = (piece * 10**5)[: 2 * 10**5].encode()
    for start in (b"", b"{'a': '"):
        assert submitted(start + text).kind is Submitted.UNKNOWN
        polled(start + text)


DATA = "data:image/png;base64,iVBORw0KGgo="
FORMS = [
    {"result": {"images": [{"url": [A]}]}},
    {"result": {"images": [{"url": f" {A}\n"}]}},
    {"result": {"images": [{"image_url": {"url": A}}]}},
    {"result": {"urls": [A]}},
    {"result": A},
    {"result": json.dumps({"resultUrls": [A]})},
    {"images": [A]},
    {"images": [{"url": A, "b64_json": "iVBORw0KGgo="}]},
    {"image_url": A},
    {"output": A},
    {"output": [A]},
    {"output": {"images": [{"src": A}]}},
    {"output": f"![a fox]({A})"},
    {"data": [{"url": A}]},
    {"url": A.replace("?", "&amp;")},
    {"result": {"images": [{"url": A}]}, "data": {}},
    {"result": {"images": [{"url": A}]}, "data": {"id": "upstream_1", "status": "running", "images": [{"url": B}]}},
    {"result": {"images": [{"url": A, "thumbnail_url": B}]}, "image_urls": [C], "request": {"image_urls": [C]}},
    {"result": {"images": {"0": {"url": A}}}},
]
ELSEWHERE = [
    {"task_result": {"images": [{"index": 0, "url": A}]}},
    {"result": {}, "generated_images": [A]},
    {"result": {"images": [{"signed_url": A, "preview_url": B}]}},
    {"result": None, "fail_reason": A},
    {"output": {"choices": [{"message": {"role": "assistant", "content": [{"image": A, "type": "image"}]}}]}},
    {"media": [{"file_url": A}], "input": {"image": C}, "reference_images": [C], "status_url": B},
    {"assets": {"thumb": B, "oss_url": A}, "logo": B},
]
"""Results where no service that is known lists them."""


@settings(max_examples=examples(300))
@given(data=st.data(), form=st.sampled_from(FORMS), word=st.sampled_from(["completed", "FINISHED", "reticulated", 3]))
def test_images_are_found_wherever_they_are(data, form, word):
    document = data.draw(nested({"id": TASK_ID, "status": word, **form}))
    poll = wire.poll(answer(document), NOW, TASK_ID)
    assert (poll.kind, [image.url for image in poll.images]) == (Polled.COMPLETED, [A])


@pytest.mark.parametrize("form", ELSEWHERE)
def test_images_of_a_completed_task_are_found_in_any_member(form):
    poll = wire.poll(answer({"data": {"id": "task_1", "status": "success", **form}}), NOW, "task_1")
    assert (poll.kind, [image.url for image in poll.images], bool(poll.kept)) == (Polled.COMPLETED, [A], True)
    running = wire.poll(answer({"data": {"id": "task_1", "status": "running", **form}}), NOW, "task_1")
    assert (running.kind, running.images) == (Polled.RUNNING, ())


@pytest.mark.parametrize(
    "document",
    [
        {"data": {"id": "task_1", "status": "completed"}, "images": [A]},
        {"task": {"id": "task_1", "status": "completed"}, "result": {"images": [{"url": A}]}},
        [{"id": "task_0", "status": "completed", "pics": [B]}, {"id": "task_1", "status": "completed", "pics": [A]}],
    ],
)
def test_images_beside_the_task_are_its_own_and_those_of_another_task_are_not(document):
    poll = wire.poll(answer(document), NOW, "task_1")
    assert [image.url for image in poll.images] == [A]


@pytest.mark.parametrize(
    "fields",
    [
        {"thumbnail": A}, {"request": {"image": A}}, {"reference_image_url": A}, {"callback_url": A},
        {"image_urls": [A]}, {"message": f"see {A}"}, {"share": "https://example.com/gallery"},
    ],
)  # fmt: skip
def test_what_was_sent_and_small_versions_are_no_result(fields):
    assert polled(task(**fields)).images == ()


@pytest.mark.parametrize("value", [f"{A},{B}", f"{A}, {B}", f"{A}\n{B}", f"{A} | {B}", {"0": A, "1": B}])
def test_several_links_in_one_text_or_mapping(value):
    for form in ({"result": {"images": value}}, {"result": {"url": value}}):
        assert [image.url for image in polled(task(**form)).images] == [A, B]


@pytest.mark.parametrize("empty", [None, "", []])
def test_an_empty_link_beside_the_data_of_an_image_is_not_odd(empty):
    poll = polled(images({"url": empty, "b64_json": "iVBORw0KGgo="}))
    assert (len(poll.images), poll.notes, poll.kept) == (1, (), None)


def test_a_task_document_as_a_json_string():
    document = {"code": 200, "data": json.dumps({"id": "task_1", "status": "completed", "result": {"images": [A]}})}
    poll = wire.poll(answer(document), NOW, "task_1")
    assert (poll.kind, [image.url for image in poll.images]) == (Polled.COMPLETED, [A])


def test_the_last_of_several_documents_of_a_task_counts():
    events = b"".join(
        b"data: " + json.dumps({"id": "task_1", **fields}).encode() + b"\n\n"
        for fields in ({"status": "processing"}, {"status": "completed", "result": {"images": [A]}})
    )
    poll = wire.poll(answer(events), NOW, "task_1")
    assert (poll.kind, len(poll.images)) == (Polled.COMPLETED, 1)


@pytest.mark.parametrize(
    ("error", "message", "code"),
    [
        ('{"code": "X", "message": "no"}', "no", "X"),
        ({"message": json.dumps({"error": {"code": "Y", "message": "内容违规"}})}, "Y: 内容违规", "failed"),
        ({"message": '{"message": "\\u4f59\\u989d\\u4e0d\\u8db3"}'}, "余额不足", "failed"),
        ({"message": "{not json}"}, "{not json}", "failed"),
    ],
)
def test_the_error_of_an_upstream_in_a_string(error, message, code):
    poll = polled(task(status="failed", error=error))
    assert (poll.message, poll.code) == (message, code)


@pytest.mark.parametrize(
    "fields",
    [
        {"error": {"code": "OutputImageSensitiveContentDetected", "message": "no"}},
        {"result": {"images": [{"error": {"code": "OutputImageSensitiveContentDetected", "message": "no"}}]}},
    ],
)
def test_a_completed_task_that_moderation_left_without_an_image_has_failed(fields):
    poll = polled(task(**fields))
    assert poll.kind is Polled.FAILED
    # Any other error may come from a relay that lost the images: the task is polled again.
    fields = json.loads(json.dumps(fields).replace("OutputImageSensitiveContentDetected", "InternalError"))
    assert polled(task(**fields)).kind is Polled.COMPLETED


@pytest.mark.parametrize(
    ("document", "ids"),
    [
        (
            {"code": "success", "data": "3f2a5c1e-6c7d-4b0f-9a57-cc4b4f5d1e11"},
            ("3f2a5c1e-6c7d-4b0f-9a57-cc4b4f5d1e11",),
        ),
        ({"code": 1, "description": "submitted", "result": "1320098173412546"}, ("1320098173412546",)),
        ({"code": 1, "result": 1320098173412546}, ("1320098173412546",)),
        ({"data": ["9b2f1c0de4a35768a1b2c3d4e5f60718"]}, ("9b2f1c0de4a35768a1b2c3d4e5f60718",)),
        ({"code": 0, "data": "1764500000000"}, ()),
        ({"code": 0, "data": "queued"}, ()),
        ({"trace": "3f2a5c1e-6c7d-4b0f-9a57-cc4b4f5d1e11"}, ()),
    ],
)
def test_a_bare_id_in_an_envelope(document, ids):
    assert submitted(document).task_ids == ids


@pytest.mark.parametrize(
    ("status", "document", "kind"),
    [
        *((status, b"<html>log in</html>", Submitted.UNREACHABLE) for status in (407, 511)),
        *((status, {"error": {"message": "x"}}, Submitted.UNAVAILABLE) for status in (421, 425)),
        (404, {"error": {"message": "Invalid URL", "type": "invalid_request_error"}}, Submitted.REFUSED),
        (404, b"<html>not found</html>", Submitted.UNKNOWN),
        *(
            (status, {"error": {"message": text}}, Submitted.UNPAID)
            for status in (400, 403, 429)
            for text in (
                "Budget has been exceeded! Current cost: 1.2, Max budget: 1", "Monthly spend limit reached",
                "account balance is not sufficient", "積分不足", "账户已达到本月消费限额",
                "Your account is in arrears", "You have hit your monthly spend cap", "pay your overdue invoice",
            )
        ),
        *(
            (status, {"error": {"message": text}}, Submitted.RATE_LIMITED)
            for status in (400, 403)
            for text in ("RequestBurstTooFast", "Too many concurrent tasks, limit 3", "当前并发任务数已达上限")
        ),
        *(
            (status, {"error": {"message": text}}, Submitted.NO_MODEL)
            for status in (400, 403, 404)
            for text in (
                "The model `x-4.5` does not exist", "model not found: x-4.5", "模型x-4.5不存在",
                "This token has no access to model x", "Unknown model x",
            )
        ),
        (400, {"error": {"message": "The model does not support size 9:21"}}, Submitted.REFUSED),
        (400, {"error": {"message": "n is not supported by this model"}}, Submitted.REFUSED),
        (400, {"error": {"message": "invalid model parameter: size"}}, Submitted.REFUSED),
        (503, {"error": {"message": "model is currently unavailable"}}, Submitted.UNKNOWN),
        (503, {"error": {"message": "overloaded"}}, Submitted.UNKNOWN),
        (529, {"error": {"type": "overloaded_error", "message": "Overloaded"}}, Submitted.RATE_LIMITED),
        (429, {"error": {"code": "SetLimitExceeded", "message": "limit reached"}}, Submitted.UNPAID),
    ],
)  # fmt: skip
def test_more_refusals_that_were_not_executed(status, document, kind):
    assert submitted(document, status).kind is kind


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ({"url": DATA}, DATA),
        ({"url": DATA.replace(",", ",\n")}, DATA),
        ({"b64_json": "iVBORw0KGgo="}, DATA),
        ({"b64_json": DATA}, DATA),
        ({"url": "iVBORw0KGgo="}, DATA),
        ({"url": "//img.example.com/a.png"}, "https://img.example.com/a.png"),
        ({"url": "/files/a.png"}, "https://api.example.com/files/a.png"),
        ({"url": "HTTPS://img.example.com/a.png"}, "https://img.example.com/a.png"),
        ({"url": f"<{A}>"}, A),
        ({"url": "https%3A%2F%2Fimg.example.com%2Fa%20b.png"}, "https://img.example.com/a b.png"),
        ({"url": "https://img.example.com/a%2520b.png"}, "https://img.example.com/a%2520b.png"),
        ({"url": "https:\\/\\/img.example.com\\/a.png?x=1\\u0026y=2"}, "https://img.example.com/a.png?x=1&y=2"),
        ({"url": "https://img.example.com/a.png?sig=ab\ncd"}, "https://img.example.com/a.png?sig=abcd"),
        ({"b64_json": "AAAAIGZ0eXBhdmlm"}, "data:image/avif;base64,AAAAIGZ0eXBhdmlm"),
    ],
)
def test_links_in_other_forms(entry, url):
    poll = wire.poll(answer(images(entry)), NOW, "task_1", "https://api.example.com")
    assert [image.url for image in poll.images] == [url]


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        *((word, Polled.COMPLETED) for word in ("finished", "DONE", "Complete", "TASK_STATUS_SUCCEED", "已完成")),
        *((word, Polled.COMPLETED) for word in ("完了", "任务完成", "partially_completed")),
        *(
            (word, Polled.FAILED)
            for word in ("FAILURE", "error", "REJECTED", "task failed", "任务失败", "失敗", "실패")
        ),
        # Charged for, perhaps: a relay gave up waiting, or the result was deleted.
        *((word, Polled.RUNNING) for word in ("Timed_Out", "expired", "dead")),
        *((word, Polled.RUNNING) for word in ("IN-PROGRESS", "NOT_START", "Queued", "not finished", "unsuccessful")),
    ],
)
def test_words_for_how_a_task_is(word, kind):
    assert polled(task(status=word)).kind is kind


def test_a_task_with_images_that_says_how_far_it_is_goes_on():
    entry = {"url": A}
    assert polled(images(entry, status="processing", progress=50)).kind is Polled.RUNNING
    for fields in ({"progress": 100}, {"progress": "100%"}):
        poll = polled(images(entry, status="processing", **fields))
        assert (poll.kind, len(poll.images), bool(poll.kept)) == (Polled.COMPLETED, 1, True)


def test_images_under_a_word_for_work_may_not_be_all():
    for fields, partial in (({}, False), ({"progress": 50}, True)):
        poll = polled(images({"url": A}, status="processing", **fields))
        assert (poll.kind, len(poll.images), poll.partial) == (Polled.RUNNING, 1, partial)


def test_a_poll_that_was_cut_short_is_no_end():
    whole = answer(images({"url": A}, {"url": B}, status="completed"))
    cut = whole.body[: whole.body.index(B.encode()) + 3]
    for body in (cut, cut[:-20]):
        poll = wire.poll(replace(whole, body=body, whole=False), NOW, "task_1")
        assert (poll.kind, bool(poll.kept)) == (Polled.NO_ANSWER, True)


def test_words_about_something_gone_do_not_outweigh_the_task_itself():
    document = images({"url": A}, status="completed")
    for message in ("task finished, result links expired after 24h", "task not found in cache"):
        assert polled({**document, "message": message}).kind is Polled.COMPLETED


def test_an_error_envelope_fails_no_task():
    for document in (
        {"code": 500, "success": False, "message": "upstream unavailable", "data": {"status": "error"}},
        {"error": {"message": "backend broken"}, "data": {"status": "failed"}},
    ):
        poll = wire.poll(answer(document), NOW, "task_1")
        assert (poll.kind, bool(poll.kept)) == (Polled.NO_ANSWER, True)


def test_a_kind_of_task_and_a_header_of_the_host_are_no_ids():
    for document in (
        {"task": "text-to-image", "id": "img_9f8e7d6c", "status": "queued"},
        {"data": {"tasks": 1, "id": "img_9f8e7d6c", "status": "queued"}},
        {"request_id": "r", "data": {"object": "generation.task", "id": "img_9f8e7d6c", "status": "pending"}},
    ):
        sent = answer(document)
        found = wire.submission(replace(sent, headers={**sent.headers, "x-ecs-task-id": "0a1b2c"}), NOW)
        assert (found.kind, found.task_ids) == (Submitted.ACCEPTED, ("img_9f8e7d6c",))


def test_a_redirect_that_names_a_task_was_executed():
    sent = replace(answer({"code": 200, "data": [{"task_id": "task_01"}]}), status=302)
    found = wire.submission(sent, NOW)
    assert (found.kind, found.task_ids, bool(found.kept)) == (Submitted.ACCEPTED, ("task_01",), True)


@pytest.mark.parametrize(
    ("status", "body", "headers", "kind"),
    [
        *((status, b"<html>", {"server": "cloudflare"}, Submitted.UNAVAILABLE) for status in (521, 523, 525, 526, 530)),
        (521, b"", {"cf-ray": "8a-FRA"}, Submitted.UNAVAILABLE),
        (521, b"", {}, Submitted.UNKNOWN),
        *((status, b"<html>", {"server": "cloudflare"}, Submitted.UNKNOWN) for status in (502, 520, 522, 524)),
        (503, b"no healthy upstream", {}, Submitted.UNAVAILABLE),
        (503, b"<h1>503</h1>\nNo server is available to handle this request.\n", {}, Submitted.UNAVAILABLE),
        (503, b'{"message":"failure to get a peer from the ring-balancer"}', {}, Submitted.UNAVAILABLE),
        (503, b"no available server", {}, Submitted.UNAVAILABLE),
        (502, b"no live upstreams after 3 retries", {}, Submitted.UNKNOWN),
        (503, b"upstream connect error or disconnect/reset before headers", {}, Submitted.UNKNOWN),
        (500, b"no healthy upstream", {}, Submitted.UNKNOWN),
    ],
)
def test_gateways_that_say_they_sent_it_nowhere(status, body, headers, kind):
    assert submitted(body, status, headers).kind is kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("insufficient balance", Submitted.UNPAID),
        ("prompt audit failed", Submitted.REFUSED),
        ("Nội dung vi phạm chính sách", Submitted.REFUSED),
        ("concurrency limit reached, please retry later", Submitted.RATE_LIMITED),
        ("model not supported", Submitted.NO_MODEL),
        ("something went wrong", Submitted.UNKNOWN),
    ],
)
@pytest.mark.parametrize(
    "form",
    [
        lambda text: {"code": 10013, "message": text, "data": None},
        lambda text: {"success": False, "message": text},
        lambda text: {"code": "Declined", "msg": text},
        lambda text: {"status": "failed", "error": {"code": "X", "message": text}},
        lambda text: {"code": 0, "data": {"task_id": "", "status": "rejected", "fail_reason": text}},
        lambda text: {"base_resp": {"status_code": 1008, "status_msg": text}},
    ],
)
def test_an_error_with_a_success_status_in_any_notation(form, text, kind):
    outcome = submitted(form(text))
    assert (outcome.kind, outcome.kept is not None) == (kind, True)
    assert text in outcome.message or kind is Submitted.UNKNOWN


@pytest.mark.parametrize("code", [0, 1, 200, "200", "success", "ok"])
def test_words_beside_a_success_are_no_refusal(code):
    for text in ("accepted; your balance is too low for more", "content policy checked", "rate limit: 5"):
        assert submitted({"code": code, "message": text, "data": None}).kind is Submitted.UNKNOWN


@pytest.mark.parametrize("status", [500, 504])
def test_a_word_about_money_is_no_lack_of_it(status):
    for message in ("the task was created but the billing service did not answer", "更新用户余额失败"):
        sent = replace(answer({"error": {"message": message}}), status=status)
        assert wire.submission(sent, NOW).kind is Submitted.UNKNOWN


def test_a_failed_balance_is_not_a_balance_of_zero():
    assert wire.balance({"success": False, "message": "try again", "remain_balance": 0}) is None


def test_a_task_by_its_name_in_a_mapping_or_a_list():
    one, other = {"status": "completed", "images": [A]}, {"status": "failed"}
    for document in ({"data": {"task_2": other, "task_1": one}}, [{"id": "task_2", **other}, {"id": "task_1", **one}]):
        assert wire.poll(answer(document), NOW, "task_1").kind is Polled.COMPLETED


# Anything at all

WORDS = st.sampled_from(
    ["code", "data", "task_id", "id", "status", "result", "images", "url", "expires_at", "cost", "credits_cost",
     "error", "message", "type", "success", "remain_balance", "used_balance", "unlimited_quota", "detail",
     "completed", "failed", "processing", "submitted", A, B, "idempotency_in_progress", "build_request_failed: x"]
)  # fmt: skip
TEXTS = WORDS | st.text(st.characters(), max_size=20)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**400), LATER, str(LATER), 1e308, float("inf"), float("nan")])
    | st.floats()
    | TEXTS
)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=8
)
# Documents that have the right form nearly everywhere reach deeper than any chance does.
ENTRY = st.fixed_dictionaries({}, optional={"url": JSON | st.lists(TEXTS, max_size=3), "expires_at": JSON})
TASK = st.fixed_dictionaries(
    {"status": st.sampled_from(["completed", "failed", "processing", "odd"])},
    optional={"result": JSON | st.fixed_dictionaries({"images": JSON | st.lists(ENTRY | JSON, max_size=3)}),
              "cost": JSON, "credits_cost": JSON, "error": JSON, "message": JSON, "data": LEAVES},
)  # fmt: skip
DOCUMENTS = JSON | st.fixed_dictionaries({"data": TASK | st.lists(TASK | JSON, max_size=2)})
STATUSES = st.sampled_from([200, 202, 204, 301, 400, 401, 402, 403, 404, 409, 413, 429, 500, 502, 503, 504, 599])
HEADERS = st.fixed_dictionaries({}, optional={"retry-after": TEXTS | st.just("9" * 400), "idempotency-replayed": TEXTS})


def taken(one):
    """Every function that reads answers, on one answer; what they say is fit for a terminal and a database."""
    submission, poll = wire.submission(one, NOW), wire.poll(one, NOW)
    assert isinstance(wire.poll(one, NOW, "task_1"), Poll)
    document = wire.parse(one)
    balance, upload = wire.balance(document), wire.upload_url(document)
    assert isinstance(submission, Submission)
    assert isinstance(poll, Poll)
    assert bool(submission.task_ids) == (submission.kind is Submitted.ACCEPTED)
    assert submission.kind is not Submitted.UNREACHABLE
    if submission.kind is Submitted.ACCEPTED:
        # A redirect that names a task counts as a yes: the image was bought, whoever sent the redirect.
        assert 200 <= one.status < 400
    for text in (
        *(submission.message, submission.code, poll.message, poll.code, upload or ""),
        *(*submission.task_ids, *poll.notes, *(image.url for image in poll.images)),
    ):
        assert text.isprintable()
        assert len(text) <= 8192
        text.encode()
    for wait in (submission.retry_after, poll.retry_after):
        assert wait is None or 0 <= wait <= faults.LONGEST_WAIT
    assert poll.cost is None or 0 <= poll.cost < 2**63
    assert len({image.url for image in poll.images}) == len(poll.images)
    for image in poll.images:
        assert image.expires_at is None or NOW / 2 < image.expires_at < 1e11
    if balance is not None:
        assert all(amount is None or abs(amount) < 2**63 for amount in (balance.remaining, balance.used))


@settings(max_examples=examples(800))
@given(document=DOCUMENTS, status=STATUSES, headers=HEADERS, whole=st.booleans())
def test_no_json_raises(document, status, headers, whole):
    taken(Answer(status, headers, json.dumps(document).encode(), whole))


@settings(max_examples=examples(800))
@given(body=st.binary(max_size=200), status=STATUSES, headers=HEADERS, whole=st.booleans())
def test_no_bytes_raise(body, status, headers, whole):
    taken(Answer(status, headers, body, whole))


@settings(max_examples=examples(500))
@given(data=st.data())
def test_no_cut_or_flipped_answer_raises(data):
    body = bytearray(json.dumps(images({"url": [A, B], "expires_at": LATER}, cost=0.035)).encode())
    for _ in range(data.draw(st.integers(0, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    taken(Answer(200, {}, bytes(body[: data.draw(st.integers(0, len(body)))]), whole=False))


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"data":' * 100_000,
        b'{"data": {"status": "completed", "result": ' + b"[" * 500 + b"]" * 500 + b"}}",
        b'{"data": {"status": "completed", "cost": ' + b'{"a":' * 400 + b"1" + b"}" * 400 + b"}}",
        b'{"data": {"status": "completed", "id": ' + b"[" * 900 + b"]" * 900 + b"}}",
        b'{"data": {"status": "completed", "result": {"images": [' + b"[" * 800 + b"]" * 800 + b"]}}}",
        b"1" * 5000,
        b'{"error": {"code": ' + b"9" * 4299 + b"}}",
        b'{"data": [{"task_id": ' + b"9" * 4299 + b"}]}",
        b'{"error": "\\ud800"}',
        "\ufeff{}".encode(),
        '{"data": [{"task_id": "task_1"}]}'.encode("utf-16"),
        '{"data": [{"task_id": "task_1"}]}'.encode("utf-32"),
        b'{"a": NaN, "b": -Infinity}',
    ],
)
def test_nasty_bodies(body):
    taken(answer(body))
    taken(answer(body, 400))


def test_an_answer_full_of_task_ids_takes_no_time():
    started = time.process_time()
    outcome = submitted({"data": [{"task_id": number} for number in range(20_000)]})
    assert len(outcome.task_ids) == 20_000
    assert time.process_time() - started < 1


def test_deep_values_are_not_written_out():
    # A reader that is itself called from deep inside has less room to write a value out than to read it.
    depths = range(1, sys.getrecursionlimit(), 7)
    for depth in depths:
        body = b'{"data": {"status": "completed", "cost": ' + b"[" * depth + b"]" * depth + b"}}"
        taken(answer(body))


UNKNOWN_TASKS = [
    (400, {"code": "task_not_exist", "message": "task_not_exist", "data": None}),
    (400, {"error": {"code": "TaskNotFound", "message": ""}}),
    (404, {"error": "nothing here"}),
    (410, {"success": False, "message": "task has expired"}),
    (200, {"code": 400, "message": "Task task_01ABC does not exist"}),
    (422, {"message": "任务不存在"}),
]


@pytest.mark.parametrize(("status", "document"), UNKNOWN_TASKS)
def test_a_service_that_does_not_know_a_task(status, document):
    found = wire.poll(Answer(status, {}, json.dumps(document).encode()), NOW, "task_1")
    assert (found.kind, found.status) == (Polled.NOT_FOUND, status)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"<html>not found</html>"),
        (400, b'{"message": "bad request"}'),
        (500, b'{"message": "task not found"}'),
        (200, b'{"message": "model not found"}'),
    ],
)
def test_a_refusal_that_says_nothing_of_the_task(status, body):
    assert wire.poll(Answer(status, {}, body), NOW, "task_1").kind is Polled.NO_ANSWER


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 2), st.floats(), st.sampled_from([0.035, 1_763_088_289, LATER, 10**400]),
    st.sampled_from(["", "100%", "task_1", '{"id": "task_1", "status": "failed"}', "https://a.example/1.png"]),
    st.just({"id": "task_1", "status": "failed"}), st.just([{"task_id": "task_2"}]),
)  # fmt: skip
LINKS = st.one_of(
    VALUES,
    st.sampled_from(
        ["http://a.example/2.png", "https://a.example/?a=1&amp;b=2", "https://a.example/1.png,https://a.example/3.png"]
    ),
)
ENTRIES = st.fixed_dictionaries({}, optional={"url": LINKS | st.lists(LINKS), "expires_at": VALUES, "error": VALUES})
NUMBERS = ("progress", "cost", "credits_cost", "created", "completed", "estimated_time", "actual_time")
TASKS = st.fixed_dictionaries(
    {"id": st.sampled_from(["task_1", "task_1", "task_2", 1]),
     "status": st.sampled_from(["completed", "failed", "?", "", "submitted", "processing"]) | VALUES},
    optional={"result": st.fixed_dictionaries({"images": st.lists(ENTRIES) | VALUES}) | VALUES}
    | dict.fromkeys(NUMBERS, VALUES),
)  # fmt: skip


@pytest.mark.parametrize("task_id", ["task_1", None])
@given(TASKS | VALUES, st.sampled_from([200, 0, "200"]))
def test_a_documented_poll_means_the_same_with_a_further_member(task_id, data, code):
    quick, searched = (
        wire.poll(answer({"code": code, "data": data, **more}), NOW, task_id, "https://a.example")
        for more in ({}, {"trace": "t"})
    )
    assert replace(quick, kept=None) == replace(searched, kept=None)
    assert (quick.kept is None) == (searched.kept is None)


@given(
    st.lists(st.fixed_dictionaries({"status": VALUES | st.just("submitted"), "task_id": VALUES}), max_size=2) | VALUES
)
def test_a_documented_submission_means_the_same_with_a_further_member(data):
    headers = {"idempotency-replayed": "true"}
    quick, searched = (submitted({"code": 200, "data": data, **more}, headers=headers) for more in ({}, {"trace": "t"}))
    assert replace(quick, kept=None) == replace(searched, kept=None)
    assert (quick.kept is None) == (searched.kept is None)
