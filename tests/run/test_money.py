"""What is bought, what is held and what it really cost."""

import json
import threading

import pytest
from PIL import Image

from seedream_batch.engine import submitter as submit
from seedream_batch.engine.scheduler import Scheduler

ONE = """\
version: 1
matrix: {subject: [panda]}
request: {prompt: "a {{ subject }}"}
output: {dir: out, path: "{{ subject }}"}
run: {attempts: 3, on_unknown: %s}
"""

MANY = """\
version: 1
matrix: {number: {file: numbers.txt}}
request: {prompt: "picture {{ number }}"}
output: {dir: out, path: "{{ number }}"}
"""


@pytest.fixture
def many(bench):
    (bench.folder / "numbers.txt").write_text("".join(f"{number}\n" for number in range(60)))
    bench.write(MANY)
    return bench


def spent(bench):
    return sum(entry["usd"] for entry in bench.emulator.ledger())


def test_a_price_far_above_the_estimate_does_not_pass_the_cap(many, serve):
    serve(price_usd=0.10, task_seconds="fixed:0.3")
    many.write(MANY + "budget: {max_cost_usd: 1.00, price_per_image_usd: 0.01}\n")
    done = many.run()
    assert done.code == 5, done
    assert spent(many) <= 1.00
    many.check()


def test_a_budget_that_was_free_again_by_the_time_of_the_decision_stops_nothing(many, serve, monkeypatch):
    """A task is blocked by others in flight, and all of them have ended when the run decides whether to wait."""
    serve(task_seconds="fixed:0.05")
    settle = Scheduler._wait_for_settlement
    waits = []

    async def late(scheduler):
        waits.append(len(scheduler._slots.working))
        while scheduler._slots.working:
            await scheduler._slots.until_changed()
        return await settle(scheduler)

    monkeypatch.setattr(Scheduler, "_wait_for_settlement", late)
    many.write(MANY + "budget: {max_cost_usd: 2.5, price_per_image_usd: 0.035}\n")
    done = many.run()
    assert done.code == 0, done
    assert waits
    many.check()


def test_plan_says_where_the_budget_ends(many, serve):
    serve()
    many.write(MANY + "budget: {max_images: 20, max_cost_usd: 0.5, price_per_image_usd: 0.035}\n")
    shown = many.call("plan").out
    shown = " ".join(shown.split())
    assert "budget.max_images (20) stops the run after about 20 of 60 images, 0.70 USD." in shown
    assert "budget.max_cost_usd (0.50 USD) stops the run after about 14 of 60 images, 0.49 USD." in shown
    many.edit("max_images: 20, max_cost_usd: 0.5", "max_cost_usd: 0.03")
    shown = " ".join(many.call("plan").out.split())
    assert "budget.max_cost_usd (0.03 USD) is too low for another image: the run would generate none of them." in shown


def test_a_failed_task_that_was_charged_is_not_bought_again(bench, serve):
    bench.write(ONE % "hold")
    serve()
    bench.emulator.set_faults([{"on": "submit", "action": "never_end"}])
    bench.run("--submit-only")
    # The service's own document says failed and charged; the emulator refunds, so the word is put in its mouth.
    with _liar(bench, {"status": "failed", "cost": 0.035, "error": {"message": "broken"}}, times=9):
        done = bench.run()
    assert done.code == 3, done
    assert len(bench.charges()) == 1
    assert bench.rows("SELECT cost, reserved FROM totals") == [(35000, 0)]


def test_an_error_page_with_a_good_status_ends_no_task(bench, serve):
    bench.write(ONE % "hold")
    serve()
    bench.run("--submit-only")
    with _liar(bench, {"status": "error", "code": 500, "message": "try again"}, wrapped=False, times=3):
        done = bench.run()
    assert done.code == 0, done
    assert len(bench.charges()) == 1


