"""The endpoints: what each accepts and refuses, and its responses."""

import http.server
import io
import itertools
import json
import queue
import threading
import time

import pytest
from PIL import Image

REFERENCE = "https://example.com/reference.png"
VERSION = {"X-APIMart-Response-Version": "2026-07-27"}


def test_submission_poll_and_image(api):
    answer = api.submit(size="16:9")
    assert answer.status_code == 200
    assert answer.json()["code"] == 200
    [entry] = answer.json()["data"]
    assert entry["status"] == "submitted"
    assert entry["task_id"].startswith("task_")
    data = api.ended(entry["task_id"])
    assert data["id"] == entry["task_id"]
    assert (data["status"], data["progress"]) == ("completed", 100)
    assert (data["cost"], data["credits_cost"]) == (0.035, 0.35)
    [image] = data["result"]["images"]
    assert image["expires_at"] == pytest.approx(data["completed"] + 86400, abs=1)
    [url] = image["url"]
    fetched = api.fetch(url)
    assert fetched.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(fetched.content)).size == (2560, 1440)


def test_a_task_goes_from_submitted_over_processing_to_completed(emulate):
    api = emulate(task_seconds="fixed:0.4")
    task_id = api.task()
    seen = []
    deadline = time.monotonic() + 5
    while "completed" not in seen and time.monotonic() < deadline:
        data = api.poll(task_id).json()["data"]
        if data["status"] not in seen:
            seen.append(data["status"])
        assert 0 <= data["progress"] <= 100
        assert ("cost" in data) == (data["status"] == "completed")
    assert seen == ["submitted", "processing", "completed"]


def test_times_repeat_with_the_seed_and_4k_takes_twice_as_long(emulate):
    def seconds(**settings):
        api = emulate(task_seconds="uniform:5,50", **settings)
        api.task()
        api.task(resolution="4K")
        api.task()
        return [entry["tasks"][0]["seconds"] for entry in api.emulator.ledger()]

    assert seconds(seed=7) == seconds(seed=7) != seconds(seed=8)
    api = emulate(task_seconds="fixed:3")
    api.task(resolution="4K")
    assert api.emulator.ledger()[0]["tasks"][0]["seconds"] == 6


def test_a_lognormal_time_has_its_median_as_the_estimate(emulate):
    api = emulate(task_seconds="lognormal:20,0.3")
    assert api.poll(api.task()).json()["data"]["estimated_time"] == 20


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": "Basic abc"}, 401),
        ({"Authorization": "Bearer wrong-key"}, 401),
        ({"Authorization": "Bearer forbidden"}, 403),
        ({"Authorization": "Bearer anything"}, 200),
    ],
)
def test_authorization(emulate, headers, status):
    api = emulate(forbidden_keys=frozenset({"forbidden"}))
    for path in ("/v1/balance", "/v1/user/balance", "/v1/models", "/v1/model-schema?model=doubao-seedance-4-5"):
        answer = api.fetch(api.emulator.url + path, headers=headers)
        assert answer.status_code == status
    answer = api.bare.post(api.emulator.url + "/v1/images/generations", headers=headers, json={})
    assert answer.status_code == (400 if status == 200 else status)
    if status != 200:
        kind = {401: "authentication_error", 403: "permission_error"}[status]
        assert answer.json()["error"]["type"] == kind
        assert answer.json()["error"]["code"] == status


def test_bad_requests_are_answered_in_the_service_s_form_and_cost_nothing(api):
    answer = api.submit(n="1", size="5:4")
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["type"]) == (400, "invalid_request_error")
    assert "n: must be an integer" in error["message"]
    assert "size: must be one of" in error["message"]
    assert error["param"] == "size"
    assert api.emulator.ledger() == []


@pytest.mark.parametrize("content", [b"", b"{", b"no json", b"\xff\xfe", b"[" * 100_000, b"[]", b"null"])
def test_bodies_that_are_no_request(api, content):
    assert api.http.post("/v1/images/generations", content=content).status_code == 400


def test_bodies_above_the_limit(emulate):
    api = emulate(max_body_bytes=1000)
    assert api.submit(prompt="x" * 1000).status_code == 413
    assert api.http.post("/v1/images/generations", content=iter([b"x" * 600, b"x" * 600])).status_code == 413
    assert api.submit().status_code == 200


