"""Fault rules without a server: when they fire, and the messages about mistakes in them; the same for settings."""

from pathlib import Path

import pytest

from seedream_batch.emulator import ConfigError, EmulatorConfig, FaultError
from seedream_batch.emulator.faults.actions import ACTIONS
from seedream_batch.emulator.faults.plan import FaultPlan, RequestInfo


def fired(rule, count, seed=0):
    plan = FaultPlan([{"on": "submit", "action": "reset_after", **rule}], seed=seed)
    return [bool(plan.match(RequestInfo("submit", f"prompt {index}"), before_body=False)) for index in range(count)]


def test_after_every_and_count():
    assert fired({"count": 2}, 4) == [True, True, False, False]
    assert fired({"after": 2}, 4) == [False, False, True, True]
    assert fired({"every": 3}, 7) == [True, False, False, True, False, False, True]
    assert fired({"after": 1, "every": 2, "count": 1}, 5) == [False, True, False, False, False]
    assert fired({"prompt": "[13]"}, 4) == [False, True, False, True]


def test_probability_repeats_with_the_seed():
    one, two = fired({"probability": 0.3}, 500, seed=1), fired({"probability": 0.3}, 500, seed=2)
    assert one == fired({"probability": 0.3}, 500, seed=1) != two
    assert 100 < sum(one) < 200
    assert not any(fired({"probability": 0}, 50))


def test_the_first_ending_wins_and_delays_add_up():
    plan = FaultPlan(
        [
            {"on": "submit", "action": "delay", "seconds": 1},
            {"on": "submit", "action": "reset_after", "count": 1},
            {"on": "submit", "action": "status", "status": 500, "count": 1},
        ]
    )
    played = [[fault.action for fault in plan.match(RequestInfo("submit"), before_body=False)] for _ in range(3)]
    assert played == [["delay", "reset_after"], ["delay", "status"], ["delay"]]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("reset", "must be a mapping"),
        ({"on": "submit"}, "action None is unknown; known: status, rate_limit"),
        ({"on": "submit", "action": "explode"}, "'explode' is unknown"),
        ({"action": "reset_after"}, "on: None is not one of submit, poll"),
        ({"on": "everything", "action": "reset_after"}, "'everything' is not one of submit, poll"),
        ({"on": [], "action": "reset_after"}, "on: [] is not one of"),
        ({"on": "poll", "action": "reset_after_bill"}, "can be used on submit only"),
        ({"on": "any", "action": "gzip"}, "can be used on image only"),
        ({"on": "submit", "action": "status"}, "status needs 'status'"),
        ({"on": "submit", "action": "status", "status": 99}, "an HTTP status from 200 to 599"),
        ({"on": "submit", "action": "status", "status": 500, "body": "xml"}, "one of json, html, empty"),
        ({"on": "submit", "action": "reset_after", "seconds": 3}, "'seconds' is unknown; reset_after accepts nothing"),
        ({"on": "submit", "action": "reset_after", "probability": 2}, "a number from 0 to 1"),
        ({"on": "submit", "action": "reset_after", "count": True}, "a whole number of 1 or more"),
        ({"on": "submit", "action": "reset_after", "prompt": "("}, "a regular expression"),
        ({"on": "submit", "action": "reset_before", "prompt": "x"}, "before the body is read"),
        ({"on": "submit", "action": "delay", "seconds": -1}, "a number of seconds"),
        ({"on": "submit", "action": "delay", "seconds": 10**400}, "a number of seconds"),
        ({"on": "submit", "action": "delay", "seconds": 1, "prompt": "a{99999999999}"}, "a regular expression"),
        ({"on": "submit", "action": "oddity", "set": {"honour_keys": False}}, "a mapping with some of versioned"),
        ({"on": "submit", "action": "oddity", "set": {"url_form": "tuple"}}, "is not one of list, string"),
        ({"on": "poll", "action": "redirect", "url": "x", "status": 200}, "one of 301, 302"),
        ({"on": "poll", "action": "reset_after", "task": 0}, "a task id or the number of a task"),
    ],
)
def test_mistakes_in_a_plan(api, rule, message):
    with pytest.raises(FaultError, match="rule 2: ") as caught:
        FaultPlan([{"on": "poll", "action": "reset_after"}, rule])
    assert message in str(caught.value)
    answer = api.bare.put(api.emulator.url + "/emulator/faults", json=[rule])
    assert answer.status_code == 400
    assert "rule 1: " in answer.json()["error"]


def test_every_mistake_of_a_plan_is_reported():
    with pytest.raises(FaultError) as caught:
        FaultPlan([{"on": "submit", "action": "explode"}, {"on": "nowhere", "action": "delay"}])
    assert len(str(caught.value).splitlines()) == 3


def test_every_action_with_its_defaults_is_a_valid_rule():
    needed = {"status": 500, "seconds": 1, "code": "in_progress", "set": {"deliver": 1}, "url": "http://127.0.0.1/"}
    for name, spec in ACTIONS.items():
        for endpoint in spec.endpoints:
            rule = {"on": endpoint, "action": name, **spec.defaults}
            rule |= {each: needed[each] for each in spec.needed}
            assert FaultPlan([rule]).as_json() == [{**rule, "met": 0, "fired": 0}]


@pytest.mark.parametrize(
    "settings",
    [
        {"task_seconds": "soon"},
        {"task_seconds": "uniform:3,1"},
        {"rate_limit": "fast"},
        {"rate_limit": "0/s"},
        {"image_format": "gif"},
        {"link_status": 500},
        {"link_seconds": 0},
        {"price_usd": -1},
        {"omit": ("status",)},
        {"url_form": "string", "image_grouping": "one_entry"},
    ],
)
def test_invalid_settings(settings):
    with pytest.raises(ConfigError):
        EmulatorConfig(**settings)


# Whatever comes before the body is at least a reset.
@pytest.mark.parametrize("action", sorted(ACTIONS.keys() - {"reset_before"}))
def test_every_action_is_carried_out_somewhere(action):
    import seedream_batch.emulator

    package = Path(seedream_batch.emulator.__file__).parent
    sources = [file.read_text(encoding="utf-8") for part in ("http", "world") for file in (package / part).glob("*.py")]
    assert any(f'"{action}"' in source for source in sources), "see the recipe for a fault in CONTRIBUTING.md"
