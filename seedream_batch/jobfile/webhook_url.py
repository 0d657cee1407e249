"""URLs of webhooks: checked when a job is loaded, filled in from the environment before a run."""

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
"""Prefix of the environment variables that a job file may send to a webhook. Naming a variable so permits it: a job
file may come from somebody else, and the environment holds keys and passwords."""


def notify_problems(value: Mapping[str, Json], document: Document) -> Iterator[Problem]:
    """Yield what is wrong with `notify.url` as written; does not read the environment."""
    section = value.get("notify")
    url = section.get("url") if isinstance(section, dict) else None
    if not isinstance(url, str):
        return
    fault, hint = _fault_as_written(url)
    if fault:
        yield Problem(dotted(_PATH), fault, document.position(_PATH), hint)


def webhook_url(job: Job, environ: Mapping[str, str]) -> str:
    """Return the job's webhook URL, filled in. Raises `UsageError`, which never repeats the filled-in values."""
    url = job.notify.url if job.notify else ""
    where = f"{job.document.position(_PATH)}: {dotted(_PATH)}"
    names = list(dict.fromkeys(_VARIABLE.findall(url)))
    missing = [name for name in names if not environ.get(name)]
    if missing:
        are = "is not set" if len(missing) == 1 else "are not set"
        raise UsageError(f"{where}: {', '.join(missing)} {are} in the environment; set it or remove `notify`")
    filled = _VARIABLE.sub(lambda match: environ[match[1]].strip(), url)
    secrets = known_secrets(environ, secrets_of(job.manifest.url) if isinstance(job.manifest, Server) else ())
    if secrets.within(filled):
        leaking = [name for name in names if secrets.within(environ[name])]
        what = f"{leaking[0]} contains" if leaking else "it contains"
        raise UsageError(f"{where}: {what} the API key or a password of this machine, which must not be sent")
    fault = _address_fault(filled)
    if fault:
        raise UsageError(f"{where}: {url}, filled in from the environment, {fault}")
    return filled


def _fault_as_written(url: str) -> tuple[str, str]:
    names = _VARIABLE.findall(url)
    for name in names:
        if not name.startswith(ALLOWED):
            hint = f"rename the variable, for example to {ALLOWED}{name.removeprefix('_')}"
            return f"must not use {name}: only variables that begin with {ALLOWED} may be sent to a webhook", hint
    if "${" in _VARIABLE.sub("", url):
        return "has a `${` without a valid variable", "write ${NOTIFY_NAME}, with letters, digits and underscores"
    fault = "" if names else _address_fault(url)
    return fault, "to keep secrets in the environment, write ${NOTIFY_URL}" if fault else ""


def _address_fault(url: str) -> str:
    # Slow to import, and few jobs have a webhook.
    from seedream_batch.client.webhook import address_fault  # noqa: PLC0415

    return address_fault(url)
