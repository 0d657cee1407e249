"""Keys, reservations and the budget: one key for one request, and never more held and spent than the caps allow."""

import pytest
from crew import record_delivery
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seedream_batch.manifest.task_queue import Intent
from seedream_batch.model.job import DEFAULT_PRICE, Budget
from seedream_batch.model.outcome import ImageUrl
from seedream_batch.model.prices import RECENT, UNSURE
from seedream_batch.model.task import TaskState, Totals

NOW = 1_800_000_100.0
S = TaskState


def urls(count):
    return [ImageUrl(f"https://img.example.com/{number}", None) for number in range(count)]


def deliver(book, task, count, cost):
    return record_delivery(
        book.manifest, task, urls(count), cost=cost, why="completed", now=NOW, default_expiry=NOW + 3600
    )


def accept(book, task):
    return book.manifest.tasks.accepted(task, [f"task_{task.id}"], deadline=NOW, why="accepted", now=NOW)


# Keys


@pytest.mark.quick
def test_a_claim_is_durable_before_it_is_given(book):
    claim = book.claim(book.tasks()[0])
    assert book.peek("SELECT key, task, number, outcome, reserved_images, reserved FROM attempts") == [
        (claim.key, 1, 1, "open", 1, book.PRICE)
    ]
    assert book.peek("SELECT state, attempt FROM tasks") == [("submitting", 1)]
    assert claim.body == claim.task.body


@pytest.mark.parametrize("body", [None, '{"prompt":"with an uploaded reference"}'])
def test_what_was_not_executed_keeps_its_key_and_body(book, body):
    first = book.claim(book.tasks()[0], body)
    for _ in range(3):
        book.manifest.tasks.not_executed(first.task, why="429", not_before=NOW, now=NOW)
        assert book.manifest.budget.totals() == Totals()
        again = book.claim(book.manifest.tasks.get(1), body)
        assert (again.key, again.body, again.task.attempt) == (first.key, first.body, 1)
        first = again
    assert book.peek("SELECT count(*) FROM attempts") == [(1,)]


@pytest.mark.parametrize(("before", "after"), [(None, "{}"), ("{}", None), ("{}", "[]")])
def test_another_body_gets_another_key(book, before, after):
    first = book.claim(book.tasks()[0], before)
    book.manifest.tasks.not_executed(first.task, why="429", not_before=NOW, now=NOW)
    again = book.claim(book.manifest.tasks.get(1), after)
    assert again.key != first.key
    assert again.task.attempt == 2
    book.manifest.tasks.not_executed(again.task, why="429", not_before=NOW, now=NOW)
    back = book.claim(book.manifest.tasks.get(1), before)
    assert len({first.key, again.key, back.key}) == 3


def test_a_failure_is_followed_by_a_new_key(book):
    first = book.claim(book.tasks()[0])
    book.manifest.tasks.failed(accept(book, first.task), why="no", code="task_failed", retry_at=NOW + 5, now=NOW)
    task = book.manifest.tasks.get(1)
    assert (task.state, task.failures, task.not_before, task.task_ids) == (S.PLANNED, 1, NOW + 5, ())
    again = book.claim(task)
    assert again.key != first.key
    assert again.task.attempt == 2


def test_an_uncertain_task_is_sent_again_as_it_was(book):
    tasks = book.tasks(2)
    for task, body in zip(tasks, (None, '{"a":"\u72d0"}'), strict=True):
        claim = book.claim(task, body)
        book.manifest.tasks.uncertain(claim.task, why="w", code="", held=False, now=NOW)
        book.reopen()
        again = book.manifest.queue.open_claim(book.manifest.tasks.get(task.id))
        assert (again.key, again.body) == (claim.key, claim.body)


def test_a_planned_task_has_no_open_claim(book):
    assert book.manifest.queue.open_claim(book.at(S.PLANNED)) is None


def test_what_is_no_longer_in_doubt_is_not_sent_again(book):
    # A run that waits before it sends again may have lost the manifest to another one meanwhile.
    task = book.at(S.UNCERTAIN)
    assert book.manifest.queue.open_claim(task) is not None
    book.manifest.decisions.forget([task], NOW)
    assert book.manifest.queue.open_claim(task) is None
    again = book.claim(book.manifest.tasks.get(task.id)).task
    assert book.manifest.queue.open_claim(task) is None
    book.manifest.tasks.uncertain(again, why="w", code="", held=False, now=NOW)
    assert book.manifest.queue.open_claim(task) is None, "that is another attempt"


