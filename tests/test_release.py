"""A release is built only where its version, the changelog and the tag agree."""

import shutil
import subprocess

import pytest
from pages import ROOT

CHANGELOG = "# Changelog\n\n## [0.2.0] - 2026-12-01\n\n- New.\n\n## [0.1.0] - 2026-11-01\n"


@pytest.fixture
def release(tmp_path):
    """Makes a repository whose one commit has these files, and checks it."""

    def check(*, version="0.2.0", changelog=CHANGELOG, tag="v0.2.0", more=""):
        for name, text in (("seedream_batch/_version.py", f'__version__ = "{version}"\n'), ("CHANGELOG.md", changelog)):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        (tmp_path / ".ci").mkdir()
        shutil.copy(ROOT / ".ci" / "release", tmp_path / ".ci" / "release")
        who = ("-c", "user.name=a", "-c", "user.email=a@example.com")
        for command in (("init", "-q"), ("add", "."), (*who, "commit", "-q", "-m", "All"), ("tag", tag)):
            subprocess.run(["git", *command], cwd=tmp_path, check=True)
        if more:
            (tmp_path / more).touch()
        done = subprocess.run(
            [tmp_path / ".ci" / "release", "--check"], capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, done.stdout + done.stderr

    return check


def test_all_agree(release):
    assert release() == (0, "0.2.0: the version, CHANGELOG.md and the tag agree\n")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"version": "0.1.0"}, "the version is 0.1.0, and the newest of CHANGELOG.md 0.2.0"),
        ({"changelog": CHANGELOG.replace("2026-12-01", "unreleased")}, "has no date: ## [0.2.0] - unreleased"),
        ({"tag": "v0.1.9"}, "there is no tag v0.2.0"),
        ({"more": "new.py"}, "there are changes that are not committed"),
    ],
)
def test_something_differs(release, wrong, told):
    code, said = release(**wrong)
    assert code == 1
    assert told in said
