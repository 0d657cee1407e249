"""What each outcome makes of a task, and how long to wait before the next try: the tables are complete."""

from __future__ import annotations

from random import Random

import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from seedream_batch.lifecycle import (
    BACKOFF_BASE,
    BACKOFF_CAP,
    CONFIRMED,
    GOOD_FOR,
    LEAST_POLLS,
    LONGEST_POLL_PAUSE,
    NOT_FOUND_GRACE,
    WATCHED,
    WATCHED_OVERDUE,
    WATCHED_TOGETHER,
    Move,
    Outlook,
    after_poll,
    after_submission,
    backoff,
    combine,
    is_odd,
    makes_sense,
    poll_pause,
    richer,
    series,
    with_images,
)
from seedream_batch.model.outcome import ImageUrl, Poll, Polled, Submission, Submitted
from seedream_batch.model.service_messages import is_moderation
from seedream_batch.model.task import EDGES, TaskState

PLANNED, SUBMITTING, ACCEPTED, SUCCEEDED, FAILED, LOST, UNCERTAIN = TaskState

# Where a submission leads from `submitting` (a first send) and from `uncertain` (a resend), and whether it is held.
SUBMISSIONS = {
    Submitted.ACCEPTED: (ACCEPTED, ACCEPTED, False),
    Submitted.REFUSED: (FAILED, None, False),
    Submitted.UNREACHABLE: (PLANNED, None, False),
    Submitted.RATE_LIMITED: (PLANNED, None, False),
    Submitted.UNAVAILABLE: (PLANNED, None, False),
    Submitted.UNAUTHORIZED: (PLANNED, None, False),
    Submitted.UNPAID: (PLANNED, None, False),
    Submitted.BLOCKED: (FAILED, None, False),
    Submitted.NO_MODEL: (PLANNED, None, False),
    Submitted.IN_PROGRESS: (UNCERTAIN, None, False),
    Submitted.INDETERMINATE: (UNCERTAIN, None, True),
    Submitted.UNKNOWN: (UNCERTAIN, None, False),
}


def test_the_table_of_submissions_is_complete():
    assert set(SUBMISSIONS) == set(Submitted)


@pytest.mark.parametrize("kind", Submitted)
def test_after_a_submission(kind):
    first, again, held = SUBMISSIONS[kind]
    submission = Submission(kind, ("task_1",), message="why", code="c", status=418)
    move = after_submission(SUBMITTING, submission)
    assert move is not None
    assert (move.to, move.held) == (first, held)
    told = {Submitted.ACCEPTED: "accepted", Submitted.BLOCKED: "blocked: HTTP 418: why"}
    assert move.why == told.get(kind, "HTTP 418: why")
    assert move.code == ("" if kind is Submitted.ACCEPTED else "c")
    move = after_submission(UNCERTAIN, submission)
    assert (move.to if move else None) == again


def test_what_is_said_of_a_submission():
    assert after_submission(SUBMITTING, Submission(Submitted.ACCEPTED, ("t",), replayed=True)) == Move(
        ACCEPTED, "replayed by the service"
    )
    assert after_submission(SUBMITTING, Submission(Submitted.UNKNOWN)) == Move(UNCERTAIN, "unknown")
    assert after_submission(SUBMITTING, Submission(Submitted.REFUSED, message="bad", status=400)) == Move(
        FAILED, "HTTP 400: bad"
    )
    refused = Submission(Submitted.REFUSED, code="InputTextSensitiveContentDetected", message="no", status=400)
    assert after_submission(SUBMITTING, refused) == Move(
        FAILED, "HTTP 400: no", "InputTextSensitiveContentDetected", final=True
    )


