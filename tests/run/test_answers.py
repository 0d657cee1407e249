"""Answers that nobody expected: what is read from them, what is kept of them, and what they say of the service."""

import functools
import io
import itertools
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from seedream_batch.engine import service_health
from seedream_batch.engine import submitter as submit_module
from seedream_batch.validate.schemas import validator

KEY = "canary-key-7f3a9b2c"
JOB = """\
version: 1
name: test
matrix: {name: [%s]}
request: {prompt: "a picture of {{ name }}"}
output: {dir: out, path: "{{ name }}"}
"""
PAGE = b"<html><title>Attention Required!</title>You have been blocked</html>"


@functools.cache
def picture(shade):
    out = io.BytesIO()
    Image.new("RGB", (2048, 2048), (shade % 256, 80, 120)).save(out, "PNG", compress_level=1)
    return out.getvalue()


class Service:
    """A service whose answers a test replaces; an answer is a status, a body and headers."""

    def __init__(self):
        self.seen = Counter()
        self.bills = []
        self.uploads = 0
        self.submit = self.accept
        self.poll = self.complete
        self.link = lambda: f"{self.url}/up/{self.uploads}.png"
        self.upload = lambda: (200, {"url": self.link()})
        self.balance = lambda: (200, {"success": True, "remain_balance": 100})
        self.image = lambda number: (200, picture(number))
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self._answer(*service.get(self.path))

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self._answer(*service.post(self.path, body))

            def _answer(self, status, body, headers=None):
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def get(self, path):
        if path.endswith("/balance"):
            return self.balance()
        if "/tasks/" in path:
            self.seen["poll"] += 1
            return self.poll(path.rpartition("/")[2].partition("?")[0])
        self.seen["image"] += 1
        return self.image(int(path.rpartition("/")[2]))

    def post(self, path, body):
        if path.endswith("/uploads/images"):
            self.uploads += 1
            return self.upload()
        self.seen["submit"] += 1
        return self.submit(json.loads(body))

    def bill(self, request):
        self.bills.append(request)
        return f"task_{len(self.bills):04}"

    def accept(self, request):
        return 200, {"code": 200, "data": [{"status": "submitted", "task_id": self.bill(request)}]}

    def complete(self, task_id):
        images = [{"url": [f"{self.url}/image/{int(task_id[-4:])}"]}]
        return 200, {"data": {"id": task_id, "status": "completed", "cost": 0.035, "result": {"images": images}}}


@pytest.fixture
def odd(bench, monkeypatch):
    """A bench whose service gives odd answers; `odd.service` is that."""
    bench.service = service = Service()
    monkeypatch.setenv("APIMART_BASE_URL", service.url)
    monkeypatch.setenv("APIMART_API_KEY", KEY)
    bench.write(JOB % "a")
    yield bench
    service.close()


def several(bench, count):
    names = [f"p{number:03}" for number in range(count)]
    bench.write(JOB % ", ".join(names))
    return names


def refusing(status, body, headers=None):
    return lambda _request: (status, body, headers)


# Answers that are kept


def vague(service):
    """Bills, and hides the id where nobody would look for it."""

    def submit(request):
        return 200, {"success": True, "note": f"made as {service.bill(request)}, key {KEY}", "authorization": "abcdef"}

    return submit


def test_an_answer_without_an_id_is_kept_and_shown(odd):
    odd.service.submit = vague(odd.service)
    assert odd.run().code == 4
    [(kind, status, body, why)] = odd.rows("SELECT kind, status, body, why FROM answers")
    assert (kind, status, why) == ("submission", 200, "no task id in the answer")
    assert "task_0001" in body
    assert KEY not in body
    assert "abcdef" not in body
    shown = odd.call("status")
    assert "HTTP 200" in shown.out
    assert "task_0001 (in the answer)" in shown.out
    told = json.loads(odd.call("status", "--json").out)
    assert [error.message for error in validator("status").iter_errors(told)] == []
    assert told["uncertain"][0]["ids_in_answers"] == ["task_0001"]
    assert told["answers"][0]["body"] == body
    assert told["answers"][0]["possible_ids"] == ["task_0001"]


