"""The ledger, what is rebuilt from it, the control endpoints, and the rate limit."""

import json
import os
import signal
import subprocess
import sys
import time

import httpx
import pytest
from examples import some

from seedream_batch.emulator import Emulator, EmulatorConfig, LedgerError
from seedream_batch.emulator.http.state import TokenBucket
from seedream_batch.emulator.world.ledger import Ledger

REFERENCE = "https://example.com/a.png"


def control(api, method, path, **more):
    return api.bare.request(method, f"{api.emulator.url}/emulator/{path}", **more)


def test_an_entry_of_the_ledger(api):
    api.submit(key="k", size="16:9")
    [entry] = api.emulator.ledger()
    assert entry["event"] == "charge"
    assert (entry["key"], entry["images"], entry["usd"]) == ("k", 1, 0.035)
    assert entry["request"] == {"model": "doubao-seedance-4-5", "prompt": "a fox in the snow", "size": "16:9"}
    assert entry["at"] == pytest.approx(time.time(), abs=5)
    assert entry["body_sha256"] == api.emulator.requests()[0]["body_sha256"]
    assert control(api, "GET", "ledger").json() == [entry]
    assert control(api, "GET", "ledger?first=1").json() == []


def test_the_ledger_adds_up_to_the_balance(api):
    api.emulator.set_faults(
        [
            {"on": "submit", "action": "fail", "prompt": "^fail"},
            {"on": "submit", "action": "oddity", "set": {"deliver": -2}, "prompt": "^part"},
        ]
    )
    ids = [
        api.task(prompt=prompt, n=n, image_urls=[REFERENCE])
        for prompt in ("whole", "fail", "part", "fail again")
        for n in (1, 3, 7)
    ]
    costs = [api.ended(task_id)["cost"] for task_id in ids]
    ledger = api.emulator.ledger()
    events = [entry["event"] for entry in ledger]
    assert (events.count("charge"), events.count("refund"), events.count("settle")) == (12, 6, 2)
    total = round(sum(entry["usd"] for entry in ledger), 6)
    balance = api.balance()
    assert total == balance["used_balance"] == round(sum(costs), 6) == 0.63
    assert balance["remain_balance"] == pytest.approx(100 - total)


def test_the_ledger_is_complete_without_anybody_asking(emulate, tmp_path):
    api = emulate(state_dir=tmp_path)
    api.emulator.set_faults([{"on": "submit", "action": "fail"}])
    api.task()
    path = tmp_path / "ledger.jsonl"
    deadline = time.monotonic() + 5
    while len(path.read_text().splitlines()) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert json.loads(path.read_text().splitlines()[1])["event"] == "refund"


def test_long_data_uris_are_shortened_in_the_ledger(api, data_uri):
    uri = data_uri(1500, 1500)
    api.task(image_urls=[uri])
    [kept] = api.emulator.ledger()[0]["request"]["image_urls"]
    assert kept.endswith(f"({len(uri)} characters)")


def everything(api, ids):
    documents = [api.ended(task_id) for task_id in ids]
    urls = [image["url"][0] for document in documents for image in document.get("result", {"images": []})["images"]]
    for document in documents:
        document.pop("result", None)
    return documents, [api.fetch(url).content for url in urls], api.balance(), api.emulator.ledger()