@pytest.mark.parametrize(
    ("code", "message", "moderation"),
    [
        ("OutputImageSensitiveContentDetected", "", True),
        ("InputTextSensitiveContentDetected", "", True),
        ("task_failed", "refused: safety_violations=[violence]", True),
        *(
            ("", message, True)
            for message in (
                "Pre Img Risk Not Pass", "图像包含不当内容", "内容审查未通过", "提示词可能不安全",
                "安全でないコンテンツ", "The output image was flagged", "유해 콘텐츠",
                "El contenido infringe las normas", "Der Inhalt verstößt gegen unsere Richtlinien",
                "Le contenu a été rejeté", "Conteúdo bloqueado", "Il contenuto viola le norme", "İçerik ihlali",
                "Nội dung vi phạm chính sách", "Контент нарушает правила", "المحتوى ينتهك سياسة الاستخدام",
                "コンテンツポリシー違反", "콘텐츠 정책 위반", "เนื้อหาละเมิดนโยบาย", "Konten melanggar kebijakan",
            )
        ),
        *(("", message, False) for message in ("size 参数不当", "the upstream flagged a timeout", "risk of a timeout")),
        ("", "contents left", False),
        ("task_failed", "the GPU fell asleep", False),
        ("", "", False),
    ],
)  # fmt: skip
def test_moderation(code, message, moderation):
    assert is_moderation(code, message) is moderation
    move = after_poll(Poll(Polled.FAILED, code=code, message=message), age=1, overdue=False, polls=2, lasted=CONFIRMED)
    assert move == Move(FAILED, message or code or "failed; the service gave no reason", code, final=moderation)


EARLY, LATER = NOT_FOUND_GRACE - 0.1, NOT_FOUND_GRACE
# Where a poll leads: the first one; one that is repeated for a moment; for long, within the grace for 404 and after it;
# past the deadline at first, and after a while.
SITUATIONS = [
    (EARLY, False, 1, 0.0),
    (LATER, False, LEAST_POLLS, CONFIRMED),
    (EARLY, False, LEAST_POLLS, WATCHED),
    (LATER, False, LEAST_POLLS, WATCHED),
    (LATER, True, 1, 0.0),
    (EARLY, True, LEAST_POLLS, WATCHED_OVERDUE),
]
LOOKS = {
    Polled.RUNNING: (None, None, None, None, None, LOST),
    Polled.COMPLETED: (SUCCEEDED,) * 6,
    Polled.FAILED: (None, FAILED, FAILED, FAILED, None, FAILED),
    Polled.NOT_FOUND: (None, None, None, LOST, None, LOST),
    Polled.UNAUTHORIZED: (None,) * 6,
    Polled.RATE_LIMITED: (None,) * 6,
    Polled.NO_ANSWER: (None,) * 6,
}
IMAGES = (ImageUrl("https://example.com/0.png", 1.0), ImageUrl("https://example.com/1.png", None))


def test_the_table_of_looks_is_complete():
    assert set(LOOKS) == set(Polled)


@pytest.mark.parametrize("kind", Polled)
@pytest.mark.parametrize("situation", range(6))
def test_after_a_poll(kind, situation):
    age, overdue, polls, lasted = SITUATIONS[situation]
    images = () if kind is Polled.RUNNING else IMAGES
    move = after_poll(Poll(kind, images=images), age=age, overdue=overdue, polls=polls, lasted=lasted)
    assert (move.to if move else None) == LOOKS[kind][situation]


@pytest.mark.parametrize("kind", [Polled.COMPLETED, Polled.NOT_FOUND])
@pytest.mark.parametrize(
    ("polls", "lasted", "to"),
    [(LEAST_POLLS, WATCHED, LOST), (LEAST_POLLS - 1, 2 * WATCHED, None), (90, WATCHED - 0.1, None)],
)
def test_an_odd_end_is_believed_after_several_polls_and_minutes(kind, polls, lasted, to):
    move = after_poll(Poll(kind), age=LATER, overdue=False, polls=polls, lasted=lasted)
    assert (move.to if move else None) == to


