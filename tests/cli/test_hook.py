"""The hook for pre-commit, as pre-commit itself installs and runs it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pages import titled

ROOT = Path(__file__).parents[2]
HOOK = "seedream-batch-validate"
JOB = """\
version: 1
matrix: {subject: [fox]}
request: {prompt: "a {{ subject }}"}
"""
BROKEN = JOB.replace("version: 1", "version: 2")

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(not shutil.which("git"), reason="there is no git on this machine"),
    # Each of them installs the package, with all that it needs, into an environment of its own.
    pytest.mark.timeout(600),
]


@pytest.fixture
def pre_commit(tmp_path):
    """Runs pre-commit with these arguments in the repository of a user."""
    pytest.importorskip("pre_commit", reason="the hook is tested with pre-commit")
    home = {"HOME": str(tmp_path), "PRE_COMMIT_HOME": str(tmp_path / "cache"), "PYTHONPATH": ""}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "pre_commit", *arguments],
            cwd=tmp_path / "user", env={**environment, **home}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if "No matching distribution found" in done.stdout:
            pytest.skip("the package index cannot be reached")
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.fixture
def repository(tmp_path):
    """A git clone of what of this project an installation needs."""
    folder = tmp_path / "seedream-batch"
    for name in ("seedream_batch", "schemas"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", ".pre-commit-hooks.yaml"):
        shutil.copy(ROOT / name, folder / name)
    git(folder, "init", "-q")
    commit(folder)
    return folder


@pytest.fixture
def user(tmp_path):
    """A repository with job files, one of them broken, and files that are none."""
    folder = tmp_path / "user"
    for name, text in {
        "jobs/good.yaml": JOB,
        "jobs/bad.yml": BROKEN,
        "deep/jobs/good.yaml": JOB,
        "cards.seedream.yaml": JOB,
        "other.yaml": BROKEN,
        "jobs/deeper/table.yaml": BROKEN,
        "jobs/notes.txt": BROKEN,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    return folder


def git(folder, *arguments):
    done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(folder):
    git(folder, "add", ".")
    git(folder, "-c", "user.name=A Test", "-c", "user.email=test@example.com", "commit", "-q", "-m", "All of it")


def test_the_hook_as_it_is_tried_out(pre_commit, repository, user):
    code, out = pre_commit("try-repo", str(repository), HOOK, "--all-files", "--verbose")
    assert code == 1, out
    assert "jobs/bad.yml:1:10: version: must be 1, got 2" in out
    assert {line for line in out.splitlines() if ": valid, " in line} == {
        "jobs/good.yaml: valid, 1 task",
        "deep/jobs/good.yaml: valid, 1 task",
        "cards.seedream.yaml: valid, 1 task",
    }
    assert out.count("problem") == 1
    assert user.is_dir()


def test_the_configuration_in_the_documentation(pre_commit, repository, user):
    config = yaml.safe_load(titled(".pre-commit-config.yaml"))
    assert [hook["id"] for hook in config["repos"][0]["hooks"]] == [HOOK]
    config["repos"][0].update(repo=str(repository), rev=git(repository, "rev-parse", "HEAD"))
    (user / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    git(user, "add", ".")
    assert pre_commit("run")[0] == 1
    (user / "jobs" / "bad.yml").write_text(JOB, encoding="utf-8")
    git(user, "add", ".")
    code, out = pre_commit("run")
    assert code == 0, out
    assert "Passed" in out
