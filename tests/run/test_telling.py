"""How a run ended, told to files, to Prometheus and to a webhook on a real socket."""

import json
import os
import re
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from seedream_batch.engine.session import RunSession
from seedream_batch.validate.schemas import validator

KEY = "canary-key-7f3a9b2c"


class Hook:
    """A webhook that keeps what it gets, and answers with `status` after `seconds`."""

    def __init__(self):
        self.got = []
        self.status = 204
        self.release = threading.Event()
        self.release.set()
        self.locked = []
        self.look = lambda: None
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                hook.got.append(
                    (self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body)
                )
                hook.look()
                hook.release.wait(30)
                self.send_response(hook.status)
                if hook.status == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST  # noqa: N815 - the library's name

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def told(self):
        return [json.loads(body) for _, _, _, body in self.got]

    def close(self):
        self.release.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def hook():
    hook = Hook()
    yield hook
    hook.close()


@pytest.fixture
def notifying(bench, hook, monkeypatch):
    """Adds a `notify` section to the bench's job."""
    monkeypatch.setenv("NOTIFY_SECRET", "s3cr3t-path")

    def add(more=""):
        bench.job.write_text(f"{bench.job.read_text()}notify: {{url: '{hook.url}/${{NOTIFY_SECRET}}'{more}}}\n")
        return hook

    return add


def summary(path):
    value = json.loads(path.read_text())
    found = [error.message for error in validator("summary").iter_errors(value)]
    assert found == []
    return value


def test_the_summary_says_what_a_run_did(bench, serve, tmp_path):
    serve()
    before = time.time()
    file = tmp_path / "summary.json"
    assert bench.run("--quiet", "--summary", str(file)).out == ""
    told = summary(file)
    assert (told["job"], told["exit_code"], told["meaning"]) == ("test", 0, "success, or nothing to do")
    assert (told["end"], told["stopped"], told["error"], told["emulated"]) == ("success", None, None, False)
    assert (told["job_file"], told["folder"]) == (str(bench.job), str(bench.out))
    assert before <= told["started_at"] + 0.001 <= told["ended_at"] + 0.001 <= time.time() + 0.002
    assert told["seconds"] == pytest.approx(told["ended_at"] - told["started_at"], abs=0.002)
    run = told["run"]
    assert (run["submitted"], run["stored"], run["failed"], run["cost_usd"], run["left"]) == (6, 6, 0, 0.21, 0)
    assert run["stored_bytes"] == sum(path.stat().st_size for path in bench.files().values())
    assert told["state"]["tasks"]["succeeded"] == told["state"]["images"]["stored"] == 6
    assert (told["state"]["cost_usd"], told["state"]["images_paid"], told["state"]["reserved_usd"]) == (0.21, 6, 0)
    assert bench.run("--summary", str(file)).code == 0
    again = summary(file)
    assert (again["end"], again["run"]["requests"], again["run"]["stored"]) == ("nothing", 0, 0)
    assert again["state"] == told["state"]


def test_the_summary_of_runs_that_end_otherwise(bench, serve, tmp_path, monkeypatch):
    file = tmp_path / "summary.json"
    serve()
    assert bench.run("--submit-only", "--limit", "1", "--max-duration", "0", "--summary", str(file)).code == 7
    told = summary(file)
    assert (told["end"], told["stopped"]["reason"], told["exit_code"]) == ("unfinished", "time limit", 7)
    bench.edit("matrix:", "budget: {max_images: 2}\nmatrix:")
    assert bench.run("--summary", str(file)).code == 5
    told = summary(file)
    assert (told["end"], told["stopped"]["reason"], told["state"]["images"]["stored"]) == ("failure", "budget", 2)
    bench.edit("budget: {max_images: 2}\n", "")
    bench.emulator.set_faults([{"on": "any", "action": "status", "status": 401}])
    assert bench.run("--summary", str(file)).code == 6
    told = summary(file)
    assert (told["exit_code"], told["end"], told["stopped"]["reason"]) == (6, "failure", "credentials")
    bench.emulator.set_faults([])
    monkeypatch.delenv("APIMART_API_KEY")
    assert bench.run("--summary", str(file)).code == 2
    told = summary(file)
    assert (told["exit_code"], told["end"], told["run"]) == (2, "failure", None)
    assert "no API key" in told["error"]
    assert told["state"]["images"]["stored"] == 2
    bench.edit("version: 1", "version: 2")
    assert bench.run("--summary", str(file)).code == 2
    told = summary(file)
    assert (told["job"], told["folder"], told["state"]) == ("job", None, None)
    assert "version: must be 1" in told["error"]


