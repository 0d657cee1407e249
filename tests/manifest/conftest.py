"""A manifest in a temporary folder, task specs by number, and a second pair of eyes on the file."""

import hashlib
import itertools
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from crew import Crew, record_delivery

from seedream_batch.manifest import Manifest
from seedream_batch.manifest.image_store import Placement, StoredFile
from seedream_batch.manifest.task_queue import Intent
from seedream_batch.model.job import Budget
from seedream_batch.model.outcome import ImageUrl
from seedream_batch.model.prices import PROVEN
from seedream_batch.model.task import EDGES, ImageState, TaskSpec, TaskState

NOW = 1_800_000_000.0
PRICE = 35_000
TOTALS = ("reserved_images", "reserved", "images", "cost")


def spec(number, **changes):
    """The task of the job with this number."""
    plain = TaskSpec(
        fingerprint=hashlib.sha256(str(number).encode()).hexdigest(),
        ordinal=number,
        sample=1,
        body=json.dumps({"model": "doubao-seedance-4-5", "prompt": f"fox {number}"}),
        images=1,
        paths=(f"fox/{number}",),
        cell=json.dumps({"number": number}),
        model="doubao-seedance-4-5",
        size="1:1",
        resolution="2K",
        price=PRICE,
    )
    return replace(plain, **changes)


def file(mark="a", **changes):
    """What is known of a verified file."""
    return StoredFile(**{"bytes": 10, "sha256": mark * 64, "width": 4, "height": 3, "format": "PNG", **changes})


class Book:
    """The manifest under test, with the shortest words for what a run does to it."""

    NOW = NOW
    PRICE = PRICE
    spec = staticmethod(spec)
    file = staticmethod(file)

    def __init__(self, place, *, worker=False):
        self.place = place
        self._worker = worker
        self._eye = None
        self._open()

    def _open(self):
        """A worker takes away the one before it, as if its lease were over."""
        self.manifest = Manifest(self.place, shared=self._worker)
        if self._worker:
            self._eyes().execute("UPDATE workers SET until = 0")
            self.manifest.workers.expire(NOW, "nowhere")
            self.manifest.workers.begin_run(now=NOW, pid=1, host="somewhere", version="1", service="http://127.0.0.1")

    @property
    def path(self):
        """The file, for tests of a manifest in one."""
        assert isinstance(self.place, Path)
        return self.place

    @property
    def guards(self):
        """What the database raises where a guard of the schema holds."""
        return self.manifest.connection.guards

    def close(self):
        self.manifest.close()
        if self._eye is not None:
            self._eye.close()

    def reopen(self):
        self.manifest.close()
        self._open()

    def enter(self, *specs):
        return self.manifest.sync_job(specs, NOW)

    def tasks(self, count=1, **changes):
        """New planned tasks."""
        specs = [spec(number, **changes) for number in range(1, count + 1)]
        self.manifest.sync_job(specs, NOW)
        return self.manifest.tasks.in_state(TaskState.PLANNED)

    def announced(self):
        """The images that wait to be fetched, as they lie in the file."""
        return self.peek("SELECT * FROM images WHERE state = 'announced' ORDER BY task, \"index\"")

    def claim(self, task, body=None, budget=None):
        [claim] = self.manifest.queue.claim([Intent(task.id, body)], budget or Budget(), NOW).claims
        return claim

    def prove(self, task, price=PRICE):
        """From here on the price of requests like this one is known from many charges."""
        with self.manifest.group() as sql:
            self.manifest.budget.record_charges(sql, [(task, price, NOW)] * PROVEN)

    def at(self, state, **changes):
        """A task that has come to some state the way a run brings it there."""
        manifest = self.manifest
        [task] = self.tasks(**changes)
        if state is TaskState.PLANNED:
            return task
        task = self.claim(task).task
        if state is TaskState.UNCERTAIN:
            manifest.tasks.uncertain(task, why="no answer", code="", held=False, now=NOW)
        elif state is not TaskState.SUBMITTING:
            task = manifest.tasks.accepted(task, ["task_1"], deadline=NOW + 60, why="accepted", now=NOW)
            if state is TaskState.SUCCEEDED:
                self.deliver(task)
            elif state is TaskState.FAILED:
                manifest.tasks.failed(task, why="no", code="task_failed", retry_at=None, now=NOW)
            elif state is TaskState.LOST:
                manifest.tasks.lost(task, why="404", now=NOW)
        task = manifest.tasks.get(task.id)
        assert task.state is state
        return task

    def deliver(self, task, images=1, cost=PRICE, expires=NOW + 86_400):
        urls = [ImageUrl(f"https://img.example.com/{task.id}-{number}", expires) for number in range(images)]
        return record_delivery(
            self.manifest, task, urls, cost=cost, why="completed", now=NOW, default_expiry=NOW + 3600
        )

    def place_image(self, image, path, stored):
        """The file of an image is about to get its name."""
        self.manifest.images.record_paths([Placement(image, path, stored, NOW)])

    def store(self, image, path, mark="a"):
        """A fetched image under its name."""
        self.place_image(image, path, file(mark))
        self.manifest.images.move(image, ImageState.STORED, "stored", NOW)
        return self.manifest.images.of_task(image.task)[image.index - 1]

    def restore(self, task, index):
        """The file of an image is whole again where it was; whether it counts."""
        image = self.manifest.images.of_task(task.id)[index - 1]
        return self.manifest.upkeep.restore(image, image.path, NOW)

    def stored(self, path="fox/1.png", **changes):
        """The stored image of a new task."""
        task = self.at(TaskState.ACCEPTED, **changes)
        [image] = self.deliver(task)
        return self.store(image, path)

    def peek(self, sql, *values):
        """Rows as another process sees them."""
        if not isinstance(self.place, Path):
            return self._eyes().execute(sql.replace("?", "%s"), values or None).fetchall()
        with closing(sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True)) as connection:
            return connection.execute(sql, values).fetchall()

    def _eyes(self):
        import psycopg

        if self._eye is None:
            self._eye = psycopg.connect(self.place.url, autocommit=True)
            self._eye.execute(f'SET search_path TO "{self.place.schema}"')
        return self._eye

    def dump(self):
        """Everything in the manifest that a refused write must not change."""
        tables = ("facts", "runs", "tasks", "attempts", "images", "uploads", "prices", "charges", "totals", "events")
        return {table: self.peek(f"SELECT * FROM {table}") for table in tables}

    def sound(self, budget=None):
        """Asserts what always holds."""
        [(held_images, held, images, cost)] = self.peek(
            f"SELECT {', '.join(TOTALS)} FROM {self.manifest.connection.totals}"
        )
        columns = ", ".join(f"coalesce(sum({name}), 0)" for name in TOTALS)
        sums = f"SELECT {columns} FROM attempts"
        assert self.peek(sums) == [(held_images, held, images, cost)], "the totals are not the sums over attempts"
        if budget and budget.max_images is not None:
            assert held_images + images <= budget.max_images
        if budget and budget.max_cost is not None:
            assert held + cost <= budget.max_cost
        # A correction of a cost moves nothing.
        for old, new in self.peek("SELECT old, new FROM events WHERE image IS NULL AND old != new"):
            assert TaskState(new) in EDGES[TaskState(old)]
        holding = "('submitting', 'accepted', 'uncertain', 'lost')"
        # What a person decided to try again is in doubt as before.
        doubtful = "('lost', 'forgotten', 'given up')"
        assert (
            self.peek(
                f"SELECT task FROM attempts JOIN tasks ON tasks.id = task WHERE number = attempt AND"
                f" (reserved_images > 0) != (state IN {holding} OR outcome IN {doubtful})"
            )
            == []
        ), "money is held exactly for what may still be paid"
        latest = dict(self.peek("SELECT task, new FROM events WHERE image IS NULL ORDER BY id"))
        states = dict(self.peek("SELECT id, state FROM tasks"))
        assert {task: latest.get(task, "planned") for task in states} == states, "the log tells another story"
        keys = [key for (key,) in self.peek("SELECT key FROM attempts")]
        assert len(set(keys)) == len(keys)
        assert all(0 < len(key) <= 191 and all("!" <= letter <= "~" for letter in key) for key in keys)


