"""Whose manifest it is: the job's by more than a name, and the folder's; every command looks."""

import json
import os
import platform
import shutil
import sqlite3
from contextlib import closing

import pytest
from postgres import asked, url_of

JOB = """\
version: 1
name: cards
matrix: {subject: [panda, fox, owl]}
request: {prompt: "a {{ subject }}"}
output: {dir: out, path: "{{ subject }}"}
"""
OTHER = JOB.replace('"a {{', '"an oil painting of a {{')

COMMANDS = {
    "run": ["run"], "plan": ["plan"], "status": ["status"], "verify": ["verify"], "retry": ["retry"],
    "resolve": ["resolve", "--forget"], "cost": ["resolve", "--cost", "0.03"], "prune": ["prune"], "report": ["report"],
    "export": ["export", "--format", "csv", "--to", "export"],
}  # fmt: skip


def facts(bench, **changes):
    with closing(sqlite3.connect(bench.out / "manifest.db")) as connection:
        for name, value in changes.items():
            connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))
        connection.commit()


@pytest.fixture
def cards(bench, serve):
    bench.write(JOB)
    serve()
    assert bench.run("--limit", "2").code == 0
    return bench


@pytest.mark.parametrize("args", [*COMMANDS.values()], ids=COMMANDS)
def test_no_command_works_on_the_manifest_of_another_job_file(cards, args):
    before, was = cards.requests(), cards.rows("SELECT * FROM tasks")
    first, cards.job = cards.job, cards.folder / "other.yaml"
    cards.write(OTHER)
    done = cards.call(*args)
    assert done.code == 2, done
    assert f"belongs to the job {first}" in done.err
    assert (cards.requests(), cards.rows("SELECT * FROM tasks")) == (before, was)


@pytest.mark.parametrize("how", ["link", "copy", "renamed", "renamed and edited"])
def test_the_same_job_under_another_path_goes_on(cards, how):
    first, cards.job = cards.job, cards.folder / "other.yaml"
    if how == "link":
        os.link(first, cards.job)
    elif how == "copy":
        shutil.copy(first, cards.job)
    else:
        first.rename(cards.job)
    if how == "renamed and edited":
        cards.edit("[panda, fox, owl]", "[panda, fox, owl, bear]")
        assert cards.call("retry").code == 2, "a run has to find out first"
    for args in (["plan"], ["status"], ["run"], ["retry"], ["prune"]):
        done = cards.call(*args)
        assert done.code == 0, done
    assert len(cards.charges()) == (4 if "edited" in how else 3)


def test_a_new_job_file_in_the_place_of_one_that_is_gone_is_another_job(cards):
    cards.job.unlink()
    cards.job = cards.folder / "other.yaml"
    cards.write(OTHER)
    was = cards.rows("SELECT * FROM tasks")
    done = cards.run()
    assert done.code == 2, done
    assert "belongs to the job" in done.err
    assert cards.rows("SELECT * FROM tasks") == was
    assert len(cards.charges()) == 2


def test_an_edit_of_every_prompt_is_the_same_job(cards):
    cards.write(OTHER)
    assert cards.run().code == 0
    assert len(cards.charges()) == 5


def test_a_job_file_at_the_same_path_in_a_container_is_the_same_job(cards):
    facts(cards, job_host="another-pod")
    cards.write(OTHER)
    assert cards.run().code == 0


def test_a_manifest_of_an_earlier_version_belongs_to_its_job_file(cards):
    with closing(sqlite3.connect(cards.out / "manifest.db")) as connection:
        connection.execute("DELETE FROM facts WHERE name IN ('job_digest', 'job_host')")
        connection.commit()
    cards.edit("owl]", "owl, bear]")
    assert cards.run().code == 0
    assert len(cards.charges()) == 4


# Manifests on a server


@pytest.fixture
def place(postgres):
    return postgres.place()


def test_a_folder_knows_its_manifest_when_the_option_is_forgotten(cards, place):
    shutil.rmtree(cards.out)
    assert cards.run("--manifest", url_of(place), "--submit-only").code == 0
    paid = len(cards.charges())
    for args in COMMANDS.values():
        done = cards.call(*args)
        assert done.code == 2, done
        assert f"belongs to the manifest {place.name}" in done.err
    assert not (cards.out / "manifest.db").exists()
    assert len(cards.charges()) == paid
    assert cards.run("--manifest", url_of(place)).code == 0
    assert len(cards.charges()) == paid


