"""`verify`: what is stored against what is known, and what is not there asked for again."""

import base64
import json
import sqlite3
from contextlib import closing

import pytest
from PIL import Image

SERIES = """\
version: 1
matrix: {mood: [calm, wild]}
request: {prompt: "a cup, {{ mood }}", n: 3, image_urls: [cup.png]}
output: {dir: out, path: "{{ mood }}"}
"""


def words(text):
    """The text without its line breaks, which depend on the length of paths."""
    return " ".join(text.split())


def polls(bench):
    return bench.emulator.stats().get("poll", 0)


def dead(bench, *, renewed=False):
    """All links that were given out end now, and the service gives new ones or not."""
    bench.emulator.configure(renew_links=renewed)
    with sqlite3.connect(bench.out / "manifest.db") as connection:
        connection.execute("UPDATE images SET expires_at = 1, url = url || 'x'")


def gives_no_links(bench):
    """The service says of no task any more how it was."""
    bench.emulator.set_faults([{"on": "poll", "action": "status", "status": 404}])


def no_key(monkeypatch):
    monkeypatch.delenv("APIMART_API_KEY")


@pytest.fixture
def made(bench, serve):
    serve()
    assert bench.run().code == 0
    return bench


@pytest.fixture
def series(bench, serve):
    serve()
    Image.new("RGB", (64, 48), "teal").save(bench.folder / "cup.png")
    bench.write(SERIES)
    assert bench.run().code == 0
    return bench


def images(bench):
    return dict(bench.rows("SELECT state, count(*) FROM images GROUP BY state"))


@pytest.mark.parametrize("deep", [(), ("--deep",)])
def test_what_is_whole_needs_no_request_and_no_key(made, monkeypatch, deep):
    no_key(monkeypatch)
    before = made.requests()
    done = made.call("verify", *deep)
    assert done.code == 0, done
    assert " 6 OK" in done.out
    assert made.call("verify", "--quiet", *deep).out == ""
    assert made.requests() == before
    made.check()


def test_a_deleted_file_is_had_again_for_nothing(made):
    (made.out / "fox" / "1-1.jpg").unlink()
    done = made.call("verify")
    assert done.code == 0, done
    assert "1 image again" in done.out
    assert len(made.files()) == 6
    assert len(made.charges()) == 6
    assert images(made) == {"stored": 6}
    made.check()
    before = made.requests()
    assert made.call("verify", "--quiet").code == 0
    assert made.requests() == before
    moves = made.rows("SELECT old, new FROM events WHERE image IS NOT NULL AND task = (SELECT task FROM events"
                      " WHERE new = 'missing') ORDER BY id")  # fmt: skip
    assert moves == [("announced", "stored"), ("stored", "missing"), ("missing", "announced"), ("announced", "stored")]


@pytest.mark.thorough
def test_a_folder_of_its_own_is_made_again(made):
    for path in (made.out / "fox").iterdir():
        path.unlink()
    (made.out / "fox").rmdir()
    assert made.call("verify").code == 0
    assert len(made.files()) == 6
    made.check()


def test_without_a_key_the_local_part_is_done(made, monkeypatch):
    no_key(monkeypatch)
    (made.out / "fox" / "1-1.jpg").unlink()
    before = made.requests()
    done = made.call("verify")
    assert done.code == 3, done
    assert "fox/1-1.jpg: the file was deleted or moved" in done.out
    assert "needs a key" in done.out
    assert "APIMART_API_KEY" in done.out
    assert made.requests() == before
    assert images(made) == {"stored": 5, "missing": 1}
    monkeypatch.setenv("APIMART_API_KEY", "any")
    assert made.call("verify").code == 2, "another account may know nothing of them"
    assert images(made) == {"stored": 5, "missing": 1}
    assert made.call("verify", "--same-account").code == 0
    assert images(made) == {"stored": 6}


