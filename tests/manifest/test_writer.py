"""The writer: results only when they are durable, in order, and each call on its own."""

import asyncio
import sqlite3
import threading

import pytest

from seedream_batch.errors import ManifestBusy, ManifestError, StaleTransition, StorageError
from seedream_batch.manifest.async_writer import ManifestWriter
from seedream_batch.manifest.database import OneByOne
from seedream_batch.manifest.db import sqlite
from seedream_batch.manifest.image_store import Placement, Storing
from seedream_batch.manifest.task_queue import Intent
from seedream_batch.manifest.task_store import Acceptance, Delivery
from seedream_batch.model.job import Budget
from seedream_batch.model.outcome import ImageUrl
from seedream_batch.model.task import TaskState

NOW = 1_800_000_000.0


def at_commits(book, meet):
    """Calls something right before each commit from here on, on the thread that makes it."""
    connection = book.manifest.connection
    commit = type(connection).commit

    def met():
        meet()
        commit(connection)

    connection.commit = met


class Gate:
    """Holds the writer's thread inside the next commit, as a slow disk does; counts the commits."""

    def __init__(self, book):
        self._open = threading.Event()
        self._loop = asyncio.get_running_loop()
        self.reached = asyncio.Event()
        self.commits = 0
        at_commits(book, self._meet)

    def _meet(self):
        self.commits += 1
        self._loop.call_soon_threadsafe(self.reached.set)
        assert self._open.wait(30)

    def open(self):
        self._open.set()


def with_writer(book, work, **options):
    async def main():
        writer = ManifestWriter(book.manifest, **options)
        try:
            return await work(writer)
        finally:
            await writer.close()

    return asyncio.run(main())


async def together(writer, *calls):
    """The outcomes of calls that are made at once, and so share one transaction."""
    return await asyncio.gather(*map(writer.do, calls), return_exceptions=True)


def note(book, value):
    def call():
        book.manifest.facts.set({f"note {value}": str(value)})
        return value

    return call


def noted(book):
    return [name for (name,) in book.peek("SELECT name FROM facts WHERE name LIKE 'note%' ORDER BY name")]


def commits(book):
    """Counts the transactions that are committed from here on."""
    seen = []
    at_commits(book, lambda: seen.append(1))
    return seen


def test_a_result_comes_after_the_commit(book):
    book.tasks(50)

    async def work(writer):
        async def one(number):
            claimed = await writer.do(lambda: book.manifest.queue.claim([Intent(number)], Budget(), NOW))
            key = claimed.claims[0].key
            # Another connection sees it at the very moment in which the POST would go out.
            assert book.peek("SELECT key FROM attempts WHERE task = ?", number) == [(key,)]

        await asyncio.gather(*(one(number) for number in range(1, 51)))

    with_writer(book, work)


def test_results_of_a_shared_transaction_come_after_its_commit(book):
    async def work(writer):
        async def one(number):
            assert await writer.do(note(book, number)) == number
            return len(noted(book))

        gate = Gate(book)
        waiting = [asyncio.create_task(one(number)) for number in range(10)]
        await gate.reached.wait()
        assert noted(book) == []
        assert not any(task.done() for task in waiting)
        gate.open()
        assert await asyncio.gather(*waiting) == [10] * 10

    with_writer(book, work)


def test_calls_that_are_made_during_a_commit_share_the_next_one(book):
    async def work(writer):
        gate = Gate(book)
        first = asyncio.create_task(writer.do(note(book, "first")))
        await gate.reached.wait()
        waiting = [asyncio.create_task(writer.do(note(book, number))) for number in range(100)]
        await asyncio.sleep(0)
        gate.open()
        await asyncio.gather(first, *waiting)
        return gate.commits

    assert with_writer(book, work) == 2
    assert len(noted(book)) == 101


def test_calls_that_arrive_together_share_a_commit(book):
    async def work(writer):
        seen = commits(book)
        assert await together(writer, *(note(book, number) for number in range(100))) == list(range(100))
        return len(seen)

    assert with_writer(book, work) == 1
    assert len(noted(book)) == 100


@pytest.mark.parametrize("most", [1, 3, 7])
def test_a_group_has_a_bound(book, most):
    async def work(writer):
        seen = commits(book)
        assert await together(writer, *(note(book, number) for number in range(21))) == list(range(21))
        return len(seen)

    assert with_writer(book, work, most_together=most) == 21 // most


def traced(book):
    """The first words of the statements from here on."""
    seen = []
    book.manifest.connection.sql.set_trace_callback(lambda statement: seen.append(statement.split()[0]))
    return seen


@pytest.mark.file_only
def test_calls_that_succeed_share_a_transaction_without_savepoints(book):
    async def work(writer):
        seen = traced(book)
        await together(writer, *(note(book, number) for number in range(10)))
        return list(seen)

    assert with_writer(book, work) == ["BEGIN", *["INSERT"] * 10, "COMMIT"]