def test_an_id_from_a_kept_answer_finds_its_task(odd):
    several(odd, 3)
    odd.service.submit = vague(odd.service)
    assert odd.run().code == 4
    for task_id in ("task_0001", "task_0002", "task_0003"):
        done = odd.call("resolve", "--task-id", task_id)
        assert done.code == 0, done
    for path, task_ids in odd.rows("SELECT paths, task_ids FROM tasks"):
        number = int(json.loads(task_ids)[0][-4:]) - 1
        assert odd.service.bills[number]["prompt"].endswith(json.loads(path)[0])
    assert odd.run().code == 0
    assert len(odd.files()) == len(odd.service.bills) == 3


def test_few_answers_of_a_task_are_kept_and_of_each_the_first_part(odd, monkeypatch):
    monkeypatch.setattr("seedream_batch.pacing.poll_schedule.SLOWER", 1.1)
    word = iter(range(100))

    def poll(task_id):
        number = next(word)
        if number > 8:
            return odd.service.complete(task_id)
        return 200, {"data": {"id": task_id, "status": f"stage {number}", "log": "x" * 100_000}}

    odd.service.poll = poll
    assert odd.run().code == 0
    rows = odd.rows("SELECT why, length(body), length FROM answers ORDER BY id")
    assert [why for why, _, _ in rows] == [f"unknown task status 'stage {number}'" for number in range(4, 9)]
    assert all(kept == 64 * 1024 and whole > 100_000 for _, kept, whole in rows)


def test_bytes_that_no_database_takes_are_kept(odd):
    odd.service.submit = refusing(200, b'\xff\xfe\0 "oops" \xed\xa0\x80', {"X-Note": "\x7f"})
    assert odd.run().code == 4
    assert "Unclear answers from the service (1)" in odd.call("status").out


# One answer does not describe the whole service


def only(names, answer, service):
    """Answers requests for some prompts in this way, and accepts the others."""
    return lambda request: answer if request["prompt"].split()[-1] in names else service.accept(request)


@pytest.mark.parametrize(
    "answer",
    [
        (403, PAGE),
        (406, PAGE),
        (451, b""),
        (403, {"error": {"code": 403, "message": "not for you", "type": "permission_error"}}),
        (422, {"detail": [{"loc": ["body"], "msg": "prompt is too long"}]}),
        (200, {"code": 400, "msg": "prompt is too long", "data": None}),
    ],
)
@pytest.mark.parametrize("balance", [200, 404])
def test_what_is_refused_for_one_prompt_fails_that_one(odd, answer, balance):
    names = several(odd, 4)
    odd.service.submit = only(names[2:3], answer, odd.service)
    if balance == 404:
        odd.service.balance = lambda: (404, {"error": {"message": "not found"}})
    done = odd.run()
    assert done.code == 3, done
    assert odd.states() == {"succeeded": 3, "failed": 1}
    assert odd.rows("SELECT reserved FROM totals") == [(0,)]


@pytest.mark.thorough
def test_a_page_with_a_429_for_one_prompt_fails_that_one(odd, monkeypatch):
    monkeypatch.setattr(submit_module, "MOST_PAGES", 2)
    names = several(odd, 6)
    odd.write(odd.job.read_text() + "run: {max_in_flight: 2}\n")
    odd.service.submit = only(names[1:2], (429, PAGE, {"Retry-After": "0"}), odd.service)
    done = odd.run()
    assert done.code == 3, done
    assert odd.states() == {"succeeded": 5, "failed": 1}


def test_a_wall_in_front_of_everything_stops_soon(odd):
    several(odd, 60)
    odd.service.submit = refusing(403, PAGE)
    done = odd.run()
    assert done.code == 3, done
    assert odd.service.seen["submit"] < 20
    assert set(odd.states()) == {"failed", "planned"}
    assert "a firewall" in odd.call("status").out


