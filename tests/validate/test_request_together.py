import pytest
from examples import some

from seedream_batch.validate.request_schema import RequestSchema

SCHEMA = RequestSchema()
COUNTS = (None, *range(17))
REFERENCES = [14, 0, 15, *range(1, 14), 16]


def taken(references, n, max_images, series):
    """The rules that span fields, in plain words."""
    images = 1 if n is None else n
    most = 1 if max_images is None else max_images
    if not 1 <= images <= 15 or not 1 <= most <= 15:
        return False
    if max_images is not None and series != "auto":
        return False
    if references == 0 and (images > 1 or most > 1 or series == "auto"):
        return False
    return references + images <= 15 and references + most <= 15


def body(references, n, max_images, series):
    made = {"model": "doubao-seedance-4-5", "prompt": "x", "image_urls": ["https://example.com/a.jpg"] * references}
    if n is not None:
        made["n"] = n
    if max_images is not None:
        made["sequential_image_generation_options"] = {"max_images": max_images}
    if series is not None:
        made["sequential_image_generation"] = series
    return made


@pytest.mark.parametrize("references", some(REFERENCES, 3))
def test_every_count_of_references_and_images(references):
    for n in COUNTS:
        for max_images in COUNTS:
            made = body(references, n, max_images, "auto")
            assert SCHEMA.is_valid(made) is taken(references, n, max_images, "auto"), made


@pytest.mark.parametrize("series", [None, "disabled"])
@pytest.mark.parametrize("references", some(REFERENCES, 3))
def test_every_count_without_a_series(references, series):
    for n in COUNTS:
        for max_images in (None, 1, 2):
            made = body(references, n, max_images, series)
            assert SCHEMA.is_valid(made) is taken(references, n, max_images, series), made


def test_each_refusal_names_the_sum():
    for references in range(1, 15):
        for n in range(16 - references, 16):
            (problem,) = SCHEMA.problems(body(references, n, None, None))
            total = references + n
            plural = "s" if references > 1 else ""
            expected = f"{references} reference{plural} + n {n} = {total}, but the API accepts at most 15 together"
            assert (problem.path, problem.message) == (("n",), expected)