def test_unknown_fields_in_strict_and_lenient_mode(emulate):
    api = emulate()
    assert api.submit(quality="hd").status_code == 400
    api.emulator.configure(strict=False)
    assert api.submit(quality="hd", output_format="png", response_format="url").status_code == 200


def test_references_are_checked_and_auto_follows_the_first(api, data_uri, picture):
    assert api.submit(image_urls=[data_uri(100, 20)]).status_code == 400
    wide = api.urls(image_urls=[data_uri(210, 90), REFERENCE], size="auto")
    assert Image.open(io.BytesIO(api.fetch(wide[0]).content)).size == (3024, 1296)
    uploaded = api.http.post("/v1/uploads/images", files={"file": ("a.png", picture(90, 120))}).json()["url"]
    high = api.urls(image_urls=[uploaded], size="auto")
    assert Image.open(io.BytesIO(api.fetch(high[0]).content)).size == (1728, 2304)
    unknown = api.urls(image_urls=[REFERENCE], size="auto")
    assert Image.open(io.BytesIO(api.fetch(unknown[0]).content)).size == (2048, 2048)


def test_uploads(api, picture):
    for kind, content_type in (
        ("PNG", "image/png"),
        ("JPEG", "image/jpeg"),
        ("WEBP", "image/webp"),
        ("GIF", "image/gif"),
    ):
        data = picture(kind=kind)
        answer = api.http.post("/v1/uploads/images", files={"file": ("my.bin", data, "application/octet-stream")})
        assert answer.status_code == 200
        document = answer.json()
        assert (document["filename"], document["bytes"]) == ("my.bin", len(data))
        assert document["content_type"] == content_type
        assert document["created_at"] == pytest.approx(time.time(), abs=5)
        fetched = api.fetch(document["url"])
        assert (fetched.content, fetched.headers["content-type"]) == (data, content_type)
    assert api.emulator.stats()["upload"] == 4


def test_refused_uploads(api, picture):
    assert api.http.post("/v1/uploads/images", files={"file": ("a.png", b"junk")}).status_code == 400
    assert api.http.post("/v1/uploads/images", files={"image": ("a.png", picture())}).status_code == 400
    assert api.http.post("/v1/uploads/images", content=b"junk").status_code == 400
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    assert api.http.post("/v1/uploads/images", content=b"--y\r\n", headers=broken).status_code == 400
    large = picture() + bytes(20 * 1024 * 1024)
    assert api.http.post("/v1/uploads/images", files={"file": ("a.png", large)}).status_code == 413


def test_an_expired_upload_is_not_a_reference(emulate, picture):
    api = emulate(upload_seconds=1e-6)
    url = api.http.post("/v1/uploads/images", files={"file": ("a.png", picture())}).json()["url"]
    assert "no such upload" in api.submit(image_urls=[url]).json()["error"]["message"]
    assert api.fetch(url).status_code == 403
    assert api.fetch(url.replace(".png", ".gif")).status_code == 404


def test_balance(emulate):
    api = emulate(balance_usd=10.0)
    api.task()
    expected = {
        "success": True,
        "remain_balance": 9.965,
        "remain_credits": 99.65,
        "used_balance": 0.035,
        "used_credits": 0.35,
        "unlimited_quota": False,
    }
    assert api.balance() == expected
    assert api.http.get("/v1/user/balance").json() == expected


@pytest.mark.parametrize("unlimited", [None, -1])
def test_unlimited_balance(emulate, unlimited):
    api = emulate(balance_usd=unlimited)
    api.task()
    balance = api.balance()
    assert (balance["remain_balance"], balance["unlimited_quota"]) == (-1, True)
    assert balance["used_balance"] == 0.035


def test_a_balance_too_low_buys_nothing(emulate):
    api = emulate(balance_usd=0.08)
    assert api.submit(n=3, image_urls=[REFERENCE]).status_code == 402
    assert api.submit(n=2, image_urls=[REFERENCE]).status_code == 200
    answer = api.submit()
    assert answer.json()["error"]["type"] == "payment_required"
    assert [entry["images"] for entry in api.emulator.ledger()] == [2]


def test_the_balance_pays_to_the_last_cent(emulate):
    api = emulate(balance_usd=0.35)
    assert [api.submit().status_code for _ in range(11)] == [200] * 10 + [402]
    assert api.balance()["remain_balance"] == 0


