"""Giving many files their names together: real files, real threads, and what goes wrong with one of them."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from seedream_batch.engine.file_placer import FilePlacer
from seedream_batch.errors import StorageError
from seedream_batch.files.local_folder import Occupied, OutputFolder


@pytest.fixture
def folder(tmp_path):
    folder = OutputFolder(tmp_path / "out")
    folder.prepare()
    return folder


@pytest.fixture
def held(folder, monkeypatch):
    """Placing waits in its thread until `held.go` is set; `held.batches` tells what was placed together."""

    held = SimpleNamespace(go=threading.Event(), begun=threading.Event(), batches=[])
    place = folder.place

    def slow(files):
        held.batches.append([path for _, path in files])
        held.begun.set()
        held.go.wait()
        return place(files)

    monkeypatch.setattr(folder, "place", slow)
    yield held
    held.go.set()


def part(folder, path):
    part = folder.new_part(path)
    part.write_bytes(path.encode())
    return part


async def begin(placer, folder, *paths):
    """Asks for these files to be placed, and lets that begin."""
    asked = [asyncio.ensure_future(placer.place(part(folder, path), path)) for path in paths]
    await asyncio.sleep(0)
    return asked


def test_what_comes_together_is_placed_together_and_what_comes_meanwhile_afterwards(folder, held):
    async def place():
        placer = FilePlacer(folder)
        first = await begin(placer, folder, "a/1.png", "a/2.png")
        await asyncio.to_thread(held.begun.wait)
        later = await begin(placer, folder, "a/3.png")
        later += await begin(placer, folder, "b/4.png")
        held.go.set()
        await asyncio.gather(*first, *later)

    asyncio.run(place())
    assert held.batches == [["a/1.png", "a/2.png"], ["a/3.png", "b/4.png"]]
    for path in ("a/1.png", "a/2.png", "a/3.png", "b/4.png"):
        assert (folder.root / path).read_text() == path


def test_each_is_told_what_became_of_its_own_file(folder):
    async def place():
        placer = FilePlacer(folder)
        (folder.root / "1.png").write_bytes(b"of somebody else")
        asked = await begin(placer, folder, "1.png", "2.png")
        asked.append(asyncio.ensure_future(placer.place(folder.root / "nothing.part", "3.png")))
        return await asyncio.gather(*asked, return_exceptions=True)

    assert [type(result) for result in asyncio.run(place())] == [Occupied, type(None), StorageError]
    assert (folder.root / "1.png").read_bytes() == b"of somebody else"


def test_who_is_cancelled_before_its_turn_leaves_its_file_as_it_is(folder, held):
    async def place():
        placer = FilePlacer(folder)
        [first] = await begin(placer, folder, "1.png")
        await asyncio.to_thread(held.begun.wait)
        gone, other = await begin(placer, folder, "2.png", "3.png")
        gone.cancel()
        held.go.set()
        await asyncio.gather(first, other)
        assert gone.cancelled()

    asyncio.run(place())
    assert held.batches == [["1.png"], ["3.png"]]
    assert not (folder.root / "2.png").exists()


def test_who_is_cancelled_while_its_file_is_placed_harms_nobody(folder, held):
    async def place():
        placer = FilePlacer(folder)
        gone, other = await begin(placer, folder, "1.png", "2.png")
        await asyncio.to_thread(held.begun.wait)
        gone.cancel()
        held.go.set()
        await other
        await placer.place(part(folder, "3.png"), "3.png")

    asyncio.run(place())
    assert sorted(path.name for path in folder.root.iterdir()) == ["1.png", "2.png", "3.png"]


def test_a_fault_of_the_program_reaches_all_who_wait_and_is_no_end(folder, monkeypatch):
    async def place():
        placer = FilePlacer(folder)
        with monkeypatch.context() as patch:
            patch.setattr(folder, "place", lambda files: files[5])
            asked = await begin(placer, folder, "1.png", "2.png")
            results = await asyncio.gather(*asked, return_exceptions=True)
        await placer.place(part(folder, "3.png"), "3.png")
        return results

    assert [type(result) for result in asyncio.run(place())] == [IndexError, IndexError]
    assert (folder.root / "3.png").exists()


def test_nobody_waits_for_ever_where_there_are_no_threads(folder):
    async def place():
        placer = FilePlacer(folder)
        await asyncio.get_running_loop().shutdown_default_executor()
        with pytest.raises(RuntimeError):
            await placer.place(part(folder, "1.png"), "1.png")

    asyncio.run(place())