@pytest.mark.parametrize(
    "answer",
    [
        (403, {"error": {"code": "insufficient_user_quota", "message": "pre-deduction failed, quota left: $0.01"}}),
        (429, {"error": {"code": "insufficient_quota", "message": "You exceeded your current quota."}}),
        (429, {"error": {"message": "Quota exceeded"}}, {"Retry-After": "1"}),
        (400, {"success": False, "message": "余额不足, 请充值"}),
        (200, {"code": 402, "msg": "Credits insufficient. Please top up.", "data": None}),
        (200, {"code": 1008, "message": "insufficient balance", "data": None}),
        (402, PAGE),
        (500, {"error": {"message": "insufficient balance"}}),
    ],
)
def test_too_little_money_is_told_in_many_ways(odd, answer):
    several(odd, 8)
    odd.service.balance = lambda: (404, {})
    odd.service.submit = refusing(*answer)
    done = odd.run()
    assert done.code == 5, done
    assert odd.states() == {"planned": 8}


@pytest.mark.parametrize(
    ("status", "balance", "code"), [(401, 401, 6), (403, 403, 6), (401, 404, 6), (401, 200, 7), (403, 200, 3)]
)
def test_the_key_is_refused_only_if_the_balance_endpoint_refuses_it(odd, status, balance, code):
    several(odd, 40)
    answers = iter([200])
    good = {"success": True, "remain_balance": 100}
    odd.service.balance = lambda: (next(answers, balance), good if balance == 200 else {"error": {"message": "no"}})
    odd.service.submit = refusing(status, {"error": {"code": status, "message": "no"}})
    done = odd.run()
    assert done.code == code, done
    assert ("rejected the API key" in done.err) == (code == 6)
    assert odd.service.seen["submit"] < 20


def test_a_key_that_may_not_see_the_account_may_buy(odd):
    several(odd, 3)
    odd.service.balance = lambda: (403, {"error": {"message": "not allowed", "type": "permission_error"}})
    done = odd.run()
    assert done.code == 0, done
    assert "cannot check the balance" in done.err


def test_a_model_that_is_not_offered_leaves_nothing_in_doubt(odd):
    several(odd, 40)
    told = {"error": {"code": "model_not_found", "message": "No available channel for model x"}}
    odd.service.submit = refusing(503, told)
    done = odd.run()
    assert done.code == 7, done
    assert "No available channel" in done.err
    assert odd.states() == {"planned": 40}
    assert odd.service.seen["submit"] < 10


@pytest.mark.parametrize("between", [429, 503])
def test_a_model_that_is_not_offered_is_noticed_between_other_answers(odd, between):
    several(odd, 40)
    told = {"error": {"code": "model_not_found", "message": "No available channel for model x"}}
    other = {"error": {"code": "idempotency_unavailable", "message": "wait"}}
    answers = itertools.cycle([(between, other, None), (503, told, None)])
    odd.service.submit = lambda _request: next(answers)
    done = odd.run("--max-duration", "60s")
    assert done.code == 7, done
    assert "rejects every submission" in done.err
    assert odd.states() == {"planned": 40}


def test_a_firewall_that_catches_a_poll_only_delays_the_task(odd):
    answers = iter([(403, PAGE), (401, PAGE), (403, {"error": {"message": "no"}})])
    odd.service.poll = lambda task_id: next(answers, None) or odd.service.complete(task_id)
    assert odd.run().code == 0
    assert odd.states() == {"succeeded": 1}


# Refusals


def test_refusals_for_content_stop_nothing(odd):
    names = several(odd, 40)
    told = (400, {"error": {"code": 400, "message": "输入内容可能包含敏感信息"}})
    odd.service.submit = only(names[:34], told, odd.service)
    assert odd.run().code == 3
    assert odd.states() == {"failed": 34, "succeeded": 6}


@pytest.mark.thorough
def test_refusals_for_different_reasons_stop_nothing(odd):
    names = several(odd, 40)

    def submit(request):
        name = request["prompt"].split()[-1]
        if name in names[:34]:
            reason = ("is too vague", "has too few nouns", "cannot be drawn")[int(name[1:]) % 3]
            return 400, {"error": {"message": f"the prompt '{name}' {reason}"}}
        return odd.service.accept(request)

    odd.service.submit = submit
    assert odd.run().code == 3
    assert odd.states() == {"failed": 34, "succeeded": 6}