def test_keys_of_two_manifests_differ(open_book):
    keys = [book.claim(book.tasks()[0]).key for book in (open_book(), open_book())]
    assert keys[0] != keys[1]


@pytest.mark.file_only
def test_keys_of_a_manifest_from_a_backup_say_the_same(book):
    task = book.tasks()[0]
    book.manifest.close()
    copy = book.path.with_name("copy.db")
    copy.write_bytes(book.path.read_bytes())
    book.reopen()
    twin = type(book)(copy)
    assert twin.claim(task).key == book.claim(task).key
    twin.close()


def test_the_identity_of_a_manifest_stays(book):
    before = book.manifest.id
    book.reopen()
    assert book.manifest.id == before
    assert len(before) == 12


# Money


@pytest.mark.parametrize("state", [state for state in S if state is not S.SUCCEEDED])
def test_what_each_state_holds(book, state):
    holds = state in {S.SUBMITTING, S.UNCERTAIN, S.ACCEPTED, S.LOST}
    book.at(state, images=2)
    assert book.manifest.budget.totals() == (Totals(2, 2 * book.PRICE) if holds else Totals())


@pytest.mark.parametrize(
    ("asked", "delivered", "cost", "spent"),
    [
        (1, 1, 35_000, 35_000),
        (1, 1, 42_000, 42_000),
        (1, 1, 0, 35_000),
        (1, 1, 3_499, 35_000),
        (1, 1, 3_500, 3_500),
        (1, 1, 9_000_000, 9_000_000),
        (1, 1, None, 35_000),
        (4, 2, 70_000, 70_000),
        (4, 2, None, 70_000),
        (1, 3, None, 105_000),
        (1, 3, 35_000, 35_000),
        (4, 0, None, 0),
    ],
)
def test_what_was_delivered_is_what_counts(book, asked, delivered, cost, spent):
    book.enter(book.spec(1, images=asked))
    task = accept(book, book.claim(book.manifest.tasks.get(1)).task)
    images = deliver(book, task, delivered, cost)
    assert [image.index for image in images] == list(range(1, delivered + 1))
    assert book.manifest.budget.totals() == Totals(0, 0, delivered, spent)
    task = book.manifest.tasks.get(1)
    assert task.cost == spent
    assert bool(task.reason) == (asked != delivered), "a partial delivery says so"


def test_without_a_cost_it_is_the_price_at_which_it_was_bought(book):
    task = accept(book, book.claim(book.at(S.PLANNED), budget=Budget(max_cost=book.PRICE)).task)
    book.enter(book.spec(1, price=90_000))
    deliver(book, book.manifest.tasks.get(task.id), 1, None)
    assert book.manifest.budget.totals().cost == book.PRICE, "an edited price does not lift what is spent over the cap"


def test_a_link_without_an_expiry_gets_the_usual_one(book):
    task = accept(book, book.claim(book.at(S.PLANNED)).task)
    images = [ImageUrl("https://a", None), ImageUrl("https://b", NOW + 7)]
    stored = record_delivery(book.manifest, task, images, cost=1, why="w", now=NOW, default_expiry=NOW + 86_400)
    assert [image.expires_at for image in stored] == [NOW + 86_400, NOW + 7]


@pytest.mark.quick
def test_the_caps_hold_to_the_image_and_the_millionth(book):
    tasks = book.tasks(40)
    book.prove(tasks[0])
    budget = Budget(max_cost=1_000_000)
    claimed = book.manifest.queue.claim([Intent(task.id) for task in tasks], budget, NOW)
    assert len(claimed.claims) == 28
    assert claimed.stopped_by == "budget.max_cost_usd (1 USD)"
    assert len(book.manifest.queue.claim([Intent(40)], Budget(max_cost=29 * book.PRICE), NOW).claims) == 1
    assert book.manifest.queue.claim([Intent(39)], Budget(max_cost=30 * book.PRICE - 1), NOW).claims == ()
    refused = book.manifest.queue.claim([Intent(39)], Budget(max_images=29), NOW)
    assert (refused.claims, refused.stopped_by) == ((), "budget.max_images (29)")
    assert book.manifest.tasks.get(39).state is S.PLANNED


def test_what_was_not_bought_frees_its_money(book):
    tasks = book.tasks(2)
    budget = Budget(max_images=1)
    claim = book.claim(tasks[0], budget=budget)
    assert book.manifest.queue.claim([Intent(2)], budget, NOW).claims == ()
    book.manifest.tasks.refused(claim.task, why="no", code="", now=NOW)
    assert book.claim(tasks[1], budget=budget)


