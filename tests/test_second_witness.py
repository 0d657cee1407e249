"""The request schema and the emulator's own plain rules judge the same requests: they have to agree on each one."""

import json
import random
from pathlib import Path

import pytest
from examples import some

from seedream_batch.emulator.world.request_rules import PARAMETERS, check_request
from seedream_batch.validate.request_schema import RequestSchema

URLS = ["https://example.com/a.png", "http://example.com/b", "https://example.com/c.jpg?size=1#x"]
DATA = ["data:image/png;base64,iVBORw0KGgo=", "data:image/jpeg;base64,/9j/4AAQ", "data:image/png;base64,AA=="]
BROKEN_URLS = [
    *(
        "",
        "cup.png",
        "ftp://example.com/a.png",
        "https://",
        "http:///a",
        "HTTPS//x",
        "https://exa mple.com/a",
        7,
        None,
        [],
        {},
    ),
    *("data:image/gif;base64,R0lGODlh", "data:image/png,AAAA", "data:image/png;base64,", "data:image/png;base64,A"),
    *("data:image/png;base64,AAA", "data:image/jpeg;base64,AA=", "data:image/png;base64,AA==\n", "https://a.b/c\n"),
    *("data:;base64,AAAA", "data:image/png;base64,AA*A", True, 1.5, "//example.com/a.png"),
]
MODELS = ["doubao-seedance-4-5", "Doubao-Seedream-4.5", "doubao-seedream-4.5", "doubao-seedream-4-5"]
SIZES = ["1:1", "4:3", "3:4", "16:9", "9:16", "3:2", "2:3", "21:9", "9:21", "auto"]
ODD = [None, True, False, 0, -1, 1.5, "", " ", "x", [], {}, [1], {"a": 1}, "3", 10**20, 1e300]


def request(dice):
    """A request that is mostly right, with now and then something wrong in any place."""
    body = {"model": dice.choice(MODELS), "prompt": dice.choice(["a fox", "可爱的熊猫", " a ", "x" * 500])}
    if dice.random() < 0.6:
        count = dice.choice([0, 1, 1, 2, 3, 5, 8, 13, 14, 15, 16])
        body["image_urls"] = [dice.choice(URLS + DATA) for _ in range(count)]
    if dice.random() < 0.5:
        body["size"] = dice.choice(SIZES)
    if dice.random() < 0.5:
        body["resolution"] = dice.choice(["2K", "4K"])
    if dice.random() < 0.5:
        body["n"] = dice.choice([*range(1, 16), 1, 1, 2, 1.0, 3.0])
    if dice.random() < 0.3:
        body["sequential_image_generation"] = dice.choice(["auto", "disabled"])
    if dice.random() < 0.3:
        options = {} if dice.random() < 0.1 else {"max_images": dice.choice([*range(1, 16), 4.0])}
        body["sequential_image_generation_options"] = options
        if dice.random() < 0.7:
            body["sequential_image_generation"] = "auto"
    if dice.random() < 0.2:
        body["optimize_prompt_options"] = {} if dice.random() < 0.2 else {"mode": dice.choice(["standard", "fast"])}
    if dice.random() < 0.3:
        body["watermark"] = dice.random() < 0.5
    if dice.random() < 0.45:
        spoil(body, dice)
    return body


def spoil(body, dice):
    """One thing wrong, or at least odd."""
    kind = dice.randrange(9)
    if kind == 0:
        body[dice.choice([*body, "n", "size", "resolution", "watermark", "image_urls"])] = dice.choice(ODD)
    elif kind == 1:
        del body[dice.choice(list(body))]
    elif kind == 2:
        body[dice.choice(["quality", "N", "seed", "image_url", "Prompt", "output_format"])] = dice.choice(
            ["x", 1, None]
        )
    elif kind == 3:
        body["n"] = dice.choice([0, 16, "3", "1", 2.5, -1, True, None, 100, 15])
    elif kind == 4:
        urls = body.setdefault("image_urls", [])
        urls.insert(dice.randrange(len(urls) + 1), dice.choice(BROKEN_URLS))
    elif kind == 5:
        body["size"] = dice.choice(["16:10", "1:1 ", "1x1", 969, "AUTO", "2048x2048", ""])
    elif kind == 6:
        body["resolution"] = dice.choice(["1K", "2k", "4k", "8K", 2, "", None])
    elif kind == 7:
        body["sequential_image_generation_options"] = dice.choice(
            [
                {"max_images": 0},
                {"max_images": 16},
                {"max_images": "3"},
                {"max": 3},
                {"max_images": True},
                [],
                "x",
                None,
            ]
        )
    else:
        body["optimize_prompt_options"] = dice.choice([{"mode": "quick"}, {"mode": None}, {"speed": 1}, [], "fast"])


@pytest.mark.parametrize("requests", some([2_500, 25_000], 1))
def test_schema_and_emulator_agree(requests):
    dice = random.Random(20260101)
    schema = RequestSchema()
    valid = 0
    for number in range(requests):
        body = request(dice)
        refused = check_request(body, strict=True)
        valid += not refused
        assert schema.is_valid(body) == (not refused), f"request {number}: {body!r}\nthe emulator says {refused}"
    # A comparison of nothing but refusals, or of nothing but good requests, would prove little.
    assert 0.25 * requests < valid < 0.75 * requests


SCHEMA = json.loads(
    (Path(__file__).parents[1] / "schemas/seedream-4.5.request.schema.json").read_text(encoding="utf-8")
)
PROPERTIES = SCHEMA["properties"]


def values(rule):
    """Values of a field at its limits and beyond, and odd ones."""
    at = [rule[name] + more for name in ("minimum", "maximum") if name in rule for more in (-1, 0, 1)]
    return [*at, *rule.get("enum", ()), *ODD]


@pytest.mark.parametrize("name", PROPERTIES)
def test_both_judge_each_field_at_its_limits(name):
    schema = RequestSchema()
    for more in ({}, {"image_urls": URLS[:1]}, {"sequential_image_generation": "auto"}):
        for value in values(PROPERTIES[name]):
            body = {"model": MODELS[0], "prompt": "a fox", **more, name: value}
            refused = check_request(body, strict=True)
            assert schema.is_valid(body) == (not refused), f"{body!r}\nthe emulator says {refused}"


def test_the_emulator_describes_the_same_fields():
    described = PARAMETERS
    assert set(described) == set(PROPERTIES), "see the recipe for a field in CONTRIBUTING.md"
    for name, rule in PROPERTIES.items():
        for limit in ("type", "minimum", "maximum", "default"):
            if limit in rule and limit in described[name]:
                assert described[name][limit] == rule[limit], (name, limit)
        assert set(described[name].get("enum", ())) == set(rule.get("enum", ())), name