def test_the_same_refusal_of_everything_stops_the_run(odd):
    several(odd, 200)
    numbers = iter(range(1000))
    odd.service.submit = lambda _: (400, {"error": {"message": f"no such size (request {next(numbers)})"}})
    done = odd.run()
    assert done.code == 3, done
    assert "for the same reason" in done.err
    assert 20 <= odd.service.seen["submit"] < 60


# A gateway that is there, and a service that is not


@pytest.mark.parametrize("returns", [True, False])
def test_an_outage_behind_a_gateway_leaves_few_tasks_in_doubt(odd, monkeypatch, returns):
    monkeypatch.setattr(service_health, "PROBING", 30.0)
    monkeypatch.setattr(service_health, "OUTAGE_LIMIT", 30.0 if returns else 0.5)
    several(odd, 30)
    odd.write(odd.job.read_text() + "run: {max_in_flight: 2}\n")
    service = odd.service
    probes = []

    def or_down(name, answer):
        def reply(*args):
            is_down = bool(probes) or (name == "submit" and len(service.bills) >= 4)
            if returns and len(probes) > 4:
                return answer(*args)
            if is_down and name in {"submit", "balance"}:
                probes.append(name)
            return (503, PAGE) if is_down else answer(*args)

        return reply

    for name in ("submit", "poll", "balance"):
        setattr(service, name, or_down(name, getattr(service, name)))
    done = odd.run()
    states = odd.states()
    assert 1 <= states["uncertain"] <= 2, states
    if returns:
        assert done.code == 4, done
        assert states["succeeded"] == 30 - states["uncertain"]
    else:
        assert done.code in {4, 7}, done
        assert "no usable answer" in done.err
        assert states["planned"] >= 20


def test_an_outage_from_the_start_leaves_one_task_in_doubt(odd, monkeypatch):
    monkeypatch.setattr(service_health, "PROBING", 30.0)
    monkeypatch.setattr(service_health, "OUTAGE_LIMIT", 0.5)
    several(odd, 30)
    submitting = threading.Semaphore(0)

    def submit(_request):
        # Slow, as gateways in trouble are: others could be sent meanwhile.
        submitting.acquire(timeout=0.3)
        return 503, PAGE

    odd.service.submit = submit
    odd.service.balance = lambda: (503, PAGE)
    done = odd.run()
    assert done.code in {4, 7}, done
    assert odd.states() == {"uncertain": 1, "planned": 29}


# Uploads that the service has lost


@pytest.fixture
def with_reference(odd):
    Image.new("RGB", (64, 64), "red").save(odd.folder / "mug.png")
    odd.write(JOB.replace('name }}"}\noutput', 'name }}", image_urls: [mug.png]}\noutput') % "a, b, c, d")
    return odd


@pytest.mark.parametrize("status", [400, 422])
def test_an_upload_that_the_service_lost_is_uploaded_again(with_reference, status):
    odd = with_reference
    assert odd.run("--limit", "1").code == 0
    lost = odd.service.uploads

    def submit(request):
        if any(url.endswith(f"/up/{lost}.png") for url in request["image_urls"]):
            return status, {"error": {"code": status, "message": "image_url could not be downloaded: HTTP 404"}}
        return odd.service.accept(request)

    odd.service.submit = submit
    done = odd.run()
    assert done.code == 0, done
    assert odd.service.uploads == lost + 1
    assert odd.states() == {"succeeded": 4}
    assert len(odd.service.bills) == 4
    keys = odd.rows("SELECT count(*), count(DISTINCT key), count(DISTINCT task) FROM attempts")
    assert keys[0][0] == keys[0][1] > keys[0][2], "another body goes out under another key"