@pytest.mark.thorough
def test_of_an_image_that_came_within_the_answer_only_the_file_is_kept(made, monkeypatch):
    file = made.out / "fox" / "1-1.jpg"
    link = f"data:image/jpeg;base64,{base64.b64encode(file.read_bytes()).decode()}"
    with closing(sqlite3.connect(made.out / "manifest.db")) as connection:
        connection.execute(
            "UPDATE images SET state = 'announced', path = NULL, sha256 = NULL, url = ?, expires_at = 4e9"
            " WHERE path = 'fox/1-1.jpg'",
            (link,),
        )
        connection.commit()
    file.unlink()
    assert made.run().code == 0
    assert made.rows("SELECT url FROM images WHERE path = 'fox/1-1.jpg'") == [("data:image/jpeg;base64",)]
    file.unlink()
    with monkeypatch.context() as without:
        no_key(without)
        assert made.call("verify").code == 3
        assert "no image is known to be lost for good" in made.call("retry", "--missing").out
    assert made.call("verify").code == 0
    assert file.exists()


def test_a_refused_key_ends_it_with_its_own_code(made, monkeypatch):
    (made.out / "fox" / "1-1.jpg").unlink()
    monkeypatch.setenv("APIMART_API_KEY", "wrong-key")
    done = made.call("verify", "--same-account")
    assert done.code == 6, done
    assert images(made) == {"stored": 5, "missing": 1}
    assert made.call("retry", "--missing").out.count("queued again") == 0


def changed(path, how):
    data = path.read_bytes()
    if how == "longer":
        path.write_bytes(data + b"x")
    elif how == "cut":
        path.write_bytes(data[:-10])
    elif how == "other bytes":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
        if how == "link":
            path.symlink_to("../panda/1-1.jpg")
        else:
            path.mkdir()


@pytest.mark.parametrize("how", ["cut", "other bytes", "link", "longer", "empty", "folder"])
def test_a_changed_file_is_told_and_never_touched(made, how):
    path = made.out / "fox" / "1-1.jpg"
    changed(path, how)
    mine = None if how in {"link", "folder"} else path.read_bytes()
    before = made.requests()
    for _ in range(2):
        done = made.call("verify")
        assert done.code == 3, done
        assert "move it away, then verify again" in words(done.out)
        assert "can no longer be downloaded" not in done.out
    assert made.requests() == before
    assert path.is_symlink() if how == "link" else path.is_dir() if how == "folder" else path.read_bytes() == mine
    assert made.run().code == 3
    # Nor is it paid for again, whatever a person says.
    made.call("retry", "--missing")
    made.run()
    assert len(made.charges()) == 6
    path.rename(made.folder / "mine")
    assert made.call("verify").code == 0
    assert len([name for name in made.files() if name.startswith("fox")]) == 3
    assert len(made.charges()) == 6
    made.check()


def test_a_change_that_keeps_the_size_is_told_apart(made):
    changed(made.out / "fox" / "1-1.jpg", "other bytes")
    assert "the file was changed on disk" in made.call("verify").out
    changed(made.out / "fox" / "16-9.jpg", "cut")
    size = (made.out / "fox" / "16-9.jpg").stat().st_size
    assert f"{size:,} bytes instead of {size + 10:,}" in words(made.call("verify").out)


def test_two_files_that_changed_places(made):
    one, other = made.out / "fox" / "1-1.jpg", made.out / "fox" / "16-9.jpg"
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    done = made.call("verify")
    assert done.code == 3, done
    assert "missing    2 images" in done.out
    assert (one.read_bytes(), other.read_bytes()) == (second, first)
    one.write_bytes(first)
    other.write_bytes(second)
    before = made.requests()
    done = made.call("verify")
    assert done.code == 0, done
    assert "restored   2 images" in done.out
    assert made.requests() == before
    made.check()


def test_a_file_that_comes_back_is_known_again(made, monkeypatch):
    no_key(monkeypatch)
    path = made.out / "fox" / "1-1.jpg"
    path.rename(made.folder / "away.jpg")
    assert made.call("verify").code == 3
    (made.folder / "away.jpg").rename(path)
    done = made.call("verify")
    assert done.code == 0, done
    assert images(made) == {"stored": 6}
    made.check()


def test_a_picture_whose_record_tells_other_pixels(made):
    with sqlite3.connect(made.out / "manifest.db") as connection:
        connection.execute("UPDATE images SET width = width + 1 WHERE path = 'fox/1-1.jpg'")
    assert "pixels instead of" in words(made.call("verify").out)


def test_deep_decodes(made, monkeypatch):
    from seedream_batch.files import integrity as check

    seen = []
    monkeypatch.setattr(check, "inspect", lambda data, *, decode, of=check.inspect: seen.append(decode) or of(data))
    made.call("verify")
    made.call("verify", "--deep")
    assert seen == [False] * 6 + [True] * 6