def test_models_and_their_schema(api):
    models = [each["id"] for each in api.http.get("/v1/models").json()["data"]]
    assert len(models) == 4
    for model in models:
        document = api.http.get("/v1/model-schema", params={"model": model}).json()
        assert document["data"]["schema"]["required"] == ["model", "prompt"]
    assert api.http.get("/v1/model-schema", params={"model": "other"}).status_code == 404


def test_unknown_paths_and_tasks(api):
    assert api.http.get("/v1/nothing").json()["error"]["code"] == 404
    assert api.http.get("/v1/images/generations").status_code == 405
    assert api.poll("task_unknown").status_code == 404
    assert api.emulator.stats()["unknown_path"] == 2


def test_the_versioned_envelope_is_for_those_who_ask(emulate):
    api = emulate()
    answer = api.submit(key="k", headers=VERSION)
    document = answer.json()
    assert answer.headers["X-APIMart-Response-Version"] == "2026-07-27"
    assert document["request_id"].startswith("req_")
    assert document["data"]["object"] == "generation.task"
    assert document["data"]["status"] == "pending"
    again = api.submit(key="k", headers=VERSION)
    assert (again.json(), again.headers["Idempotency-Replayed"]) == (document, "true")
    assert api.ended(document["data"]["id"])["status"] == "completed"
    api.emulator.configure(versioned=False)
    assert isinstance(api.submit(headers=VERSION).json()["data"], list)


def test_a_key_that_leaks_to_the_images_is_counted(api):
    [url] = api.urls()
    api.fetch(url)
    assert api.emulator.stats()["leaked_credentials"] == 0
    api.fetch(url, headers={"Authorization": "Bearer a-key"})
    assert api.emulator.stats()["leaked_credentials"] == 1
    assert api.emulator.requests()[-1]["authorization"] is True


def test_images_from_another_host(emulate):
    api = emulate(image_host="localhost")
    [url] = api.urls()
    assert url.startswith("http://localhost:")
    assert api.fetch(url).status_code == 200


ODDITIES = {
    "202": ({"submit_status": 202}, lambda answer, _: answer.status_code == 202),
    "pending": ({"submitted_word": "pending"}, lambda answer, _: answer.json()["data"][0]["status"] == "pending"),
    "url string": ({"url_form": "string"}, lambda _, data: isinstance(data["result"]["images"][0]["url"], str)),
    "one entry": (
        {"image_grouping": "one_entry"},
        lambda _, data: [len(each["url"]) for each in data["result"]["images"]] == [2],
    ),
    "twice": (
        {"duplicate_urls": True},
        lambda _, data: (
            len(data["result"]["images"]) == 4 and len({each["url"][0] for each in data["result"]["images"]}) == 2
        ),
    ),
    "strings": (
        {"numbers_as_strings": True},
        lambda answer, data: (
            answer.json()["code"] == "200"
            and (data["progress"], data["cost"]) == ("100", "0.07")
            and data["result"]["images"][0]["expires_at"].isdigit()
        ),
    ),
    "omit": (
        {"omit": ("expires_at", "cost", "credits_cost", "progress")},
        lambda _, data: (
            not {"cost", "credits_cost", "progress"} & set(data) and "expires_at" not in data["result"]["images"][0]
        ),
    ),
    "fewer": ({"deliver": -1}, lambda _, data: (len(data["result"]["images"]), data["cost"]) == (1, 0.035)),
    "more": ({"deliver": 2}, lambda _, data: (len(data["result"]["images"]), data["cost"]) == (4, 0.07)),
    "none": ({"deliver": -15}, lambda _, data: data["result"]["images"] == []),
    "wrong extension": ({"url_extension": "wrong"}, lambda _, data: ".png?" in data["result"]["images"][0]["url"][0]),
    "no extension": ({"url_extension": "none"}, lambda _, data: "/0?" in data["result"]["images"][0]["url"][0]),
    "png": ({"image_format": "png"}, lambda _, data: ".png?" in data["result"]["images"][0]["url"][0]),
    "mixed": (
        {"image_format": "mixed"},
        lambda _, data: {each["url"][0].partition("?")[0][-3:] for each in data["result"]["images"]} == {"png", "jpg"},
    ),
}


