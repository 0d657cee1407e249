"""How many SQL statements a task takes from planned to stored: calls that share a commit share their work."""

import sqlite3
import time
from collections import Counter

from seedream_batch.manifest.db.sqlite import SqliteConnection

TASKS = 100
MOST = 14
"""Statements for each task, those that the run needs once included."""


def test_a_task_takes_few_statements(bench, serve, monkeypatch):
    serve()
    bench.write(
        f"version: 1\nmatrix: {{number: {list(range(TASKS))}}}\n"
        'request: {prompt: "a fox, {{ number }}"}\n'
        f"output: {{dir: out}}\nrun: {{rate: 1000/s, max_in_flight: {TASKS}}}\n"
    )
    statements = Counter()
    connect, commit = sqlite3.connect, SqliteConnection.commit

    def traced(*args, **kwargs):
        connection = connect(*args, **kwargs)
        connection.set_trace_callback(lambda statement: statements.update([statement.split()[0]]))
        return connection

    def committed(connection):
        # The disk takes this long for a sync, whatever it is here: meanwhile, calls wait for the next commit.
        time.sleep(0.02)
        commit(connection)

    monkeypatch.setattr(sqlite3, "connect", traced)
    monkeypatch.setattr(SqliteConnection, "commit", committed)
    done = bench.run()
    monkeypatch.undo()
    assert done.code == 0, done
    assert len(bench.files()) == TASKS
    assert statements.total() <= MOST * TASKS, statements
    assert statements["SAVEPOINT"] < TASKS, "calls that succeed need none"