def test_a_file_that_cannot_be_read_says_nothing(made, monkeypatch):
    import seedream_batch.files.local_folder as module

    real = module.os.open

    def broken(path, flags, *more):
        if str(path).endswith("fox/1-1.jpg"):
            raise OSError(5, "Input/output error")
        return real(path, flags, *more)

    monkeypatch.setattr(module.os, "open", broken)
    done = made.call("verify")
    assert done.code == 8, done
    assert "Input/output error" in words(done.out)
    assert images(made) == {"stored": 6}


@pytest.mark.thorough
def test_links_that_the_service_renews(made):
    dead(made, renewed=True)
    (made.out / "fox" / "1-1.jpg").unlink()
    (made.out / "panda" / "1-1.jpg").unlink()
    before = polls(made)
    assert made.call("verify").code == 0
    assert polls(made) == before + 2, "only what is needed is asked for"
    assert len(made.charges()) == 6
    made.check()


@pytest.mark.thorough
def test_what_no_link_gives_is_listed_and_priced(made):
    gives_no_links(made)
    (made.out / "fox" / "1-1.jpg").unlink()
    (made.out / "fox" / "16-9.jpg").unlink()
    done = made.call("verify")
    assert done.code == 3, done
    told = words(done.out)
    assert "2 images can no longer be downloaded. Regenerate for about 0.07 USD" in told
    assert f"`seedream-batch retry {made.job} --missing`" in told
    assert "the service no longer provides a link" in told
    found = json.loads(made.call("verify", "--json").out)
    assert found["cannot_be_had_again"] == {"images": 2, "cost_usd": 0.07}
    assert {image["path"] for image in found["not_there"]} == {"fox/1-1.jpg", "fox/16-9.jpg"}
    assert (found["checked"], found["whole"], found["fetched"]) == (6, 4, 0)
    # One odd answer more or less is not believed, and what changes its mind is asked again.
    made.emulator.set_faults([])
    assert made.call("verify").code == 0
    made.check()


def test_one_odd_answer_is_not_believed(made):
    made.emulator.set_faults([{"on": "poll", "action": "not_found", "count": 2}])
    (made.out / "fox" / "1-1.jpg").unlink()
    assert made.call("verify").code == 0
    assert images(made) == {"stored": 6}


def test_no_clear_answer_changes_nothing(made):
    made.emulator.set_faults([{"on": "poll", "action": "status", "status": 500}])
    (made.out / "fox" / "1-1.jpg").unlink()
    done = made.call("verify")
    assert done.code == 3, done
    assert "no clear answer about 1 image" in words(done.out)
    assert "can no longer be downloaded" not in done.out
    made.emulator.set_faults([])
    assert made.call("verify").code == 0


@pytest.mark.parametrize("state", ["expired", "rejected"])
def test_what_a_run_gave_up_is_asked_for_again(bench, serve, state, monkeypatch):
    monkeypatch.setattr("seedream_batch.engine.downloader.TRYING", 60.0)
    serve(link_seconds=0.001) if state == "expired" else serve()
    if state == "expired":
        bench.emulator.configure(renew_links=False)
    else:
        bench.emulator.set_faults([{"on": "image", "action": "truncated_image"}])
    # The images of few tasks: those of many that fail together are left to the next run.
    assert bench.run("--select", "subject=fox").code == 3
    assert images(bench) == {state: 3}
    bench.emulator.set_faults([])
    bench.emulator.configure(renew_links=True, link_seconds=3600.0)
    done = bench.call("verify")
    assert done.code == 0, done
    assert images(bench) == {"stored": 3}
    assert len(bench.charges()) == 3
    bench.check()


def test_select_looks_at_some(made):
    for path in made.files().values():
        path.unlink()
    done = made.call("verify", "--select", "subject=fox", "--select", "size=1:1,16:9")
    assert done.code == 0, done
    assert "2 images checked" in done.out
    assert set(made.files()) == {"fox/1-1.jpg", "fox/16-9.jpg"}


