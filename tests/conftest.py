"""Jobs on disk, and the tasks they make."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib.util
import io
import itertools
import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest
from examples import examples
from hypothesis import HealthCheck, settings
from PIL import Image

from seedream_batch.emulator import EmulatorConfig
from seedream_batch.errors import InvalidJob
from seedream_batch.jobfile import load_job

pytest_plugins = ["buckets", "postgres"]

# How fast a machine is says nothing about a property.
settings.register_profile(
    "tests", max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")


MEMORY = Path("/dev/shm")
ROOM = 4 * 10**9
"""Bytes that have to be free in memory for the folders of the tests to be there; a run of all takes less than 1 GB."""


def pytest_xdist_auto_num_workers(config):
    """Three for each core: most of the time a test waits for a socket, a timer or another process."""
    del config
    return 3 * (os.cpu_count() or 1)


def pytest_configure(config):
    """Let the processes that the tests start share what they compile, even where no bytecode is to be kept.

    The folders of the tests are in memory, if there is room: much of a run's time is the syncing of small files.
    """
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", "") and hasattr(config, "cache"):
        os.environ["PYTHONPYCACHEPREFIX"] = str(config.cache.mkdir("bytecode"))
    if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Make tests of whole runs thorough, except with the first of their parameters: each takes a while."""
    tried = set()
    for item in items:
        if "bench" in item.fixturenames and not item.get_closest_marker("thorough"):
            test = item.nodeid.partition("[")[0]
            if test in tried:
                item.add_marker("thorough")
            tried.add(test)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session):
    """Collect without looking for garbage, as what is made then stays until the end: that takes a third of the time."""
    gc.disable()
    try:
        _compile_some(session.config)
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def _compile_some(config):
    """Share out the compiling of the test modules: each worker begins with other ones, and finds those of the rest."""
    worker = getattr(config, "workerinput", None)
    if worker:
        files = sorted(Path(__file__).parent.rglob("test_*.py"))
        for file in files[int(worker["workerid"].removeprefix("gw")) :: worker["workercount"]]:
            name = ".".join(file.relative_to(config.rootpath).with_suffix("").parts)
            finders = (finder.find_spec(name, [str(file.parent)]) for finder in sys.meta_path)
            spec = next(found for found in finders if found)
            # What is wrong with a module is told when it is collected.
            with contextlib.suppress(Exception, pytest.skip.Exception):
                spec.loader.exec_module(importlib.util.module_from_spec(spec))


_skipped = []


def pytest_runtest_logreport(report):
    if report.skipped:
        _skipped.append(report.nodeid)


def pytest_collectreport(report):
    if report.skipped:
        _skipped.append(report.nodeid)


def pytest_sessionfinish(session):
    """Write the ids of the skipped tests to the file named by SKIPPED_TESTS, for a later run with more installed."""
    file = os.environ.get("SKIPPED_TESTS")
    if file and not hasattr(session.config, "workerinput"):
        Path(file).write_text("".join(f"{node}\n" for node in sorted(set(_skipped))), encoding="utf-8")


@pytest.fixture
def in_haste(monkeypatch):
    """Runs in this process begin at full speed and ask soon, and what `--emulate` starts makes tiny pictures at once.

    Otherwise a few tasks would take seconds.
    """
    monkeypatch.setattr("seedream_batch.pacing.rate_limiter.START", 500.0)
    monkeypatch.setattr("seedream_batch.pacing.poll_schedule.SOON", 0.05)
    quick = functools.partial(EmulatorConfig, task_seconds="fixed:0.05", image_size="tiny")
    monkeypatch.setattr("seedream_batch.emulator.EmulatorConfig", quick)


@pytest.fixture(scope="session")
def until():
    """Waits until a condition of another process or thread holds."""

    def wait(condition, seconds=20.0):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if condition():
                return
            time.sleep(0.01)
        raise AssertionError("it did not happen")

    return wait


@pytest.fixture(scope="session")
def job_file(tmp_path_factory):
    """Writes a job (YAML text, or a value) and the files beside it into a folder of its own."""
    base = tmp_path_factory.mktemp("jobs")
    numbers = itertools.count()

    def write(job, files=()):
        folder = base / str(next(numbers))
        folder.mkdir()
        for name, content in dict(files).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        file = folder / "job.yaml"
        file.write_text(job if isinstance(job, str) else json.dumps(job, ensure_ascii=False), encoding="utf-8")
        return file

    return write


@pytest.fixture(scope="session")
def tasks(job_file):
    """The tasks of a job."""

    def expand(job, files=()):
        return list(load_job(job_file(job, files)).tasks())

    return expand


@pytest.fixture(scope="session")
def told(job_file):
    """The problems of a job, as they are printed, with the paths of files from the job's folder on."""

    def problems(job, files=(), **options):
        file = job_file(job, files)
        with pytest.raises(InvalidJob) as caught:
            load_job(file, **options).check()
        return [str(problem).replace(f"{file.parent}/", "") for problem in caught.value.problems]

    return problems


@pytest.fixture(scope="session")
def picture():
    """The bytes of a small picture."""

    def make(width=20, height=20, color="red", form="PNG"):
        data = io.BytesIO()
        Image.new("RGB", (width, height), color).save(data, form)
        return data.getvalue()

    return make