def test_a_new_manifest_on_a_server_is_not_begun_beside_a_file_that_knows_more(cards, place):
    done = cards.run("--manifest", url_of(place))
    assert done.code == 2, done
    assert "manifest copy" in done.err
    assert len(cards.charges()) == 2


def test_another_server_is_no_place_to_start_over_by_accident(cards, place, postgres):
    shutil.rmtree(cards.out)
    assert cards.run("--manifest", url_of(place)).code == 0
    paid = len(cards.charges())
    assert cards.run("--manifest", url_of(postgres.place())).code == 2
    (cards.out / "manifest.workers").unlink()
    assert cards.run("--manifest", url_of(postgres.place())).code != 2, "a person deleted the mark"
    assert len(cards.charges()) >= paid


@pytest.mark.parametrize("same_path", [True, False])
def test_two_jobs_of_one_name_on_one_database(cards, place, same_path):
    shutil.rmtree(cards.out)
    assert cards.run("--manifest", url_of(place)).code == 0
    paid = len(cards.charges())
    # As if the first one had been run on another machine.
    there = str(cards.job) if same_path else "/srv/elsewhere/cards.yaml"
    execute(place, "UPDATE facts SET value = ? WHERE name = 'job_host'", "elsewhere")
    execute(place, "UPDATE facts SET value = ? WHERE name = 'job_file'", there)
    shutil.rmtree(cards.out)
    cards.write(OTHER)
    for args in (["run"], ["retry"], ["prune", "--yes"], ["resolve", "--forget"]):
        done = cards.call(*args, "--manifest", url_of(place))
        assert done.code == 2, done
    assert len(cards.charges()) == paid
    assert asked(place, "SELECT count(*) FROM tasks WHERE ordinal IS NOT NULL") == [(3,)]


def test_a_worker_on_another_machine_with_its_own_checkout_goes_on(cards, place):
    shutil.rmtree(cards.out)
    assert cards.run("--manifest", url_of(place), "--limit", "1").code == 0
    execute(place, "UPDATE facts SET value = ? WHERE name = 'job_host'", "elsewhere")
    execute(place, "UPDATE facts SET value = ? WHERE name = 'job_file'", "/srv/elsewhere/cards.yaml")
    shutil.rmtree(cards.out)
    cards.edit("owl]", "owl, bear]")
    assert cards.run("--manifest", url_of(place)).code == 0
    assert asked(place, "SELECT value FROM facts WHERE name = 'job_host'") == [(platform.node(),)]


def test_plan_of_a_manifest_that_has_moved_says_so(cards, place):
    assert cards.call("manifest", "x").code == 2
    from seedream_batch.manifest.copy import copy_manifest

    copy_manifest(cards.out / "manifest.db", place)
    done = cards.call("plan")
    assert done.code == 2, done
    assert "was moved to" in done.err
    assert json.loads(cards.call("status", "--json").out)["images"]["stored"] == 2


def test_images_in_the_folder_of_another_machine_are_not_forgotten(cards, place):
    shutil.rmtree(cards.out)
    server = ("--manifest", url_of(place))
    assert cards.run(*server, "--limit", "2").code == 0
    there = cards.out.rename(cards.folder / "on-another-machine")
    assert cards.run(*server).code == 0
    stored = "SELECT path FROM images WHERE state = 'stored' ORDER BY path"
    assert asked(place, stored) == [("fox.jpg",), ("owl.jpg",), ("panda.jpg",)]
    # Neither an edit of the path, nor verify, nor prune takes them for gone.
    cards.edit('path: "', 'path: "new/')
    assert cards.run(*server).code == 0
    assert asked(place, stored) == [("fox.jpg",), ("new/owl.jpg",), ("panda.jpg",)]
    assert cards.call("verify", *server).code == 8
    cards.edit("[panda, fox, owl]", "[owl]")
    done = cards.call("prune", "--yes", *server)
    assert done.code == 8, done
    assert "the job's folder on another machine" in " ".join(done.out.split())
    assert len(asked(place, stored)) == 3
    # The machine that has them moves and deletes them.
    shutil.rmtree(cards.out)
    there.rename(cards.out)
    assert cards.call("prune", "--yes", *server).code == 0
    assert asked(place, stored) == [("new/owl.jpg",)]
    assert cards.files() == {}


def execute(place, sql, *values):
    import psycopg

    with psycopg.connect(place.url) as connection:
        connection.execute(f'SET search_path TO "{place.schema}"')
        connection.execute(sql.replace("?", "%s"), values)
