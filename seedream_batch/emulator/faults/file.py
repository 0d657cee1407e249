"""Reads fault plans from YAML files."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from seedream_batch.emulator.faults.plan import FaultError, FaultPlan


class _Loader(yaml.SafeLoader):
    """YAML whose only booleans are true and false: `on` is the name of a field here."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("true|false"), list("tf"))


def load_faults(path: Path) -> tuple[Mapping[str, Any], ...]:
    """Read the rules of a fault plan: a YAML list, or a mapping whose `faults` is that list.

    Raises:
        FaultError: for a file that can't be read or is not YAML, or for an invalid rule.
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
