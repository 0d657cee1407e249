"""Runs whose pictures go to a bucket: the whole way, kills, cut lines, and what every command makes of it."""

import hashlib
import json
import os
import signal
import sys

import pytest
from buckets import SECRET, why_not
from postgres import asked, url_of

from seedream_batch.errors import StorageError

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


@pytest.fixture
def at(monkeypatch, bench, line, tmp_path):
    """Points the job at a place in a bucket, over a line that can be cut."""

    def point(stores):
        for name in list(os.environ):
            if name.startswith("AWS_"):
                monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setattr("seedream_batch.files.object_store.PAUSE", 0.01)
        bench.line = line(stores)
        for name, value in {**stores.environ, "AWS_ENDPOINT_URL": bench.line.url}.items():
            monkeypatch.setenv(name, value)
        bench.stores, bench.place = stores, stores.bucket()
        bench.edit("dir: out\n", f'dir: "{bench.place.url}"\n')
        bench.out = bench.folder / "out" / "test"
        return bench.place

    return point


def objects(bench):
    return bench.stores.objects(bench.place)


def pictures(bench):
    """Of a run that is going: what it tried the store with is left out."""
    return {path: data for path, data in objects(bench).items() if not path.endswith(".part")}


def whole(bench):
    """That what the manifest calls stored is there as it says, and nothing else is; the paths."""
    rows = bench.rows("SELECT path, sha256, bytes FROM images WHERE state = 'stored'")
    found = objects(bench)
    for path, sha256, size in rows:
        assert len(found[path]) == size
        assert hashlib.sha256(found[path]).hexdigest() == sha256
    assert set(found) == {path for path, _, _ in rows}
    assert list(bench.out.rglob("*.part")) == []
    assert bench.files() == {}
    return set(found)


@pytest.mark.parametrize("kind", ["moto", "seaweed"])
def test_the_whole_way(bench, serve, at, kind, request, tmp_path):
    serve()
    place = at(request.getfixturevalue(kind))
    assert place.url in bench.call("plan").out
    done = bench.run()
    assert done.code == 0, done
    assert place.url in done.out
    paths = whole(bench)
    assert len(paths) == len(bench.charges()) == 6
    before = bench.requests()
    assert bench.run().code == 0
    assert bench.requests() == before
    assert place.url in bench.call("status").out
    assert json.loads(bench.call("status", "--json").out)["folder"] == place.url
    assert bench.call("verify", "--deep").code == 0
    told = bench.call("report", "--json", "--to", str(tmp_path / "gallery"))
    assert json.loads(told.out)["thumbnails_made"] == 6, told
    assert place.bucket in (tmp_path / "gallery/data/index.js").read_text()
    for form in ("imagefolder", "webdataset"):
        told = bench.call("export", "--format", form, "--to", str(tmp_path / form), "--verify", "--json")
        assert json.loads(told.out)["images"] == 6, told
    found = {hashlib.sha256(file.read_bytes()).digest() for file in (tmp_path / "imagefolder").rglob("*.[pj]*g")}
    assert found == {hashlib.sha256(data).digest() for data in objects(bench).values()}
    # Moved, and then out of the job.
    bench.edit('path: "{{ subject.id }}/{{ size }}"', 'path: "{{ size }}/{{ subject.id }}"')
    done = bench.run()
    assert done.code == 0, done
    assert whole(bench) == {f"{path.partition('/')[2][:-4]}/{path.partition('/')[0]}{path[-4:]}" for path in paths}
    bench.edit("size: [1:1, 16:9, 9:16]", "size: [1:1]")
    assert bench.run().code == 0
    pruned = bench.call("prune", "--yes")
    assert pruned.code == 0, pruned
    assert len(whole(bench)) == 2
    assert len(bench.charges()) == 6


def test_what_was_deleted_or_changed_is_had_again(bench, serve, at, moto):
    serve()
    place = at(moto)
    assert bench.run().code == 0
    gone, changed, *_ = sorted(objects(bench))
    moto.delete(place, gone)
    moto.put(place, changed, b"of somebody else")
    told = bench.call("verify")
    assert told.code == 3, told
    assert "16 bytes instead of" in told.out
    assert objects(bench)[changed] == b"of somebody else", "it is told, and never touched"
    assert gone in objects(bench)
    moto.delete(place, changed)
    assert bench.call("verify").code == 0
    assert len(whole(bench)) == 6
    assert len(bench.charges()) == 6