@pytest.mark.thorough
def test_the_summary_of_a_run_that_finds_the_job_held(bench, serve, tmp_path, until, end):
    serve(task_seconds="fixed:3")
    process = bench.start()
    end(process)
    until(lambda: bench.charges() != [])
    file = tmp_path / "summary.json"
    assert bench.run("--summary", str(file)).code == 75
    told = summary(file)
    assert (told["exit_code"], told["end"], told["run"]) == (75, "nothing", None)
    assert f"pid {process.pid}" in told["error"]
    assert told["state"]["images"]["asked_for"] == 6


@pytest.mark.thorough
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_summary_of_a_run_that_is_stopped(bench, serve, tmp_path, until, end, number, code):
    serve(task_seconds="fixed:20")
    file = tmp_path / "summary.json"
    process = bench.start("--summary", str(file), "--metrics", str(tmp_path / "job.prom"))
    end(process)
    until(lambda: len(bench.charges()) == 6)
    process.send_signal(number)
    assert process.wait(20) == code
    told = summary(file)
    assert (told["exit_code"], told["end"], told["stopped"]["reason"]) == (code, "unfinished", "interrupted")
    assert told["meaning"] == f"interrupted by {number.name}"
    assert told["run"]["left"] == 6
    assert f'exit_code{{job="test"}} {code}\n' in (tmp_path / "job.prom").read_text()


def test_the_summary_of_a_run_whose_disk_fails(bench, serve, tmp_path):
    serve()
    bench.run("--limit", "1")
    (bench.out / "fox").mkdir()
    (bench.out / "fox" / "16-9.jpg").write_bytes(b"mine")
    file = tmp_path / "summary.json"
    assert bench.run("--summary", str(file)).code == 8
    told = summary(file)
    assert (told["exit_code"], told["end"], told["meaning"]) == (
        8,
        "failure",
        "cannot read or write the images or the manifest",
    )


def test_a_folder_that_cannot_be_made_is_told(bench, serve, tmp_path):
    serve()
    bench.out.write_text("a file in the way")
    file = tmp_path / "summary.json"
    assert bench.run("--summary", str(file)).code == 8
    told = summary(file)
    assert (told["exit_code"], told["state"]) == (8, None)
    assert str(bench.out) in told["error"]


def test_the_summary_of_a_bug(bench, serve, tmp_path, monkeypatch):
    def broken(_):
        raise RuntimeError("a wrong turn")

    serve()
    monkeypatch.setattr(RunSession, "run", broken)
    file = tmp_path / "summary.json"
    assert bench.run("--summary", str(file)).code == 1
    told = summary(file)
    assert (told["exit_code"], told["end"], told["error"]) == (1, "failure", "a wrong turn")


@pytest.mark.parametrize("option", ["--summary", "--metrics"])
def test_a_file_that_cannot_be_written_is_told_before_anything_is_bought(bench, serve, tmp_path, option):
    serve()
    assert "create it first" in bench.run(option, str(tmp_path / "none" / "x")).err
    done = bench.run(option, str(tmp_path))
    assert (done.code, "not a regular file" in done.err) == (2, True)
    assert bench.run(option, "/dev/null").code == 2
    assert bench.requests() == 0
    assert bench.run("--summary", "one", "--metrics", "./one").code == 2
    assert "--dry-run" in bench.run("--dry-run", option, "one").err
    assert not (tmp_path / "one").exists()


def test_the_files_are_replaced_whole_and_can_be_read_by_others(bench, serve, tmp_path):
    serve()
    folder = tmp_path / "told"
    folder.mkdir()
    kept, link = folder / "kept.json", folder / "link.json"
    old = '{"seedream_batch_summary": 1}'
    kept.write_text(old)
    link.symlink_to(kept)
    with kept.open() as reader:
        mask = os.umask(0o022)
        try:
            assert bench.run("--summary", str(link), "--metrics", str(folder / "job.prom")).code == 0
        finally:
            os.umask(mask)
        # Who had it open still has all of the old one.
        assert reader.read() == old
    assert link.is_symlink()
    assert summary(kept)["exit_code"] == 0
    assert sorted(path.name for path in folder.iterdir()) == ["job.prom", "kept.json", "link.json"]
    assert {path.stat().st_mode & 0o777 for path in (kept, folder / "job.prom")} == {0o644}


