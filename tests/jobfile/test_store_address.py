"""The address of a bucket as `output.dir`: what is taken, and what is refused where it stands."""

import pytest

from seedream_batch.jobfile import load_job
from seedream_batch.jobfile.addresses import is_url, store
from seedream_batch.model.locations import Store

JOB = "version: 1\nname: foxes\nmatrix: {size: [1:1]}\nrequest: {prompt: a fox}\noutput: {dir: '%s'}\n"


@pytest.mark.parametrize(
    ("url", "place", "printed"),
    [
        ("s3://pictures", Store("s3", "pictures"), "s3://pictures"),
        ("s3://pictures/", Store("s3", "pictures"), "s3://pictures"),
        ("S3://pictures/a/b c/", Store("s3", "pictures", "a/b c"), "s3://pictures/a/b c"),
        ("gs://my.pictures/a", Store("gs", "my.pictures", "a"), "gs://my.pictures/a"),
        ("az://pictures/a", Store("az", "pictures", "a"), "az://pictures/a"),
    ],
)
def test_what_is_taken(job_file, url, place, printed):
    assert store(url) == place
    assert place.url == printed
    file = job_file(JOB % url)
    job = load_job(file).job
    assert job.store == place
    assert job.pictures == printed
    assert job.output_dir == file.parent / "out" / "foxes"
    assert job.manifest == job.output_dir / "manifest.db"
    there = load_job(file).into(file.parent / "rehearsal").job
    assert there.store is None
    assert there.pictures == file.parent / "rehearsal"


@pytest.mark.parametrize("folder", ["out/s3", "../s3:x", "C:x", "s3"])
def test_a_folder_is_a_folder(job_file, folder):
    assert not is_url(folder)
    assert load_job(job_file(JOB % folder)).job.store is None


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("s3:/pictures", "is not an object store URL"),
        ("s3://", "names no bucket"),
        ("s3:///a", "is not an object store URL"),
        ("ftp://pictures/a", "has the unsupported scheme ftp://"),
        ("https://s3.amazonaws.com/pictures", "has the unsupported scheme https://"),
        ("s3://p", "has an invalid bucket name"),
        ("s3://key:secret@pictures/a", "must not contain a user"),
        ("s3://pictures/a?key=secret", "must not contain a user"),
        ("s3://pictures/a//b", "has an invalid prefix"),
        ("s3://pictures/../b", "has an invalid prefix"),
    ],
)
def test_what_is_refused(told, url, why):
    (problem,) = told(JOB % url)
    assert problem.startswith("job.yaml:5:15: output.dir: ")
    assert why in problem
    assert "secret" not in problem


@pytest.mark.parametrize(
    "folder", ["~", "~/pictures", "~ann/pictures", "$HOME/pictures", "out/${USER}", "%USERPROFILE%/out"]
)
def test_a_folder_that_only_a_shell_knows_is_refused_and_not_made(told, folder):
    (problem,) = told(JOB % folder)
    assert problem.startswith(f"job.yaml:5:15: output.dir: {folder} contains ")
    assert "which is not expanded (write the path itself" in problem


@pytest.mark.parametrize("folder", ["~old/x", "out~", "$5", "100%/new%"])
def test_a_folder_whose_name_has_such_signs(job_file, folder):
    file = job_file(JOB % folder)
    if folder.startswith("~"):  # an earlier version made it
        (file.parent / folder).mkdir(parents=True)
    assert load_job(file).job.output_dir == file.parent / folder
