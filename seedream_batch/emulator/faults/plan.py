"""Fault rules: which requests they meet, and how often. What actions there are is in `actions`.

A rule is a mapping such as `{on: submit, action: status, status: 500, at: after_bill, probability: 0.1}`. Rules are
asked in their order. Actions that end a request (an answer, a reset) exclude each other, so the first that meets
wins; delays, oddities and task outcomes add up.
"""

import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from seedream_batch.emulator.faults.actions import ACTIONS, ENDPOINTS, HEADERS_PHASE, SELECTORS, ActionSpec


class FaultError(ValueError):
    """A fault plan that makes no sense; the message has a line for each mistake, with the rule's number."""


@dataclass(frozen=True)
class Fault:
    """An action that is to be played on one request, with its parameters."""

    action: str
    parameters: Mapping[str, Any]
    rule: int
    """Number of the rule in the plan, from 1."""

    def get(self, name: str) -> Any:
        """A parameter, or the action's default for it."""
        return self.parameters.get(name, ACTIONS[self.action].defaults.get(name))


@dataclass(frozen=True)
class RequestInfo:
    """What the selectors of rules look at in one request."""

    endpoint: str
    prompt: str | None = None
    task_id: str | None = None
    task_number: int | None = None


@dataclass
class Rule:
    """One rule of the plan and how often it has met and fired."""

    number: int
    document: dict[str, Any]
    spec: ActionSpec
    endpoints: frozenset[str]
    dice: random.Random
    matched: int = 0
    fired: int = 0
    prompt: re.Pattern[str] | None = field(default=None)

    def fires(self, info: RequestInfo) -> bool:
        """Whether the rule plays its action on this request; counts the request where its selectors fit."""
        if info.endpoint not in self.endpoints or not self._selects(info):
            return False
        self.matched += 1
        rule = self.document
        position = self.matched - int(rule.get("after", 0))
        if position < 1 or (position - 1) % int(rule.get("every", 1)) != 0:
            return False
        if self.fired >= rule.get("count", self.fired + 1):
            return False
        # The die is thrown once for each request that gets here, so a plan plays the same with the same seed.
        if self.dice.random() >= rule.get("probability", 1.0):
            return False
        self.fired += 1
        return True

    def _selects(self, info: RequestInfo) -> bool:
        if self.prompt is not None and (info.prompt is None or self.prompt.search(info.prompt) is None):
            return False
        wanted = self.document.get("task")
        return wanted is None or wanted in (info.task_id, info.task_number)


class FaultPlan:
    """The rules in force."""

    def __init__(self, documents: Iterable[Mapping[str, Any]] = (), *, seed: int = 0) -> None:
        """Check and keep the rules.

        Raises:
            FaultError: with every mistake in the plan.
        """
        self._rules = _rules(list(documents), seed)

    def match(self, info: RequestInfo, *, headers_only: bool) -> list[Fault]:
        """The actions to play on a request: those that strike before its body is read, or all others."""
        faults: list[Fault] = []
        ended = False
        for rule in self._rules:
            early = rule.spec.phase == HEADERS_PHASE
            if early != headers_only or (ended and rule.spec.ends) or not rule.fires(info):
                continue
            ended = ended or rule.spec.ends
            faults.append(Fault(rule.document["action"], rule.document, rule.number))
        return faults

    def as_json(self) -> list[dict[str, Any]]:
        """The rules, each with how many requests it met and how often it fired."""
        return [{**rule.document, "met": rule.matched, "fired": rule.fired} for rule in self._rules]

    def __bool__(self) -> bool:
        return bool(self._rules)


def _rules(documents: list[Any], seed: int) -> list[Rule]:
    mistakes: list[str] = []
    rules: list[Rule] = []
    for number, document in enumerate(documents, 1):
        wrong = [f"rule {number}: {each}" for each in _mistakes(document)]
        mistakes += wrong
        if not wrong:
            # What the run-time endpoint tells about a rule may be sent back to it as it is.
            kept = {name: value for name, value in document.items() if name not in {"met", "fired"}}
            prompt = re.compile(kept["prompt"]) if "prompt" in kept else None
            dice = random.Random(f"{seed}/{number}")
            spec = ACTIONS[kept["action"]]
            rules.append(Rule(number, kept, spec, _endpoints(kept["on"]), dice, prompt=prompt))
    if mistakes:
        raise FaultError("\n".join(mistakes))
    return rules


def _endpoints(on: Any) -> frozenset[str]:
    listed = [on] if isinstance(on, str) else on
    return frozenset(ENDPOINTS) if "any" in listed else frozenset(listed)


def _mistakes(document: object) -> list[str]:
    if not isinstance(document, Mapping):
        return [f"must be a mapping such as {{on: submit, action: reset_after}}, is {document!r}"]
    action = document.get("action")
    if not isinstance(action, str) or action not in ACTIONS:
        return [f"action {action!r} is unknown; there are {', '.join(ACTIONS)}"]
    spec = ACTIONS[action]
    wrong = _endpoint_mistakes(document.get("on"), action, spec)
    allowed = {"on", "action", "met", "fired", *SELECTORS, *spec.parameters}
    for name, value in document.items():
        if name not in allowed:
            own = ", ".join(spec.parameters) or "nothing"
            wrong.append(f"{name!r} is unknown; {action} takes {own}, and every rule {', '.join(SELECTORS)}")
        elif name in SELECTORS or name in spec.parameters:
            check = SELECTORS[name] if name in SELECTORS else spec.parameters[name]
            expected = check(value)
            if expected is not None:
                wrong.append(f"{name}: {value!r} is not {expected}")
    wrong += [f"{action} needs {name!r}" for name in spec.needed if name not in document]
    if not wrong and spec.phase == HEADERS_PHASE and "prompt" in document and "submit" in _endpoints(document["on"]):
        wrong.append(f"{action} strikes before the body is read, so it can't select submissions by prompt")
    return wrong


def _endpoint_mistakes(on: object, action: str, spec: ActionSpec) -> list[str]:
    listed = [on] if isinstance(on, str) else on
    if not isinstance(listed, list) or not listed:
        return [f"on: {on!r} is not one of {', '.join(ENDPOINTS)}, any, or a list of these"]
    wrong = [
        f"on: {each!r} is not one of {', '.join(ENDPOINTS)}, any" for each in listed if each not in (*ENDPOINTS, "any")
    ]
    if not wrong and not _endpoints(listed) <= spec.endpoints:
        wrong.append(f"on: {action} can be played on {', '.join(sorted(spec.endpoints))} only")
    return wrong
