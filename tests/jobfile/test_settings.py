"""What a job file says beside its cells: names, folders, money, rates."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from seedream_batch.jobfile import load_job
from seedream_batch.jobfile.units import micro_usd, per_second, seconds
from seedream_batch.model.job import DEFAULT_PRICE, OnUnknown, RunSettings, Send

SMALLEST = {"version": 1, "matrix": {"size": ["1:1"], "resolution": ["2K", "4K"]}, "request": {"prompt": "a"}}


def test_the_smallest_job_has_every_default(job_file):
    file = job_file(SMALLEST)
    job = load_job(file).job
    assert (job.name, job.file, job.folder, job.repeat, job.send) == ("job", file, file.parent, 1, Send.UPLOAD)
    assert (job.output_dir, job.output_path) == (file.parent / "out" / "job", "")
    assert job.run == RunSettings(max_in_flight=64, rate=None, attempts=3, task_timeout=1800.0, on_unknown=None)
    assert not job.budget.stated
    assert job.budget.price_of("4K") == DEFAULT_PRICE == 35_000
    assert (job.vars, job.exclude, job.include) == ({}, (), ())


def test_everything_given(job_file):
    file = job_file(
        {
            **SMALLEST,
            "name": "cards",
            "references": {"send": "inline"},
            "output": {"dir": "../elsewhere/./x", "path": "{{ resolution }}"},
            "budget": {"max_images": 7, "max_cost_usd": 1.1, "price_per_image_usd": {"4K": 0.042}},
            "run": {"max_in_flight": 2, "rate": "90/m", "attempts": 1, "task_timeout": "1h30m", "on_unknown": "resend"},
        }
    )
    loaded = load_job(file)
    job = loaded.job
    assert (job.name, job.send, job.output_dir) == ("cards", Send.INLINE, file.parent.parent / "elsewhere" / "x")
    assert job.run == RunSettings(2, 1.5, 1, 5400.0, OnUnknown.RESEND)
    assert (job.budget.max_images, job.budget.max_cost, job.budget.stated) == (7, 1_100_000, True)
    assert [(spec.resolution, spec.price) for spec in loaded.tasks()] == [("2K", DEFAULT_PRICE), ("4K", 42_000)]


def test_the_output_is_named_after_the_job(job_file):
    assert load_job(job_file({**SMALLEST, "name": "a.b"})).job.output_dir.parts[-2:] == ("out", "a.b")
    absolute = str(Path("/tmp/elsewhere").resolve())
    assert str(load_job(job_file({**SMALLEST, "output": {"dir": absolute}})).job.output_dir) == absolute


@pytest.mark.parametrize(
    ("text", "value"),
    [(90, 90), (0.5, 0.5), ("90s", 90), ("30m", 1800), ("1h30m", 5400), ("1h 1m 1s", 3661), ("2d", 172800)],
)
def test_durations(text, value):
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "m", "90", "30m1", "1h30", "-5s", "5 fortnights"])
def test_no_durations(text):
    with pytest.raises(ValueError, match="is not a duration"):
        seconds(text)


@pytest.mark.parametrize(
    ("text", "value"), [(5, 5), (0.5, 0.5), ("5/s", 5), ("120/m", 2), ("1800/h", 0.5), ("1.5/s", 1.5)]
)
def test_rates(text, value):
    assert per_second(text) == value


@settings(max_examples=examples(200))
@given(st.integers(0, 10**15))
def test_money_is_exact(micro):
    assert micro_usd(micro / 1_000_000) == micro
    assert micro_usd(micro) == micro * 1_000_000


@pytest.mark.parametrize(("usd", "micro"), [(0.035, 35_000), (0.1 + 0.2, 300_000), (20, 20_000_000), (1e-9, 0)])
def test_money(usd, micro):
    assert micro_usd(usd) == micro


def test_a_job_is_read_again_each_time(job_file):
    loaded = load_job(job_file(SMALLEST))
    assert loaded.check() == loaded.check() == 2
    assert list(loaded.tasks()) == list(loaded.tasks())
    assert loaded.references == {}


def test_a_table_of_thousands_of_rows_in_little_time_and_memory(job_file):
    rows = "".join(f'k{index},"animal {index}, asleep"\n' for index in range(500))
    job = {
        "version": 1,
        "matrix": {"subject": {"file": "s.csv"}, "size": ["1:1", "4:3", "3:4"], "resolution": ["2K", "4K"]},
        "request": {"prompt": "{{ subject.text }}, ink"},
        "output": {"path": "{{ subject.id }}/{{ size }}-{{ resolution }}"},
    }
    loaded = load_job(job_file(job, {"s.csv": "id,text\n" + rows}))
    start = time.process_time()
    assert loaded.check() == 3000
    assert time.process_time() - start < 3
    tracemalloc.start()
    assert loaded.check() == 3000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000
