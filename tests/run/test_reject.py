"""`retry --choice`: buying anew what was rejected in the gallery."""

import json

import pytest


@pytest.fixture
def made(bench, serve):
    serve()
    assert bench.run().code == 0
    return bench


def entry(bench, path):
    fingerprint, index, sha256 = bench.rows(
        'SELECT fingerprint, "index", sha256 FROM images JOIN tasks ON tasks.id = task WHERE path = ?', path
    )[0]
    return {"fingerprint": fingerprint, "index": index, "sha256": sha256}


def choose(bench, *paths, job="test"):
    file = bench.folder / "choice.json"
    reject = [entry(bench, path) for path in paths]
    file.write_text(json.dumps({"seedream_batch_choice": 1, "job": job, "keep": [], "reject": reject}))
    return str(file)


def aside(bench):
    return sorted(path for path in bench.files() if path.startswith("superseded/"))


def test_a_rejected_image_is_bought_anew_and_its_file_steps_aside(made):
    before = made.files()["fox/16-9.jpg"].read_bytes()
    choice = choose(made, "fox/16-9.jpg")
    done = made.call("retry", "--choice", choice)
    assert done.code == 0, done
    assert "  fox/16-9\n1 task queued again, 1 image for about 0.035 USD;" in done.out
    assert "1 rejected file moved to superseded/" in done.out
    assert made.states() == {"succeeded": 5, "planned": 1}
    assert "fox/16-9.jpg" not in made.files()
    (old,) = aside(made)
    assert made.files()[old].read_bytes() == before
    made.check()
    assert made.run().code == 0
    assert made.states() == {"succeeded": 6}
    assert "fox/16-9.jpg" in made.files()
    assert len(made.charges()) == 7
    assert len({charge["key"] for charge in made.charges()}) == 7, "a new attempt under a new key"
    assert aside(made) == [old]
    made.check()


@pytest.mark.thorough
def test_the_same_choice_again_buys_nothing(made):
    choice = choose(made, "fox/16-9.jpg")
    made.call("retry", "--choice", choice)
    again = made.call("retry", "--choice", choice)
    assert "Nothing to do" in again.out
    assert "fox/16-9: already planned" in again.out
    made.run()
    again = made.call("retry", "--choice", choice)
    assert "regenerated since it was rejected" in again.out
    made.run()
    assert len(made.charges()) == 7


@pytest.mark.thorough
def test_rejected_twice(made):
    for _ in range(2):
        made.call("retry", "--choice", choose(made, "panda/1-1.jpg"))
        assert made.run().code == 0
    assert len(aside(made)) == 2
    assert len(made.charges()) == 8
    made.check()


def test_select_chooses_among_the_rejected(made):
    choice = choose(made, "fox/16-9.jpg", "panda/16-9.jpg")
    assert "1 task queued again" in made.call("retry", "--choice", choice, "--select", "subject=fox").out
    assert made.states() == {"succeeded": 5, "planned": 1}


def test_a_file_that_was_changed_stays(made):
    choice = choose(made, "fox/1-1.jpg")
    made.files()["fox/1-1.jpg"].write_bytes(b"mine")
    done = made.call("retry", "--choice", choice)
    assert "the file was changed; move it away first" in done.out
    assert made.files()["fox/1-1.jpg"].read_bytes() == b"mine"
    assert made.states() == {"succeeded": 6}


@pytest.mark.thorough
def test_a_file_that_is_gone_is_made_anew_all_the_same(made):
    choice = choose(made, "fox/1-1.jpg")
    made.files()["fox/1-1.jpg"].unlink()
    assert "1 task queued again" in made.call("retry", "--choice", choice).out
    assert made.run().code == 0
    made.check()


@pytest.mark.thorough
def test_verify_asks_for_no_link_of_it(made):
    made.call("retry", "--choice", choose(made, "fox/1-1.jpg"))
    before = made.requests()
    made.call("verify")
    assert made.requests() == before
    assert made.states() == {"succeeded": 5, "planned": 1}


