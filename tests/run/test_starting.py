"""Starting workers as the documentation does: systemd, SLURM, a container and Ray, each with two of them at work."""

import os
import shlex
import subprocess
import sys

import pytest
import yaml
from pages import titled, unit
from postgres import asked, url_of

JOB = """\
version: 1
matrix: {number: {file: numbers.txt}}
request: {prompt: "fox {{ number }}"}
output: {dir: out}
run: {max_in_flight: 2}
"""


@pytest.fixture
def clone(tmp_path, serve, postgres):
    """A clone in a home folder with the job of the examples, whose manifest is on a server."""
    serve(task_seconds="fixed:1")
    place = postgres.place()
    tree = tmp_path / "home" / "seedream-batch"
    (tree / "jobs").mkdir(parents=True)
    (tree / "jobs" / "numbers.txt").write_text("".join(f"{number}\n" for number in range(12)))
    (tree / "jobs" / "foxes.yaml").write_text(f"{JOB}manifest: {url_of(place)}\n")
    program = tree / ".venv" / "bin" / "seedream-batch"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m seedream_batch "$@"\n')
    program.chmod(0o755)
    key = tree.parent / ".config" / "seedream-batch" / "key"
    key.parent.mkdir(parents=True)
    key.write_text("any\n")
    return tree, place


def environment(tree, **more):
    known = {name: value for name, value in os.environ.items() if name != "APIMART_API_KEY"}
    return {**known, "HOME": str(tree.parent), "PYTHONPATH": os.pathsep.join(sys.path), **more}


def two(command, tree, **more):
    """Two workers that are started in the same way."""
    started = [
        subprocess.Popen(
            command, cwd=tree, env=environment(tree, **more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for process in started:
        out, err = process.communicate(timeout=90)
        assert process.returncode == 0, out + err


def made_by_two(place):
    assert asked(place, "SELECT state, count(*) FROM tasks GROUP BY state") == [("succeeded", 12)]
    assert asked(place, "SELECT count(DISTINCT run) FROM events WHERE new = 'submitting'") == [(2,)]


def test_the_unit_of_systemd(clone):
    tree, place = clone
    lines = unit("seedream-foxes@.service")["Service"]
    service = {name: value.replace("%h", str(tree.parent)) for name, value in lines.items()}
    assert service["WorkingDirectory"] == str(tree)
    name, _, value = service["Environment"].partition("=")
    two(shlex.split(service["ExecStart"]), tree, **{name: value})
    made_by_two(place)


def test_the_script_for_slurm(clone):
    tree, place = clone
    file = tree / "foxes.sh"
    file.write_text(titled(file.name))
    file.chmod(0o755)
    two([str(file)], tree)
    made_by_two(place)


def test_the_job_for_kubernetes(clone):
    tree, place = clone
    job = yaml.safe_load(titled("kubernetes.yaml"))
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    pod = job["spec"]["template"]["spec"]
    # Only with this one a policy for failures is allowed.
    assert pod["restartPolicy"] == "Never"
    [container] = pod["containers"]
    assert {one["name"] for one in container["env"]} == {"APIMART_API_KEY", "PGPASSWORD"}
    assert [one["name"] for one in container["volumeMounts"]] == [one["name"] for one in pod["volumes"]]
    program, *arguments = container["command"]
    arguments = [one.replace("/job/", f"{tree}/jobs/") for one in arguments]
    two([str(tree / ".venv" / "bin" / program), *arguments], tree, APIMART_API_KEY="any")
    made_by_two(place)


def test_the_script_for_ray(clone):
    pytest.importorskip("ray", reason="Ray is not installed")
    tree, place = clone
    (tree / "ray_workers.py").write_text(titled("ray_workers.py"))
    done = subprocess.run(
        [sys.executable, "ray_workers.py"],
        cwd=tree, env=environment(tree, APIMART_API_KEY="any", RAY_USAGE_STATS_ENABLED="0"),
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "12 images" in done.stdout
    assert asked(place, "SELECT state, count(*) FROM tasks GROUP BY state") == [("succeeded", 12)]
