"""The bench of the runs, for jobs that are run and then exported."""

import importlib.util
import json
import os
from pathlib import Path

import pytest

# What the tests load is on this disk.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"

_FILE = Path(__file__).parents[1] / "run" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("bench_of_runs", _FILE)
_RUNS = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_RUNS)

bench = _RUNS.bench
serve = _RUNS.serve
in_haste = _RUNS.in_haste


@pytest.fixture
def made(bench, serve):
    """The six images of the job are there."""
    serve()
    assert bench.run().code == 0
    return bench


@pytest.fixture
def export(bench):
    """Exports the bench's job to `data` beside it; the folder."""

    def export(form, *args, code=0, to="data"):
        done = bench.call("export", "--format", form, "--to", str(bench.folder / to), *args)
        assert done.code == code, done
        return done

    return export


@pytest.fixture
def lines():
    """The objects of a file of JSON lines."""

    def lines(path):
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    return lines