def test_putting_the_file_back_takes_the_rejection_back(made):
    made.call("retry", "--choice", choose(made, "fox/1-1.jpg"))
    (old,) = aside(made)
    made.files()[old].rename(made.out / "fox" / "1-1.jpg")
    assert made.call("verify").code == 0
    assert made.states() == {"succeeded": 6}
    assert made.run().code == 0
    assert len(made.charges()) == 6
    made.check()


@pytest.mark.parametrize("moment", ["begin_move", "move", "relocate", "reject"])
def test_a_kill_at_any_step_loses_nothing(made, monkeypatch, moment):
    from seedream_batch.files.local_folder import OutputFolder
    from seedream_batch.manifest.decision_store import DecisionStore
    from seedream_batch.manifest.image_store import ImageStore

    class Killed(BaseException):
        pass

    def die(*_, **__):
        raise Killed

    choice = choose(made, "fox/1-1.jpg")
    with monkeypatch.context() as patch:
        patch.setattr({"move": OutputFolder, "reject": DecisionStore}.get(moment, ImageStore), moment, die)
        with pytest.raises(Killed):
            made.call("retry", "--choice", choice)
    # Either way of going on is a good one: a run puts the file back,
    assert made.run().code == 0
    assert made.states() == {"succeeded": 6}
    assert len(made.charges()) == 6
    assert len(made.files()) == 6
    made.check()
    # and the command itself finishes its work.
    with monkeypatch.context() as patch:
        patch.setattr({"move": OutputFolder, "reject": DecisionStore}.get(moment, ImageStore), moment, die)
        with pytest.raises(Killed):
            made.call("retry", "--choice", choice)
    assert "1 task queued again" in made.call("retry", "--choice", choice).out
    assert made.run().code == 0
    assert len(made.charges()) == 7
    assert len(made.files()) == 7
    made.check()


@pytest.mark.thorough
def test_several_images_of_one_task(bench, serve):
    serve()
    bench.write(
        "version: 1\nname: test\nmatrix: {subject: [fox]}\n"
        'request: {prompt: "{{ subject }}", n: 3, image_urls: ["https://example.com/a.png"]}\noutput: {dir: out}\n'
    )
    assert bench.run().code == 0
    names = sorted(bench.files())
    assert len(names) == 3
    done = bench.call("retry", "--choice", choose(bench, names[1]))
    assert "1 task queued again, 3 images for about 0.105 USD" in done.out
    others = {name: bench.files()[name].read_bytes() for name in (names[0], names[2])}
    assert bench.run().code == 0
    assert {name: bench.files()[name].read_bytes() for name in others} == others
    assert len(bench.files()) == 4
    bench.check()


def test_what_is_wrong_with_a_choice_is_told(made):
    choice = made.folder / "choice.json"
    for text, expected in (
        (None, "name a file exported by the gallery"),
        ("{}", "is not a choice of images"),
        (json.dumps({"seedream_batch_choice": 1, "job": "cats"}), "a choice for the job 'cats'"),
    ):
        if text is not None:
            choice.write_text(text)
        done = made.call("retry", "--choice", str(choice))
        assert done.code == 2
        assert expected in done.err
    done = made.call("retry", "--choice", choose(made, "fox/1-1.jpg"), "--missing")
    assert "use only one of --missing, --choice and --flagged" in done.err
    unknown = {"seedream_batch_choice": 1, "job": "test", "reject": [{"fingerprint": "0" * 64, "index": 1}]}
    choice.write_text(json.dumps(unknown))
    done = made.call("retry", "--choice", str(choice))
    assert done.code == 0
    assert "no such task in the job" in done.out


@pytest.mark.thorough
def test_a_picture_that_stepped_aside_and_was_not_rejected_after_all_comes_home(made, monkeypatch):
    """Stopped between the two: the next run finds nothing decided, and puts the file back."""
    from seedream_batch.manifest.decision_store import DecisionStore

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DecisionStore, "reject", stop)
        assert made.call("retry", "--choice", choose(made, "fox/16-9.jpg")).code == 130
    assert len(aside(made)) == 1
    assert made.run().code == 0
    assert aside(made) == []
    assert "fox/16-9.jpg" in made.files()
    assert len(made.charges()) == 6
    made.check()
