import pytest

from seedream_batch.validate.request_schema import RequestSchema

SCHEMA = RequestSchema()
MODEL = "doubao-seedance-4-5"
MODELS = "must be one of doubao-seedance-4-5, Doubao-Seedream-4.5, doubao-seedream-4.5, doubao-seedream-4-5, got "
URL = "https://example.com/a.jpg"
SIZES = "must be one of 1:1, 4:3, 3:4, 16:9, 9:16, 3:2, 2:3, 21:9, 9:21, auto, got "
COUNT = "must be an integer from 1 to 15, got "
QUOTED = "the API refuses a quoted number: write "
REFERENCE = (
    "must be an http:// or https:// URL or a data URI (data:image/jpeg;base64,... or data:image/png;base64,...), got "
)
SERIES = "sequential_image_generation"
OPTIONS = "sequential_image_generation_options"


def body(**fields):
    return {"model": MODEL, "prompt": "a panda", **fields}


def with_references(count=1, **fields):
    return body(image_urls=[URL] * count, **fields)


def series(count=1, **options):
    return with_references(count, sequential_image_generation="auto", sequential_image_generation_options=options)


ACCEPTED = {
    "the least": body(),
    **{
        f"model {name}": body(model=name)
        for name in ("doubao-seedance-4-5", "Doubao-Seedream-4.5", "doubao-seedream-4.5", "doubao-seedream-4-5")
    },
    "prompt of one character": body(prompt="x"),
    "prompt with white space around": body(prompt=" \n x \n"),
    "prompt of 100,000 characters": body(prompt="x" * 100_000),
    **{f"size {size}": body(size=size) for size in ("1:1", "4:3", "3:4", "16:9", "9:16", "3:2", "2:3", "21:9", "9:21")},
    "size auto with a reference": with_references(size="auto"),
    "2K": body(resolution="2K"),
    "4K": body(resolution="4K"),
    "n 1 without references": body(n=1),
    "n 1.0, which JSON counts as an integer": body(n=1.0),
    "n 1 with no references in the list": body(n=1, image_urls=[]),
    "n 14 with a reference": with_references(n=14),
    "n 2 with 13 references": with_references(13, n=2),
    "14 references": with_references(14),
    "14 references and n 1": with_references(14, n=1),
    "several images with the series off, which n turns on": with_references(
        n=2, sequential_image_generation="disabled"
    ),
    "http": body(image_urls=["http://example.com/a.jpg"]),
    "jpeg data URI": body(image_urls=["data:image/jpeg;base64,/9j/4AAQ"]),
    "png data URI": body(image_urls=["data:image/png;base64,iVBORw0KGgo="]),
    "no options for the prompt": body(optimize_prompt_options={}),
    "mode standard": body(optimize_prompt_options={"mode": "standard"}),
    "mode fast": body(optimize_prompt_options={"mode": "fast"}),
    "series off": body(sequential_image_generation="disabled"),
    "series": with_references(sequential_image_generation="auto"),
    "series with empty options": series(),
    "max_images 1": series(max_images=1),
    "max_images 14 with a reference": series(max_images=14),
    "max_images 1 with 14 references": series(14, max_images=1),
    "watermark": body(watermark=True),
    "no watermark": body(watermark=False),
}

