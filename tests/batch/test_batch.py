"""The Python API: what a program that calls it sees, with a service on a real socket."""

import asyncio
import dataclasses
import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections import Counter

import pytest

import seedream_batch
from seedream_batch import (
    EventKind,
    Interruption,
    RunOptions,
    StopReason,
    load_job,
    plan,
    run,
    run_async,
)
from seedream_batch.emulator import Emulator, EmulatorConfig
from seedream_batch.errors import InvalidJob, ManifestLocked, StorageError, UsageError

JOB = """\
version: 1
name: test
matrix:
  subject: [panda, fox]
  size: [1:1, 16:9, 9:16]
request: {prompt: "a {{ subject }}, watercolour"}
output: {dir: out}
run: {max_in_flight: 2}
"""


pytestmark = pytest.mark.usefixtures("in_haste")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr("seedream_batch.lifecycle.BACKOFF_BASE", 0.05)
    monkeypatch.setattr("seedream_batch.engine.downloader.TRYING", 1.0)
    monkeypatch.setattr("seedream_batch.engine.downloader.SETTLING", 0.1)
    monkeypatch.setattr("seedream_batch.lifecycle.POLL_PAUSE", 0.02)
    monkeypatch.setattr("seedream_batch.lifecycle.CONFIRMED", 0.04)
    for name in ("APIMART_API_KEY", "APIMART_API_KEY_FILE", "APIMART_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def emulator():
    with Emulator(EmulatorConfig(image_size="tiny", task_seconds="fixed:0.05")) as running:
        yield running


@pytest.fixture
def job(tmp_path):
    (tmp_path / "job.yaml").write_text(JOB, encoding="utf-8")
    return load_job(tmp_path / "job.yaml")


@pytest.fixture
def at(emulator):
    """Where a run goes to."""
    return {"service": emulator.url, "key": "any"}


def rows(job, query):
    connection = sqlite3.connect(f"file:{job.job.output_dir / 'manifest.db'}?mode=ro", uri=True)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def states(job):
    return Counter(state for (state,) in rows(job, "SELECT state FROM tasks"))


def outcomes(job):
    return [outcome for (outcome,) in rows(job, "SELECT outcome FROM runs ORDER BY id")]


def charged(emulator):
    """The task ids that were paid for."""
    return {entry["task_id"] for entry in emulator.ledger() if entry["event"] == "charge"}


def known(job):
    """The task ids that the manifest knows."""
    return {
        one for (ids,) in rows(job, "SELECT task_ids FROM attempts WHERE task_ids <> ''") for one in json.loads(ids)
    }


def child(text, **environment):
    """A program of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(text)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_job_is_planned_and_run(job, emulator, at):
    planned = plan(job)
    assert (planned.tasks, planned.to_buy, planned.cost_usd) == (6, (6, 210_000), 0.21)
    events, begun = [], []
    result = run(job, on_event=events.append, on_start=lambda *counts: begun.append(counts[1:]), **at)
    assert (result.stop_reason, result.left, result.stats.stored) == (None, 0, 6)
    assert (result.cost_usd, result.total_cost_usd) == (0.21, 0.21)
    assert result.tasks == {"succeeded": 6}
    assert result.images == {"stored": 6}
    assert begun == [(6, 0)]
    assert Counter(event.kind for event in events) == {EventKind.SUBMITTED: 6, EventKind.STORED: 6}
    assert {event.fields["cell"]["subject"] for event in events} == {"panda", "fox"}
    assert len(list(job.job.output_dir.rglob("*.jpg"))) == 6
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.calls = 0
    before = len(emulator.requests())
    again = run(job, **at)
    assert (again.calls, again.cost_usd, again.total_cost_usd) == (0, 0, 0.21)
    assert len(emulator.requests()) == before
    assert not plan(job).work


def test_some_of_it(job, at):
    assert plan(job, select=["subject=fox"]).to_buy[0] == 3
    result = run(job, RunOptions(limit=2), select=["subject=fox", "size=1:1,16:9,9:16"], **at)
    assert (result.stats.stored, result.left) == (2, 4)
    assert {path.parent.name for path in job.job.output_dir.rglob("*.jpg")} == {"fox"}
    for call in (plan, run):
        with pytest.raises(UsageError, match="did you mean `subject`"):
            call(job, select=["subjct=fox"])


def test_the_environment_gives_the_key_and_the_address(job, emulator, monkeypatch, tmp_path):
    with pytest.raises(UsageError, match="no API key"):
        run(job)
    monkeypatch.setenv("APIMART_BASE_URL", f"{emulator.url}/v1")
    (tmp_path / "key").write_text("from-a-file\n", encoding="utf-8")
    monkeypatch.setenv("APIMART_API_KEY_FILE", str(tmp_path / "key"))
    assert run(job).stats.stored == 6


def test_another_folder_has_another_manifest(job, at, tmp_path):
    assert run(job.into(tmp_path / "elsewhere"), RunOptions(limit=1), **at).stats.stored == 1
    assert not job.job.output_dir.exists()
    assert plan(job).to_buy[0] == 6
    assert plan(job.into(tmp_path / "elsewhere")).to_buy[0] == 5


def test_uncertain_tasks_are_sent_again_if_the_job_says_so(job, emulator, at, tmp_path):
    emulator.set_faults([{"on": "submit", "action": "reset_after_bill", "count": 1}])
    assert run(job, RunOptions(limit=1), **at).tasks["uncertain"] == 1
    assert plan(job).count(["hold"]) == 1
    assert plan(job, resend=True).count(["resend"]) == 1
    (tmp_path / "job.yaml").write_text(JOB.replace("run: {", "run: {on_unknown: resend, "), encoding="utf-8")
    trusting = load_job(tmp_path / "job.yaml")
    assert plan(trusting).count(["resend"]) == 1
    assert run(trusting, RunOptions(limit=0, resend=False), **at).tasks["uncertain"] == 1
    assert "uncertain" not in run(trusting, RunOptions(limit=0), **at).tasks
    assert len(charged(emulator)) == 1


def test_what_is_wrong_is_an_error_of_its_own(job, at, tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text(JOB.replace("16:9", "16:10"), encoding="utf-8")
    with pytest.raises(InvalidJob) as caught:
        load_job(broken)
    (problem,) = caught.value.problems
    assert (problem.position.line, problem.hint) == (5, "the nearest ratio is 3:2")
    with pytest.raises(UsageError, match="is not a base URL"):
        run(job, service="nowhere", key="any")
    with pytest.raises(UsageError, match="the API key is empty"):
        run(job, service=at["service"], key="")
    locked = []

    def meddle(_):
        if not locked:
            with pytest.raises(ManifestLocked) as other:
                run_in_thread(job, **at)
            locked.append(other.value)

    assert run(job, on_event=meddle, **at).stats.stored == 6
    assert str(os.getpid()) in str(locked[0])
    (tmp_path / "a-file").touch()
    with pytest.raises(StorageError):
        run(job.into(tmp_path / "a-file"), **at)


def run_in_thread(job, **options):
    """A run in a thread; what it raises is raised here."""
    raised = []

    def work():
        try:
            run(job, **options)
        except Exception as error:  # noqa: BLE001 - handed over
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    for error in raised:
        raise error


def test_an_interruption_ends_a_run_with_its_result(job, emulator, at):
    interruption = Interruption()

    def stop(event):
        if event.kind is EventKind.STORED:
            interruption.ask()

    result = run(job, on_event=stop, interruption=interruption, **at)
    assert result.stop_reason is StopReason.INTERRUPTED
    assert result.signal is None
    assert 0 < result.left < 6
    assert charged(emulator) == known(job)
    assert outcomes(job) == ["interrupted"]
    assert run(job, **at).left == 0
    assert len(charged(emulator)) == 6


def test_an_interruption_can_ask_to_leave_at_once(job, emulator, at):
    # Without an answer to its submission, a run that ends in good order would wait.
    emulator.set_faults([{"on": "submit", "action": "hang", "at": "after_bill", "after": 1}])
    interruption = Interruption()
    result = run(job, on_event=lambda _: interruption.ask(at_once=True), interruption=interruption, **at)
    assert result.stop_reason is StopReason.INTERRUPTED
    assert outcomes(job) == [None]
    emulator.set_faults([])
    assert run(job, RunOptions(resend=True), **at).left == 0
    assert len(charged(emulator)) == 6


def test_an_interruption_before_the_run_begins_counts(job, emulator, at):
    interruption = Interruption()
    interruption.ask()
    result = run(job, interruption=interruption, **at)
    assert (result.stop_reason, result.left, charged(emulator)) == (StopReason.INTERRUPTED, 6, set())


@pytest.mark.parametrize("error", [KeyError("mine"), OSError("mine"), ValueError("mine")])
def test_what_a_callback_raises_ends_the_run_in_good_order(job, emulator, at, error):
    def fail(event):
        if event.kind is EventKind.SUBMITTED:
            raise error

    with pytest.raises(type(error), match="mine") as caught:
        run(job, on_event=fail, **at)
    assert caught.value is error
    assert charged(emulator) == known(job)
    assert 0 < len(charged(emulator)) < 6
    assert outcomes(job) == ["interrupted"]
    with pytest.raises(type(error), match="mine"):
        asyncio.run(run_async(job, on_event=fail, **at))
    assert "uncertain" not in states(job)


def test_what_a_callback_raises_at_the_start_buys_nothing(job, emulator, at):
    def fail(*_):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run(job, on_start=fail, **at)
    assert charged(emulator) == set()


def test_beside_other_work_of_the_loop(job, at):
    threads, beats = set(), []

    async def beat():
        while True:
            beats.append(1)
            await asyncio.sleep(0.01)

    async def main():
        other = asyncio.create_task(beat())
        events, begun = [], []
        result = await run_async(
            job,
            on_event=lambda event: (events.append(event.kind), threads.add(threading.current_thread())),
            on_start=lambda *counts: begun.append(counts[1:]),
            **at,
        )
        other.cancel()
        assert Counter(events) == {EventKind.SUBMITTED: 6, EventKind.STORED: 6}
        assert begun == [(6, 0)]
        return result

    assert asyncio.run(main()).stats.stored == 6
    assert threads == {threading.current_thread()}
    assert len(beats) > 2


def test_cancelling_ends_it_like_ctrl_c(job, emulator, at, tmp_path):
    (tmp_path / "job.yaml").write_text(JOB.replace("run: {", "run: {rate: 15/m, "), encoding="utf-8")
    slow = load_job(tmp_path / "job.yaml")

    async def main():
        submitted = asyncio.Event()
        events = []

        def tell(event):
            events.append(event.kind)
            if event.kind is EventKind.SUBMITTED:
                submitted.set()

        work = asyncio.create_task(run_async(slow, on_event=tell, **at))
        await submitted.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        return events

    assert EventKind.STOPPING in asyncio.run(main())
    assert charged(emulator) == known(job)
    assert 0 < len(charged(emulator)) < 6
    assert not {"submitting", "uncertain"} & states(job).keys()
    assert outcomes(job) == ["interrupted"]
    assert asyncio.run(run_async(job, **at)).left == 0
    assert len(charged(emulator)) == 6


def test_cancelling_twice_leaves_at_once(job, emulator, at):
    # Without an answer to its submission, a run that ends in good order would wait.
    emulator.set_faults([{"on": "submit", "action": "hang", "after": 1}])

    async def main():
        submitted = asyncio.Event()
        work = asyncio.create_task(run_async(job, on_event=lambda _: submitted.set(), **at))
        await submitted.wait()
        work.cancel()
        await asyncio.sleep(0)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    asyncio.run(asyncio.wait_for(main(), 30))
    assert outcomes(job) == [None]


def test_a_loop_is_not_held_up(job, at):
    async def main():
        run(job, **at)

    with pytest.raises(UsageError, match="run_async"):
        asyncio.run(main())
    assert not job.job.output_dir.exists()


def test_signals_are_handled_only_where_asked_for(job, at):
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    seen = []
    run(job, on_event=lambda _: seen.append([signal.getsignal(number) for number in numbers]), **at)
    assert all(handlers == before for handlers in seen)
    assert len(seen) == 12
    with pytest.raises(UsageError, match="main thread"):
        run_in_thread(job, signals=True, **at)


def test_a_signal_that_is_asked_for_ends_the_run(job, emulator, at):
    def stop(event):
        if event.kind is EventKind.SUBMITTED:
            os.kill(os.getpid(), signal.SIGTERM)

    result = run(job, on_event=stop, signals=True, **at)
    assert (result.signal, result.stop_reason) == (signal.SIGTERM, StopReason.INTERRUPTED)
    assert charged(emulator) == known(job)


def test_ctrl_c_is_raised_when_all_is_recorded(job, emulator):
    program = """
        import os, signal
        from seedream_batch import EventKind, load_job, run
        asked = []
        def stop(event):
            # Once: what was sent already is told as well, and a second one would leave at once.
            if event.kind is EventKind.SUBMITTED and not asked:
                asked.append(True)
                signal.raise_signal(signal.SIGINT)
        try:
            run(load_job(os.environ["JOB"]), on_event=stop)
        except KeyboardInterrupt:
            print("interrupted")
    """
    done = child(program, JOB=str(job.job.file), APIMART_BASE_URL=emulator.url, APIMART_API_KEY="any")
    out, err = done.communicate(timeout=60)
    assert (done.returncode, out) == (0, "interrupted\n"), err
    assert charged(emulator) == known(job)
    assert 0 < len(charged(emulator)) < 6
    assert outcomes(job) == ["interrupted"]


@pytest.mark.thorough
def test_a_handler_of_the_callers_own_stays(job, emulator):
    program = """
        import os, signal
        from seedream_batch import EventKind, Interruption, load_job, run
        interruption = Interruption()
        signal.signal(signal.SIGINT, lambda *_: interruption.ask())
        def stop(event):
            if event.kind is EventKind.STORED and event.task:
                signal.raise_signal(signal.SIGINT)
        result = run(load_job(os.environ["JOB"]), on_event=stop, interruption=interruption)
        print(result.stop_reason, result.signal)
    """
    done = child(program, JOB=str(job.job.file), APIMART_BASE_URL=emulator.url, APIMART_API_KEY="any")
    out, err = done.communicate(timeout=60)
    assert (done.returncode, out) == (0, "interrupted None\n"), err


def test_the_package_is_there_at_once():
    done = child("import sys, seedream_batch; print([name for name in sys.modules if 'seedream_batch.' in name])")
    assert done.communicate(timeout=60) == ("['seedream_batch._version']\n", "")


@pytest.mark.thorough
def test_what_explains_mistakes_is_not_imported_where_there_are_none(job):
    program = """
        import os, sys
        from seedream_batch import load_job, plan
        plan(load_job(os.environ["JOB"]))
        print("jsonschema" in sys.modules)
    """
    assert child(program, JOB=str(job.job.file)).communicate(timeout=60) == ("False\n", "")


def test_the_collector_passes_over_imports_only_where_the_process_is_one_command():
    program = """
        import gc
        from seedream_batch.cli.lazy_imports import alone, importing
        with importing():
            during = gc.isenabled()
        print(during, gc.get_freeze_count() > 0)
        alone()
        with importing():
            during = gc.isenabled()
        print(during, gc.get_freeze_count() > 0, gc.isenabled())
    """
    assert child(program).communicate(timeout=60) == ("True False\nFalse True True\n", "")


@pytest.mark.thorough
def test_all_names_are_there_whatever_was_imported_before():
    assert set(seedream_batch.__all__) <= set(dir(seedream_batch))
    program = """
        import seedream_batch.engine.session, seedream_batch.planning
        import seedream_batch.cli.commands.run, seedream_batch.cli.commands.plan
        from seedream_batch import *
        print(callable(run), callable(plan), callable(load_job), callable(run_async), Plan.__name__)
    """
    done = child(program)
    assert done.communicate(timeout=60) == ("True True True True Plan\n", "")
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        seedream_batch.runn  # noqa: B018


@pytest.mark.thorough
def test_type_checkers_see_the_types(tmp_path):
    pytest.importorskip("mypy", reason="the types are checked with mypy")
    program = """\
        import asyncio
        from seedream_batch import Event, RunOptions, RunResult, load_job, plan, run, run_async

        job = load_job("job.yaml")
        reveal_type(plan(job).to_buy)
        result: RunResult = run(job, RunOptions(limit=1), select=["a=b"])
        reveal_type(result.left)
        def tell(event: Event) -> None: ...
        asyncio.run(run_async(job, on_event=tell))
        run("job.yaml")
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(program), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(tmp_path), "program.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    lines = [line.partition(":")[2] for line in done.stdout.splitlines()]
    assert [line for line in lines if "Revealed" in line] == [
        '5: note: Revealed type is "tuple[int, int]"',
        '7: note: Revealed type is "int"',
    ]
    (error,) = [line for line in lines if "error" in line]
    assert error.startswith('10: error: Argument 1 to "run" has incompatible type "str"')