@pytest.mark.parametrize("torn", [b"", b'{"at": 17', b'{"at": 17}x\n', b"\x00\x00\x00"])
def test_a_restart_on_the_same_folder(emulate, tmp_path, picture, torn):
    faults = (
        {"on": "submit", "action": "fail", "prompt": "fail"},
        {"on": "submit", "action": "oddity", "set": {"deliver": -1, "image_format": "png"}, "prompt": "part"},
    )
    api = emulate(state_dir=tmp_path, faults=faults)
    upload = api.http.post("/v1/uploads/images", files={"file": ("a.png", picture())}).json()["url"]
    first = api.submit(key="k")
    ids = [
        first.json()["data"][0]["task_id"],
        api.task(prompt="fail"),
        api.task(prompt="part", n=3, image_urls=[upload]),
    ]
    before = everything(api, ids)
    api.emulator.stop()
    with (tmp_path / "ledger.jsonl").open("ab") as ledger:
        ledger.write(torn)

    api = emulate(state_dir=tmp_path, seed=99, image_size="exact")
    assert everything(api, ids) == before
    replay = api.submit(key="k")
    assert (replay.content, replay.headers["Idempotency-Replayed"]) == (first.content, "true")
    assert api.submit(key="k", prompt="other").status_code == 409
    # A URL with the earlier port still refers to the upload.
    assert api.submit(image_urls=[upload]).status_code == 200
    assert api.submit(image_urls=[upload[:-8] + "0000.png"]).status_code == 400
    assert api.emulator.ledger()[-1]["tasks"][0]["number"] == 4


def test_a_task_continues_after_a_restart(emulate, tmp_path):
    api = emulate(state_dir=tmp_path, task_seconds="fixed:0.3", faults=({"on": "submit", "action": "fail"},))
    task_id = api.task()
    api.emulator.stop()
    api = emulate(state_dir=tmp_path)
    assert api.ended(task_id)["status"] == "failed"
    assert [entry["event"] for entry in api.emulator.ledger()] == ["charge", "refund"]
    api.emulator.stop()
    assert emulate(state_dir=tmp_path).balance()["used_balance"] == 0


def test_a_late_failure_is_remembered(emulate, tmp_path):
    api = emulate(state_dir=tmp_path, faults=({"on": "submit", "action": "late_failure"},))
    task_id = api.task()
    api.ended(task_id)
    assert api.poll(task_id).json()["data"]["status"] == "failed"
    api.emulator.stop()
    assert emulate(state_dir=tmp_path).poll(task_id).json()["data"]["status"] == "failed"


def test_one_emulator_at_a_time_on_a_folder(emulate, tmp_path):
    emulate(state_dir=tmp_path)
    with pytest.raises(LedgerError, match="another emulator"):
        Emulator(EmulatorConfig(state_dir=tmp_path)).start()