@pytest.mark.thorough
def test_more_than_twenty_are_counted(bench, serve, monkeypatch):
    serve()
    bench.edit("size: [1:1, 16:9, 9:16]\n", "size: [1:1, 16:9, 9:16]\nrepeat: 4\n")
    bench.edit("{{ size }}", "{{ size }}-{{ sample }}")
    assert bench.run().code == 0
    no_key(monkeypatch)
    for path in bench.files().values():
        path.unlink()
    done = bench.call("verify")
    assert done.out.count("the file was deleted or moved") == 20
    assert "and 4 more" in done.out
    assert all(len(line) <= 80 for line in done.out.splitlines() if str(bench.job) not in line)
    assert len(json.loads(bench.call("verify", "--json").out)["not_there"]) == 24


def test_a_verification_that_was_killed_is_gone_on_with(made):
    (made.out / "fox" / "1-1.jpg").unlink()
    # As a kill leaves it between the link and the file.
    with sqlite3.connect(made.out / "manifest.db") as connection:
        connection.execute("UPDATE images SET state = 'announced' WHERE path = 'fox/1-1.jpg'")
        connection.execute("UPDATE runs SET ended_at = NULL")
    assert made.call("verify").code == 0
    assert images(made) == {"stored": 6}
    assert len(made.charges()) == 6
    made.check()


@pytest.mark.thorough
def test_an_output_path_that_was_edited_does_not_hide_the_files(made):
    made.edit('"{{ subject.id }}/{{ size }}"', '"{{ size }}/{{ subject.id }}"')
    assert made.call("verify").code == 0
    assert "fox/1-1.jpg" in made.files(), "a verification moves nothing"
    (made.out / "fox" / "1-1.jpg").unlink()
    assert made.call("verify").code == 0
    assert "1-1/fox.jpg" in made.files()
    made.check()


def test_verify_buys_nothing_and_polls_nothing_else(bench, serve):
    serve()
    assert bench.run("--limit", "2").code == 0
    assert bench.run("--limit", "1", "--submit-only").code == 0
    before = bench.requests()
    assert bench.call("verify").code == 0
    assert bench.requests() == before
    assert bench.states() == {"succeeded": 2, "accepted": 1, "planned": 3}


def test_verify_waits_for_no_run(made):
    from seedream_batch.manifest.run_lock import run_lock

    with run_lock(made.out):
        assert made.call("verify").code == 75
        assert made.call("prune", "--yes").code == 75


def test_verify_of_a_job_that_was_never_run(bench):
    for verb in ("verify", "prune"):
        assert bench.call(verb).code == 2
    assert not bench.out.exists()


@pytest.mark.thorough
def test_the_emulated_pictures(bench):
    assert bench.run("--emulate").code == 0
    out = bench.folder / "out-emulated"
    (out / "fox" / "1-1.jpg").unlink()
    done = bench.call("verify", "--emulate")
    assert done.code == 0, done
    assert (out / "fox" / "1-1.jpg").exists()


# retry --missing


def test_retry_of_what_is_missing_pays_again(made):
    gives_no_links(made)
    (made.out / "fox" / "1-1.jpg").unlink()
    nothing = made.call("retry", "--missing")
    assert "queued again" not in nothing.out, "not found to be missing yet"
    made.call("verify")
    done = made.call("retry", "--missing")
    assert "1 task queued again, 1 image for about 0.035 USD" in words(done.out)
    shown = made.call("plan").out
    assert "queued again: image missing" in words(shown)
    assert "1 image for about 0.035 USD" in words(shown)
    made.emulator.set_faults([])
    done = made.run()
    assert done.code == 0, done
    assert len(made.charges()) == 7
    assert made.rows("SELECT cost FROM totals") == [(7 * 35000,)]
    assert images(made) == {"stored": 6}
    assert len({charge["key"] for charge in made.charges()}) == 7
    made.check()


def test_retry_does_not_pay_for_what_a_link_may_give(made, monkeypatch):
    no_key(monkeypatch)
    (made.out / "fox" / "1-1.jpg").unlink()
    made.call("verify")
    done = made.call("retry", "--missing")
    assert "no image is known to be lost for good" in done.out
    assert "1 task has missing images that may still be downloaded for free" in words(done.out)
    assert made.states() == {"succeeded": 6}


def test_retry_without_missing_is_as_it_was(made):
    gives_no_links(made)
    (made.out / "fox" / "1-1.jpg").unlink()
    made.call("verify")
    assert made.call("retry").out.startswith("Nothing to do: no failed or lost tasks")
    assert made.states() == {"succeeded": 6}