@pytest.mark.file_only
def test_calls_that_only_read_need_no_transaction(book):
    async def work(writer):
        seen = traced(book)
        facts = await asyncio.gather(*(writer.read(writer.manifest.facts.get, "manifest_id") for _ in range(3)))
        with pytest.raises(KeyError):
            await writer.read(lambda: {}["nothing"])
        return facts, list(seen)

    assert with_writer(book, work) == ([book.manifest.id] * 3, ["SELECT"] * 3)


def test_items_for_one_method_share_a_call(book):
    seen = []

    def method(items):
        seen.append(items)
        return [item + 1 for item in items]

    async def work(writer):
        calls = [call for number in range(5) for call in (writer.join(method, number), writer.do(note(book, number)))]
        return await asyncio.gather(*calls)

    assert with_writer(book, work)[::2] == [1, 2, 3, 4, 5]
    assert seen == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize("reads", [True, False])
def test_items_that_cannot_be_handled_together_fail_by_themselves(book, reads):
    def method(items):
        if not reads:
            book.manifest.facts.set({f"note {item}": "x" for item in items})
        if len(items) > 1:
            raise OneByOne
        return [1 / item for item in items]

    async def work(writer):
        return await asyncio.gather(
            *(writer.join(method, item, reads=reads) for item in range(3)), return_exceptions=True
        )

    failed, *others = with_writer(book, work)
    assert isinstance(failed, ZeroDivisionError)
    assert others == [1, 0.5]
    assert noted(book) == ([] if reads else ["note 1", "note 2"])


async def lived_through(writer, book):
    """A run of ten tasks whose answers come together, odd ones among them; what each call was answered with."""
    budget = Budget(max_images=18, max_cost=200 * book.PRICE)
    manifest = writer.manifest
    specs = [book.spec(number, images=1 + number % 3, paths=(f"fox/{number}",)) for number in range(1, 11)]
    manifest.sync_job([*specs, book.spec(11, images=20), book.spec(12)], NOW)
    book.prove(manifest.tasks.get(1))

    def claim_each(intents):
        return manifest.queue.claim_each(intents, budget, NOW)

    async def asked(method, items):
        return await asyncio.gather(*(writer.join(method, item) for item in items), return_exceptions=True)

    claimed = await asked(claim_each, [Intent(number) for number in range(1, 13)])
    answers = [claimed]
    tasks = [claim.task for one in claimed for claim in one.claims]
    for names in (lambda task: f"task_{task.id}", lambda task: f"task_{max(task.id, 6)}"):
        # One after the other with ids of their own, and then some with the same.
        now, tasks = (tasks[:4], tasks[4:]) if names(tasks[0]) == "task_1" else (tasks, [])
        accepted = await asked(
            manifest.tasks.accept_all, [Acceptance(one, [names(one)], NOW + 60, "w", NOW) for one in now]
        )
        costs = {2: 2 * book.PRICE, 3: 2 * book.PRICE, 4: None, 6: 0, 7: 10**9}
        for half in (accepted[:2], accepted[2:]):
            delivered = await asked(
                manifest.tasks.succeed_all,
                [
                    Delivery(
                        one, [ImageUrl(f"https://x/{one.id}-{n}", None) for n in range(one.images - (one.id == 4))],
                        costs.get(one.id, one.images * book.PRICE), "completed", NOW, NOW + 9, lambda n: f"{n} there",
                    )
                    for one in half
                ],
            )  # fmt: skip
            images = [image for one in delivered if not isinstance(one, Exception) for image in one.images]
            files = [book.file("abcdef"[(3 * one.task + one.index) % 6]) for one in images]
            paths = [f"fox/{one.task}-{one.index}.png" for one in images]
            place = [Placement(*one, NOW) for one in zip(images, paths, files, strict=True)]
            stored = [Storing(image, file, "w", "", NOW) for image, file in zip(images, files, strict=True)]
            await asked(manifest.images.place_all, place)
            answers += [accepted, delivered, await asked(manifest.images.store_all, stored)]
    return answers


def test_calls_together_leave_what_they_leave_one_by_one(open_book):
    def left(most):
        book = open_book()
        answers = with_writer(book, lambda writer: lived_through(writer, book), most_together=most)
        book.sound()
        tables = book.dump()
        # A server does not use the number of an event again that was rolled back.
        tables["events"] = [row[1:] for row in sorted(tables["events"])]
        tables = {name: rows if name == "events" else sorted(map(repr, rows)) for name, rows in tables.items()}
        return repr((answers, tables)).replace(book.manifest.id, "ID").splitlines()

    assert left(256) == left(1)