@pytest.mark.parametrize("status", [400, 413])
def test_a_refused_resend_says_nothing_of_the_first_send(bench, serve, status):
    bench.write(ONE % "resend")
    serve()
    bench.emulator.set_faults(
        [
            {"on": "submit", "action": "reset_after_bill", "count": 1},
            {"on": "submit", "action": "status", "status": status, "body": "html", "count": 1},
        ]
    )
    assert bench.run().code == 4
    assert bench.states() == {"uncertain": 1}
    assert bench.rows("SELECT reserved_images FROM totals") == [(1,)]
    assert bench.run().code == 4, "from there on a person decides"
    assert len(bench.charges()) == 1


def test_a_key_is_not_trusted_for_ever(bench, serve, monkeypatch):
    bench.write(ONE % "resend")
    serve()
    bench.emulator.set_faults([{"on": "submit", "action": "reset_after_bill"}])
    bench.run()
    bench.emulator.set_faults([])
    monkeypatch.setattr(submit, "KEY_LIFETIME", 0.0)
    assert bench.run().code == 4
    assert "may no longer know the Idempotency-Key" in bench.call("status").out
    assert len(bench.charges()) == 1


@pytest.mark.thorough
def test_nothing_is_bought_after_the_end_was_called(bench, serve, until, end):
    serve()
    Image.new("RGB", (64, 48), "teal").save(bench.folder / "cup.png")
    bench.edit("request:\n", "request:\n  image_urls: [cup.png]\n")
    bench.emulator.set_faults([{"on": "upload", "action": "hang"}])
    process = bench.start()
    end(process)
    until(bench.emulator.waiting)
    process.terminate()
    until(lambda: "SIGTERM" in process.stderr.readline())
    bench.emulator.release()
    process.communicate(timeout=20)
    assert process.returncode == 143
    assert bench.charges() == []


def test_a_file_in_the_way_is_found_before_anything_is_paid_for_it(bench, serve):
    serve()
    stranger = bench.out / "fox" / "1-1.png"
    stranger.parent.mkdir(parents=True)
    stranger.write_bytes(b"mine")
    done = bench.run()
    assert done.code == 8, done
    assert len(bench.charges()) == 5, "the others are made"
    assert "fox/1-1.png already exists" in done.err
    assert stranger.read_bytes() == b"mine"


def test_a_reference_that_the_service_refuses_fails_its_tasks_only(bench, serve):
    serve()
    Image.new("RGB", (64, 48), "teal").save(bench.folder / "cup.png")
    bench.write(
        "version: 1\nmatrix:\n  subject:\n    - {id: a, refs: [cup.png]}\n    - {id: b}\n"
        'request: {prompt: "{{ subject.id }}", image_urls: ["{{ subject.refs[0] }}"]}\n'
        'output: {dir: out, path: "{{ subject.id }}"}\n'
    )
    bench.edit("{id: b}", "{id: b, refs: ['https://example.com/b.png']}")
    bench.emulator.set_faults([{"on": "upload", "action": "status", "status": 413}])
    done = bench.run()
    assert done.code == 3, done
    assert bench.states() == {"failed": 1, "succeeded": 1}


def test_an_upload_that_goes_wrong_is_tried_again(bench, serve):
    serve()
    Image.new("RGB", (64, 48), "teal").save(bench.folder / "cup.png")
    bench.edit("request:\n", "request:\n  image_urls: [cup.png]\n")
    bench.emulator.set_faults([{"on": "upload", "action": "rate_limit", "count": 2}])
    done = bench.run()
    assert done.code == 0, done
    assert len(bench.files()) == 6


def test_tasks_in_flight_bind_a_job_to_its_service(bench, serve, monkeypatch):
    serve()
    bench.run("--submit-only")
    from seedream_batch.engine import manifest_checks as opening

    # Both are on this machine; told apart as two services on the net would be.
    monkeypatch.setattr(opening, "_is_local", lambda _origin: False)
    first = bench.emulator.url
    serve()
    done = bench.run()
    assert done.code == 2, done
    assert first in done.err
    assert "--collect" in done.err