def test_more_delivered_than_asked_for_counts_against_the_cap(book):
    book.enter(book.spec(1), book.spec(2))
    budget = Budget(max_images=2)
    task = accept(book, book.claim(book.manifest.tasks.get(1), budget=budget).task)
    deliver(book, task, 3, None)
    assert book.manifest.queue.claim([Intent(2)], budget, NOW).stopped_by == "budget.max_images (2)"


def test_a_real_price_wins_over_the_estimate(book):
    book.tasks(3)
    deliver(book, accept(book, book.claim(book.manifest.tasks.get(1)).task), 1, 50_001)
    assert book.manifest.queue.planned_cost(None) == (2, 100_002)
    assert book.manifest.queue.planned_cost(1) == (1, 50_001)
    budget = Budget(max_cost=50_001 + 50_000)
    assert book.manifest.queue.claim([Intent(2)], budget, NOW).claims == ()
    book.claim(book.manifest.tasks.get(2))
    assert book.manifest.budget.totals().reserved == 50_001
    book.enter(*(book.spec(number) for number in (1, 2, 3)), book.spec(4, resolution="4K", price=70_000))
    book.claim(book.manifest.tasks.get(4))
    assert book.manifest.budget.totals().reserved == 50_001 + 70_000, "another resolution has its own price"


def succeed(count, cost):
    def move(book, task):
        held = book.peek("SELECT reserved FROM attempts WHERE task = ? AND number = ?", task.id, task.attempt)[0][0]
        # A service that charges no more than was held; what it charges more is beyond any reservation.
        deliver(book, task, count(task), cost(held))

    return move


FROM_SENT = {
    "not executed": lambda book, task: book.manifest.tasks.not_executed(task, why="w", not_before=0, now=NOW),
    "refused": lambda book, task: book.manifest.tasks.refused(task, why="w", code="", now=NOW),
    "accepted": accept,
}
FROM_SUBMITTING = {
    "uncertain": lambda book, task: book.manifest.tasks.uncertain(task, why="w", code="", held=False, now=NOW),
}
FROM_ACCEPTED = {
    "failed": lambda book, task: book.manifest.tasks.failed(task, why="w", code="", retry_at=NOW, now=NOW),
    "lost": lambda book, task: book.manifest.tasks.lost(task, why="w", now=NOW),
    "all": succeed(lambda task: task.images, lambda held: held),
    "one": succeed(lambda _: 1, lambda held: held // 2),
    "no cost": succeed(lambda task: task.images, lambda _: None),
    "nothing": succeed(lambda _: 0, lambda _: 0),
}
MOVES = {
    S.SUBMITTING: {**FROM_SENT, **FROM_SUBMITTING},
    S.UNCERTAIN: FROM_SENT,
    S.ACCEPTED: FROM_ACCEPTED,
}
STEPS = st.tuples(st.integers(1, 6), st.sampled_from(("claim", *FROM_SENT, *FROM_SUBMITTING, *FROM_ACCEPTED)))


@settings(max_examples=examples(80), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(STEPS, max_size=60),
    sizes=st.lists(st.integers(1, 4), min_size=6, max_size=6),
    max_images=st.none() | st.integers(0, 12),
    max_cost=st.none() | st.integers(0, 500_000),
)
def test_spent_and_reserved_stay_within_the_caps(open_book, steps, sizes, max_images, max_cost):
    book = open_book()
    budget = Budget(max_images=max_images, max_cost=max_cost)
    book.enter(*(book.spec(number, images=size) for number, size in enumerate(sizes, 1)))
    for number, step in steps:
        task = book.manifest.tasks.get(number)
        if step == "claim":
            book.manifest.queue.claim([Intent(number)], budget, NOW)
        elif step in MOVES.get(task.state, {}):
            MOVES[task.state][step](book, task)
        totals = book.manifest.budget.totals()
        assert max_images is None or totals.reserved_images + totals.images <= max_images
        assert max_cost is None or totals.reserved + totals.cost <= max_cost
    book.sound(budget)
    book.close()


# The ledger of the service as the oracle

CAP = 1_500_000
KINDS = ("1:1", "16:9", "21:9")


@pytest.mark.timeout(600)  # a server takes its time for each of thousands of steps
@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prices=st.lists(st.integers(500, UNSURE * DEFAULT_PRICE), min_size=3, max_size=3),
    estimate=st.sampled_from([1_000, 35_000, 70_000]),
    said=st.sampled_from(["the truth", "nothing", "0"]),
    steps=st.lists(st.tuples(st.sampled_from(["claim", "claim", "end", "restart"]), st.integers(1, 20)), max_size=40),
)
def test_the_ledger_of_the_service_stays_within_the_cap(open_book, prices, estimate, said, steps):
    """Each kind of request has a price of its own, of which nothing is known before.

    Beyond the cap there is at most one request, which was sent alone. A service that hides its prices is believed to
    charge the estimate, and does.
    """
    if said != "the truth":
        prices = [estimate] * 3
    real = dict(zip(KINDS, prices, strict=True))
    book = open_book()
    specs = [book.spec(number, size=KINDS[number % 3], price=estimate) for number in range(1, 91)]
    book.enter(*specs)
    ledger, alone, in_flight, waiting = 0, 0, [], list(range(1, 91))
    for step, count in [*steps, *[("claim", 20), ("end", 20)] * 8]:
        if step == "claim":
            before = len(in_flight)
            claims = book.manifest.queue.claim([Intent(n) for n in waiting[:count]], Budget(max_cost=CAP), NOW).claims
            for claim in claims:
                waiting.remove(claim.task.id)
                in_flight.append(accept(book, claim.task))
                ledger += real[claim.task.size]
            if not before and waiting and book.manifest.budget.totals().cost + max(estimate, *prices) <= CAP:
                assert claims, "one may always go out alone"
            if claims:
                alone = real[claims[0].task.size] if before == 0 and len(claims) == 1 else 0
        elif step == "end":
            for task in in_flight[:count]:
                cost = {"the truth": real[task.size], "nothing": None, "0": 0}[said]
                deliver(book, task, 1, cost)
            del in_flight[:count]
        else:
            book.reopen()
        assert ledger - alone <= CAP
    book.sound()
    book.close()