def test_calls_keep_their_order(book):
    order = []

    async def work(writer):
        calls = [(lambda number=number: order.append(number)) for number in range(500)]
        await asyncio.gather(*(writer.do(call) for call in calls))

    with_writer(book, work)
    assert order == list(range(500))


def test_a_call_that_fails_undoes_nothing_of_the_others(book):
    def half():
        book.manifest.facts.set({"note half": "x"})
        raise ValueError("halfway")

    def stale():
        book.manifest.facts.set({"note stale": "x"})
        book.manifest.tasks.recover(NOW)
        book.manifest.tasks.lost(book.manifest.tasks.get(1), why="w", now=NOW)

    def broken():
        book.manifest.facts.set({"note broken": "x"})
        book.manifest.connection.sql.execute("INSERT INTO facts VALUES ('note 1', 'again')")

    def nonsense():
        book.manifest.connection.sql.execute("SELECT * FROM nothing")

    book.tasks(1)

    async def work(writer):
        return await together(
            writer, note(book, 1), half, note(book, 2), stale, broken, note(book, 3), nonsense, note(book, 4)
        )

    results = with_writer(book, work)
    guards = book.manifest.connection.guards
    kinds = [one if isinstance(one, int) else isinstance(one, guards) or type(one) for one in results]
    assert kinds == [1, ValueError, 2, StaleTransition, True, 3, ManifestError, 4]
    assert noted(book) == ["note 1", "note 2", "note 3", "note 4"]


def test_a_storage_error_fails_the_whole_group(book):
    def full():
        raise StorageError("no space left on device")

    async def work(writer):
        results = await together(writer, note(book, 1), full, note(book, 2))
        return results, await writer.do(note(book, 3))

    results, later = with_writer(book, work)
    assert [type(result) for result in results] == [StorageError] * 3
    assert later == 3, "the next group has its own chance"
    assert noted(book) == ["note 3"]


@pytest.mark.file_only
def test_a_real_full_disk_fails_the_whole_group(book):
    raw = book.manifest.connection.sql
    [(pages,)] = raw.execute("PRAGMA page_count").fetchall()
    [(most,)] = raw.execute(f"PRAGMA max_page_count = {pages + 2}").fetchall()

    def much():
        book.manifest.facts.set({f"note {number}": "x" * 10_000 for number in range(20)})

    async def work(writer):
        return await together(writer, note(book, "a"), much, note(book, "b"))

    results = with_writer(book, work)
    assert most == pages + 2
    assert [type(result) for result in results] == [StorageError] * 3
    assert noted(book) == []
    raw.execute("PRAGMA max_page_count = 1000000")
    assert with_writer(book, lambda writer: writer.do(note(book, "c"))) == "c"


def test_a_lost_transaction_is_no_success(book):
    def rollback():
        # What SQLite does by itself after some errors of the disk.
        book.manifest.connection.sql.execute("ROLLBACK")

    async def work(writer):
        return await together(writer, note(book, 1), rollback, note(book, 2))

    results = with_writer(book, work)
    assert all(isinstance(result, (StorageError, ManifestError)) for result in results)
    assert noted(book) == []
    assert with_writer(book, lambda writer: writer.do(note(book, 3))) == 3


