"""Runs behind proxies and firewalls: what cannot be sent is not in doubt, and what cannot be fetched is not bought."""

import base64
import contextlib
import gzip
import hashlib
import io
import socket
import threading
import zlib
from random import Random

import pytest
from PIL import Image

from seedream_batch.emulator.world import images
from seedream_batch.engine.circuit_breaker import FIRST_TASKS, MOST_FAILING
from seedream_batch.files.image_inspection import uncompressed, unwrapped

MANY = """\
version: 1
name: many
matrix: {number: NUMBERS}
request: {prompt: "a fox, {{ number }}"}
output: {dir: out, path: "{{ number }}"}
run: {max_in_flight: 30}
""".replace("NUMBERS", str(list(range(40))))


@pytest.fixture
def many(bench):
    bench.write(MANY)
    return bench


def image_states(bench):
    return dict(bench.rows("SELECT state, count(*) FROM images GROUP BY state"))


# What cannot be fetched is not bought


@pytest.mark.parametrize(
    "fault",
    [
        {"action": "status", "status": 500},
        {"action": "status", "status": 451},
        {"action": "expired"},
        {"action": "html_200"},
        {"action": "redirect", "url": "http://192.0.2.1/login"},
        {"action": "redirect_loop"},
        {"action": "reset_before"},
    ],
    ids=lambda fault: "-".join(str(value) for value in fault.values()),
)
def test_little_is_bought_while_no_image_can_be_fetched(many, serve, fault):
    serve()
    many.emulator.set_faults([{"on": "image", **fault}])
    first = many.run()
    assert first.code == 7, first
    assert "could not be downloaded" in " ".join(first.out.split())
    assert "not submitting until downloads work" in " ".join(first.out.split())
    bought = len(many.charges())
    assert MOST_FAILING <= bought <= FIRST_TASKS
    # Nor by the next run, which has something to try first.
    again = many.run()
    assert again.code == 7, again
    assert len(many.charges()) == bought
    many.emulator.set_faults([])
    assert many.run().code == 0
    assert len(many.files()) == 40
    many.check()


@pytest.mark.thorough
def test_one_image_that_earlier_runs_could_not_fetch_is_enough(many, serve):
    serve()
    many.emulator.set_faults([{"on": "image", "action": "status", "status": 503}])
    assert many.run("--limit", "1").code == 7
    done = many.run()
    assert (done.code, len(many.charges())) == (7, 1), done


@pytest.mark.thorough
def test_a_dead_link_does_not_keep_the_others_from_being_bought(many, serve):
    serve()
    many.emulator.set_faults([{"on": "image", "action": "expired"}])
    assert many.run("--limit", "1").code == 7
    many.emulator.set_faults([{"on": "image", "action": "expired", "task": 1}])
    assert many.run().code == 7
    assert image_states(many) == {"announced": 1, "stored": 39}


@pytest.mark.thorough
def test_images_that_fail_at_first_hold_nothing_up(many, serve):
    serve()
    many.emulator.set_faults([{"on": "image", "action": "status", "status": 500, "count": 10}])
    assert many.run().code == 0
    assert len(many.files()) == len(many.charges()) == 40


@pytest.mark.thorough
def test_a_host_that_breaks_in_the_middle_ends_the_buying(many, serve):
    serve()
    many.emulator.set_faults([{"on": "image", "action": "status", "status": 500, "after": 3}])
    done = many.run()
    assert done.code == 7, done
    # What was in flight when the first one failed is bought already.
    assert len(many.charges()) < 40
    assert image_states(many)["stored"] == 3


def test_who_does_not_fetch_cannot_know(many, serve):
    serve()
    many.emulator.set_faults([{"on": "image", "action": "status", "status": 500}])
    assert many.run("--submit-only").code == 0
    assert len(many.charges()) == 40


# Downloads


def test_an_image_comes_when_its_host_is_ready(bench, serve):
    serve()
    wait = [{"on": "image", "action": "rate_limit", "retry_after": "seconds", "count": 1}]
    bench.emulator.set_faults([*wait, {"on": "image", "action": "status", "status": 503, "count": 7}])
    assert bench.run().code == 0
    bench.check()


