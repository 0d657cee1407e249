"""A job that was really run, its gallery, and a real browser to look at it with."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from postcards import BROWSER, CHROMIUM, FAULTS, JOB
from program import called

from seedream_batch.emulator import Emulator, EmulatorConfig

ARGUMENTS = [
    *BROWSER,
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


class Studio:
    """A folder with a job, and commands on it."""

    def __init__(self, folder, job=JOB):
        self.folder = folder
        self.job = folder / "job.yaml"
        self.job.write_text(job, encoding="utf-8")

    def call(self, verb, *args):
        """The exit code, and what was printed."""
        done = called(verb, self.job, *args)
        return done.returncode, done.stdout + done.stderr

    def run(self, emulator, *args):
        """A run; in a process of its own where playwright's loop has this one."""
        arguments = ["run", str(self.job), *args]
        environment = {"APIMART_BASE_URL": emulator.url, "APIMART_API_KEY": "any"}
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            done = called(*arguments, env=environment)
        else:
            command, environment = [sys.executable, "-m", "seedream_batch", *arguments], {**os.environ, **environment}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def report(self, *args):
        """What `report --json` tells."""
        code, text = self.call("report", "--json", *args)
        assert code == 0, text
        return json.loads(text)


@pytest.fixture(scope="session")
def studio(tmp_path_factory):
    """Makes a folder with a job that was run against an emulator."""

    def make(job=JOB, faults=(), *args):
        made = Studio(tmp_path_factory.mktemp("studio"), job)
        with Emulator(EmulatorConfig(image_size="tiny", task_seconds="fixed:0.05")) as emulator:
            emulator.set_faults(list(faults))
            made.ran = made.run(emulator, *args)
        return made

    return make


@pytest.fixture(scope="session")
def postcards(studio):
    """33 of 36 images, two that failed, one that is uncertain; and their gallery. Nobody may change it."""
    # One at a time, since the faults count requests: which of several arrives first is left to chance.
    made = studio(f"{JOB}run: {{max_in_flight: 1}}\n", FAULTS)
    assert made.ran[0] == 4, made.ran
    made.told = made.report()
    return made


@pytest.fixture(scope="module")
def chromium():
    """Not for the session: while playwright is at work, this thread has a loop, and no other test could start one."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the gallery is tested with playwright")
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


class Window:
    """A page of its own, which may not complain and may not ask the network for anything."""

    def __init__(self, context):
        self.context = context
        self.page = context.new_page()
        self.complaints = []
        self.expects_complaints = False
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._asked)

    def _asked(self, request):
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.complaints.append(f"asked {request.url}")

    def open(self, index):
        self.page.goto(Path(index).absolute().as_uri())
        self.page.wait_for_selector("html[data-ready]")
        return self.page


@pytest.fixture
def look(chromium):
    """Opens a gallery in a window of a size; at the end nothing may have been complained of."""
    windows = []

    def begin(index, width=1440, height=900, *, complains=False, **options):
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(10_000)
        window = Window(context)
        window.expects_complaints = complains
        windows.append(window)
        return window.open(index)

    yield begin
    complaints = [text for window in windows if not window.expects_complaints for text in window.complaints]
    for window in windows:
        window.context.close()
    assert complaints == []


@pytest.fixture
def page(look, postcards):
    return look(postcards.told["index"])
