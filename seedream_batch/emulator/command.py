"""The command line of the emulator: `python -m seedream_batch.emulator`, and a verb of the project's own command."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from seedream_batch import emulator
from seedream_batch.emulator.config import OMITTABLE, ConfigError, EmulatorConfig
from seedream_batch.emulator.faults.actions import ACTIONS, ENDPOINTS

_OPTION_NAMES = {"bad_keys": "bad_key", "forbidden_keys": "forbidden_key"}

# Field of the config -> what --help says. The order is that of the help.
_HELP: dict[str, str] = {
    "host": "Address to listen on. There is no real authentication: leave it on loopback.",
    "port": "Port; 0 picks a free one.",
    "image_host": "Host in image URLs; 'localhost' makes images come from another host than the API.",
    "seed": "Seed of task times and of the faults' dice.",
    "strict": "Refuse request fields that the documentation does not name, or ignore them (and call webhooks).",
    "bad_keys": "API key answered with 401 (repeatable); every other one is good.  [default: wrong-key]",
    "forbidden_keys": "API key answered with 403 (repeatable).",
    "honour_keys": "Honour Idempotency-Key. Otherwise every POST is a new task and a new bill.",
    "task_seconds": "Time of a 2K task: fixed:S, uniform:LOW,HIGH or lognormal:MEDIAN,SIGMA. 4K takes twice as long.",
    "price_usd": "Price of an image.",
    "balance_usd": "Balance at the start; -1 for unlimited.",
    "latency_seconds": "Added to every answer of the API.",
    "rate_limit": "50/s, 600/m or 1000/h; more is answered with 429.",
    "rate_burst": "Requests at once that the limit allows.  [default: a tenth of a second's worth]",
    "rate_limit_on": "Calls that the limit counts: submit or api (all of them).",
    "retry_after": "Retry-After of the limit: number, date, negative, absurd, none, or any text.",
    "link_seconds": "Lifetime of result URLs.",
    "link_status": "What an expired result URL answers: 403, 404 or 410.",
    "renew_links": "Asking again for a task whose URLs expired gives fresh ones.",
    "upload_seconds": "Lifetime of uploaded images.",
    "webhook_retries": "Seconds before a further try to call a webhook (repeatable).  [default: 10, 30, 60]",
    "image_size": "exact: drawn, with the prompt; tiny: as many pixels of one shade in a small file, for load tests.",
    "image_bytes": "Pad images to about this many bytes.",
    "image_format": "jpeg, png or mixed.",
    "jpeg_quality": "1 to 95.",
    "max_body_bytes": "A larger request is answered with 413.",
    "versioned": "Answer in the versioned envelope where a request asks for it by header.",
    "submit_status": "Status of an accepted submission: 200 or 202.",
    "submit_entries": "Entries in `data` of an accepted submission.",
    "submitted_word": "Status word of a task that has not begun.",
    "processing_word": "Status word of a task at work.",
    "url_form": "`url` of a result: list or string.",
    "url_extension": "Extension in result URLs: right, wrong or none.",
    "image_grouping": "entries (one for each image) or one_entry (with all URLs).",
    "duplicate_urls": "Name every URL twice.",
    "numbers_as_strings": "Write the numbers of answers as strings.",
    "error_form": "`error`: object, string or absent.",
    "error_code_form": "`code` of an error: number or string.",
    "omit": f"Field that polls leave out (repeatable): {', '.join(sorted(OMITTABLE))}.",
    "deliver": "Images delivered more (2) or fewer (-1) than asked for.",
}

_EPILOG = f"""\b
Examples:
  seedream-batch emulator --port 8089 --state-dir /tmp/emulator
  seedream-batch emulator --port 8089 --task-seconds lognormal:20,0.3 --rate-limit 50/s
  seedream-batch emulator --port 8089 --faults faults.yaml --image-size tiny

\b
Then point any client of the API at it; any API key will do:
  curl http://127.0.0.1:8089/v1/images/generations \\
    -H 'Authorization: Bearer any' -H 'Content-Type: application/json' \\
    -d '{{"model": "doubao-seedance-4-5", "prompt": "a fox in the snow"}}'
  curl -H 'Authorization: Bearer any' http://127.0.0.1:8089/v1/tasks/task_...

\b
Fault plan (--faults, or PUT /emulator/faults as JSON): a list of rules such as
  - {{on: submit, action: status, status: 503, body: html, probability: 0.1}}
  - {{on: submit, action: reset_after_bill, every: 10}}
  - {{on: submit, action: fail, code: OutputImageSensitiveContentDetected, prompt: "sword"}}
  - {{on: poll, action: rate_limit, retry_after: date, count: 5}}
  - {{on: image, action: truncated_image, after: 2, count: 1}}
  - {{on: submit, action: oddity, set: {{url_form: string, omit: [expires_at]}}}}