def test_what_was_rejected_steps_aside(bench, serve, at, moto):
    serve()
    at(moto)
    assert bench.run().code == 0
    path, before = min(objects(bench).items())
    fingerprint, sha256 = bench.rows(
        "SELECT fingerprint, sha256 FROM images JOIN tasks ON tasks.id = task WHERE path = ?", path
    )[0]
    reject = [{"fingerprint": fingerprint, "index": 1, "sha256": sha256}]
    choice = bench.folder / "choice.json"
    choice.write_text(json.dumps({"seedream_batch_choice": 1, "job": "test", "keep": [], "reject": reject}))
    done = bench.call("retry", "--choice", str(choice))
    assert done.code == 0, done
    (aside,) = [one for one in objects(bench) if one.startswith("superseded/")]
    assert objects(bench)[aside] == before
    assert path not in objects(bench)
    assert bench.run().code == 0
    assert len(objects(bench)) == 7
    assert len(bench.charges()) == 7


def test_something_in_the_way_is_told_before_it_is_bought(bench, serve, at, moto):
    serve()
    place = at(moto)
    for form in ("png", "jpg"):
        moto.put(place, f"fox/1-1.{form}", b"of somebody else")
    done = bench.run()
    assert done.code == 8, done
    assert f"{place.url}/fox/1-1." in done.err
    assert len(bench.charges()) == 5
    assert objects(bench)["fox/1-1.png"] == b"of somebody else"


def test_cut_uploads_and_lost_answers(bench, serve, at, moto, monkeypatch):
    from seedream_batch.files.object_store import ObjectStore

    serve()
    at(moto)
    prepare = ObjectStore.prepare

    def prepared(self):
        prepare(self)
        bench.line.cut, bench.line.after, bench.line.lost = 4, 600, 4

    monkeypatch.setattr(ObjectStore, "prepare", prepared)
    bench.edit("request:", "run: {max_in_flight: 2}\nrequest:")
    done = bench.run()
    assert done.code in {0, 8}, done
    assert (bench.line.cut, bench.line.lost) == (0, 0)
    monkeypatch.setattr(ObjectStore, "prepare", prepare)
    assert bench.run().code == 0
    assert len(whole(bench)) == 6
    assert len(bench.charges()) == 6


def test_a_store_that_goes_in_the_middle_of_a_run(bench, serve, at, moto, until, end):
    serve(task_seconds="fixed:0.4")
    at(moto)
    bench.write(bench.job.read_text().replace("request:", "run: {max_in_flight: 2}\nrequest:"))
    process = bench.start()
    end(process)
    until(lambda: pictures(bench))
    bench.line.dead = True
    out, err = process.communicate(timeout=60)
    assert process.returncode == 8, out + err
    assert "cannot use the store" in err
    assert SECRET not in out + err
    bench.line.dead = False
    done = bench.run()
    assert done.code == 0, done
    assert len(whole(bench)) == 6
    assert len(bench.charges()) == 6


def test_kills_buy_nothing_twice(bench, serve, at, moto, until, end):
    serve(task_seconds="fixed:0.2")
    at(moto)
    for count in range(1, 5):
        process = bench.start()
        end(process)
        until(lambda count=count: len(pictures(bench)) >= count)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert bench.run().code in {0, 4}
    charges = bench.charges()
    assert len(charges) == len({charge["key"] for charge in charges}) <= 6
    stored = {path for (path,) in bench.rows("SELECT path FROM images WHERE state = 'stored'")}
    assert set(pictures(bench)) == stored
    for path, sha256 in bench.rows("SELECT path, sha256 FROM images WHERE state = 'stored'"):
        assert hashlib.sha256(pictures(bench)[path]).hexdigest() == sha256


def test_a_kill_between_the_upload_and_its_word(bench, serve, at, moto, monkeypatch):
    from seedream_batch.engine.downloader import Downloader

    serve()
    at(moto)

    async def killed(*_):
        raise StorageError("killed here")

    with monkeypatch.context() as patched:
        patched.setattr(Downloader, "_stored", killed)
        assert bench.run("--limit", "1").code == 8
    (path,) = objects(bench)
    assert bench.rows("SELECT count(*) FROM images WHERE state = 'stored'") == [(0,)]
    uploads = bench.line.uploads
    assert bench.run("--collect").code in {0, 7}
    assert whole(bench) == {path}
    assert bench.line.uploads == uploads + 2, "those of the probe alone"
    assert len(bench.charges()) == 1


