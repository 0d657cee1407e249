"""Fault rules: the requests they match, and how often they fire. The table of actions is in `actions`.

A rule is a mapping such as `{on: submit, action: status, status: 500, at: after_bill, probability: 0.1}`. Rules are
tried in order. Actions that end a request (a response, a reset) exclude each other, so the first that matches is
applied; delays, oddities and task outcomes are all applied.
"""

import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from seedream_batch.emulator.faults.actions import ACTIONS, ENDPOINTS, SELECTORS, ActionSpec


class FaultError(ValueError):
    """An invalid fault plan; the message has a line for each mistake, with the rule's number."""


@dataclass(frozen=True)
class Fault:
    """An action to apply to one request, with its parameters."""

    action: str
    parameters: Mapping[str, Any]
    """The rule, completed with the defaults of its action."""
    rule: int
    """Number of the rule in the plan, from 1."""

    def get(self, name: str) -> Any:
        """Return a parameter; None if the rule has none and the action has no default."""
        return self.parameters.get(name)


@dataclass(frozen=True)
class RequestInfo:
    """What rules can select a request by."""

    endpoint: str
    prompt: str | None = None
    task_id: str | None = None
    task_number: int | None = None


class Rule:
    """One rule of the plan, with how many requests it matched and how often it fired."""

    def __init__(self, number: int, document: Mapping[str, Any], seed: int) -> None:
        self.number = number
        # What the control endpoint returns about a rule may be sent back to it unchanged.
        self.document = {name: value for name, value in document.items() if name not in {"met", "fired"}}
        self.spec = ACTIONS[document["action"]]
        self.matched = 0
        self.fired = 0
        self._endpoints = _endpoints(document["on"])
        self._dice = random.Random(f"{seed}/{number}")
        self._prompt = re.compile(document.get("prompt", ""))

    def fires(self, info: RequestInfo) -> bool:
        """Return whether to apply the action to this request, and count the request if the selectors match."""
        if not self._matches(info):
            return False
        self.matched += 1
        rule = self.document
        position = self.matched - int(rule.get("after", 0))
        if position < 1 or (position - 1) % int(rule.get("every", 1)) != 0:
            return False
        if self.fired >= rule.get("count", self.fired + 1):
            return False
        # One random number for each request that gets here, so the same seed repeats the same faults.
        if self._dice.random() >= rule.get("probability", 1.0):
            return False
        self.fired += 1
        return True

    def _matches(self, info: RequestInfo) -> bool:
        if info.endpoint not in self._endpoints:
            return False
        if "prompt" in self.document and (info.prompt is None or self._prompt.search(info.prompt) is None):
            return False
        return "task" not in self.document or self.document["task"] in (info.task_id, info.task_number)


class FaultPlan:
    """The rules in force."""

    def __init__(self, documents: Iterable[Any] = (), *, seed: int = 0) -> None:
        """Check and keep the rules. Raises `FaultError` with every mistake in the plan."""
        numbered = list(enumerate(documents, 1))
        mistakes = [f"rule {number}: {each}" for number, document in numbered for each in _mistakes(document)]
        if mistakes:
            raise FaultError("\n".join(mistakes))
        self._rules = [Rule(number, document, seed) for number, document in numbered]

    def match(self, info: RequestInfo, *, before_body: bool) -> list[Fault]:
        """Return the actions to apply to a request: those before its body is read, or all others."""
        faults: list[Fault] = []
        ended = False
        for rule in self._rules:
            if rule.spec.before_body != before_body or (ended and rule.spec.ends) or not rule.fires(info):
                continue
            ended = ended or rule.spec.ends
            faults.append(Fault(rule.document["action"], {**rule.spec.defaults, **rule.document}, rule.number))
        return faults

    def as_json(self) -> list[dict[str, Any]]:
        """Return the rules, each with how many requests it matched (`met`) and how often it fired."""
        return [{**rule.document, "met": rule.matched, "fired": rule.fired} for rule in self._rules]


def _listed(on: Any) -> Any:
    return [on] if isinstance(on, str) else on


def _endpoints(on: Any) -> frozenset[str]:
    return frozenset(ENDPOINTS if "any" in _listed(on) else _listed(on))


def _mistakes(document: object) -> list[str]:
    if not isinstance(document, Mapping):
        return [f"must be a mapping such as {{on: submit, action: reset_after}}, is {document!r}"]
    action = document.get("action")
    if not isinstance(action, str) or action not in ACTIONS:
        return [f"action {action!r} is unknown; known: {', '.join(ACTIONS)}"]
    spec = ACTIONS[action]
    wrong = _endpoint_mistakes(document.get("on"), action, spec)
    checks = {**SELECTORS, **spec.parameters}
    for name, value in document.items():
        if name in checks:
            expected = checks[name](value)
            if expected is not None:
                wrong.append(f"{name}: {value!r} is not {expected}")
        elif name not in {"on", "action", "met", "fired"}:
            own = ", ".join(spec.parameters) or "nothing"
            wrong.append(f"{name!r} is unknown; {action} accepts {own}, and every rule {', '.join(SELECTORS)}")
    wrong += [f"{action} needs {name!r}" for name in spec.needed if name not in document]
    if not wrong and spec.before_body and "prompt" in document and "submit" in _endpoints(document["on"]):
        wrong.append(f"{action} applies before the body is read, so it can't select submissions by prompt")
    return wrong


def _endpoint_mistakes(on: object, action: str, spec: ActionSpec) -> list[str]:
    listed = _listed(on)
    names = f"{', '.join(ENDPOINTS)}, any"
    if not isinstance(listed, list) or not listed:
        return [f"on: {on!r} is not one of {names}, or a list of these"]
    wrong = [f"on: {each!r} is not one of {names}" for each in listed if each not in (*ENDPOINTS, "any")]
    if not wrong and not _endpoints(listed) <= spec.endpoints:
        wrong.append(f"on: {action} can be used on {', '.join(sorted(spec.endpoints))} only")
    return wrong


class _Loader(yaml.SafeLoader):
    """YAML whose only booleans are true and false: `on` is the name of a field here."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("true|false"), list("tf"))


def load_faults(path: Path) -> tuple[Mapping[str, Any], ...]:
    """Read the rules of a fault plan: a YAML list, or a mapping whose `faults` is that list.

    Raises `FaultError` for a file that can't be read or is not YAML, or for an invalid rule.
    """
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a safe loader
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FaultError(f"{path}: {error}") from error
    if isinstance(document, Mapping) and set(document) == {"faults"}:
        document = document["faults"]
    if document is None:
        document = []
    if not isinstance(document, list):
        raise FaultError(f"{path}: must be a list of rules, or a mapping with `faults` and nothing else")
    try:
        FaultPlan(document)
    except FaultError as error:
        raise FaultError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from error
    return tuple(document)
