"""The output folder: whole files under final names or none, nothing overwritten, nothing outside."""

import hashlib
import os
import threading

import pytest

import seedream_batch.files.local_folder as folder_module
from seedream_batch.errors import StorageError
from seedream_batch.files.local_folder import PART, Occupied, OutputFolder, sync_folder
from seedream_batch.files.temp_file import writing


@pytest.fixture
def folder(tmp_path):
    folder = OutputFolder(tmp_path / "out")
    folder.prepare()
    return folder


def place_one(folder, part, path):
    [error] = folder.place([(part, path)])
    if error is not None:
        raise error


@pytest.fixture
def place(folder):
    def make(path, data=b"a picture"):
        part = folder.new_part(path)
        with writing(part) as file:
            file.take(data)
            file.finish()
        place_one(folder, part, path)
        return folder.root / path

    return make


def tree(folder):
    return sorted(str(path.relative_to(folder.root)) for path in folder.root.rglob("*"))


# Placing


def test_a_file_gets_its_name_when_it_is_whole(folder):
    part = folder.new_part("panda/1.png")
    assert part.parent == folder.root / "panda"
    assert part.name.startswith(PART)
    with writing(part) as file:
        file.take(b"half")
        file.take(b"whole")
        file.finish()
        assert folder.existing(["panda/1.png"]) == []
    place_one(folder, part, "panda/1.png")
    assert tree(folder) == ["panda", "panda/1.png"]
    assert (folder.root / "panda/1.png").read_bytes() == b"halfwhole"


@pytest.mark.parametrize("what", ["file", "folder", "link", "broken link"])
def test_nothing_is_overwritten(folder, what, tmp_path):
    final = folder.root / "1.png"
    if what == "file":
        final.write_bytes(b"of somebody else")
    elif what == "folder":
        final.mkdir()
    else:
        (tmp_path / "target").write_bytes(b"of somebody else")
        final.symlink_to(tmp_path / ("target" if what == "link" else "nowhere"))
    before = os.lstat(final)
    part = folder.new_part("1.png")
    part.write_bytes(b"a picture")
    with pytest.raises(Occupied, match=r"1\.png already exists"):
        place_one(folder, part, "1.png")
    assert os.lstat(final).st_mtime_ns == before.st_mtime_ns
    assert part.read_bytes() == b"a picture"
    if what == "link":
        assert (tmp_path / "target").read_bytes() == b"of somebody else"
    if what == "broken link":
        assert not (tmp_path / "nowhere").exists()


def test_placing_what_is_not_there(folder):
    with pytest.raises(StorageError):
        place_one(folder, folder.root / "nothing.part", "1.png")
    assert tree(folder) == []


def test_of_many_files_each_is_placed_or_told_by_itself(folder, monkeypatch):
    synced = []
    sync_for_real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(handle), sync_for_real(handle)))
    (folder.root / "a").mkdir()
    (folder.root / "a/2.png").write_bytes(b"of somebody else")
    files = []
    for path in ("a/1.png", "a/2.png", "b/3.png", "a/4.png", "b/5.png"):
        part = folder.new_part(path)
        part.write_bytes(path.encode())
        files.append((part, path))
    files.append((folder.root / "nothing.part", "a/6.png"))
    synced.clear()
    errors = folder.place(files)
    assert [type(error) for error in errors] == [type(None), Occupied, type(None), type(None), type(None), StorageError]
    assert len(synced) == 2, "each folder is synced once"
    assert {path: (folder.root / path).read_bytes() for path in ("a/1.png", "b/3.png", "a/4.png", "b/5.png")} == {
        path: path.encode() for path in ("a/1.png", "b/3.png", "a/4.png", "b/5.png")
    }
    assert (folder.root / "a/2.png").read_bytes() == b"of somebody else"