@pytest.mark.parametrize("declared", [True, False])
def test_an_image_that_was_compressed_on_the_way_is_the_image(bench, serve, declared):
    serve()
    bench.emulator.set_faults([{"on": "image", "action": "gzip", "declared": declared}])
    assert bench.run().code == 0
    assert all(not path.read_bytes().startswith(gzip.compress(b"")[:2]) for path in bench.files().values())
    bench.check()


@pytest.mark.parametrize(
    "compress",
    [
        lambda data: gzip.compress(gzip.compress(data, 1), 1),
        lambda data: gzip.compress(data[:999], 1) + gzip.compress(data[999:], 1) + b"\0",
        lambda data: zlib.compress(data, 1, wbits=-15),
    ],
)
def test_an_image_is_decompressed_however_it_was_compressed(compress):
    data = b"\xff\xd8" + Random(1).randbytes(3000)
    assert uncompressed(compress(data), 10**6) == data
    assert uncompressed(compress(data), 100) is None
    assert uncompressed(compress(data)[:-20], 10**6) is None


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize(
    "wrap",
    [
        base64.b64encode,
        lambda data: b'"data:image/png;base64,' + base64.encodebytes(data).rstrip(b"=\n") + b'"\n',
        lambda data: b"\r\n" + data,
        lambda data: b"--B\r\nContent-Type: image/jpeg\r\n\r\n" + data + b"\r\n--B--\r\n",
    ],
    ids=["base64", "data URL", "line break", "part"],
)
def test_an_image_is_found_in_what_is_wrapped_around_it(kind, wrap):
    out = io.BytesIO()
    Image.effect_noise((50, 40), 90).save(out, kind)
    assert any(one.startswith(out.getvalue()) for one in unwrapped(wrap(out.getvalue()), 10**6))


def test_the_preview_in_a_damaged_image_is_not_taken_for_it():
    out = io.BytesIO()
    Image.effect_noise((50, 40), 90).save(out, "JPEG")
    assert list(unwrapped(b"\xff\xd8\xff\xe1" + b"\0" * 50 + out.getvalue(), 10**6)) == []
    assert list(unwrapped(b"<html>" + b"x" * 5000 + out.getvalue(), 10**6)) == []
    # With the square of its length, this takes minutes.
    assert list(unwrapped(b"iVBORw" + b" " * 10**6 + b"!", 10**6)) == []


def test_an_image_in_base64_is_stored(bench, serve, monkeypatch):
    plain = images.draw

    def as_text(plan, index):
        image = plain(plan, index)
        return images.EncodedImage(base64.b64encode(image.data), "text/plain")

    monkeypatch.setattr(images, "draw", as_text)
    serve()
    assert bench.run().code == 0
    bench.check()


@pytest.mark.thorough
def test_an_image_that_its_host_made_another_format_of_is_kept(bench, serve, monkeypatch):
    def as_webp(plan, index):
        shade = hashlib.sha256(f"{plan.id}/{index}".encode()).digest()
        data = io.BytesIO()
        Image.new("RGB", (plan.width, plan.height), tuple(shade[:3])).save(data, "WEBP", method=0)
        return images.EncodedImage(data.getvalue(), "image/jpeg")

    monkeypatch.setattr(images, "draw", as_webp)
    serve()
    assert bench.run().code == 0
    assert len(list(bench.out.rglob("*.webp"))) == 6
    bench.check()
    assert bench.call("verify", "--deep").code == 0
    assert bench.run().code == 0
    assert len(bench.charges()) == 6


# The end of a run


STALLS = [
    {"on": "image", "action": "hang"},
    {"on": "image", "action": "hang", "at": "mid_body"},
    {"on": "image", "action": "slow", "bytes_per_second": 50},
    {"on": "image", "action": "rate_limit", "retry_after": "absurd"},
    {"on": "poll", "action": "hang"},
    {"on": "balance", "action": "hang"},
]


