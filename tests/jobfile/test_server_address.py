"""The address of a manifest on a server: what is taken, what is refused, and that no message gives a password away."""

import subprocess
import sys

import pytest
from program import called

from seedream_batch.jobfile.addresses import server
from seedream_batch.model.locations import secrets_of, without_passwords


@pytest.mark.parametrize(
    ("url", "left", "schema"),
    [
        ("postgresql://h/db", "postgresql://h/db", "seedream_foxes"),
        ("postgres://u@h:5433/db?schema=a%20b", "postgres://u@h:5433/db", "a b"),
        ("postgresql:///db", "postgresql:///db", "seedream_foxes"),
        ("postgresql://h1:5432,h2:5433/db", "postgresql://h1:5432,h2:5433/db", "seedream_foxes"),
        ("postgresql://[::1]:5432/db", "postgresql://[::1]:5432/db", "seedream_foxes"),
        (
            "postgresql://h/db?options=-c%20x=on&schema=s&sslmode=require",
            "postgresql://h/db?options=-c%20x=on&sslmode=require",
            "s",
        ),
        ("postgresql://u:p%40w@h/db", "postgresql://u:p%40w@h/db", "seedream_foxes"),
    ],
)
def test_what_is_taken(url, left, schema):
    found = server(url, "foxes")
    assert (found.url, found.schema) == (left, schema)
    assert "p%40w" not in found.name
    assert found.name.startswith("postgresql://")


@pytest.mark.parametrize(
    "url",
    [
        "mysql://h/db", "u:secret@h/db", "postgresql://u:se#cret@h/db", "postgresql://u:se/cret@h/db",
        "postgresql://u:se?cret@h/db", "postgresql://u:se@cret@h/db", "postgresql://h:secret", "postgresql://h:999999/db",
        "postgresql://[secret/db", "postgresql://h/db?schema=", "postgresql://h/db?schema=a%00b",
        "postgresql://h/db?schema=a&schema=b", f"postgresql://h/db?schema={'x' * 64}", "postgresql://h /db", "",
    ],
)  # fmt: skip
def test_what_is_refused(url):
    with pytest.raises(ValueError, match=r".") as error:
        server(url, "foxes")
    assert "cret" not in str(error.value)


def test_jobs_of_different_names_have_different_schemas():
    names = ["foxes", "Foxes", "fox-es", "fox_es", "fox.es", "\u72d0", "x" * 80, "x" * 81]
    schemas = [server("postgresql://h/db", name).schema for name in names]
    assert len(set(schemas)) == len(names)
    assert all(len(schema.encode()) <= 63 for schema in schemas)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:p@postgres/db?schema=p", "postgresql://u@postgres/db?schema=p"),
        ("postgresql://h/db?password=x&schema=s&sslpassword=y", "postgresql://h/db?schema=s"),
        ("postgresql:///db", "postgresql:///db"),
    ],
)
def test_a_url_as_it_may_be_printed(url, shown):
    assert without_passwords(url) == shown


def test_the_secrets_of_a_url():
    url = "postgresql://u:a%20b@h/db?password=c&sslpassword=d&sslmode=require"
    assert list(secrets_of(url)) == ["a%20b", "c", "d"]
    assert server(url, "x").without_secrets("not a b, a%20b, c or d") == "not ***, ***, *** or ***"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hunter2@127.0.0.1:1/db", "postgresql://u@127.0.0.1:1/db?password=hunter2",
        "postgresql://u:hun%zzter2@127.0.0.1:1/db", "postgresql://u@127.0.0.1:1/db?sslpassword=hunter2&sslmode=nonsense",
        "u:hunter2@h/db", "postgresql://u:hun#ter2@h/db",
    ],
)  # fmt: skip
@pytest.mark.parametrize("verb", ["run", "status", "plan"])
def test_no_message_gives_a_password_away(job_file, url, verb):
    pytest.importorskip("psycopg")
    job = job_file("version: 1\nmatrix: {animal: [fox]}\nrequest: {prompt: x}\n")
    done = called(verb, job, "--manifest", url, env={"APIMART_API_KEY": "k"})
    assert done.returncode in {2, 8}, done
    assert "Traceback" not in done.stderr
    for piece in ("hunter2", "ter2", "hun%zz"):
        assert piece not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "value", ["u:hunter2@h/db", "postgresql://u:hunter2@h/db", "postgresql://h/db?sslpassword=hunter2"]
)
def test_no_password_in_a_job_file(told, value):
    job = f"version: 1\nmatrix: {{animal: [fox]}}\nrequest: {{prompt: x}}\nmanifest: {value}\n"
    problems = "\n".join(map(str, told(job)))
    assert "manifest" in problems
    assert "hunter2" not in problems


@pytest.mark.thorough
def test_without_the_library_the_line_to_install_it_is_told(job_file, tmp_path):
    (tmp_path / "psycopg").mkdir()
    (tmp_path / "psycopg" / "__init__.py").write_text("raise ImportError('no module')\n")
    job = job_file("version: 1\nmatrix: {animal: [fox]}\nrequest: {prompt: x}\n")
    done = subprocess.run(
        [sys.executable, "-m", "seedream_batch", "run", str(job), "--manifest", "postgresql://h/db"],
        capture_output=True, text=True, check=False,
        env={"APIMART_API_KEY": "k", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 2, done
    assert "pip install 'seedream-batch[postgres]'" in done.stderr
    assert "Traceback" not in done.stderr