def test_what_goes_wrong_with_one_file_in_no_way_that_was_foreseen_is_no_matter_of_the_others(folder, monkeypatch):
    give_name = folder_module._give_name

    def failing(part, final):
        if final.name == "2.png":
            raise MemoryError
        give_name(part, final)

    synced = []
    monkeypatch.setattr(folder_module, "_give_name", failing)
    files = []
    for path in ("a/1.png", "a/2.png", "a/3.png"):
        part = folder.new_part(path)
        part.write_bytes(b"x")
        files.append((part, path))
    monkeypatch.setattr(folder_module, "sync_folder", synced.append)
    assert [type(error) for error in folder.place(files)] == [type(None), MemoryError, type(None)]
    assert synced == [folder.root / "a"]
    assert tree(folder) == ["a", f"a/{files[1][0].name}", "a/1.png", "a/3.png"]


def test_the_name_of_a_folder_that_is_there_is_made_durable_once(folder, monkeypatch, tmp_path):
    """Whoever made it may have been killed before it was."""
    (folder.root / "a/b").mkdir(parents=True)
    synced = []
    monkeypatch.setattr(folder_module, "sync_folder", synced.append)
    again = OutputFolder(folder.root)
    again.prepare()
    assert synced == [tmp_path]
    synced.clear()
    for _ in range(2):
        again.new_part("a/b/1.png")
        again.sync(["a/b/1.png", "a/b/2.png"])
    assert synced == [folder.root / "a", folder.root / "a/b", folder.root / "a/b"]


def test_a_folder_that_cannot_be_synced_is_told_for_all_its_files(folder, monkeypatch):
    files = []
    for path in ("a/1.png", "b/2.png", "a/3.png"):
        part = folder.new_part(path)
        part.write_bytes(b"x")
        files.append((part, path))

    def failing(path):
        if path.name == "a":
            raise OSError(5, "Input/output error")

    monkeypatch.setattr("seedream_batch.files.local_folder.sync_folder", failing)
    assert [type(error) for error in folder.place(files)] == [StorageError, type(None), StorageError]


def test_part_names_differ(folder):
    assert len({folder.new_part("a/1.png") for _ in range(1000)}) == 1000


def test_a_folder_that_vanished_is_made_again_by_another_folder_object(folder):
    folder.new_part("a/1.png")
    (folder.root / "a").rmdir()
    assert OutputFolder(folder.root).new_part("a/1.png").parent.is_dir()


def test_many_threads_make_one_folder(folder):
    parts, errors = [], []

    def work(number):
        try:
            parts.append(folder.new_part(f"a/b/c/{number}.png"))
        except Exception as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len({part.parent for part in parts}) == 1


def test_preparing(tmp_path):
    OutputFolder(tmp_path / "a/b").prepare()
    assert list((tmp_path / "a/b").iterdir()) == []
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="file"):
        OutputFolder(tmp_path / "file").prepare()
    with pytest.raises(StorageError):
        OutputFolder(tmp_path / "file" / "below").prepare()


def test_free_bytes(folder, tmp_path):
    assert folder.free_bytes() > 0
    with pytest.raises(StorageError):
        OutputFolder(tmp_path / "none").free_bytes()


# Writing


def test_syncing_a_folder(folder, tmp_path):
    sync_folder(folder.root)
    with pytest.raises(OSError, match="No such file"):
        sync_folder(tmp_path / "none")


def test_discarding(folder):
    part = folder.new_part("1.png")
    part.write_bytes(b"x")
    folder.discard(part)
    folder.discard(part)
    assert tree(folder) == []


# Moving


HASH = "0" * 64
"""Of no picture."""


def move(folder, old, new):
    folder.move(old, new, folder.sha256(old))


def test_a_move_takes_empty_folders_away(folder, place):
    place("a/b/c/1.png")
    place("a/2.png")
    move(folder, "a/b/c/1.png", "d/e/1.png")
    assert tree(folder) == ["a", "a/2.png", "d", "d/e", "d/e/1.png"]
    move(folder, "a/2.png", "2.png")
    move(folder, "d/e/1.png", "1.png")
    assert tree(folder) == ["1.png", "2.png"]
    move(folder, "1.png", "3.png")
    assert tree(folder) == ["2.png", "3.png"]
    assert folder.root.is_dir()