@pytest.mark.parametrize("fault", STALLS, ids=lambda fault: "-".join(str(value) for value in fault.values()))
def test_what_is_free_to_repeat_does_not_hold_up_the_end(bench, serve, monkeypatch, fault):
    for name in ("images.READ_TIMEOUT", "service.POLL_TIMEOUT", "service.TRICKLE"):
        monkeypatch.setattr(f"seedream_batch.client.{name}", 1000.0)
    monkeypatch.setattr("seedream_batch.engine.downloader.TRYING", 1000.0)
    serve()
    bench.emulator.set_faults([fault])
    done = bench.run("--max-duration", "2s")
    assert done.code == 7, done
    assert "time limit of 2 s reached" in done.out
    assert set(bench.states()) <= {"planned", "accepted", "succeeded"}
    assert not list(bench.out.rglob("*.part"))
    bench.emulator.set_faults([])
    assert bench.run().code == 0
    assert len(bench.charges()) == 6
    bench.check()


def test_a_name_server_without_a_word_does_not_hold_up_the_end(bench, monkeypatch):
    over = threading.Event()
    plain = socket.getaddrinfo

    def getaddrinfo(host, *args, **settings):
        if host == "service.test":
            over.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return plain(host, *args, **settings)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setenv("APIMART_BASE_URL", "https://service.test")
    monkeypatch.setenv("APIMART_API_KEY", "k")
    try:
        done = bench.run("--max-duration", "1s")
    finally:
        over.set()
    assert done.code == 7, done
    assert bench.states() == {"planned": 6}


# What was not sent


def test_a_service_that_redirects_has_executed_nothing(bench, serve):
    serve()
    bench.emulator.set_faults([{"on": "balance", "action": "redirect", "url": "https://elsewhere.example.com/v1/x"}])
    done = bench.run()
    assert done.code == 7, done
    assert "APIMART_BASE_URL=https://elsewhere.example.com" in done.err.replace("\n", " ")
    bench.emulator.set_faults([{"on": "submit", "action": "redirect", "url": "https://elsewhere.example.com/v1/x"}])
    done = bench.run()
    assert done.code == 7, done
    assert bench.states() == {"planned": 6}
    assert bench.rows("SELECT reserved_images, reserved FROM totals") == [(0, 0)]
    assert bench.charges() == []
    assert bench.emulator.stats()["submit"] <= 4, "no more than were under way together"
    bench.emulator.set_faults([])
    assert bench.run().code == 0


@contextlib.contextmanager
def proxy(answer):
    """A proxy that answers whatever it is asked with these bytes, and closes; its port."""

    def serve(listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=[listener], daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


PROXIES = {
    "closes": ("https_proxy", "http", b""),
    "garbage": ("https_proxy", "http", b"\x05\xff\x00garbage"),
    "a page": ("HTTPS_PROXY", "http", b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\nplease sign in"),
    "407": ("all_proxy", "http", b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n"),
    "no TLS": ("https_proxy", "http", b"HTTP/1.1 200 Connection established\r\n\r\n"),
    "SOCKS 5 closes": ("ALL_PROXY", "socks5h", b""),
    "SOCKS 5 refuses": ("all_proxy", "socks5", b"\x05\xff"),
    "SOCKS 4 garbage": ("all_proxy", "socks4", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
}


@pytest.mark.parametrize("how", PROXIES)
def test_without_a_tunnel_nothing_is_in_doubt(bench, monkeypatch, how):
    variable, scheme, answer = PROXIES[how]
    for name in ("https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("APIMART_BASE_URL", "https://service.test")
    monkeypatch.setenv("APIMART_API_KEY", "k")
    with proxy(answer) as port:
        monkeypatch.setenv(variable, f"{scheme}://127.0.0.1:{port}")
        for _ in range(2):
            done = bench.run()
            assert done.code == 7, done
            assert variable in done.err
            assert str(port) not in done.out + done.err
            assert bench.states() == {"planned": 6}
            assert bench.rows("SELECT reserved_images, reserved FROM totals") == [(0, 0)]