def test_two_jobs_do_not_share_a_folder(bench, serve):
    serve()
    bench.run()
    other = bench.folder / "other.yaml"
    other.write_text(bench.job.read_text().replace("a fox", "a wolf"))
    bench.job, first = other, bench.job
    done = bench.run()
    assert done.code == 2, done
    assert "job.yaml" in done.err
    # A job file that was renamed is the same job.
    other.write_text(first.read_text())
    first.unlink()
    assert bench.run().code == 0
    assert len(bench.charges()) == 6


class _liar:  # noqa: N801 - used like a function
    """Stands between the client and the emulator and gives its own answer to looks at a task."""

    def __init__(self, bench, document, *, wrapped=True, times=1, amend=None):
        """`amend` changes what the emulator says of a task that has ended, instead."""
        import http.server
        import json
        import urllib.error
        import urllib.request

        target = bench.emulator.url
        left = [times]

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                if self.path.startswith("/v1/tasks/") and amend is not None:
                    return self._pass_on(None, amend)
                if self.path.startswith("/v1/tasks/") and left[0]:
                    left[0] -= 1
                    task_id = self.path.removeprefix("/v1/tasks/").partition("?")[0]
                    told = {"code": 200, "data": {"id": task_id, **document}} if wrapped else document
                    return self._send(200, json.dumps(told).encode())
                return self._pass_on(None)

            def do_POST(self):
                self._pass_on(self.rfile.read(int(self.headers.get("Content-Length", 0))))

            def _pass_on(self, body, amend=None):
                headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                request = urllib.request.Request(target + self.path, body, headers, method=self.command)
                try:
                    with urllib.request.urlopen(request) as answer:
                        data = answer.read()
                        told = json.loads(data) if amend else {}
                        if told.get("data", {}).get("status") == "completed":
                            amend(told["data"])
                            data = json.dumps(told).encode()
                        self._send(answer.status, data)
                except urllib.error.HTTPError as error:
                    with error:
                        self._send(error.code, error.read())

            def _send(self, status, body):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._bench = bench

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self._bench._monkeypatch.setenv("APIMART_BASE_URL", f"http://127.0.0.1:{self._server.server_port}")

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._bench._monkeypatch.setenv("APIMART_BASE_URL", self._bench.emulator.url)


@pytest.mark.thorough
def test_a_service_that_names_no_cost_is_not_waited_for(many, serve):
    serve(omit=("cost", "credits_cost"), task_seconds="fixed:0.2")
    many.write(MANY + "budget: {max_cost_usd: 5, price_per_image_usd: 0.035}\n")
    assert many.run().code == 0
    assert many.rows("SELECT cost FROM totals") == [(60 * 35000,)]
    assert many.rows("SELECT count(*) FROM prices") == [(0,)]
    many.check()


@pytest.mark.thorough
def test_a_first_price_is_waited_for_also_when_nothing_is_collected(many, serve):
    serve(price_usd=0.10)
    many.write(MANY + "budget: {max_cost_usd: 1.00, price_per_image_usd: 0.01}\n")
    done = many.run("--submit-only")
    assert done.code == 5, done
    assert "the tasks in flight must finish first" in done.err
    assert many.run().code == 5
    assert spent(many) <= 1.00
    many.check()


@pytest.mark.parametrize(
    "cost", [0, -1, "free", float("nan"), -0.0, 1e-9, 0.0001, "0", "-1", "1_000", True, [0.035], 1e308]
)
def test_a_cost_that_is_none_does_not_lift_the_cap(many, serve, cost):
    serve(task_seconds="fixed:0.01")
    many.write(MANY + "budget: {max_cost_usd: 0.2, price_per_image_usd: 0.035}\n")
    with _liar(many, {}, amend=lambda task: task.update(cost=cost, credits_cost=None)):
        assert many.run("--limit", "3", "--submit-only").code in {0, 5}
        assert many.run().code == 5
        assert many.run().code == 5, "also when it is started again"
    assert len(many.charges()) == 5, "as many as the estimate allows"
    assert many.rows("SELECT reserved, cost FROM totals") == [(0, 5 * 35_000)]
    assert "the estimate counts" in many.call("status").out


