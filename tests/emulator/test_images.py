"""Result images: their exact sizes, their links, and the faults of their transfer."""

import gzip
import io
import time

import httpx
import pytest
from examples import some
from PIL import Image

from seedream_batch.emulator.world.request_rules import PIXELS, nearest_ratio

SIZES = [(resolution, ratio) for resolution, ratios in PIXELS.items() for ratio in ratios]


def opened(answer):
    image = Image.open(io.BytesIO(answer.content))
    image.load()
    return image


def play(api, action, **rule):
    api.emulator.set_faults([{"on": "image", "action": action, **rule}])


def test_the_table_of_sizes():
    assert len(SIZES) == 18
    for resolution, ratio in SIZES:
        width, height = PIXELS[resolution][ratio]
        wide, high = map(int, ratio.split(":"))
        assert width / height == pytest.approx(wide / high, rel=0.001)
        turned = ":".join(reversed(ratio.split(":")))
        assert PIXELS[resolution][turned] == (height, width)
        assert nearest_ratio(width, height) == ratio


@pytest.mark.parametrize(("resolution", "ratio"), some([*SIZES], 6))
def test_every_size_as_a_tiny_picture(emulate, resolution, ratio):
    api = emulate(task_seconds="fixed:0")
    [url] = api.urls(size=ratio, resolution=resolution)
    width, height = PIXELS[resolution][ratio]
    picture = opened(api.fetch(url))
    assert picture.size == (width, height)


@pytest.mark.parametrize(
    ("resolution", "ratio", "size"),
    [
        ("2K", "1:1", (2048, 2048)),
        ("2K", "9:21", (1296, 3024)),
        ("4K", "4:3", (4694, 3520)),
        ("4K", "21:9", (6198, 2656)),
    ],
)
def test_exact_sizes(emulate, resolution, ratio, size):
    api = emulate(task_seconds="fixed:0", image_size="exact")
    [url] = api.urls(size=ratio, resolution=resolution)
    assert Image.open(io.BytesIO(api.fetch(url).content)).size == size


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_padded_pictures_are_pictures(emulate, kind):
    api = emulate(image_bytes=300_000, image_format=kind)
    [url] = api.urls()
    answer = api.fetch(url)
    assert len(answer.content) == pytest.approx(300_000, rel=0.01)
    Image.open(io.BytesIO(answer.content)).verify()
    assert opened(answer).format == kind.upper()


@pytest.mark.parametrize(
    "prompt",
    some(
        ["可爱的熊猫在竹林中玩耍", "x" * 5000, "\n\t\x00", "word " * 800, "emoji \N{FOX FACE}", "\x00\x1b[31m", "."],
        3,
    ),
)
def test_any_prompt_can_be_drawn(emulate, prompt):
    api = emulate(task_seconds="fixed:0", image_size="exact")
    [url] = api.urls(prompt=prompt)
    assert opened(api.fetch(url)).size == (2048, 2048)


def test_the_same_bytes_every_time_and_other_bytes_for_other_images(api):
    one, two = api.urls(n=2, image_urls=["https://example.com/a.png"])
    [other] = api.urls()
    first = [api.fetch(url).content for url in (one, two, other)]
    assert len(set(first)) == 3
    assert [api.fetch(url).content for url in (one, two, other)] == first


def test_images_of_tasks_that_have_not_completed(emulate):
    api = emulate(task_seconds="fixed:30")
    task_id = api.task()
    answer = api.fetch(f"{api.emulator.url}/results/{task_id}/0.jpg")
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (404, "text/html")


def test_links_that_were_not_given_out(api):
    [url] = api.urls()
    assert api.fetch(url.partition("?")[0]).status_code == 403
    assert api.fetch(url.replace("token=", "token=0")).status_code == 403
    assert api.fetch(url.replace("expires=", "expires=9")).status_code == 403
    assert api.fetch(url.replace("/0.", "/1.")).status_code == 404
    assert api.fetch(url.replace("/0.", "/x.")).status_code == 404


def expire(api, url, status):
    deadline = time.monotonic() + 5
    while api.fetch(url).status_code == 200 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert api.fetch(url).status_code == status


