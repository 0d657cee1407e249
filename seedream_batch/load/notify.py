"""The address of a webhook: checked where it is written, and filled in from the environment before a run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from seedream_batch.errors import UsageError
from seedream_batch.model.document import Document, Json, Problem, dotted
from seedream_batch.model.job import Job

_PATH = ("notify", "url")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_KEYS = ("APIMART_API_KEY", "APIMART_API_KEY_FILE")
"""Variables that lead to the API key, which goes to the service and to nobody else."""


def notify_problems(value: Mapping[str, Json], document: Document) -> Iterator[Problem]:
    """What is wrong with `notify.url` as it is written; what the environment has to give is not looked at."""
    section = value.get("notify")
    url = section.get("url") if isinstance(section, dict) else None
    if not isinstance(url, str):
        return
    told, hint = _written_wrong(url)
    if told:
        yield Problem(dotted(_PATH), told, document.position(_PATH), hint)


def webhook_url(job: Job, environ: Mapping[str, str]) -> str:
    """The address that the job's `notify` means. Raises `UsageError`, which does not repeat what it was filled with."""
    url = job.notify.url if job.notify else ""
    where = f"{job.document.position(_PATH)}: {dotted(_PATH)}"
    missing = [name for name in dict.fromkeys(_VARIABLE.findall(url)) if not environ.get(name)]
    if missing:
        are = "is not set" if len(missing) == 1 else "are not set"
        raise UsageError(f"{where}: {', '.join(missing)} {are} in the environment; set it, or take `notify` out")
    filled = _VARIABLE.sub(lambda found: environ[found[1]].strip(), url)
    told = _address_fault(filled)
    if told:
        raise UsageError(f"{where}: {url}, filled in from the environment, {told}")
    return filled


def _written_wrong(url: str) -> tuple[str, str]:
    names = _VARIABLE.findall(url)
    for name in names:
        if name in _KEYS:
            return f"may not use {name}: the API key goes to the service only", ""
    if "${" in _VARIABLE.sub("", url):
        return "has a `${` that is no variable", "write ${NAME}: letters, digits and underscores"
    told = "" if names else _address_fault(url)
    return told, "keep what is secret in the environment: ${NAME}" if told else ""


def _address_fault(url: str) -> str:
    # Slow to import, and few jobs have a webhook.
    from seedream_batch.api.webhook import address_fault  # noqa: PLC0415

    return address_fault(url)
