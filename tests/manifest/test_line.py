"""A line to the server that breaks at the worst of moments: what was asked for happens once, or is told."""

import asyncio
import threading
import time

import pytest

from seedream_batch.errors import ConnectionLost, ManifestError, ManifestLocked
from seedream_batch.manifest import Manifest, ManifestReader
from seedream_batch.manifest.async_writer import ManifestWriter
from seedream_batch.manifest.task_queue import Intent
from seedream_batch.model.job import Budget

NOW = 1_800_000_000.0


@pytest.fixture
def server(postgres):
    return postgres.place()


@pytest.fixture
def manifest(server):
    manifest = Manifest(server)
    yield manifest
    manifest.close()


@pytest.fixture
def superuser(server):
    import psycopg

    with psycopg.connect(server.url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def cut(manifest, superuser):
    """Ends the manifest's session on the server."""

    def now():
        pid = manifest.connection._raw.info.backend_pid
        superuser.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

    return now


def add_one(manifest):
    """A change of which it is seen how often it was made."""
    count = int(manifest.facts.get("count") or 0) + 1
    manifest.facts.set({"count": str(count)})
    return count


def done(manifest, *calls):
    async def main():
        writer = ManifestWriter(manifest)
        try:
            return await asyncio.gather(*(writer.do(call, manifest) for call in calls), return_exceptions=True)
        finally:
            await writer.close()

    return asyncio.run(main())


def once(connection, meet):
    """Calls something in the place of the next COMMIT."""
    raw = connection._raw
    execute = raw.execute

    def met(sql, *values):
        if sql == "COMMIT":
            raw.execute = execute
            return meet(execute)
        return execute(sql, *values)

    raw.execute = met


def test_a_line_that_breaks_before_anything(manifest, cut):
    cut()
    assert done(manifest, add_one, add_one) == [1, 2]
    assert manifest.facts.get("count") == "2"


@pytest.mark.quick
def test_a_line_that_breaks_within_a_call(manifest, cut):
    tries = []

    def call(manifest):
        add_one(manifest)
        if not tries:
            tries.append(1)
            cut()
        return add_one(manifest)

    assert done(manifest, call) == [2]
    assert manifest.facts.get("count") == "2"


def test_a_commit_that_does_not_arrive_is_made(manifest, cut):
    def meet(execute):
        cut()
        return execute("COMMIT")

    once(manifest.connection, meet)
    assert done(manifest, add_one) == [1]
    assert manifest.facts.get("count") == "1"


@pytest.mark.quick
def test_a_commit_whose_answer_is_lost_is_made_once(manifest, cut):
    def meet(execute):
        execute("COMMIT")
        cut()
        return execute("SELECT 1")

    once(manifest.connection, meet)
    assert done(manifest, add_one) == [1]
    assert manifest.facts.get("count") == "1"


def test_the_question_outlives_a_line_that_breaks_again(manifest, cut, superuser, monkeypatch):
    def meet(execute):
        execute("COMMIT")
        cut()
        return execute("SELECT 1")

    connection = manifest.connection
    own_tasks, broken = connection._resume, []

    def breaking(raw):
        if len(broken) < 3:
            broken.append(raw)
            superuser.execute("SELECT pg_terminate_backend(%s, 5000)", [raw.info.backend_pid])
        return own_tasks(raw)

    monkeypatch.setattr(connection, "_resume", breaking)
    once(connection, meet)
    assert done(manifest, add_one) == [1]
    assert manifest.facts.get("count") == "1"
    assert len(broken) == 3


@pytest.mark.parametrize("gone", [False, True], ids=["another run is there", "another run was there"])
def test_whoever_lost_the_manifest_writes_nothing_more(manifest, server, cut, gone, request, spec_of):
    manifest.sync_job([spec_of(number) for number in range(1, 4)], NOW)

    async def main():
        writer = ManifestWriter(manifest)
        try:
            cut()
            other = Manifest(server)
            if gone:
                other.close()
            else:
                request.addfinalizer(other.close)
            told = []
            for number in (1, 2, 3):
                with pytest.raises(ManifestLocked) as error:
                    await writer.do(manifest.queue.claim, [Intent(number)], Budget(), NOW)
                told.append(str(error.value))
            return told
        finally:
            await writer.close()

    told = asyncio.run(main())
    assert all(("another run used" if gone else "another run") in one for one in told)
    with ManifestReader(server) as reader:
        assert {str(state): count for state, count in reader.counts().items()} == {"planned": 3}


def test_a_session_of_its_own_that_the_server_still_has_is_ended(manifest):
    import psycopg

    connection = manifest.connection
    stuck = connection._raw
    # The client's end of the line is gone, and the server has heard nothing.
    connection._raw = psycopg.connect(connection._server.url)
    connection._raw.close()
    assert done(manifest, add_one) == [1]
    with pytest.raises(psycopg.OperationalError):
        stuck.execute("SELECT 1")
    stuck.close()


def test_a_line_that_always_breaks_is_left_when_that_is_asked_for(manifest, cut):
    tries = []

    def call(_):
        tries.append(1)
        if len(tries) == 3:
            threading.Timer(0.2, manifest.connection.abort_retries).start()
        cut()
        return manifest.facts.get("count")

    [outcome] = done(manifest, call)
    assert isinstance(outcome, ConnectionLost)
    assert len(tries) < 20


def test_a_table_that_somebody_looks_into_is_waited_for(manifest, server, superuser):
    superuser.execute("BEGIN")
    superuser.execute(f'LOCK TABLE "{server.schema}".facts IN SHARE MODE')
    threading.Timer(0.5, lambda: superuser.execute("ROLLBACK")).start()
    assert done(manifest, add_one) == [1]


def test_a_reader_cannot_write(manifest, server):
    del manifest
    with ManifestReader(server) as reader, pytest.raises(ManifestError, match="read-only"):
        reader._rows("UPDATE totals SET cost = 0")


def test_settings_of_the_user_do_not_count(manifest, superuser, cut):
    superuser.execute("ALTER ROLE tests SET statement_timeout TO '50ms'")
    superuser.execute("ALTER ROLE tests SET synchronous_commit TO off")
    try:
        cut()
        assert done(manifest, lambda m: m.connection.rows("SELECT pg_sleep(0.2)") and 1) == [1]
        assert manifest.connection.rows("SHOW synchronous_commit") == [("on",)]
    finally:
        superuser.execute("ALTER ROLE tests RESET ALL")


def test_a_schema_that_an_administrator_made(server, superuser):
    superuser.execute("CREATE ROLE plain LOGIN")
    superuser.execute("CREATE SCHEMA given AUTHORIZATION plain")
    url = server.url.replace("tests@", "plain@")
    manifest = Manifest(type(server)(url, "given"))
    assert manifest.is_empty()
    manifest.close()
    with pytest.raises(ManifestError, match="permission denied"):
        Manifest(type(server)(url, "not_given"))
    superuser.execute("DROP SCHEMA given CASCADE")
    superuser.execute("DROP ROLE plain")


@pytest.mark.parametrize("table", ["CREATE TABLE x.other (a INT)", "CREATE TABLE x.format (a INT)"])
def test_a_schema_of_something_else(server, superuser, table):
    schema = f"x{time.monotonic_ns()}"
    superuser.execute(f"CREATE SCHEMA {schema}")
    superuser.execute(table.replace("x.", f"{schema}."))
    for opened in (Manifest, ManifestReader):
        with pytest.raises(ManifestError, match="contains other tables"):
            opened(type(server)(server.url, schema))
