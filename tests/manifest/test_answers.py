"""Answers that were not fully understood, kept with their outcome."""

import pytest

from seedream_batch.errors import StaleTransition
from seedream_batch.manifest import ManifestReader
from seedream_batch.manifest.answer_store import MOST
from seedream_batch.model.outcome import Kept

NOW = 1_800_000_000.0


def kept(number):
    return Kept(f"why {number}", 200, '{"date": "today"}', f"body {number} \ufffd é \\x00", 70_000)


@pytest.mark.quick
def test_an_answer_is_kept_with_its_outcome(book):
    first, second, third, fourth = book.tasks(4)
    manifest = book.manifest
    manifest.tasks.uncertain(book.claim(first).task, why="w", code="", held=False, now=NOW, kept=kept(1))
    manifest.tasks.refused(book.claim(second).task, why="w", code="", now=NOW, kept=kept(2))
    manifest.tasks.not_executed(book.claim(third).task, why="w", not_before=NOW, now=NOW, kept=kept(3))
    accepted = manifest.tasks.accepted(book.claim(fourth).task, ["t"], deadline=NOW, why="w", now=NOW, kept=kept(4))
    manifest.answers.record(accepted, kept(5), NOW + 1)
    manifest.tasks.still_uncertain(manifest.tasks.get(first.id), why="w", held=True, now=NOW, kept=kept(6))
    assert [one.kept for one in manifest.answers.of_task(first.id)] == [kept(6), kept(1)]
    assert [(one.at, one.attempt, one.kind) for one in manifest.answers.of_task(accepted.id)] == [
        (NOW + 1, 1, "poll"),
        (NOW, 1, "submission"),
    ]
    with ManifestReader(book.place) as reader:
        assert reader.answer_count() == 6
        assert [(one.kept, task.id) for one, task in reader.answers(2)] == [
            (kept(6), first.id),
            (kept(5), accepted.id),
        ]
        assert [doubt.kept[0].kept for doubt in reader.uncertain(9)] == [kept(6)]


def test_an_outcome_that_is_not_recorded_keeps_no_answer(book):
    [task] = book.tasks(1)
    claimed = book.claim(task).task
    book.manifest.tasks.refused(claimed, why="w", code="", now=NOW)
    with pytest.raises(StaleTransition):
        book.manifest.tasks.uncertain(claimed, why="w", code="", held=False, now=NOW, kept=kept(1))
    assert book.manifest.answers.of_task(task.id) == []


def test_the_last_answers_of_each_task_are_kept(book):
    first, second = book.tasks(2)
    for number in range(MOST + 3):
        book.manifest.answers.record(first, kept(number), NOW)
    book.manifest.answers.record(second, kept(99), NOW)
    assert [one.kept.why for one in book.manifest.answers.of_task(first.id)] == [
        f"why {n}" for n in range(MOST + 2, 2, -1)
    ]
    assert [one.kept for one in book.manifest.answers.of_task(second.id)] == [kept(99)]