@pytest.mark.parametrize(
    ("polls", "lasted", "to"), [(1, 60.0, None), (2, CONFIRMED - 0.1, None), (2, CONFIRMED, FAILED)]
)
def test_a_failure_is_believed_once_it_is_confirmed(polls, lasted, to):
    move = after_poll(Poll(Polled.FAILED), age=9.0, overdue=False, polls=polls, lasted=lasted)
    assert (move.to if move else None) == to


@pytest.mark.parametrize(
    ("polls", "lasted", "to"),
    [(1, 60.0, None), (LEAST_POLLS, CONFIRMED - 0.1, None), (LEAST_POLLS - 1, CONFIRMED, None),
     (LEAST_POLLS, CONFIRMED, SUCCEEDED)],
)  # fmt: skip
def test_too_few_images_are_believed_once_that_is_confirmed(polls, lasted, to):
    few = Poll(Polled.COMPLETED, images=IMAGES)
    assert is_odd(few, age=9.0, least=3)
    assert not is_odd(few, age=9.0, least=2)
    move = after_poll(few, age=9.0, overdue=False, polls=polls, lasted=lasted, asked=3, least=3)
    assert (move.to if move else None) == to
    enough = after_poll(few, age=9.0, overdue=False, polls=1, lasted=0.0, asked=3, least=2)
    assert enough is not None
    assert enough.to == SUCCEEDED


def test_more_images_begin_another_series():
    one, two = Poll(Polled.COMPLETED, images=IMAGES[:1]), Poll(Polled.COMPLETED, images=IMAGES)
    assert series(series(None, one, 0.0), two, 1.0).count == 1
    assert series(series(None, one, 0.0), one, 1.0).count == 2


@pytest.mark.parametrize("kind", [Polled.COMPLETED, Polled.RUNNING])
@pytest.mark.parametrize("to", [LOST, FAILED])
def test_images_that_were_shown_outweigh_later_answers(kind, to):
    shown, later = Poll(kind, images=IMAGES), Poll(Polled.NOT_FOUND)
    best = richer(richer(None, shown), later)
    assert best is shown
    poll, move = with_images(later, Move(to, "gone"), best)
    kept = kind is Polled.COMPLETED or to is LOST
    assert (poll, move.to) == ((shown, SUCCEEDED) if kept else (later, to))
    assert with_images(later, Move(to, "gone"), None) == (later, Move(to, "gone"))


def test_moderation_needs_no_confirmation():
    failed = Poll(Polled.FAILED, code="OutputImageSensitiveContentDetected")
    move = after_poll(failed, age=9.0, overdue=False, polls=1, lasted=0.0)
    assert move is not None
    assert (move.to, move.final) == (FAILED, True)


def test_what_failed_and_cost_all_the_same_is_not_bought_again_by_itself():
    failed = Poll(Polled.FAILED, message="no", cost=35_000)
    assert after_poll(failed, age=9.0, overdue=False, polls=2, lasted=9.0) == Move(FAILED, "no", final=True)


def test_what_is_said_of_a_poll():
    def why(poll, age, *, overdue=False):
        move = after_poll(poll, age=age, overdue=overdue, polls=LEAST_POLLS, lasted=WATCHED, asked=3)
        return (move.to, move.why) if move else None

    assert why(Poll(Polled.COMPLETED, images=IMAGES), 1) == (SUCCEEDED, "completed with 2 image(s)")
    assert why(Poll(Polled.COMPLETED), 1) == (LOST, "completed, but the answer contains no image URL")
    assert why(Poll(Polled.RUNNING, images=IMAGES), 30, overdue=True) == (
        SUCCEEDED,
        "not finished 30 s after the service accepted it",
    ), "images that are there are not given up"
    assert why(Poll(Polled.RUNNING), 30, overdue=True) == (LOST, "not finished 30 s after the service accepted it")
    assert why(Poll(Polled.NOT_FOUND), 60) == (LOST, "the service does not know this task id")
    assert why(Poll(Polled.NOT_FOUND, status=400), 60) == (
        LOST,
        "the service does not know this task id (HTTP 400)",
    )


