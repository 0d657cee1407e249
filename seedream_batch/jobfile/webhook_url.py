"""The address of a webhook: checked where it is written, and filled in from the environment before a run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from seedream_batch.client.secret import known_secrets
from seedream_batch.errors import UsageError
from seedream_batch.model.document import Document, Json, Problem, dotted
from seedream_batch.model.job import Job
from seedream_batch.model.locations import Server, secrets_of

_PATH = ("notify", "url")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
ALLOWED = "NOTIFY_"
"""What the names of variables begin with that a job file may send to a webhook. Whoever names one so allows it: a job
file may come from somebody else, and the environment holds keys and passwords."""


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
    names = list(dict.fromkeys(_VARIABLE.findall(url)))
    missing = [name for name in names if not environ.get(name)]
    if missing:
        are = "is not set" if len(missing) == 1 else "are not set"
        raise UsageError(f"{where}: {', '.join(missing)} {are} in the environment; set it, or take `notify` out")
    filled = _VARIABLE.sub(lambda found: environ[found[1]].strip(), url)
    secrets = known_secrets(environ, secrets_of(job.manifest.url) if isinstance(job.manifest, Server) else ())
    if secrets.within(filled):
        guilty = [name for name in names if secrets.within(environ[name])]
        told = f"{guilty[0]} holds" if guilty else "it would send"
        raise UsageError(f"{where}: {told} the API key, or a password of this machine; that is for nobody else")
    told = _address_fault(filled)
    if told:
        raise UsageError(f"{where}: {url}, filled in from the environment, {told}")
    return filled


def _written_wrong(url: str) -> tuple[str, str]:
    names = _VARIABLE.findall(url)
    for name in names:
        if not name.startswith(ALLOWED):
            hint = f"give the variable a name that says so, {ALLOWED}{name.removeprefix('_')} for example"
            return f"may not use {name}: only variables whose names begin with {ALLOWED} may go to a webhook", hint
    if "${" in _VARIABLE.sub("", url):
        return "has a `${` that is no variable", "write ${NOTIFY_NAME}: letters, digits and underscores"
    told = "" if names else _address_fault(url)
    return told, "keep what is secret in the environment: ${NOTIFY_URL}" if told else ""


def _address_fault(url: str) -> str:
    # Slow to import, and few jobs have a webhook.
    from seedream_batch.client.webhook import address_fault  # noqa: PLC0415

    return address_fault(url)
