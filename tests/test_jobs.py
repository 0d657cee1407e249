"""The example jobs are real: each is validated, planned and run, and a second run asks the service nothing."""

import itertools
import json
import re
import shutil
from pathlib import Path

import pytest
from examples import some
from PIL import Image
from program import called

from seedream_batch.emulator import Emulator, EmulatorConfig

ROOT = Path(__file__).parents[1]
JOBS = {
    "quickstart": {"tasks": 6, "images": 6},
    "product-shots": {"tasks": 11, "images": 22},
    "dataset": {"tasks": 48, "images": 48},
    "catalogue": {"tasks": 40, "images": 40},
    "lora-dataset": {"tasks": 60, "images": 60},
    "nightly": {"tasks": 10, "images": 10},
}
HEAD = re.compile(r"Shows: .+ Costs: .*?= (\d+) images, about (\d+\.\d\d) USD")
"""How the first comment of a job says what it shows and what it costs."""
SETTINGS = {"APIMART_API_KEY": "test", "NOTIFY_SLACK_URL": "https://hooks.example.com/a-secret"}
"""What the jobs take from the environment."""
LIMIT = 60_000
"""Bytes of a reference image in this repository."""

pytestmark = pytest.mark.usefixtures("in_haste")


@pytest.fixture
def jobs(tmp_path):
    """A copy of the jobs to run in, and the schemas that their first lines name."""
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs", ignore=shutil.ignore_patterns("out"))
    return tmp_path / "jobs"


@pytest.fixture
def emulator(tmp_path):
    config = EmulatorConfig(task_seconds="fixed:0.05", image_size="tiny", state_dir=tmp_path / "emulator")
    with Emulator(config) as running:
        yield running


def command(jobs, emulator, *arguments):
    """What a command prints."""
    done = called(*arguments, cwd=jobs.parent, env={"APIMART_BASE_URL": emulator.url, **SETTINGS})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_there_is_no_example_that_is_not_tested():
    assert {path.stem for path in (ROOT / "jobs").glob("*.yaml")} == set(JOBS)


@pytest.mark.parametrize("name", some([*JOBS], 1))
def test_an_example_is_made_once(jobs, emulator, name):
    job, wanted = f"jobs/{name}.yaml", JOBS[name]

    assert f"{job}: valid, {wanted['tasks']} tasks" in command(jobs, emulator, "validate", job)
    plan = json.loads(command(jobs, emulator, "plan", "--json", job))
    assert (plan["tasks"], plan["to_buy"]["images"]) == (wanted["tasks"], wanted["images"])
    assert stated(jobs / f"{name}.yaml") == (plan["to_buy"]["images"], plan["to_buy"]["cost_usd"])
    assert not any(emulator.stats().values()), "validate and plan send nothing"

    command(jobs, emulator, "run", job)
    files = pictures(jobs.parent / "out" / name)
    assert len(files) == wanted["images"]
    assert len(set(files.values())) == len(files), "every image is another one"
    assert bought(emulator) == wanted
    DETAILS[name](emulator, files)

    before = emulator.stats()
    assert "none new" in command(jobs, emulator, "run", job)
    assert emulator.stats() == before, "a second run makes no request"
    assert pictures(jobs.parent / "out" / name) == files


def stated(job):
    """The images and USD that the first comment of a job states."""
    comment = itertools.takewhile(lambda line: line.startswith("#"), job.read_text(encoding="utf-8").splitlines())
    images, cost = HEAD.search(" ".join(line.lstrip("# ") for line in comment)).groups()
    return int(images), float(cost)


def pictures(folder):
    """The images in a folder, by their path, with their bytes; each is a whole picture."""
    found = {}
    for path in sorted(folder.rglob("*.jpg")):
        with Image.open(path) as image:
            image.load()
        found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


def bought(emulator):
    charges = [entry for entry in emulator.ledger() if entry["event"] == "charge"]
    return {"tasks": len(charges), "images": sum(entry["images"] for entry in charges)}


def of_quickstart(emulator, files):
    assert set(files) == {
        f"{animal}/{ratio}-2K.jpg" for animal in ("fox", "panda") for ratio in ("1-1", "16-9", "9-16")
    }
    assert emulator.stats()["upload"] == 0


def of_product_shots(emulator, files):
    """Each reference is uploaded once; the prompt's conditions leave no gaps."""
    assert emulator.stats()["upload"] == 2
    requests = [entry["request"] for entry in emulator.ledger() if entry["event"] == "charge"]
    assert len({url for request in requests for url in request["image_urls"]}) == 2
    (banner,) = [request for request in requests if request.get("size") == "21:9"]
    assert "left third" in banner["prompt"]
    assert not re.search(r"[{}]|\n\n|  ", banner["prompt"])
    assert {"bottle/ridge-21-9-1.jpg", "bottle/ridge-21-9-2.jpg"} < set(files)
    assert not [path for path in files if path.startswith("mug/trail")]


def of_dataset(emulator, files):
    """A folder for each label, in both splits; a row without a place makes a prompt without one."""
    labels = ("red-fox", "grey-heron", "brown-hare")
    folders = {path.rpartition("/")[0] for path in files}
    assert folders == {f"{split}/{label}" for split in ("train", "test") for label in labels}
    prompts = prompts_of(emulator)
    assert len(prompts) == 24, "two samples of each"
    assert not [prompt for prompt in prompts if ", ." in prompt or "{" in prompt]


def of_catalogue(emulator, files):
    """Each name makes one path, whatever is in it; no name reaches a prompt."""
    assert len({path.split("/")[1].split(" ")[0] for path in files}) == 40, "each number is in one path"
    assert {path.count("/") for path in files} == {1}
    assert {
        "mugs/00017 Ida's -Classic- mug, 0.3 l.jpg", "mugs/00019 Half-Half.jpg", "mugs/00020 ☕ Morgenmuffel.jpg",
        "blankets/00304 Fjäll, the very long name of a blanket that somebody in mark.jpg", "trays/00605 _.jpg",
    } < set(files)  # fmt: skip
    prompts = prompts_of(emulator)
    assert len(prompts) == 40
    assert not [prompt for prompt in prompts if "Morgenmuffel" in prompt]


def of_lora_dataset(emulator, files):
    """Each scene in each view, from one reference; the trigger word is only for captions."""
    assert emulator.stats()["upload"] == 1
    assert {"counter-close.jpg", "terrace-wide.jpg"} < set(files)
    prompts = prompts_of(emulator)
    assert len(prompts) == 60
    assert not [prompt for prompt in prompts if "zkwmug" in prompt]


def of_nightly(emulator, files):
    """Both ratios of each line; the comments in the table are none."""
    assert len({path.split("/")[0] for path in files}) == 5
    assert not [prompt for prompt in prompts_of(emulator) if "#" in prompt]


def prompts_of(emulator):
    return {entry["request"]["prompt"] for entry in emulator.ledger() if entry["event"] == "charge"}


DETAILS = {
    "quickstart": of_quickstart,
    "product-shots": of_product_shots,
    "dataset": of_dataset,
    "catalogue": of_catalogue,
    "lora-dataset": of_lora_dataset,
    "nightly": of_nightly,
}


def test_the_reference_images_are_small_pictures():
    found = sorted((ROOT / "jobs" / "references").iterdir())
    assert [path.name for path in found] == ["bottle.jpg", "mug.jpg"]
    for path in found:
        assert path.stat().st_size < LIMIT
        with Image.open(path) as image:
            assert image.size == (768, 768)