@pytest.mark.thorough
def test_a_price_that_depends_on_the_ratio_does_not_pass_the_cap(bench, serve):
    serve(task_seconds="fixed:0.1")
    text = MANY.replace("number: {", "size: [1:1, 21:9], number: {").replace(
        '"{{ number }}"', '"{{ number }}-{{ size }}"'
    )
    (bench.folder / "numbers.txt").write_text("".join(f"{number}\n" for number in range(30)))
    bench.write(text + "budget: {max_cost_usd: 1.50, price_per_image_usd: 0.035}\nrun: {max_in_flight: 16}\n")
    wide = {}

    def charge(task):
        key = next(one["key"] for one in bench.charges() if one["task_id"] == task["id"])
        [(size,)] = bench.rows("SELECT size FROM tasks JOIN attempts ON task = tasks.id WHERE key = ?", key)
        wide[task["id"]] = size == "21:9"
        task["cost"] = 0.035 * (4 if wide[task["id"]] else 1)

    with _liar(bench, {}, amend=charge):
        assert bench.run().code == 5
    assert any(wide.values())
    assert 0.035 * (len(wide) + 3 * sum(wide.values())) <= 1.50
    assert bench.rows("SELECT cost <= 1500000 AND reserved = 0 FROM totals") == [(1,)]


@pytest.mark.thorough
def test_an_absurd_cost_counts_until_a_person_corrects_it(many, serve):
    serve(task_seconds="fixed:0.01")
    many.write(MANY + "budget: {max_cost_usd: 60, price_per_image_usd: 0.035}\n")
    with _liar(many, {}, amend=lambda task: task.update(cost=35)):
        done = many.run("--limit", "1")
    assert "1,000 times the expected cost" in done.err
    done = many.run()
    assert done.code == 5, done
    assert "resolve JOB --cost USD" in done.out
    assert "1 task: the service reported 35 USD" in many.call("status").out
    assert json.loads(many.call("status", "--json").out)["cost_notes"][0]["counted_usd"] == 35
    for wrong in ("-1", "nan", "inf", "1e9"):
        assert many.call("resolve", "--cost", wrong).code == 2
    corrected = many.call("resolve", "--cost", "0.035")
    assert corrected.code == 0, corrected
    assert "1 task corrected to 0.035 USD each" in corrected.out
    assert "cost_notes" not in many.call("status").out
    assert many.rows("SELECT old = new, why FROM events WHERE why LIKE 'cost of%'") == [
        (1, "cost of attempt 1 corrected from 35 to 0.035 USD")
    ]
    assert many.run().code == 0
    assert many.rows("SELECT reserved, cost FROM totals") == [(0, 60 * 35_000)]
    assert many.rows("SELECT price FROM prices") == [(35_000,)]
    many.check()


def test_any_charge_can_be_corrected_when_it_is_chosen(many, serve):
    serve()
    many.run("--limit", "3")
    assert "no tasks with an odd cost" in many.call("resolve", "--cost", "0.04").out
    assert many.call("resolve", "--cost", "0.04", "--select", "number=2").code == 0
    assert many.rows("SELECT cost FROM totals") == [(2 * 35_000 + 40_000,)]
    many.check()


def test_a_budget_that_uncertain_tasks_hold_is_freed_by_resolving_them(bench, serve):
    serve()
    bench.write(bench.job.read_text() + "budget: {max_cost_usd: 1, price_per_image_usd: 0.035}\n")
    bench.emulator.set_faults([{"on": "submit", "action": "reset_after_bill", "count": 2}])
    done = bench.run()
    assert done.code == 5, done
    assert bench.states() == {"uncertain": 2, "planned": 4}
    shown = " ".join(done.out.split())
    assert "if it costs more than expected; resolve the uncertain tasks first" in shown
    assert "Resolve the uncertain tasks before you raise the budget: they hold 0.07 USD" in shown
    assert "in flight" not in shown
    assert "Raise the budget" not in shown
    assert bench.call("resolve", "--resend").code == 0
    assert bench.run().code == 0
    bench.check()