@pytest.mark.file_only
def test_a_locked_file_is_told_and_the_writer_lives_on(book, monkeypatch):
    monkeypatch.setattr(sqlite.SqliteConnection.wait_for_lock, "__defaults__", (0.01,))
    other = sqlite3.connect(book.path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")

    async def work(writer):
        with pytest.raises(ManifestBusy, match="locked"):
            await writer.do(note(book, 1))
        other.execute("ROLLBACK")
        return await writer.do(note(book, 2))

    assert with_writer(book, work) == 2
    other.close()
    assert noted(book) == ["note 2"]


@pytest.mark.file_only
def test_the_loop_goes_on_while_the_file_is_locked(book):
    other = sqlite3.connect(book.path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")

    async def work(writer):
        waiting = asyncio.create_task(writer.do(note(book, 1)))
        for _ in range(1000):
            await asyncio.sleep(0)
        assert not waiting.done()
        other.execute("ROLLBACK")
        return await waiting

    assert with_writer(book, work) == 1
    other.close()


@pytest.mark.file_only
def test_a_call_that_only_reads_waits_for_no_commit_of_its_own(book):
    book.tasks(3)

    async def work(writer):
        threads = set()
        at_commits(book, lambda: threads.add(threading.current_thread()))
        assert len(await writer.do(lambda: book.manifest.tasks.in_state(TaskState.PLANNED))) == 3
        return threads

    assert with_writer(book, work) == {threading.main_thread()}


def test_a_cancelled_wait_does_not_undo_the_call(book):
    async def work(writer):
        gate = Gate(book)
        first = asyncio.create_task(writer.do(note(book, 0)))
        await gate.reached.wait()
        waiting = asyncio.create_task(writer.do(note(book, 1)))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        gate.open()
        await first

    with_writer(book, work)
    assert noted(book) == ["note 0", "note 1"]


def test_a_cancelled_wait_for_a_call_that_fails_is_quiet(book):
    def fail():
        raise ValueError("nobody waits for this")

    async def work(writer):
        asyncio.get_running_loop().set_exception_handler(lambda _, context: pytest.fail(str(context)))
        gate = Gate(book)
        first = asyncio.create_task(writer.do(note(book, 0)))
        await gate.reached.wait()
        waiting = asyncio.create_task(writer.do(fail))
        await asyncio.sleep(0)
        waiting.cancel()
        gate.open()
        await first
        await writer.do(note(book, 1))
        return waiting.cancelled()

    assert with_writer(book, work)


def test_closing_waits_for_every_call(book):
    async def main():
        writer = ManifestWriter(book.manifest)
        waiting = [asyncio.create_task(writer.do(note(book, number))) for number in range(200)]
        await asyncio.sleep(0)
        await writer.close()
        assert len(noted(book)) == 200
        assert not any(thread.name.startswith("manifest-writer") for thread in threading.enumerate())
        assert await asyncio.gather(*waiting) == list(range(200))
        await writer.close()

    asyncio.run(main())
    assert book.manifest.facts.get("note 1") == "1", "the manifest stays open"


def test_a_call_after_the_end_does_not_wait_for_ever(book):
    async def main():
        writer = ManifestWriter(book.manifest)
        await writer.close()
        with pytest.raises(RuntimeError, match="closed"):
            await writer.do(note(book, 1))

    asyncio.run(main())


def test_the_loop_goes_on_while_the_disk_is_slow(book):
    async def work(writer):
        gate = Gate(book)
        first = asyncio.create_task(writer.do(note(book, 1)))
        await gate.reached.wait()
        turns = 0
        for _ in range(1000):
            await asyncio.sleep(0)
            turns += 1
        assert not first.done()
        gate.open()
        await first
        return turns

    assert with_writer(book, work) == 1000


@pytest.mark.quick
def test_a_run_through_the_writer(book):
    book.tasks(20)
    budget = Budget(max_images=15)

    async def follow(writer, claim):
        def accept():
            return book.manifest.tasks.accepted(claim.task, [claim.key], deadline=NOW, why="w", now=NOW)

        task = await writer.do(accept)
        await writer.do(lambda: book.manifest.tasks.lost(task, why="w", now=NOW))

    async def one(writer, number):
        claimed = await writer.do(lambda: book.manifest.queue.claim([Intent(number)], budget, NOW))
        for claim in claimed.claims:
            await follow(writer, claim)
        return len(claimed.claims)

    async def work(writer):
        return await asyncio.gather(*(one(writer, number) for number in range(1, 21)))

    assert sum(with_writer(book, work)) == 15
    assert len(book.manifest.tasks.in_state(TaskState.LOST)) == 15
    book.sound(budget)


def test_nobody_can_cancel_what_was_asked_for(book):
    """Not even the loop, which cancels all of its tasks when it ends early."""

    async def main():
        writer = ManifestWriter(book.manifest)
        gate = Gate(book)
        asking = [asyncio.create_task(writer.do(note(book, 0)))]
        await gate.reached.wait()
        asking += [asyncio.create_task(writer.do(note(book, number))) for number in range(1, 4)]
        closing = asyncio.create_task(writer.close())
        await asyncio.sleep(0)
        for _ in range(3):
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0)
        gate.open()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert all(task.cancelled() for task in asking)
        # The thread has ended: the connection is nobody else's.
        assert noted(book) == [f"note {number}" for number in range(4)]

    asyncio.run(main())


@pytest.mark.file_only
def test_an_interruption_from_nowhere_keeps_nothing_by_halves_and_nobody_waits_for_ever(book):
    def interrupted():
        book.manifest.facts.set({"note half": "x"})
        raise KeyboardInterrupt

    async def main():
        writer = ManifestWriter(book.manifest)
        try:
            await writer.do(note(book, 1))
            await together(writer, note(book, 2), interrupted, note(book, 3))
        finally:
            await writer.close()
            with pytest.raises(RuntimeError, match="closed"):
                await writer.do(note(book, 4))

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert noted(book) == ["note 1"]


def test_a_commit_that_cannot_be_handed_over_is_taken_back(book, monkeypatch):
    async def work(writer):
        submit = writer._thread.submit

        def refused(*_):
            monkeypatch.setattr(writer._thread, "submit", submit)
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(writer._thread, "submit", refused)
        with pytest.raises(RuntimeError, match="new thread"):
            await writer.do(note(book, 1))
        return await writer.do(note(book, 2))

    assert with_writer(book, work) == 2
    assert noted(book) == ["note 2"]