@pytest.mark.parametrize("refusal", [(401, b"<html>log in</html>"), (401, {}), (403, {"error": "blocked"})])
def test_an_upload_refused_once_is_not_the_key_if_the_balance_is_given(with_reference, refusal):
    odd = with_reference
    answers = iter([refusal])
    odd.service.upload = lambda: next(answers, (200, {"url": odd.service.link()}))
    done = odd.run()
    assert done.code == 0, done
    assert odd.states() == {"succeeded": 4}


@pytest.mark.parametrize(("key_is_refused", "code"), [(False, 7), (True, 6)])
def test_uploads_that_are_always_refused_end_the_run(with_reference, key_is_refused, code):
    odd = with_reference
    odd.service.upload = lambda: (401, {"error": {"message": "not allowed"}})
    if key_is_refused:
        balance, asked = odd.service.balance, iter([True])
        # The first request is made before anything is bought.
        odd.service.balance = lambda: balance() if next(asked, False) else (401, {})
    done = odd.run()
    assert done.code == code, done
    assert not odd.service.bills


@pytest.mark.parametrize("links", ["another link", "the same link"])
def test_uploads_that_are_always_lost_are_uploaded_twice_at_most(with_reference, links):
    odd = with_reference
    if links == "the same link":
        odd.service.link = lambda: f"{odd.service.url}/up/same.png"
    odd.service.submit = refusing(400, {"error": {"message": "failed to download the reference image"}})
    assert odd.run().code == 3
    assert odd.states() == {"failed": 4}
    assert odd.service.uploads == 2


def test_uploads_that_are_refused_do_not_mean_the_key(with_reference, monkeypatch):
    odd = with_reference
    monkeypatch.setattr(submit_module, "MOST_UPLOADS", 2)
    odd.service.upload = lambda: (403, {"error": {"message": "uploads are not part of this plan"}})
    done = odd.run()
    assert done.code == 7, done
    assert "uploads are not part of this plan" in done.err
    assert "rejected the API key" not in done.err
    assert odd.states() == {"planned": 4}


# Pauses


def test_long_pauses_are_told(odd, monkeypatch):
    monkeypatch.setattr(service_health, "LONG_PAUSE", 0.1)
    answers = iter([(429, {"error": {"message": "slow down"}}, {"Retry-After": "0.2"})] * 3)
    odd.service.submit = lambda request: next(answers, None) or odd.service.accept(request)
    done = odd.run()
    assert done.code == 0, done
    assert done.err.count("rate limited by the service") == 1
    assert "HTTP 429: slow down" in done.err


# What answers is not the service


@pytest.mark.parametrize(
    "answer", [(404, PAGE), (404, {"detail": "Not Found"}), (404, b"404 page not found"), (200, PAGE)]
)
def test_an_address_without_the_service_leaves_nothing_in_doubt(odd, answer):
    several(odd, 8)
    odd.service.balance = lambda: answer
    odd.service.submit = refusing(*answer)
    done = odd.run()
    assert done.code == 7, done
    assert "APIMART_BASE_URL" in done.err
    assert odd.states() == {"planned": 8}
    assert odd.service.seen["submit"] <= 4


def test_an_answer_that_differs_from_that_about_the_balance_is_in_doubt(odd):
    odd.service.balance = lambda: (404, {"detail": "Not Found"})
    odd.service.submit = refusing(404, {"detail": "upstream: not found"})
    assert odd.run().code == 4
    assert odd.states() == {"uncertain": 1}


# Image hosts


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_length_that_is_too_long_costs_no_image(odd, form):
    out = io.BytesIO()
    with Image.open(io.BytesIO(picture(1))) as image:
        image.save(out, form)
    data = out.getvalue()
    odd.service.image = lambda _: (200, data, {"Content-Length": str(len(data) + 7), "Connection": "close"})
    assert odd.run().code == 0
    assert odd.rows("SELECT state, bytes FROM images") == [("stored", len(data))]
    # What is cut off has no end, and is tried again.
    odd.service.image = lambda number: next(cut, (200, picture(number)))
    cut = iter([(200, data[:-1], {"Content-Length": str(len(data)), "Connection": "close"})])
    odd.write(JOB % "b")
    assert odd.run().code == 0
    assert odd.service.seen["image"] == 3