REFUSED = {
    "no model": ({"prompt": "x"}, ("model",), "is required", f"for example `model: {MODEL}`"),
    "no prompt": (
        {"model": MODEL},
        ("prompt",),
        "is required",
        'for example `prompt: "a panda playing in a bamboo forest, watercolour"`',
    ),
    "other model": (
        body(model="seedream-4.0"),
        ("model",),
        MODELS + "seedream-4.0",
        None,
    ),
    "model in other letters": (body(model="DOUBAO-SEEDANCE-4-5"), ("model",), None, f"did you mean {MODEL}?"),
    "empty prompt": (body(prompt=""), ("prompt",), 'must be non-empty text, got ""', ""),
    "white space as prompt": (body(prompt=" \n"), ("prompt",), 'must be non-empty text, got " \\n"', ""),
    "number as prompt": (
        body(prompt=7),
        ("prompt",),
        "must be non-empty text, got 7",
        'put it in quotes: "7"',
    ),
    "no value as prompt": (body(prompt=None), ("prompt",), "must be non-empty text, got nothing", ""),
    "other size": (body(size="16:10"), ("size",), SIZES + "16:10", "the nearest ratio is 3:2"),
    "size with x": (body(size="16x9"), ("size",), SIZES + "16x9", "the nearest ratio is 16:9"),
    "size in pixels": (body(size="2048x2048"), ("size",), SIZES + "2048x2048", "the nearest ratio is 1:1"),
    "size as a number of base 60": (
        body(size=969),
        ("size",),
        SIZES + "969",
        'YAML 1.1 reads an unquoted 16:9 as 969: write "16:9"',
    ),
    "size auto without references": (
        body(size="auto"),
        ("size",),
        "size auto needs a reference image",
        "add image_urls, or set a ratio such as 1:1",
    ),
    "size auto with no references in the list": (
        body(size="auto", image_urls=[]),
        ("size",),
        "size auto needs a reference image",
        None,
    ),
    "1K": (
        body(resolution="1K"),
        ("resolution",),
        "must be one of 2K, 4K, got 1K",
        "1K is not available; the smallest is 2K",
    ),
    "4k": (body(resolution="4k"), ("resolution",), "must be one of 2K, 4K, got 4k", "did you mean 4K?"),
    "n 0": (body(n=0), ("n",), COUNT + "0", ""),
    "n -1": (body(n=-1), ("n",), COUNT + "-1", ""),
    "n 16": (with_references(n=16), ("n",), COUNT + "16", ""),
    "quoted n": (body(n="3"), ("n",), COUNT + '"3"', QUOTED + "3"),
    "quoted n out of range": (body(n="16"), ("n",), COUNT + '"16"', ""),
    "true as n": (body(n=True), ("n",), COUNT + "true", ""),
    "n 1.5": (body(n=1.5), ("n",), COUNT + "1.5", ""),
    "n not a number at all": (body(n=float("nan")), ("n",), COUNT + "nan", ""),
    "n nothing": (body(n=None), ("n",), COUNT + "nothing", ""),
    "n 2 without references": (
        body(n=2),
        ("n",),
        "several images (n 2) need at least one reference image in image_urls",
        None,
    ),
    "n 4 with no references in the list": (
        body(n=4, image_urls=[]),
        ("n",),
        "several images (n 4) need at least one reference image in image_urls",
        None,
    ),
    "n 15 with a reference": (
        with_references(n=15),
        ("n",),
        "1 reference + n 15 = 16, but the API accepts at most 15 together",
        "n can be at most 14 here",
    ),
    "n 13 with 3 references": (
        with_references(3, n=13),
        ("n",),
        "3 references + n 13 = 16, but the API accepts at most 15 together",
        "n can be at most 12 here",
    ),
    "15 references": (
        with_references(15),
        ("image_urls",),
        "must have at most 14 entries, got 15",
        "references and requested images are at most 15 together",
    ),
    "one reference without a list": (body(image_urls=URL), ("image_urls",), f'must be a list, got "{URL}"', None),
    "reference that is a file": (body(image_urls=["a.jpg"]), ("image_urls", 0), REFERENCE + '"a.jpg"', ""),
    "second reference wrong": (body(image_urls=[URL, 3]), ("image_urls", 1), REFERENCE + "3", None),
    "ftp": (body(image_urls=["ftp://example.com/a.jpg"]), ("image_urls", 0), None, None),
    "URL without a host": (body(image_urls=["https:///a.jpg"]), ("image_urls", 0), None, None),
    "URL with a space": (body(image_urls=["https://example.com/a b.jpg"]), ("image_urls", 0), None, None),
    "URL with a newline behind": (body(image_urls=[URL + "\n"]), ("image_urls", 0), REFERENCE + f'"{URL}\\n"', None),
    "webp data URI": (body(image_urls=["data:image/webp;base64,AAAA"]), ("image_urls", 0), None, None),
    "jpg data URI": (body(image_urls=["data:image/jpg;base64,AAAA"]), ("image_urls", 0), None, None),
    "data URI without data": (body(image_urls=["data:image/png;base64,"]), ("image_urls", 0), None, None),
    "data URI with other characters": (body(image_urls=["data:image/png;base64,AA AA"]), ("image_urls", 0), None, None),
    "base64 alone": (body(image_urls=["iVBORw0KGgo="]), ("image_urls", 0), None, None),
    "other mode": (
        body(optimize_prompt_options={"mode": "fsat"}),
        ("optimize_prompt_options", "mode"),
        "must be one of standard, fast, got fsat",
        "did you mean fast?",
    ),
    "options of the prompt without a mapping": (
        body(optimize_prompt_options="fast"),
        ("optimize_prompt_options",),
        'must be a mapping, got "fast"',
        "",
    ),
    "unknown option of the prompt": (
        body(optimize_prompt_options={"speed": 1}),
        ("optimize_prompt_options", "speed"),
        "unknown key",
        "known: mode",
    ),
    "other series": (body(sequential_image_generation="on"), (SERIES,), "must be one of disabled, auto, got on", ""),
    "series without references": (
        body(sequential_image_generation="auto"),
        (SERIES,),
        "sequential_image_generation auto needs at least one reference image in image_urls",
        None,
    ),
    "series with no references in the list": (
        body(sequential_image_generation="auto", image_urls=[]),
        (SERIES,),
        "sequential_image_generation auto needs at least one reference image in image_urls",
        None,
    ),
    "max_images 0": (series(max_images=0), (OPTIONS, "max_images"), COUNT + "0", ""),
    "max_images 16": (series(max_images=16), (OPTIONS, "max_images"), COUNT + "16", ""),
    "quoted max_images": (series(max_images="3"), (OPTIONS, "max_images"), COUNT + '"3"', QUOTED + "3"),
    "max_images 15 with a reference": (
        series(max_images=15),
        (OPTIONS, "max_images"),
        "1 reference + max_images 15 = 16, but the API accepts at most 15 together",
        "max_images can be at most 14 here",
    ),
    "max_images 2 with 14 references": (
        series(14, max_images=2),
        (OPTIONS, "max_images"),
        "14 references + max_images 2 = 16, but the API accepts at most 15 together",
        "max_images can be at most 1 here",
    ),
    "unknown option of a series": (series(max=3), (OPTIONS, "max"), "unknown key", "known: max_images"),
    "options without a series": (
        with_references(sequential_image_generation_options={"max_images": 3}),
        (OPTIONS,),
        "works only with sequential_image_generation: auto",
        "add sequential_image_generation: auto, or use n alone",
    ),
    "options with the series off": (
        with_references(sequential_image_generation="disabled", sequential_image_generation_options={}),
        (OPTIONS,),
        "works only with sequential_image_generation: auto",
        None,
    ),
    "options with n in place of a series": (
        with_references(n=3, sequential_image_generation_options={"max_images": 3}),
        (OPTIONS,),
        "works only with sequential_image_generation: auto",
        None,
    ),
    "quoted watermark": (
        body(watermark="true"),
        ("watermark",),
        'must be true or false, got "true"',
        "write true without quotes",
    ),
    "no as watermark": (body(watermark="no"), ("watermark",), 'must be true or false, got "no"', "write false"),
    "0 as watermark": (body(watermark=0), ("watermark",), "must be true or false, got 0", "write false"),
    "unknown field": (body(watermrak=True), ("watermrak",), "unknown key", "did you mean `watermark`?"),
    "field of another level": (
        body(mode="fast"),
        ("mode",),
        "unknown key",
        "`mode` belongs under `optimize_prompt_options`",
    ),
    "no mapping": ([], (), "must be a mapping, got a list", "required: model and prompt"),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name):
    assert SCHEMA.problems(ACCEPTED[name]) == []
    assert SCHEMA.is_valid(ACCEPTED[name])