@pytest.mark.thorough
def test_of_three_images_the_two_that_are_there_stay(series):
    before = {name: path.read_bytes() for name, path in series.files().items()}
    assert len(before) == 6
    gives_no_links(series)
    (series.out / "calm-2.jpg").unlink()
    shown = words(series.call("verify").out)
    assert "1 image can no longer be downloaded. Regenerate for about 0.105 USD" in shown
    assert "3 images for about 0.105 USD" in words(series.call("retry", "--missing").out)
    series.emulator.set_faults([])
    assert series.run().code == 0
    after = {name: path.read_bytes() for name, path in series.files().items()}
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} <= {"calm-2.jpg"}
    assert series.rows("SELECT images, cost FROM totals") == [(9, 9 * 35000)]
    assert series.rows("SELECT number, images, cost FROM attempts WHERE number = 2") == [(2, 3, 105000)]
    series.check()
    # The links are those of the second attempt now; the first one's picture may be had from them as well.
    (series.out / "calm-1.jpg").unlink()
    assert series.call("verify").code == 0
    assert len(series.files()) == 6
    series.check()


def test_one_of_three_is_had_again_from_its_link(series):
    before = (series.out / "calm-2.jpg").read_bytes()
    (series.out / "calm-2.jpg").unlink()
    assert series.call("verify").code == 0
    assert (series.out / "calm-2.jpg").read_bytes() == before
    assert len(series.charges()) == 2
    series.check()


def test_more_images_the_second_time(series):
    gives_no_links(series)
    (series.out / "calm-2.jpg").unlink()
    series.call("verify")
    series.call("retry", "--missing")
    series.emulator.set_faults([])
    series.emulator.configure(deliver=1)
    assert series.run().code == 9
    assert len(series.files()) == 7
    series.check()


@pytest.mark.thorough
def test_fewer_images_the_second_time(series):
    gives_no_links(series)
    (series.out / "calm-3.jpg").unlink()
    series.call("verify")
    series.call("retry", "--missing")
    series.emulator.set_faults([])
    series.emulator.configure(deliver=-2)
    assert series.run().code == 3, "the third is missing as before"
    assert images(series) == {"stored": 5, "missing": 1}
    assert series.call("verify").code == 3
    series.check()


def test_the_budget_holds_for_what_is_made_anew(made):
    gives_no_links(made)
    (made.out / "fox" / "1-1.jpg").unlink()
    made.call("verify")
    made.call("retry", "--missing")
    made.emulator.set_faults([])
    text = made.job.read_text()
    made.write(text + "budget: {max_images: 6}\n")
    done = made.run()
    assert done.code == 5, done
    assert len(made.charges()) == 6
    made.write(text + "budget: {max_images: 7}\n")
    assert made.run().code == 0
    assert len(made.charges()) == 7


@pytest.mark.thorough
def test_a_second_attempt_that_fails_keeps_what_is_stored(series):
    gives_no_links(series)
    (series.out / "calm-2.jpg").unlink()
    series.call("verify")
    series.call("retry", "--missing")
    series.emulator.set_faults([{"on": "submit", "action": "fail", "code": "OutputImageSensitiveContentDetected"}])
    assert series.run().code == 3
    assert series.states() == {"succeeded": 1, "failed": 1}
    assert images(series) == {"stored": 5, "missing": 1}
    series.emulator.set_faults([])
    series.call("retry")
    assert series.run().code == 0
    assert images(series) == {"stored": 6}
    series.check()


def test_a_file_that_comes_back_in_time_is_not_paid_for_again(made):
    gives_no_links(made)
    path = made.out / "fox" / "1-1.jpg"
    path.rename(made.folder / "away.jpg")
    made.call("verify")
    made.call("retry", "--missing")
    (made.folder / "away.jpg").rename(path)
    done = made.call("verify")
    assert done.code == 0, done
    assert made.states() == {"succeeded": 6}
    assert made.run().code == 0
    assert len(made.charges()) == 6
    # Its links are those it had.
    made.emulator.set_faults([])
    path.unlink()
    assert made.call("verify").code == 0
    made.check()


@pytest.mark.thorough
def test_some_of_what_is_missing(made):
    gives_no_links(made)
    for path in made.files().values():
        path.unlink()
    made.call("verify")
    assert (
        "1 task queued again" in made.call("retry", "--missing", "--select", "subject=fox", "--select", "size=1:1").out
    )
    assert made.states() == {"succeeded": 5, "planned": 1}