def test_the_highest_price_of_the_last_days_is_held(book):
    book.tasks(4)
    for number, price in ((1, 140_000), (2, 50_000)):
        deliver(book, accept(book, book.claim(book.manifest.tasks.get(number)).task), 1, price)
    book.claim(book.manifest.tasks.get(3))
    assert book.manifest.budget.totals().reserved == 140_000
    assert book.manifest.queue.planned_cost(None) == (1, 50_000), "what is likely is the price of last time"
    week = NOW + (RECENT + 1) * 86_400
    [late] = book.manifest.queue.claim([Intent(4)], Budget(), week).claims
    assert book.peek("SELECT reserved FROM attempts WHERE key = ?", late.key) == [(50_000,)]


def test_a_higher_price_raises_what_is_held_and_a_correction_lowers_it(book):
    book.tasks(3)
    first, second = (accept(book, book.claim(book.manifest.tasks.get(number)).task) for number in (1, 2))
    deliver(book, first, 1, 35_000_000)
    assert book.manifest.budget.totals() == Totals(1, 35_000_000, 1, 35_000_000)
    [(task, number, cost)] = book.manifest.budget.charges(noted=True)
    assert (task.id, number, cost) == (1, 1, 35_000_000)
    book.manifest.budget.correct_cost([(task, number, cost)], 40_000, NOW)
    assert book.manifest.budget.totals() == Totals(1, 40_000, 1, 40_000)
    assert book.manifest.budget.charges(noted=True) == []
    assert book.manifest.tasks.get(1).cost == 40_000
    deliver(book, second, 1, 40_000)
    assert book.manifest.budget.totals() == Totals(0, 0, 2, 80_000)


def test_nothing_is_sent_on_an_unknown_price_beside_a_doubt(book):
    tasks = book.tasks(2)
    budget = Budget(max_cost=100_000)
    book.manifest.tasks.uncertain(book.claim(tasks[0], budget=budget).task, why="w", code="", held=True, now=NOW)
    refused = book.manifest.queue.claim([Intent(2)], budget, NOW)
    assert refused.claims == ()
    assert "resolve the uncertain tasks first" in refused.stopped_by
    book.prove(tasks[1])
    assert book.claim(book.manifest.tasks.get(2), budget=budget)


def test_what_a_claim_admits_counts_for_the_rest_of_it(book):
    """Also what it admits after the first request that is refused for what it might cost."""
    book.enter(book.spec(1), book.spec(2, images=4, size="16:9"), book.spec(3, size="16:9"), book.spec(4, images=15))
    for known in (1, 4):
        book.prove(book.manifest.tasks.get(known))
    book.claim(book.manifest.tasks.get(1))
    intents = [Intent(number) for number in (2, 3, 4)]
    claimed = book.manifest.queue.claim_each(intents, Budget(max_cost=20 * book.PRICE), NOW)
    assert [len(one.claims) for one in claimed] == [0, 1, 0], "the second one may cost ten times its estimate"