# What is wrong with a destination is told before anything is bought


def refused(bench, code, *told):
    done = bench.run()
    assert done.code == code, done
    for one in told:
        assert one in done.err
    assert SECRET not in done.out + done.err
    assert bench.charges() == []


def test_no_bucket(bench, serve, at, moto):
    serve()
    place = at(moto)
    bench.edit(place.bucket, "no-such-bucket")
    refused(bench, 8, "the bucket no-such-bucket does not exist", "output.dir")


def test_wrong_credentials(bench, serve, at, seaweed, monkeypatch):
    serve()
    at(seaweed)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"{SECRET}-of-yesterday")
    refused(bench, 8, "denied access", "SignatureDoesNotMatch")


def test_a_profile_that_is_not_there(bench, serve, at, moto, monkeypatch):
    serve()
    at(moto)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    refused(bench, 2, "'nobody'", "no such profile")


def test_keys_of_a_profile(bench, serve, at, seaweed, monkeypatch, tmp_path):
    serve()
    at(seaweed)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text(
        f"[default]\naws_access_key_id = x\naws_secret_access_key = y\n"
        f"[images]\naws_access_key_id = {seaweed.environ['AWS_ACCESS_KEY_ID']}\naws_secret_access_key = {SECRET}\n"
    )
    (tmp_path / ".aws/config").write_text(f"[profile images]\nregion = eu-west-1\nendpoint_url = {bench.line.url}\n")
    monkeypatch.setenv("AWS_PROFILE", "images")
    assert bench.run().code == 0
    assert len(whole(bench)) == 6
    for file in bench.folder.rglob("*"):
        assert not file.is_file() or ".aws" in file.parts or SECRET.encode() not in file.read_bytes(), file


def test_a_line_to_nowhere(bench, serve, at, moto):
    serve()
    at(moto)
    bench.line.dead = True
    refused(bench, 8, "cannot use the store")


def test_a_store_that_would_overwrite(bench, serve, at, moto):
    serve()
    at(moto)
    bench.line.blind = True
    refused(bench, 2, "does not support conditional uploads", "If-None-Match")
    assert objects(bench) == {}


def test_without_the_library(bench, serve, at, moto, monkeypatch):
    serve()
    at(moto)
    monkeypatch.delitem(sys.modules, "seedream_batch.files.object_store", raising=False)
    monkeypatch.setitem(sys.modules, "obstore", None)
    refused(bench, 2, "pip install 'seedream-batch[s3]'")


def test_a_manifest_stays_with_its_pictures(bench, serve, at, moto):
    serve()
    place = at(moto)
    assert bench.run("--limit", "1").code == 0
    bench.edit(place.url, f"{place.url}/elsewhere")
    done = bench.run()
    assert done.code == 2, done
    assert place.url in done.err
    assert bench.call("prune").code == 2
    assert len(bench.charges()) == 1


def test_a_rehearsal_needs_no_bucket(bench, serve, at, moto):
    serve()
    at(moto)
    bench.line.dead = True
    assert bench.run("--emulate", "--limit", "1").code == 0
    assert len(list((bench.folder / "out" / "test-emulated").rglob("*.[pj]*g"))) == 1


def test_workers_that_share_a_bucket(bench, serve, at, moto, postgres, until, end):
    serve(task_seconds="fixed:1")
    at(moto)
    bench.edit("request:", "repeat: 5\nrequest:")
    bench.edit("/{{ size }}", "/{{ size }}-{{ sample }}")
    bench.write(bench.job.read_text() + "run: {max_in_flight: 4, on_unknown: resend}\n")
    place = postgres.place()
    first, *others = [bench.start("--manifest", url_of(place)) for _ in range(3)]
    for process in (first, *others):
        end(process)
    until(lambda: len(bench.charges()) >= 10)
    first.kill()
    for process in others:
        out, err = process.communicate(timeout=90)
        assert process.returncode == 0, out + err
    charges = bench.charges()
    assert len(charges) == len({charge["key"] for charge in charges}) == 30
    stored = dict(asked(place, "SELECT path, sha256 FROM images WHERE state = 'stored'"))
    found = {path: hashlib.sha256(data).hexdigest() for path, data in pictures(bench).items()}
    assert found == stored
    assert len(stored) == 30