@pytest.mark.parametrize(("settings", "check"), ODDITIES.values(), ids=ODDITIES.keys())
@pytest.mark.parametrize("way", ["setting", "fault"])
def test_oddities_by_setting_and_by_fault(emulate, settings, check, way):
    api = emulate(**(settings if way == "setting" else {}))
    if way == "fault":
        api.emulator.set_faults([{"on": "submit", "action": "oddity", "set": settings}])
    answer = api.submit(n=2, image_urls=[REFERENCE])
    data = api.ended(answer.json()["data"][0]["task_id"])
    assert check(answer, data)
    if data["result"]["images"]:
        url = data["result"]["images"][0]["url"]
        fetched = api.fetch(url if isinstance(url, str) else url[0])
        assert Image.open(io.BytesIO(fetched.content)).get_format_mimetype() == fetched.headers["content-type"]


def test_a_status_word_for_work(emulate):
    api = emulate(task_seconds="fixed:30", processing_word="in_progress", submitted_word="in_progress")
    assert api.poll(api.task()).json()["data"]["status"] == "in_progress"


def test_several_entries_share_the_images_under_one_bill(emulate):
    api = emulate(submit_entries=2)
    entries = api.submit(n=3, image_urls=[REFERENCE]).json()["data"]
    assert [len(api.ended(each["task_id"])["result"]["images"]) for each in entries] == [2, 1]
    [charge] = api.emulator.ledger()
    assert charge["images"] == 3
    one = api.submit().json()["data"]
    assert one[0]["task_id"] == one[1]["task_id"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"error": {"code": 404, "message": "task not found", "type": "not_found_error"}}),
        (
            {"error_code_form": "string"},
            {"error": {"code": "404", "message": "task not found", "type": "not_found_error"}},
        ),
        ({"error_form": "string"}, {"error": "task not found"}),
        ({"error_form": "absent"}, {"success": False, "message": "task not found"}),
    ],
)
def test_forms_of_refusals(emulate, settings, expected):
    assert emulate(**settings).poll("task_unknown").json() == expected


def test_a_lone_surrogate_in_a_prompt_survives(api):
    answer = api.http.post(
        "/v1/images/generations",
        content=json.dumps({"model": "doubao-seedance-4-5", "prompt": "\ud800 fox"}).encode(),
    )
    data = api.ended(answer.json()["data"][0]["task_id"])
    assert api.fetch(data["result"]["images"][0]["url"][0]).status_code == 200
    assert api.emulator.ledger()[0]["request"]["prompt"] == "\ud800 fox"


@pytest.fixture
def receiver():
    """Run a web server for callbacks that refuses the first and accepts the others; yield its URL and the requests."""
    came, calls = queue.Queue(), itertools.count()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(500 if next(calls) == 0 else 200)
            self.end_headers()
            came.put((self.path, body))

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", came
        server.shutdown()
        thread.join()


def test_a_webhook_is_called_until_it_takes_the_document(emulate, receiver):
    url, came = receiver
    api = emulate(strict=False, webhook_retries=(0.01, 0.01))
    api.emulator.set_faults([{"on": "submit", "action": "fail", "prompt": "fail"}])
    done, failed = api.task(webhook=url + "/hook"), api.task(webhook=url + "/hook", prompt="fail")
    api.task(webhook="http://example.com/hook")
    calls = [came.get(timeout=5) for _ in range(3)]
    assert {path for path, _ in calls} == {"/hook/callback"}
    documents = {document["data"]["id"]: document["data"] for _, document in calls}
    assert documents[done]["status"] == "completed"
    assert api.fetch(documents[done]["result"]["images"][0]["url"][0]).status_code == 200
    assert documents[failed]["status"] == "failed"
    assert api.submit(webhook=5).status_code == 200


def test_no_url_breaks_a_handler(api):
    [result] = api.urls()
    path, query = result.split("?")
    long = "9" * 5000
    for url, status in (
        (f"{path.rpartition('/')[0]}/{long}.jpg?{query}", 404),
        (f"{path}?expires={long}&token=0", 403),
        (f"{path}?expires=²&token=0", 403),
        (f"{path}?hop=²", 302),
        (f"{api.emulator.url}/emulator/ledger?first=²", 200),
        (f"{api.emulator.url}/emulator/ledger?first={long}", 200),
    ):
        assert api.fetch(url, follow_redirects=False).status_code == status
    deep = b"[" * 100_000
    assert api.bare.put(f"{api.emulator.url}/emulator/faults", content=deep).status_code == 400