def pytest_generate_tests(metafunc):
    """Both kinds of manifest pass every test that is not about the one in a file alone; a server's as a worker, too."""
    if "place" in metafunc.fixturenames:
        alone = metafunc.definition.get_closest_marker("file_only")
        kinds = ["file"] if alone else ["file", "server"]
        if "book" in metafunc.fixturenames and not alone and not metafunc.definition.get_closest_marker("one_alone"):
            kinds.append("worker")
        places = [pytest.param(kind, marks=[pytest.mark.thorough] if kind != "file" else ()) for kind in kinds]
        metafunc.parametrize("place", places, indirect=True)


@pytest.fixture
def place(request, tmp_path):
    """Gives places for manifests, all of one kind."""
    if request.param != "file":
        return request.getfixturevalue("postgres").place
    numbers = itertools.count()

    def file():
        number = next(numbers)
        folder = tmp_path / f"book-{number}" if number else tmp_path
        folder.mkdir(exist_ok=True)
        return folder / "manifest.db"

    return file


@pytest.fixture
def spec_of():
    """The task of the job with a number."""
    return spec


@pytest.fixture
def crew(postgres):
    """Workers of one manifest on a server."""
    made = Crew(postgres.place(), spec)
    yield made
    made.close()


@pytest.fixture
def book(place, request):
    book = Book(place(), worker=request.node.callspec.params["place"] == "worker")
    yield book
    book.sound()
    book.close()


@pytest.fixture
def open_book(place):
    """Opens books, for tests that need several or build their own."""
    opened = []

    def make():
        opened.append(Book(place()))
        return opened[-1]

    yield make
    for one in opened:
        one.close()