@pytest.mark.parametrize("name", REFUSED)
def test_refused_for_this_reason_alone(name):
    refused, path, message, hint = REFUSED[name]
    (problem,) = SCHEMA.problems(refused)
    assert problem.path == path
    assert message is None or problem.message == message
    assert hint is None or problem.hint == hint
    assert not SCHEMA.is_valid(refused)


def test_several_faults_are_told_at_once():
    wrong = {"n": 4, "size": "auto", "watermark": "yes", "quality": "hd", "sequential_image_generation": "auto"}
    assert {problem.path for problem in SCHEMA.problems(wrong)} == {
        ("model",),
        ("prompt",),
        ("n",),
        ("size",),
        ("watermark",),
        ("quality",),
        ("sequential_image_generation",),
    }


def test_a_field_wrong_by_itself_breaks_no_rule_as_well():
    assert [problem.message for problem in SCHEMA.problems(body(n=99))] == [COUNT + "99"]
    assert [problem.path for problem in SCHEMA.problems(body(n=4, image_urls="https://example.com/a.jpg"))] == [
        ("image_urls",)
    ]
    told = SCHEMA.problems(with_references(sequential_image_generation="atuo", sequential_image_generation_options={}))
    assert [problem.path for problem in told] == [(SERIES,)]


def test_what_others_ask_of_the_schema():
    names = [path[0] for path in SCHEMA.field_types if len(path) == 1]
    assert names[:3] == ["model", "prompt", "size"]
    assert len(names) == 10
    assert SCHEMA.field_types == {
        ("model",): "string",
        ("prompt",): "string",
        ("size",): "string",
        ("resolution",): "string",
        ("n",): "integer",
        ("image_urls",): "array",
        ("optimize_prompt_options",): "object",
        ("optimize_prompt_options", "mode"): "string",
        (SERIES,): "string",
        (OPTIONS,): "object",
        (OPTIONS, "max_images"): "integer",
        ("watermark",): "boolean",
    }
    assert SCHEMA.defaults == {
        ("model",): MODEL,
        ("size",): "1:1",
        ("resolution",): "2K",
        ("n",): 1,
        ("optimize_prompt_options", "mode"): "standard",
        (SERIES,): "disabled",
        ("watermark",): False,
    }


def test_the_remembered_verdict_tells_equal_values_of_other_types_apart():
    fresh = RequestSchema()
    assert [fresh.is_valid(body(n=n)) for n in (1, True, 1.0, "1", 1)] == [True, False, True, False, True]
    assert [fresh.is_valid(body(prompt=text)) for text in ("x", " ", 3, "y")] == [True, False, False, True]
    assert [fresh.is_valid(body(image_urls=urls)) for urls in ([URL], (URL,))] == [True, False]


def test_verdicts_are_forgotten_before_they_fill_the_memory():
    fresh = RequestSchema()
    for number in range(5000):
        fresh.is_valid(body(n=number + 16))
    assert len(fresh._verdicts) <= 4096
    fresh.is_valid(body(image_urls=["data:image/png;base64," + "A" * 100_000]))
    assert max(map(len, fresh._verdicts)) <= 4096
