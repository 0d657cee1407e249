"""Whether what was delivered is what was requested."""

import pytest

from seedream_batch.delivery import PLACEHOLDER, in_place, is_placeholder, leaves_count_open, wrong_count, wrong_picture

RIGHT = [
    ("1:1", "2K", 2048, 2048),
    ("16:9", "2K", 2560, 1440),
    # Sizes of another reseller's table for the same ratio.
    ("16:9", "2K", 2848, 1600),
    ("16:9", "4K", 5504, 3040),
    ("21:9", "2K", 3136, 1344),
    ("9:21", "4K", 2656, 6240),
    ("4:3", "4K", 4694, 3520),
    # More pixels than were requested are no harm.
    ("1:1", "2K", 4096, 4096),
    # What is not known cannot be judged.
    ("auto", "2K", 3000, 1500),
    ("panorama", "huge", 10, 10),
    ("", "", 10, 10),
]
WRONG = [
    ("16:9", "4K", 1024, 1024, "another ratio"),
    ("16:9", "2K", 1440, 2560, "another ratio"),
    ("4:3", "2K", 2496, 1664, "another ratio"),
    ("1:1", "4K", 2048, 2048, "far fewer pixels"),
    ("1:1", "2K", 1024, 1024, "far fewer pixels"),
    ("1:1", "1.5K", 512, 512, "far fewer pixels"),
    ("auto", "2K", 320, 200, "far fewer pixels"),
    ("2048x1024", "", 512, 256, "far fewer pixels"),
    ("2048x1024", "", 1024, 2048, "another ratio"),
]


@pytest.mark.parametrize(("size", "resolution", "width", "height"), RIGHT)
def test_a_picture_as_requested(size, resolution, width, height):
    assert wrong_picture(size, resolution, width, height) == ""


@pytest.mark.parametrize(("size", "resolution", "width", "height", "what"), WRONG)
def test_a_picture_that_is_not(size, resolution, width, height, what):
    told = wrong_picture(size, resolution, width, height)
    assert told.startswith(f"{width} x {height} pixels, {what} than the requested {size}")


def test_the_expected_pixels_are_named():
    assert wrong_picture("16:9", "4K", 1024, 1024).endswith("16:9 at 4K (about 5461 x 3072)")


@pytest.mark.parametrize(
    ("reference", "width", "height", "right"),
    [
        ((400, 300), 2304, 1728, True),
        ((400, 300), 1728, 2304, False),
        ((1000, 180), 3024, 1296, True),  # wider than the service makes anything
        ((100, 112), 2048, 2048, True),  # the closest ratio that the service knows
    ],
)
def test_auto_follows_the_reference(reference, width, height, right):
    assert (wrong_picture("auto", "2K", width, height, [reference]) == "") is right


def test_any_of_several_references_may_be_followed():
    both = [(100, 100), (160, 90)]
    assert wrong_picture("auto", "2K", 2048, 2048, both) == ""
    assert wrong_picture("auto", "2K", 2560, 1440, both) == ""
    assert wrong_picture("auto", "2K", 1440, 2560, both) != ""


def test_placeholders():
    assert is_placeholder(1, 1)
    assert is_placeholder(PLACEHOLDER - 1, 1)
    assert not is_placeholder(32, 32)


def test_counts():
    assert wrong_count(4, 4) == ""
    assert wrong_count(3, 4) == "1 of 4 images missing"
    assert wrong_count(3, 4, ["Oops: gone"]) == "1 of 4 images missing: Oops: gone"
    assert wrong_count(5, 4) == "5 images delivered instead of 4"


def test_group_mode_without_a_number_leaves_the_count_to_the_service():
    group = {"sequential_image_generation": "auto"}
    assert leaves_count_open(group)
    assert not leaves_count_open({})
    assert not leaves_count_open({**group, "n": 3})
    assert not leaves_count_open({**group, "sequential_image_generation_options": {"max_images": 3}})
    assert wrong_count(3, 14, at_most=True) == ""
    assert wrong_count(0, 14, at_most=True) == "14 of 14 images missing"
    assert wrong_count(3, 14, ["Oops: gone"], at_most=True) == "11 of 14 images missing: Oops: gone"
    assert wrong_count(15, 14, at_most=True) == "15 images delivered instead of 14"


@pytest.mark.parametrize(
    ("links", "known", "places"),
    [
        ("a b", "a", [0, 1]),
        ("b a", "a", [1, 0]),
        ("x y", "a", [0, 1]),
        ("c a b", "b c", [2, 0, 1]),
        ("b?s=2 a?s=2", "a?s=1", [1, 0]),
        ("i?n=1 i?n=2", "i?n=2", [1, 0]),
        ("a b", "bad", [0, 1]),
        ("a b", "", [0, 1]),
    ],
)
def test_links_belong_to_the_images_that_have_them(links, known, places):
    assert in_place(links.split(), known.split(" ")) == places