def test_a_move_leaves_folders_with_anything_in_them(folder, place):
    place("a/1.png")
    (folder.root / "a/.hidden").write_text("of somebody else")
    move(folder, "a/1.png", "1.png")
    assert tree(folder) == ["1.png", "a", "a/.hidden"]


def test_a_folder_that_a_move_took_away_can_be_written_to_again(folder, place):
    place("a/1.png")
    move(folder, "a/1.png", "b/1.png")
    place("a/1.png")
    assert tree(folder) == ["a", "a/1.png", "b", "b/1.png"]


@pytest.mark.parametrize("target", ["2.png", "b"])
def test_a_move_overwrites_nothing(folder, place, target):
    place("1.png", b"one")
    place("2.png", b"two")
    (folder.root / "b").mkdir()
    with pytest.raises(Occupied):
        move(folder, "1.png", target)
    assert (folder.root / "1.png").read_bytes() == b"one"
    assert (folder.root / "2.png").read_bytes() == b"two"


def test_a_move_onto_itself_changes_nothing(folder, place):
    place("1.png", b"one")
    move(folder, "1.png", "1.png")
    assert (folder.root / "1.png").read_bytes() == b"one"
    assert tree(folder) == ["1.png"]


@pytest.mark.parametrize("kind", ["symbolic", "hard"])
def test_a_link_to_the_file_that_moves_is_somebody_elses(folder, place, kind):
    source = place("1.png", b"one")
    if kind == "hard":
        os.link(source, folder.root / "2.png")
    else:
        (folder.root / "2.png").symlink_to(source)
    with pytest.raises(Occupied):
        move(folder, "1.png", "2.png")
    assert tree(folder) == ["1.png", "2.png"]
    assert (folder.root / "2.png").is_symlink() == (kind == "symbolic")


def test_where_no_links_can_be_made_nothing_is_overwritten_either(folder, place, monkeypatch):
    def no_links(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    place("1.png", b"one")
    assert tree(folder) == ["1.png"]
    with pytest.raises(Occupied):
        place("1.png", b"two")
    assert (folder.root / "1.png").read_bytes() == b"one"


@pytest.mark.parametrize("kind", ["other bytes", "folder", "link", "pipe", "nothing"])
def test_only_the_very_picture_is_moved(folder, place, tmp_path, kind):
    from seedream_batch.files.local_folder import Changed

    path = place("a/1.png", b"one")
    known = folder.sha256("a/1.png")
    path.unlink()
    match kind:
        case "other bytes":
            path.write_bytes(b"two")
        case "folder":
            path.mkdir()
        case "link":
            (tmp_path / "same").write_bytes(b"one")
            path.symlink_to(tmp_path / "same")
        case "pipe":
            os.mkfifo(path)
    before = tree(folder)
    with pytest.raises(Changed):
        folder.move("a/1.png", "b/1.png", known)
    assert tree(folder) == before


def test_moving_what_is_not_there(folder):
    with pytest.raises(StorageError):
        folder.move("none.png", "a/1.png", HASH)


# Reading


def test_hashes(folder, place, tmp_path):
    data = bytes(range(256)) * 5000
    place("a/1.png", data)
    assert folder.sha256("a/1.png") == hashlib.sha256(data).hexdigest()
    assert folder.sha256("a/2.png") is None
    assert folder.sha256("a") is None
    assert folder.sha256("a/1.png/below") is None
    (folder.root / "link.png").symlink_to(folder.root / "a/1.png")
    assert folder.sha256("link.png") is None
    (folder.root / "broken.png").symlink_to(tmp_path / "nowhere")
    assert folder.sha256("broken.png") is None
    os.mkfifo(folder.root / "fifo.png")
    assert folder.sha256("fifo.png") is None


def test_what_exists(folder, place, tmp_path):
    place("a/1.png")
    (folder.root / "broken.png").symlink_to(tmp_path / "nowhere")
    there = ["a/1.png", "a", "broken.png"]
    assert folder.existing([*there, "a/2.png", "b/1.png", "a/1.png/below"]) == there


# Nothing outside


def every_way_in(folder, path, part):
    yield lambda: folder.new_part(path)
    yield lambda: place_one(folder, part, path)
    yield lambda: folder.move("here.png", path, HASH)
    yield lambda: folder.move(path, "there.png", HASH)
    yield lambda: folder.sha256(path)
    yield lambda: folder.existing([path])


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../1.png",
        "a/../../1.png",
        "a/../1.png",
        "..",
        "a/..",
        "",
        "link/1.png",
        "link/below/1.png",
        "a\0b/1.png",
        "loop/1.png",
        "x" * 300 + "/1.png",
    ],
)
def test_paths_that_lead_out_or_nowhere(folder, place, tmp_path, path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "1.png").write_bytes(b"of somebody else")
    (folder.root / "link").symlink_to(outside)
    (folder.root / "loop").symlink_to(folder.root / "loop")
    place("here.png")
    part = folder.new_part("any.png")
    part.write_bytes(b"x")
    before = tree(folder)
    for way in every_way_in(folder, path, part):
        try:
            way()
        except StorageError:
            continue
        # A name that no file can have is simply not there.
        assert path.startswith("x" * 300)
    assert [path.name for path in outside.iterdir()] == ["1.png"]
    assert (outside / "1.png").read_bytes() == b"of somebody else"
    assert tree(folder) == before