@pytest.mark.parametrize("option", ["--summary", "--metrics"])
def test_only_files_of_earlier_runs_are_replaced(bench, serve, option):
    serve()
    assert bench.run("--quiet").code == 0
    before = bench.requests()
    bench.edit("a fox in the snow", "a fox in the rain")
    picture = next(iter(bench.files().values()))
    key = bench.folder / "key"
    key.write_text(KEY)
    (bench.folder / "link").symlink_to(key)
    (bench.folder / "nowhere").symlink_to(bench.folder / "none")
    (bench.folder / "list.json").write_text('["seedream_batch_summary"]')
    os.mkfifo(bench.folder / "pipe")
    names = [bench.job, picture, key, *(bench.out / name for name in ("manifest.db", "manifest.lock"))]
    kept = {path: path.read_bytes() for path in [*names, bench.folder / "list.json"]}
    names += [bench.folder / name for name in ("link", "nowhere", "list.json", "pipe")]
    names += [bench.out / "fox" / "new.png", bench.out / "manifest.db-wal", "/dev/stdout", "/proc/self/environ"]
    for name in names:
        done = bench.run(option, str(name))
        assert (done.code, str(name) in " ".join(done.err.split())) == (2, True), (name, done)
    assert {path: path.read_bytes() for path in kept} == kept
    assert not (bench.folder / "none").exists()
    assert bench.requests() == before
    for name in ("~/told", "$HOME/told", "${HOME}/told", "a\nb", ""):
        assert bench.run(option, name).code == 2
    assert bench.requests() == before
    # What `mktemp` made, and what the run before wrote there.
    empty = bench.folder / "told"
    empty.write_bytes(b"")
    for _ in range(2):
        assert bench.run(option, str(empty)).code == 0
        assert empty.stat().st_size > 0
    # A name for the other kind of file was mistyped.
    assert bench.run({"--summary": "--metrics", "--metrics": "--summary"}[option], str(empty)).code == 2


def test_a_file_that_appears_while_the_run_goes_is_not_overwritten(bench, serve, monkeypatch):
    serve()
    file = bench.folder / "told.json"
    work = RunSession.run

    def and_then(session):
        result = work(session)
        file.write_text("mine")
        return result

    monkeypatch.setattr(RunSession, "run", and_then)
    done = bench.run("--summary", str(file))
    assert (done.code, file.read_text()) == (8, "mine")
    assert "told.json" in done.err


def test_a_summary_that_cannot_be_written_in_the_end_is_no_success(bench, serve, tmp_path, monkeypatch):
    serve()
    folder = tmp_path / "told"
    folder.mkdir()
    work = RunSession.run

    def and_then(session):
        result = work(session)
        folder.rmdir()
        return result

    monkeypatch.setattr(RunSession, "run", and_then)
    done = bench.run("--summary", str(folder / "s.json"))
    assert done.code == 8
    assert str(folder / "s.json") in done.err
    assert len(bench.files()) == 6


def test_the_metrics_are_what_prometheus_reads(bench, serve, tmp_path):
    parser = pytest.importorskip("prometheus_client.parser")
    serve()
    bench.emulator.set_faults([{"on": "submit", "action": "fail", "prompt": "fox"}])
    file = tmp_path / "job.prom"
    assert bench.run("--metrics", str(file)).code == 3
    families = list(parser.text_string_to_metric_families(file.read_text()))
    assert all(family.type == "gauge" and family.documentation for family in families)
    values = {
        (sample.name, sample.labels.get("state", "")): sample.value for family in families for sample in family.samples
    }
    assert {sample.labels["job"] for family in families for sample in family.samples} == {"test"}
    assert values["seedream_batch_tasks", "succeeded"] == 3
    assert values["seedream_batch_tasks", "failed"] == 3
    assert values["seedream_batch_tasks", "planned"] == 0
    assert values["seedream_batch_images_stored", ""] == values["seedream_batch_last_run_images_stored", ""] == 3
    assert values["seedream_batch_images_asked_for", ""] == 6
    assert values["seedream_batch_cost_usd", ""] == pytest.approx(0.105)
    assert values["seedream_batch_last_run_exit_code", ""] == 3
    assert values["seedream_batch_last_run_end_timestamp_seconds", ""] == pytest.approx(time.time(), abs=60)
    assert "seedream_batch_last_run_duration_seconds" in {name for name, _ in values}