def test_polls_in_a_row_are_a_series():
    empty, full = Poll(Polled.COMPLETED), Poll(Polled.COMPLETED, images=IMAGES)
    first = series(None, empty, 10.0)
    second = series(first, empty, 12.0)
    assert (second.count, second.since, second.lasted(15.0)) == (2, 10.0, 5.0)
    assert series(second, full, 20.0).count == 1
    assert series(second, Poll(Polled.FAILED), 20.0).since == 20.0


def test_which_answers_are_odd_and_which_make_sense():
    empty, full = Poll(Polled.COMPLETED), Poll(Polled.COMPLETED, images=IMAGES)
    assert [is_odd(poll, age=LATER) for poll in (empty, full, Poll(Polled.FAILED), Poll(Polled.RUNNING))] == [
        True,
        False,
        True,
        False,
    ]
    assert [is_odd(Poll(Polled.NOT_FOUND), age=age) for age in (EARLY, LATER)] == [False, True]
    assert [makes_sense(poll) for poll in (empty, full, Poll(Polled.FAILED), Poll(Polled.NO_ANSWER))] == [
        False,
        True,
        True,
        False,
    ]


def test_pauses_between_odd_answers_grow_to_a_minute():
    pauses = [poll_pause(polls) for polls in range(1, 12)]
    assert pauses[:3] == [2.0, 4.0, 8.0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_POLL_PAUSE
    assert poll_pause(10**6) == LONGEST_POLL_PAUSE


NOT_FOUND = Poll(Polled.NOT_FOUND)


def looking(*polls, outlook=None, now=0.0):
    """An outlook after `LEAST_POLLS` polls of each task, over `WATCHED_TOGETHER` seconds."""
    outlook = outlook or Outlook()
    runs = dict.fromkeys(range(len(polls)))
    for step in range(LEAST_POLLS):
        at = now + step * WATCHED_TOGETHER / (LEAST_POLLS - 1)
        for task, poll in enumerate(polls):
            runs[task] = series(runs[task], poll, at)
            outlook.note(task, poll, runs[task], at)
    return outlook


def test_when_all_tasks_show_the_same_odd_end_it_is_an_outage():
    assert looking(NOT_FOUND, NOT_FOUND, NOT_FOUND).outage(WATCHED_TOGETHER) == 3
    assert looking(Poll(Polled.COMPLETED), Poll(Polled.COMPLETED)).outage(WATCHED_TOGETHER) == 2


@pytest.mark.parametrize(
    "polls",
    [
        (NOT_FOUND,),
        (NOT_FOUND, NOT_FOUND, Poll(Polled.RUNNING)),
        (NOT_FOUND, NOT_FOUND, Poll(Polled.FAILED)),
        (NOT_FOUND, NOT_FOUND, Poll(Polled.COMPLETED, images=IMAGES)),
        (NOT_FOUND, Poll(Polled.COMPLETED)),
        (Poll(Polled.RUNNING), Poll(Polled.RUNNING)),
    ],
)
def test_one_task_or_one_answer_that_makes_sense_is_no_outage(polls):
    outlook = looking(*polls)
    assert not outlook.outage(WATCHED_TOGETHER)
    assert not outlook.doubtful(WATCHED_TOGETHER)


def test_an_outage_takes_a_while_and_until_then_no_task_is_given_up():
    outlook = Outlook()
    for task in range(2):
        outlook.note(task, NOT_FOUND, series(None, NOT_FOUND, 0.0), 0.0)
    assert outlook.doubtful(0.0)
    assert not outlook.outage(WATCHED)
    outlook.forget(0)
    assert not outlook.doubtful(0.0)


def test_a_good_answer_speaks_for_the_service_for_a_while():
    outlook = Outlook()
    outlook.note(9, Poll(Polled.RUNNING), series(None, Poll(Polled.RUNNING), 0.0), 0.0)
    looking(NOT_FOUND, NOT_FOUND, outlook=outlook, now=1.0)
    assert not outlook.outage(WATCHED)
    assert outlook.outage(GOOD_FOR) == 2


SUBMISSION = st.builds(
    Submission,
    kind=st.sampled_from(Submitted),
    task_ids=st.just(("t",)),
    message=st.text(max_size=9),
    code=st.sampled_from(["", "x", "moderation"]),
    status=st.none() | st.integers(100, 599),
    replayed=st.booleans(),
)
POLL = st.builds(
    Poll,
    kind=st.sampled_from(Polled),
    images=st.lists(st.sampled_from(IMAGES), max_size=2).map(tuple),
    cost=st.none() | st.integers(0, 10**6),
    message=st.text(max_size=9),
    code=st.sampled_from(["", "x", "moderation"]),
)


@settings(max_examples=examples(300))
@given(st.sampled_from([SUBMITTING, UNCERTAIN]), SUBMISSION)
def test_a_submission_moves_along_the_edges(state, submission):
    move = after_submission(state, submission)
    if move is None:
        assert state is UNCERTAIN
        return
    assert move.to in EDGES[state]
    assert move.why
    # only where it is certain that nothing was executed may the task be sent again under a new key
    if move.to is PLANNED:
        assert state is SUBMITTING
        assert submission.kind not in {Submitted.UNKNOWN, Submitted.IN_PROGRESS, Submitted.INDETERMINATE}


@settings(max_examples=examples(300))
@given(
    st.lists(POLL, min_size=1, max_size=4),
    st.floats(0, 1e6),
    st.booleans(),
    st.integers(1, 5),
    st.floats(0, 2 * WATCHED),
)
def test_a_poll_moves_along_the_edges(polls, age, overdue, repeats, lasted):
    seen = combine(polls, age, overdue=overdue)
    move = after_poll(seen, age=age, overdue=overdue, polls=repeats, lasted=lasted, asked=3)
    if move is not None:
        assert move.to in EDGES[ACCEPTED]
        assert move.why
    kinds = {poll.kind for poll in polls}
    silent = kinds & {Polled.UNAUTHORIZED, Polled.RATE_LIMITED, Polled.NO_ANSWER}
    if silent or (Polled.RUNNING in kinds and not overdue):
        assert move is None
    elif kinds <= {Polled.RUNNING, Polled.NOT_FOUND} and overdue and repeats >= LEAST_POLLS and lasted >= WATCHED:
        assert move is not None
        assert move.to is LOST or any(poll.images for poll in polls)
    elif move is not None and move.to is LOST:
        assert repeats >= LEAST_POLLS
        assert lasted >= (WATCHED_OVERDUE if overdue else WATCHED)


def looked(*kinds, age=NOT_FOUND_GRACE, **fields):
    return combine([Poll(kind, **fields) for kind in kinds], age).kind


COMBINED = [
    ((Polled.COMPLETED,), Polled.COMPLETED),
    ((Polled.NOT_FOUND,), Polled.NOT_FOUND),
    ((Polled.COMPLETED, Polled.RUNNING), Polled.RUNNING),
    ((Polled.FAILED, Polled.RUNNING), Polled.RUNNING),
    ((Polled.COMPLETED, Polled.NO_ANSWER), Polled.NO_ANSWER),
    ((Polled.COMPLETED, Polled.RATE_LIMITED, Polled.RUNNING), Polled.RATE_LIMITED),
    ((Polled.COMPLETED, Polled.UNAUTHORIZED, Polled.RATE_LIMITED), Polled.UNAUTHORIZED),
    ((Polled.COMPLETED, Polled.FAILED), Polled.COMPLETED),
    ((Polled.FAILED, Polled.COMPLETED), Polled.COMPLETED),
    ((Polled.FAILED, Polled.FAILED), Polled.FAILED),
    ((Polled.FAILED, Polled.NOT_FOUND), Polled.NOT_FOUND),
    ((Polled.COMPLETED, Polled.NOT_FOUND), Polled.COMPLETED),
]


@pytest.mark.parametrize(("kinds", "kind"), COMBINED)
def test_several_task_ids_are_one_task(kinds, kind):
    assert looked(*kinds) is kind


def test_a_fresh_404_beside_a_finished_part_is_waited_for():
    assert looked(Polled.COMPLETED, Polled.NOT_FOUND, age=NOT_FOUND_GRACE - 0.1) is Polled.NOT_FOUND


def test_past_the_deadline_what_parts_delivered_counts():
    parts = [Poll(Polled.RUNNING), Poll(Polled.COMPLETED, images=IMAGES[:1])]
    assert combine(parts, 2000.0).kind is Polled.RUNNING
    found = combine(parts, 2000.0, overdue=True)
    assert (found.kind, found.images) == (Polled.COMPLETED, IMAGES[:1])
    assert combine(parts[:1] * 2, 2000.0, overdue=True).kind is Polled.RUNNING


def test_what_parts_delivered_is_put_together():
    one = Poll(Polled.COMPLETED, images=IMAGES[:1], cost=5, status=200, notes=("n1",))
    two = Poll(Polled.COMPLETED, images=IMAGES[1:], cost=7, status=200, notes=("n2",))
    bad = Poll(Polled.FAILED, message="no")
    assert combine([one, two], 0) == Poll(Polled.COMPLETED, images=IMAGES, cost=12, status=200, notes=("n1", "n2"))
    assert combine([bad, one], 0) == Poll(
        Polled.COMPLETED,
        images=IMAGES[:1],
        cost=5,
        status=200,
        notes=("n1", "a part failed: no"),
        errors=("a part failed: no",),
    )
    assert combine([one, Poll(Polled.COMPLETED, images=IMAGES[1:])], 0).cost is None


@settings(max_examples=examples(300))
@given(st.integers(0, 10**9), st.integers())
def test_the_backoff_is_bounded_and_spread(tries, seed):
    ceiling = min(BACKOFF_CAP, BACKOFF_BASE * 2.0 ** min(tries - 1, 40))
    assert 0.1 * ceiling <= backoff(tries, random=Random(seed)) <= ceiling


def test_the_backoff_grows():
    chance = Random(1)
    means = [sum(backoff(tries, random=chance) for _ in range(400)) / 400 for tries in range(1, 9)]
    assert means == sorted(means)
    assert means[0] == pytest.approx(0.55 * BACKOFF_BASE, rel=0.1)
    assert means[-1] == pytest.approx(0.55 * BACKOFF_CAP, rel=0.1)
    assert len({backoff(3, random=chance) for _ in range(50)}) == 50


def test_tasks_at_work_do_not_explain_that_none_ends_with_images():
    empty = Poll(Polled.COMPLETED)
    outlook = looking(empty, empty)
    outlook.note(9, Poll(Polled.RUNNING), series(None, Poll(Polled.RUNNING), 0.0), WATCHED_TOGETHER)
    assert outlook.outage(WATCHED_TOGETHER) == 2
    ended = Poll(Polled.COMPLETED, images=IMAGES)
    outlook.note(9, ended, series(None, ended, 0.0), WATCHED_TOGETHER)
    assert not outlook.outage(WATCHED_TOGETHER)


def test_a_task_at_work_has_ended_with_all_its_images():
    def moved(poll, asked):
        move = after_poll(poll, age=9.0, overdue=False, polls=1, lasted=0.0, asked=asked)
        return move.to if move else None

    assert moved(Poll(Polled.RUNNING, images=IMAGES), 2) == SUCCEEDED
    assert moved(Poll(Polled.RUNNING, images=IMAGES), 3) is None
    assert moved(Poll(Polled.RUNNING, images=IMAGES, partial=True), 2) is None