def test_a_file_that_is_not_a_ledger_stays_unchanged(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_text("my notes\nmore of them\n")
    with pytest.raises(LedgerError, match=r"ledger\.jsonl:1: not a ledger entry"):
        Ledger(tmp_path)
    assert path.read_text() == "my notes\nmore of them\n"


def test_a_ledger_of_another_program_is_refused(tmp_path):
    (tmp_path / "ledger.jsonl").write_text('{"event": "charge"}\n')
    with pytest.raises(LedgerError, match="not a ledger of this emulator"):
        Emulator(EmulatorConfig(state_dir=tmp_path)).start()


def test_the_control_endpoints(api):
    api.task()
    stats = control(api, "GET", "stats").json()
    assert (stats["submit"], stats["poll"]) == (1, 0)
    [request] = control(api, "GET", "requests?endpoint=submit").json()
    assert (request["method"], request["path"]) == ("POST", "/v1/images/generations")
    assert (request["authorization"], request["key"]) == (True, None)
    assert "Authorization" in request["headers"]
    assert "a-key" not in json.dumps(request)
    assert control(api, "GET", "requests?endpoint=poll").json() == []

    rules = [{"on": "submit", "action": "status", "status": 500, "count": 1}]
    assert control(api, "PUT", "faults", json=rules).status_code == 200
    assert api.submit().status_code == 500
    [rule] = control(api, "GET", "faults").json()
    assert rule == {**rules[0], "met": 1, "fired": 1}
    # The response can be sent back.
    assert control(api, "PUT", "faults", json=[rule]).json()[0]["fired"] == 0
    assert control(api, "PUT", "faults", json={"on": "submit"}).status_code == 400
    assert control(api, "DELETE", "faults").json() == []
    assert api.submit().status_code == 200

    assert control(api, "PATCH", "config", json={"price_usd": 1, "omit": ["cost"]}).json()["price_usd"] == 1.0
    assert control(api, "GET", "config").json()["omit"] == ["cost"]
    api.task()
    assert api.emulator.ledger()[-1]["usd"] == 1.0
    types = (
        ("price_usd", "1"),
        ("strict", 1),
        ("omit", "cost"),
        ("omit", 5),
        ("webhook_retries", None),
        ("rate_burst", "x"),
    )
    for wrong in ({"port": 1}, {"colour": "red"}, [1], "x", *({name: each} for name, each in types)):
        assert control(api, "PATCH", "config", json=wrong).status_code == 400
    assert control(api, "PATCH", "config", content=b"{").status_code == 400

    assert control(api, "POST", "reset").json() == {"reset": True}
    assert api.emulator.ledger() == []
    assert api.balance()["remain_balance"] == 100
    assert control(api, "GET", "config").json()["price_usd"] == 1.0


def test_reset_empties_the_folder(emulate, tmp_path, picture):
    api = emulate(state_dir=tmp_path)
    api.http.post("/v1/uploads/images", files={"file": ("a.png", picture())})
    api.task()
    api.emulator.reset()
    assert (tmp_path / "ledger.jsonl").read_bytes() == b""
    assert list((tmp_path / "uploads").iterdir()) == []
    api.task()
    assert len((tmp_path / "ledger.jsonl").read_bytes().splitlines()) == 1


@pytest.mark.parametrize(("style", "header"), [("number", "1"), ("negative", "-5"), ("none", None), ("later", "later")])
def test_the_rate_limit(emulate, style, header):
    api = emulate(rate_limit="30/m", rate_burst=3, retry_after=style)
    answers = [api.submit() for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    expected = "2" if style == "number" else header
    assert answers[-1].headers.get("Retry-After") == expected
    assert answers[-1].json()["error"]["type"] == "rate_limit_error"
    assert api.http.get("/v1/balance").status_code == 200
    assert api.emulator.stats()["rate_limited"] == 2
    api.emulator.configure(rate_limit_on="api")
    assert api.http.get("/v1/balance").status_code == 429
    api.emulator.configure(rate_limit=None)
    assert api.submit().status_code == 200


def test_a_bucket_fills_with_time():
    bucket = TokenBucket("10/s", None, 0.0)
    assert [bucket.take(now) for now in (0.0, 0.05, 0.1, 0.2)] == [0, pytest.approx(0.05), 0, 0]
    full = TokenBucket("10/s", 5, 0.0)
    assert [full.take(1000.0) > 0 for _ in range(6)] == [False] * 5 + [True]


def test_reading_from_an_emulator_that_was_not_started():
    with pytest.raises(RuntimeError, match="was not started"):
        Emulator().ledger()
    Emulator().stop()


@pytest.mark.parametrize("in_folder", [True, False])
def test_the_ledger_can_be_read_after_the_end(emulate, tmp_path, in_folder):
    api = emulate(state_dir=tmp_path if in_folder else None, faults=({"on": "submit", "action": "fail"},))
    api.ended(api.task())
    api.emulator.stop()
    assert [entry["event"] for entry in api.emulator.ledger()] == ["charge", "refund"]
    assert api.emulator.stats()["submit"] == 1


def test_an_emulator_can_be_started_again(emulate):
    api = emulate()
    api.task()
    api.emulator.stop()
    with api.emulator as again:
        assert again.ledger() == []
        assert api.bare.get(again.url + "/emulator/stats").json()["submit"] == 0


@pytest.fixture
def process():
    """Start the emulator's command in another process; return the process and the URL that it prints."""
    started = []

    def start(*options):
        command = [sys.executable, "-m", "seedream_batch.emulator", *options]
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(running)
        line = running.stdout.readline()
        assert "seedream emulator on http://" in line, running.stderr.read()
        return running, line.split(" on ")[1].split(" ")[0]

    yield start
    for running in started:
        running.kill()
        running.wait()
        running.stdout.close()
        running.stderr.close()


BODY = {"model": "doubao-seedance-4-5", "prompt": "a fox"}


def test_the_state_survives_a_kill(process, tmp_path):
    options = ("--state-dir", str(tmp_path), "--task-seconds", "fixed:0", "--image-size", "tiny")
    running, url = process(*options)
    headers = {"Authorization": "Bearer a", "Idempotency-Key": "k"}
    first = httpx.post(f"{url}/v1/images/generations", json=BODY, headers=headers)
    running.send_signal(signal.SIGKILL)
    running.wait()
    _, url = process(*options)
    again = httpx.post(f"{url}/v1/images/generations", json=BODY, headers=headers)
    assert (again.json(), again.headers["Idempotency-Replayed"]) == (first.json(), "true")
    task_id = first.json()["data"][0]["task_id"]
    data = httpx.get(f"{url}/v1/tasks/{task_id}", headers=headers).json()["data"]
    assert httpx.get(data["result"]["images"][0]["url"][0]).status_code == 200


@pytest.mark.parametrize("folder", some(["~/state", "$HOME/state", "${STATE}", "%APPDATA%/state"], 2))
def test_a_state_folder_that_no_shell_has_filled_in_is_refused(tmp_path, folder):
    command = [sys.executable, "-m", "seedream_batch", "emulator", "--port", "0", "--state-dir", folder]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done
    assert "write the full path" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", some([signal.SIGTERM, signal.SIGINT], 1))
def test_signals_end_the_command_cleanly(process, tmp_path, number):
    plan = tmp_path / "faults.yaml"
    plan.write_text("faults:\n  - {on: balance, action: status, status: 503}\n")
    running, url = process("--faults", str(plan))
    assert httpx.get(f"{url}/v1/balance", headers={"Authorization": "Bearer a"}).status_code == 503
    running.send_signal(number)
    assert running.wait(timeout=10) == 0
    assert running.stderr.read() == ""


@pytest.mark.parametrize(
    ("options", "plan", "message"),
    [
        (["--task-seconds", "soon"], None, "task_seconds: 'soon' is not fixed:S"),
        (["--faults"], "- {on: submit, action: explode}", "rule 1: action 'explode' is unknown"),
        (["--faults"], "[", "faults.yaml"),
        (["--faults"], "a: b", "must be a list of rules"),
    ],
)
def test_mistakes_on_the_command_line(tmp_path, options, plan, message):
    from click.testing import CliRunner

    from seedream_batch.emulator.command import command

    if plan is not None:
        path = tmp_path / "faults.yaml"
        path.write_text(plan)
        options = [*options, str(path)]
    result = CliRunner().invoke(command, options)
    assert result.exit_code == 2
    assert message in result.output


def test_help_names_every_action_and_setting():
    from dataclasses import fields

    from click.testing import CliRunner

    from seedream_batch.emulator.command import command
    from seedream_batch.emulator.faults.actions import ACTIONS

    text = CliRunner().invoke(command, ["--help"]).output
    assert all(f"  {name} " in text for name in ACTIONS)
    rather = {
        "strict": "--strict / --lenient",
        "bad_keys": "--bad-key",
        "forbidden_keys": "--forbidden-key",
        "webhook_retries": "--webhook-retry",
    }
    for each in fields(EmulatorConfig):
        assert rather.get(each.name, "--" + each.name.replace("_", "-")) in text


def test_help_costs_no_heavy_import():
    script = (
        "import sys, seedream_batch.emulator.command\n"
        "print([name for name in ('aiohttp', 'PIL', 'yaml') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]"


def test_the_emulator_knows_nothing_of_the_client():
    script = (
        "import sys\n"
        "from seedream_batch.emulator import Emulator, command, load_faults\n"
        "print([name for name in sys.modules if name.startswith('seedream_batch.') and '.emulator' not in name])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    # The package itself imports its version.
    assert done.stdout.strip() == "['seedream_batch._version']", done.stderr
