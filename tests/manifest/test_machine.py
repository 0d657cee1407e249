"""Random legal events in any order, kills included: what always holds, holds after each of them."""

import shutil
import tempfile
from pathlib import Path

import pytest
from examples import examples
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from seedream_batch.manifest.task_queue import Intent
from seedream_batch.model.job import Budget
from seedream_batch.model.outcome import ImageUrl
from seedream_batch.model.task import ImageState, TaskState

NOW = 1_800_000_000.0
S = TaskState
NUMBERS = st.integers(1, 8)
BUDGET = Budget(max_images=9, max_cost=250_000)


class Events(RuleBasedStateMachine):
    open_book = None

    def __init__(self):
        super().__init__()
        self.book = self.open_book()
        self.keys = {}

    def teardown(self):
        self.book.close()

    @property
    def manifest(self):
        return self.book.manifest

    def some(self, number, *states):
        """The task of this number among those in these states, None where there is none."""
        tasks = [task for state in states for task in self.manifest.tasks.in_state(state)]
        return tasks[number % len(tasks)] if tasks else None

    def image(self, number, *states):
        images = [
            image for task in range(1, 9) for image in self.manifest.images.of_task(task) if image.state in states
        ]
        return images[number % len(images)] if images else None

    @initialize()
    def begin(self):
        self.book.enter(*(self.book.spec(number, images=number % 3 + 1) for number in range(1, 9)))

    @rule(wanted=st.sets(NUMBERS), version=st.integers(0, 2), back=st.booleans())
    def change_the_job(self, wanted, version, back):
        specs = [
            self.book.spec(number, images=number % 3 + 1, paths=(f"v{version}/{number}",))
            for number in sorted(wanted | set(range(1, 9) if back else ()))
        ]
        before = self.book.peek("SELECT id, state, attempt FROM tasks ORDER BY id")
        self.book.enter(*specs)
        assert self.book.peek("SELECT id, state, attempt FROM tasks ORDER BY id") == before

    @rule(number=NUMBERS, body=st.sampled_from([None, "{}"]))
    def claim(self, number, body):
        task = self.some(number, S.PLANNED)
        if task is None:
            return
        for claim in self.manifest.queue.claim([Intent(task.id, body)], BUDGET, NOW).claims:
            sent = self.keys.setdefault(claim.key, claim.body)
            assert sent == claim.body, "a key was used for another body"

    @rule(number=NUMBERS, ids=st.integers(1, 3))
    def accept(self, number, ids):
        task = self.some(number, S.SUBMITTING, S.UNCERTAIN)
        if task is not None:
            names = [f"t{task.id}-{part}" for part in range(ids)]
            self.manifest.tasks.accepted(task, names, deadline=NOW, why="w", now=NOW)

    @rule(number=NUMBERS)
    def not_execute(self, number):
        task = self.some(number, S.SUBMITTING, S.UNCERTAIN)
        if task is not None:
            self.manifest.tasks.not_executed(task, why="429", not_before=NOW, now=NOW)

    @rule(number=NUMBERS)
    def refuse(self, number):
        task = self.some(number, S.SUBMITTING, S.UNCERTAIN)
        if task is not None:
            self.manifest.tasks.refused(task, why="400", code="", now=NOW)

    @rule(number=NUMBERS, held=st.booleans())
    def doubt(self, number, held):
        task = self.some(number, S.SUBMITTING)
        if task is not None:
            self.manifest.tasks.uncertain(task, why="reset", code="", held=held, now=NOW)

    @rule(number=NUMBERS)
    def resend(self, number):
        task = self.some(number, S.UNCERTAIN)
        if task is not None:
            claim = self.manifest.queue.open_claim(task)
            assert self.keys[claim.key] == claim.body
            self.manifest.tasks.still_uncertain(task, why="again", held=False, now=NOW)

    @rule(number=NUMBERS, fewer=st.booleans(), cost=st.sampled_from([None, 0, 1]))
    def deliver(self, number, fewer, cost):
        task = self.some(number, S.ACCEPTED)
        if task is not None:
            self.book.deliver(task, 1 if fewer else task.images, cost)

    @rule(number=NUMBERS, again=st.booleans())
    def fail(self, number, again):
        task = self.some(number, S.ACCEPTED)
        if task is not None:
            self.manifest.tasks.failed(task, why="no", code="", retry_at=NOW if again else None, now=NOW)

    @rule(number=NUMBERS)
    def lose(self, number):
        task = self.some(number, S.ACCEPTED)
        if task is not None:
            self.manifest.tasks.lost(task, why="404", now=NOW)

    @rule(number=NUMBERS, word=st.booleans())
    def fetch(self, number, word):
        image = self.image(number, ImageState.ANNOUNCED)
        if image is None:
            return
        path = f"{self.manifest.tasks.get(image.task).paths[0]}-{image.index}.png"
        if self.manifest.images.owner(path) is None:
            self.book.place_image(image, path, self.book.file())
            if word:
                self.manifest.images.move(image, ImageState.STORED, "stored", NOW)

    @rule(number=NUMBERS, to=st.sampled_from([ImageState.REJECTED, ImageState.EXPIRED]))
    def give_up(self, number, to):
        image = self.image(number, ImageState.ANNOUNCED)
        if image is not None:
            self.manifest.images.move(image, to, "why", NOW)

    @rule(number=NUMBERS)
    def miss(self, number):
        image = self.image(number, ImageState.STORED)
        if image is not None:
            self.manifest.images.move(image, ImageState.MISSING, "gone", NOW)

    @rule(number=NUMBERS)
    def find_again(self, number):
        image = self.image(number, ImageState.MISSING, ImageState.EXPIRED, ImageState.REJECTED)
        # Only tasks that have succeeded are asked for links.
        if image is not None and self.manifest.tasks.get(image.task).state is S.SUCCEEDED:
            self.manifest.images.renew_link(
                image, ImageUrl("https://img.example.com/x", None), default_expiry=NOW, now=NOW
            )

    @rule(number=NUMBERS)
    def take_back(self, number):
        image = self.image(number, ImageState.MISSING)
        if image is not None:
            self.manifest.upkeep.restore(image, image.path, NOW)
            self.manifest.upkeep.restore_complete(NOW)

    @rule(number=NUMBERS)
    def ask_in_vain(self, number):
        image = self.image(number, ImageState.MISSING)
        if image is not None:
            self.manifest.images.update_reason(image, "no link", NOW, link=False)

    @rule()
    def remake(self):
        stored = self.book.peek("SELECT task, \"index\", path FROM images WHERE state = 'stored'")
        self.manifest.decisions.remake(self.manifest.upkeep.to_remake(), NOW)
        assert self.manifest.upkeep.to_remake() == []
        assert self.book.peek("SELECT task, \"index\", path FROM images WHERE state = 'stored'") == stored

    @rule()
    def prune(self):
        money = self.book.peek("SELECT * FROM totals"), self.book.peek("SELECT * FROM attempts")
        flight = "SELECT * FROM tasks WHERE state IN ('submitting', 'accepted', 'uncertain')"
        before = self.book.peek(flight), self.book.announced()
        self.manifest.upkeep.prune([task for task, _ in self.manifest.upkeep.to_prune(0, 100)], NOW)
        assert (self.book.peek("SELECT * FROM totals"), self.book.peek("SELECT * FROM attempts")) == money
        assert (self.book.peek(flight), self.book.announced()) == before
        assert self.manifest.upkeep.dropped().files == 0

    @rule()
    def move_files(self):
        for image in self.manifest.images.moving():
            if self.manifest.images.owner(image.target) is None:
                self.manifest.images.relocate(image, image.target, target=None, now=NOW)

    @rule(clean=st.booleans())
    def start_again(self, clean):
        if not clean and isinstance(self.book.place, Path):
            # A copy of the files as they are is what a kill leaves behind.
            with tempfile.TemporaryDirectory() as copy:
                for file in self.book.path.parent.glob(f"{self.book.path.name}*"):
                    shutil.copy(file, copy)
                survivor = type(self.book)(Path(copy, self.book.path.name))
                assert survivor.dump() == self.book.dump()
                survivor.sound(BUDGET)
                survivor.close()
        self.book.reopen()
        left = len(self.manifest.tasks.in_state(S.SUBMITTING))
        assert self.manifest.tasks.recover(NOW) == left
        assert self.manifest.tasks.in_state(S.SUBMITTING) == []

    @precondition(lambda self: self.manifest.tasks.in_state(S.PLANNED))
    @rule()
    def break_a_group(self):
        before = self.book.dump()

        def half():
            with self.manifest.group():
                task = self.manifest.tasks.in_state(S.PLANNED)[0]
                self.manifest.queue.claim([Intent(task.id)], Budget(), NOW)
                raise RuntimeError

        with pytest.raises(RuntimeError):
            half()
        assert self.book.dump() == before

    @invariant()
    def always(self):
        self.book.sound(BUDGET)
        paths = [path for (path,) in self.book.peek("SELECT path FROM images WHERE state = 'stored'")]
        assert len(set(paths)) == len(paths)
        for task, *_ in self.book.announced():
            assert self.manifest.tasks.get(task).state is S.SUCCEEDED
        for image in self.manifest.images.moving():
            assert image.target != image.path


@pytest.mark.timeout(600)  # a server takes its time for each of thousands of steps
def test_any_sequence_of_events(open_book):
    run_state_machine_as_test(
        type("Machine", (Events,), {"open_book": staticmethod(open_book)}),
        settings=settings(max_examples=examples(25), stateful_step_count=40, suppress_health_check=list(HealthCheck)),
    )