def test_the_label_of_the_job_is_escaped(bench, tmp_path):
    parser = pytest.importorskip("prometheus_client.parser")
    bench.job = tmp_path / 'a "job"\\\n.yaml'
    bench.job.write_text("version: 2\n")
    file = tmp_path / "job.prom"
    assert bench.run("--metrics", str(file)).code == 2
    (code,) = [
        sample
        for family in parser.text_string_to_metric_families(file.read_text())
        for sample in family.samples
        if sample.name == "seedream_batch_last_run_exit_code"
    ]
    assert (code.labels, code.value) == ({"job": 'a "job"\\\n'}, 2)


def test_a_webhook_gets_the_summary_and_a_text(bench, serve, notifying, tmp_path):
    serve()
    hook = notifying()
    held = []
    hook.look = lambda: held.append(bench.call("status").out)
    file = tmp_path / "summary.json"
    done = bench.run("--quiet", "--summary", str(file))
    assert (done.code, done.out, done.err) == (0, "", "")
    ((method, path, headers, body),) = hook.got
    assert (method, path, headers["content-type"]) == ("POST", "/s3cr3t-path", "application/json")
    told = json.loads(body)
    assert [error.message for error in validator("summary").iter_errors(told)] == []
    stored = "6 of 6 images stored (6 new); 0.21 USD in this run, 0.21 USD in total"
    assert told["text"].startswith(f"test: success, or nothing to do (exit code 0); {stored}")
    assert told.pop("content") == told.pop("text")
    assert told == summary(file)
    assert KEY.encode() not in body
    assert KEY not in str(headers)
    # The run is over for everybody else, too, by then.
    assert "running" not in held[0]
    assert bench.run().code == 0
    assert len(hook.got) == 1


def test_a_webhook_is_told_of_the_ends_that_it_is_for(bench, serve, notifying, monkeypatch):
    serve()
    hook = notifying(", on: [failure, nothing]")
    assert bench.run("--limit", "2").code == 0
    assert hook.got == []
    assert bench.run("--limit", "0").code == 0
    assert [told["end"] for told in hook.told] == ["nothing"]
    bench.emulator.set_faults([{"on": "submit", "action": "fail", "code": "<!channel>", "message": "@everyone"}])
    assert bench.run().code == 3
    assert hook.told[-1]["end"] == "failure"
    assert "4 tasks failed" in hook.told[-1]["text"]
    assert "@" not in hook.told[-1]["text"]
    assert "<" not in hook.told[-1]["text"]
    monkeypatch.delenv("APIMART_API_KEY")
    assert bench.run().code == 2
    assert (hook.told[-1]["end"], hook.told[-1]["exit_code"]) == ("failure", 2)


def test_a_dead_mans_switch_is_asked_with_get(bench, serve, notifying):
    serve()
    hook = notifying(", method: GET, on: [success]")
    assert bench.run().code == 0
    assert [(method, path, body) for method, path, _, body in hook.got] == [("GET", "/s3cr3t-path", b"")]


@pytest.mark.parametrize("status", [500, 302, 404])
def test_a_notification_that_fails_is_told_and_changes_nothing(bench, serve, notifying, status):
    serve()
    hook = notifying()
    hook.status = status
    done = bench.run("--quiet")
    assert (done.code, done.out, done.err) == (0, "", f"notify: cannot notify 127.0.0.1: HTTP {status}\n")
    assert len(hook.got) == 1
    assert len(bench.files()) == 6


def test_a_webhook_that_is_not_there_or_does_not_answer(bench, serve, notifying, monkeypatch):
    serve()
    monkeypatch.setattr("seedream_batch.client.webhook.WHOLE_TIMEOUT", 0.2)
    hook = notifying(", on: [success, nothing]")
    hook.release.clear()
    done = bench.run("--log-format", "json")
    assert done.code == 0
    last = json.loads(done.err.splitlines()[-1])
    assert (last["event"], last["text"]) == ("warning", "notify: cannot notify 127.0.0.1: no answer in time")
    hook.close()
    done = bench.run()
    assert done.code == 0
    assert "notify: cannot notify 127.0.0.1: cannot connect to 127.0.0.1" in done.err
    assert "s3cr3t" not in done.err


@pytest.mark.thorough
def test_a_rehearsal_notifies_nobody(bench, notifying, monkeypatch):
    hook = notifying()
    monkeypatch.delenv("NOTIFY_SECRET")
    assert bench.run("--emulate").code == 0
    assert hook.got == []