\b
  on           {", ".join(ENDPOINTS)}, any, or a list of these
  prompt       a regular expression: requests and tasks whose prompt it finds
  task         a task id, or the number of a task, counted from 1
  after: N     leaves out the first N requests that these select
  every: N     then plays on every Nth, beginning with the first
  count: N     and stops after N times
  probability  from 0 to 1, thrown with --seed
\b
  Rules are tried in their order. Of the actions that end a request the first
  one that meets it is played; delay, hang, oddity and the fates of a task add up.
  `at` is before_bill or after_bill, and for hang also mid_body.
  retry_after is seconds, date, negative, absurd, none, or any text.

\b
Actions and their parameters:
{{actions}}

\b
At run time:
  GET    /emulator/ledger     every bill, refund and settlement (?first=N leaves out N)
  GET    /emulator/stats      requests by endpoint, leaked_credentials, replayed, ...
  GET    /emulator/requests   the latest requests (?endpoint=submit)
  GET    /emulator/faults     the rules, how often each fired; PUT replaces, DELETE drops
  GET    /emulator/config     the settings; PATCH {{"rate_limit": "5/s"}} changes some
  GET    /emulator/waiting    requests held by hang; DELETE lets them go on
  POST   /emulator/reset      forget tasks, keys, money, uploads, faults and counts

\b
The ledger is STATE_DIR/ledger.jsonl, one JSON object a line. An emulator that
is started again on the same folder knows its tasks, keys, balance and uploads.
"""


def _actions() -> str:
    lines = []
    for name, spec in ACTIONS.items():
        where = (
            "any"
            if spec.endpoints == set(ENDPOINTS)
            else ", ".join(each for each in ENDPOINTS if each in spec.endpoints)
        )
        parameters = ", ".join(
            f"{each} (needed)" if each in spec.needed else _with_default(each, spec.defaults)
            for each in spec.parameters
        )
        lines.append(f"  {name:<17}{where:<22}{parameters}".rstrip())
    return "\n".join(lines)


def _with_default(name: str, defaults: Any) -> str:
    return f"{name}={defaults[name]}" if name in defaults else name


def _check_options() -> list[click.Parameter]:
    """An option for each field of the config, of the type that its default has."""
    options: list[click.Parameter] = [
        click.Option(
            ["--state-dir"],
            type=click.Path(path_type=Path, file_okay=False),
            help="Folder of the ledger and of uploads, to start again on.  [default: in memory]",
        ),
        click.Option(
            ["--faults"],
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="Fault plan in YAML; see below.",
        ),
    ]
    for field, text in _HELP.items():
        default: Any = getattr(EmulatorConfig, field)
        flag = field.replace("_", "-")
        if isinstance(default, bool):
            declaration = "--strict/--lenient" if field == "strict" else f"--{flag}/--no-{flag}"
            options.append(click.Option([declaration], default=default, show_default=True, help=text))
        elif field in {"bad_keys", "forbidden_keys", "omit"}:
            name = _OPTION_NAMES.get(field, field).replace("_", "-")
            options.append(click.Option([f"--{name}", field], multiple=True, metavar="TEXT", help=text))
        elif field == "webhook_retries":
            options.append(click.Option(["--webhook-retry", field], multiple=True, type=float, help=text))
        else:
            kind = {"image_bytes": int, "rate_burst": int, "rate_limit": str}.get(field, type(default))
            shown = default is not None
            options.append(click.Option([f"--{flag}"], type=kind, default=default, show_default=shown, help=text))
    return options


def _run(state_dir: Path | None, faults: Path | None, **values: Any) -> None:
    for field in ("bad_keys", "forbidden_keys"):
        values[field] = frozenset(values[field]) or getattr(EmulatorConfig, field)
    values["webhook_retries"] = values["webhook_retries"] or EmulatorConfig.webhook_retries
    try:
        config = EmulatorConfig(state_dir=state_dir, **values)
        if faults is not None:
            config = replace(config, faults=emulator.load_faults(faults))
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except emulator.FaultError as error:
        raise click.UsageError(f"the fault plan makes no sense:\n{error}") from error
    try:
        emulator.serve(config, announce=click.echo)
    except (OSError, UnicodeError, emulator.LedgerError) as error:
        raise click.ClickException(str(error)) from error


command = click.Command(
    "emulator",
    callback=_run,
    params=_check_options(),
    short_help="Play the image service on this machine, with faults on demand.",
    help="Play the image service on this machine: the same endpoints over HTTP, real images, no money.\n\n"
    "Made for trying out jobs, for tests of any client of the API, and for rehearsing failures.",
    epilog=_EPILOG.replace("{actions}", _actions()),
    context_settings={"show_default": True, "max_content_width": 120},
)