@pytest.mark.parametrize("status", [403, 404, 410])
def test_links_expire_and_a_poll_renews_them(emulate, status):
    api = emulate(link_seconds=0.15, link_status=status)
    task_id = api.task()
    api.ended(task_id)

    def good_link():
        # On a busy machine, a fetch may take longer than the lifetime of a link.
        while True:
            url = api.poll(task_id).json()["data"]["result"]["images"][0]["url"][0]
            if api.fetch(url).status_code == 200:
                return url

    url = good_link()
    expire(api, url, status)
    assert good_link() != url


def test_links_that_are_not_renewed(emulate):
    api = emulate(link_seconds=0.1, renew_links=False)
    task_id = api.task()
    url = api.ended(task_id)["result"]["images"][0]["url"][0]
    expire(api, url, 403)
    assert api.poll(task_id).json()["data"]["result"]["images"][0]["url"] == [url]


def test_a_length_too_short(api):
    [url] = api.urls()
    whole = api.fetch(url).content
    play(api, "short_length")
    assert api.fetch(url).content == whole[: len(whole) // 2]


@pytest.mark.parametrize("action", ["long_length", "cut_chunked", "cut_body"])
def test_bodies_that_end_too_soon(api, action):
    [url] = api.urls()
    play(api, action)
    with pytest.raises(httpx.RemoteProtocolError):
        api.fetch(url)


@pytest.mark.parametrize("action", ["reset_before", "reset_after"])
def test_resets(api, action):
    [url] = api.urls()
    play(api, action)
    with pytest.raises(httpx.ReadError):
        api.fetch(url)


def test_a_picture_that_is_not_whole(api):
    [url] = api.urls()
    play(api, "truncated_image")
    answer = api.fetch(url)
    assert int(answer.headers["content-length"]) == len(answer.content)
    with pytest.raises(OSError, match="truncated"):
        opened(answer)


def test_a_page_instead_of_a_picture(api):
    [url] = api.urls()
    play(api, "html_200")
    answer = api.fetch(url)
    assert (answer.status_code, answer.content[:6]) == (200, b"<html>")


def test_a_wrong_type(api):
    [url] = api.urls()
    play(api, "wrong_type", content_type="application/octet-stream")
    answer = api.fetch(url)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert opened(answer).format == "JPEG"


def test_a_wrong_size(api):
    [url] = api.urls()
    play(api, "wrong_size", width=10, height=20)
    assert opened(api.fetch(url)).size == (10, 20)


def test_gzip_declared_and_not(api):
    [url] = api.urls()
    whole = api.fetch(url).content
    play(api, "gzip")
    answer = api.fetch(url)
    assert (answer.headers["content-encoding"], answer.content) == ("gzip", whole)
    assert int(answer.headers["content-length"]) != len(whole)
    play(api, "gzip", declared=False)
    assert gzip.decompress(api.fetch(url).content) == whole


def test_a_redirect_and_a_loop_of_them(api):
    [url] = api.urls()
    play(api, "redirect", url="http://localhost:1/elsewhere")
    assert api.fetch(url).headers["location"] == "http://localhost:1/elsewhere"
    play(api, "redirect_loop", count=1)
    with pytest.raises(httpx.TooManyRedirects):
        api.fetch(url, follow_redirects=True)


def test_a_slow_picture(api):
    [url] = api.urls()
    size = len(api.fetch(url).content)
    play(api, "slow", bytes_per_second=size * 5)
    started = time.monotonic()
    assert len(api.fetch(url).content) == size
    assert time.monotonic() - started > 0.15
    play(api, "slow", bytes_per_second=1)
    with pytest.raises(httpx.ReadTimeout):
        api.fetch(url, timeout=0.1)


def test_an_expired_link_and_other_statuses(api):
    [url] = api.urls()
    play(api, "expired")
    assert api.fetch(url).status_code == 403
    play(api, "status", status=503, body="html")
    assert api.fetch(url).status_code == 503


def test_faults_select_images_by_prompt_and_task(api):
    [one] = api.urls(prompt="one")
    [two] = api.urls(prompt="two")
    play(api, "expired", prompt="two")
    assert [api.fetch(url).status_code for url in (one, two)] == [200, 403]
    play(api, "expired", task=1)
    assert [api.fetch(url).status_code for url in (one, two)] == [403, 200]
    play(api, "expired", task=two.split("/")[4])
    assert [api.fetch(url).status_code for url in (one, two)] == [200, 403]