def test_an_address_that_the_environment_lacks_is_told_before_anything_is_bought(bench, serve, notifying, monkeypatch):
    serve()
    notifying()
    monkeypatch.delenv("NOTIFY_SECRET")
    for verb in ("validate", "plan"):
        done = bench.call(verb)
        assert done.code == 0
        assert done.err == "warning: notify.url: NOTIFY_SECRET is not set in the environment; `run` needs it\n"
    assert bench.call("plan", "--emulate").err == ""
    done = bench.run()
    assert done.code == 2
    assert re.search(r"job\.yaml:\d+:15: notify\.url: NOTIFY_SECRET is not set in the environment", done.err)
    bench.job.write_text(re.sub(r"url: '[^']*'", "url: '${NOTIFY_SECRET}'", bench.job.read_text()))
    monkeypatch.setenv("NOTIFY_SECRET", "http://example.com/s3cr3t")
    done = bench.run()
    assert done.code == 2
    assert "${NOTIFY_SECRET}, filled in from the environment, is not encrypted" in done.err
    assert "s3cr3t" not in done.err
    assert bench.requests() == 0


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("{url: 'http://example.com/x'}", "notify.url: is not encrypted; use https"),
        ("{url: 'ftp://example.com/x'}", "notify.url: is not a URL"),
        ("{url: 'https://a:b@example.com/x'}", "notify.url: contains a user name or a password"),
        ("{url: 'https://example.com/${APIMART_API_KEY}'}", "notify.url: must not use APIMART_API_KEY"),
        ("{url: 'https://example.com/${HOME}'}", "rename the variable, for example to NOTIFY_HOME"),
        ("{url: 'https://example.com/${NOTIFY_A}/${A_NOTIFY_B}'}", "notify.url: must not use A_NOTIFY_B"),
        ("{url: 'https://example.com/${1}'}", "notify.url: has a `${` without a valid variable"),
        ("{url: 'https:///x'}", "notify.url: is not a URL"),
        ("{url: ''}", "notify.url: must be an https:// URL"),
        ("{on: [success]}", "notify.url: is required"),
        ("{url: 'https://example.com', on: [sucess]}", "did you mean success?"),
        ("{url: 'https://example.com', on: []}", "notify.on: must name at least one kind of end"),
        ("{url: 'https://example.com', method: PUT}", "notify.method: must be one of POST, GET"),
        ("{url: 'https://example.com', to: me}", "notify.to: unknown key"),
    ],
)
def test_mistakes_in_the_section(bench, section, told):
    bench.job.write_text(f"{bench.job.read_text()}notify: {section}\n")
    done = bench.call("validate")
    assert (done.code, told in done.err) == (2, True), done.err
    assert done.err.count("notify") == 1, done.err


SECRET = "s3cr3t/+pass=word"


@pytest.mark.parametrize(
    ("value", "environment"),
    [
        (KEY, {}),
        (f"x={KEY} ", {}),
        (KEY[:14], {}),
        ("Y2FuYXJ5LWtleS03ZjNhOWIyYw", {}),
        (SECRET, {"AWS_SECRET_ACCESS_KEY": SECRET}),
        ("s3cr3t%2F%2Bpass%3Dword", {"PGPASSWORD": SECRET}),
        (SECRET, {"HTTPS_PROXY": "http://me:s3cr3t%2F%2Bpass%3Dword@127.0.0.1:9"}),
        ("sk-of-the-file-7f3a9b", {"APIMART_API_KEY_FILE": "key"}),
    ],
)
def test_a_variable_with_a_secret_in_it_is_refused(bench, serve, notifying, monkeypatch, value, environment):
    serve()
    hook = notifying()
    (bench.folder / "key").write_text("\n sk-of-the-file-7f3a9b\n")
    for name, secret in environment.items():
        monkeypatch.setenv(name, secret)
    monkeypatch.setenv("NOTIFY_SECRET", value)
    done = bench.run()
    assert (done.code, done.out, hook.got, bench.requests()) == (2, "", [], 0)
    assert "notify.url: NOTIFY_SECRET contains the API key or a password of this machine" in done.err
    assert value not in done.err


def test_the_key_is_not_written_into_the_job_either(bench, serve):
    serve()
    bench.job.write_text(f"{bench.job.read_text()}notify: {{url: 'https://example.com/{KEY}'}}\n")
    done = bench.run()
    assert (done.code, bench.requests()) == (2, 0)
    assert KEY not in done.out + done.err


def test_the_schema_is_printed(capsys):
    from seedream_batch.cli import main

    with pytest.raises(SystemExit):
        main(["schema", "summary"])
    assert json.loads(capsys.readouterr().out)["$id"] == "summary.schema.json"