def test_links_that_stay_inside_are_followed(folder, place):
    (folder.root / "real").mkdir()
    (folder.root / "link").symlink_to(folder.root / "real")
    place("link/1.png")
    assert (folder.root / "real/1.png").is_file()


def test_an_output_folder_that_is_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    folder = OutputFolder(tmp_path / "out")
    folder.prepare()
    part = folder.new_part("a/1.png")
    part.write_bytes(b"x")
    place_one(folder, part, "a/1.png")
    assert (tmp_path / "disk/a/1.png").is_file()


# Sweeping


def test_a_sweep_takes_our_parts_and_nothing_else(folder, tmp_path):
    ours = [folder.new_part("1.png"), folder.new_part("a/1.png"), folder.new_part("b/1.png")]
    for part in ours:
        part.write_bytes(b"half")
    foreign = [
        "1.png",
        ".seedream-notes.part",
        ".seedream-0123456789abcdef",
        ".seedream-0123456789abcdef.part.bak",
        ".seedream-0123456789ABCDEF.part",
        ".seedream-0123456789abcdef0.part",
        "x.seedream-0123456789abcdef.part",
        "a/.hidden.part",
    ]
    for name in foreign:
        (folder.root / name).write_text("of somebody else")
    (folder.root / ".seedream-00000000000000aa.part").mkdir()
    (tmp_path / "target").write_text("x")
    (folder.root / ".seedream-00000000000000bb.part").symlink_to(tmp_path / "target")
    folder.sweep({"", "a", "none"})
    left = tree(folder)
    assert set(foreign) <= set(left)
    assert str(ours[2].relative_to(folder.root)) in left, "a folder that was not named"
    assert not ours[0].exists()
    assert not ours[1].exists()
    assert (tmp_path / "target").exists()


def test_a_sweep_stays_inside(folder, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    part = outside / f"{PART}{'0' * 16}.part"
    part.write_text("of another job")
    (folder.root / "link").symlink_to(outside)
    with pytest.raises(StorageError, match="points outside"):
        folder.sweep({"link"})
    assert part.exists()
    (folder.root / "file").write_text("x")
    folder.sweep({"file"})
    folder.sweep()
    assert part.exists(), "a sweep of everything does not follow links"


def test_a_sweep_of_everything(folder):
    parts = [folder.new_part(path) for path in ("1.png", "a/1.png", "a/b/c/1.png", ".x/1.png")]
    for part in parts:
        part.write_bytes(b"half")
    (folder.root / "a/b/2.png").write_text("of somebody else")
    folder.sweep()
    assert not any(part.exists() for part in parts)
    assert (folder.root / "a/b/2.png").exists()
