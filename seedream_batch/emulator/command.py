"""The command line of the emulator: `python -m seedream_batch.emulator`, and a command of `seedream-batch`."""

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click

from seedream_batch import emulator
from seedream_batch.emulator.config import ConfigError, EmulatorConfig, Oddities
from seedream_batch.emulator.faults.actions import ACTIONS, ENDPOINTS

_OPTION_NAMES = {"bad_keys": "bad-key", "forbidden_keys": "forbidden-key", "webhook_retries": "webhook-retry"}

_EPILOG = f"""\b
Examples:
  seedream-batch emulator --port 8089 --state-dir /tmp/emulator
  seedream-batch emulator --port 8089 --task-seconds lognormal:20,0.3 --rate-limit 50/s
  seedream-batch emulator --port 8089 --faults faults.yaml --image-size tiny

\b
Then use it from any client of the API, with any API key (doubao-seedance-4-5
is the provider's name of Seedream 4.5; doubao-seedream-4-5 works as well):
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
  prompt       a regular expression: requests and tasks whose prompt matches
  task         a task id, or the number of a task, counted from 1
  after: N     skip the first N requests that these select
  every: N     then apply to every Nth, starting with the first
  count: N     stop after N times
  probability  from 0 to 1, drawn with --seed
\b
  Rules are tried in order. Of the actions that end a request, the first that
  matches is applied; delay, hang, oddity and task outcomes are all applied.
  `at` is before_bill or after_bill, and for hang also mid_body.
  retry_after is seconds, date, negative, absurd, none, or any text.

\b
Actions and their parameters:
{{actions}}

\b
At run time:
  GET    /emulator/ledger     every charge, refund and settlement (?first=N skips N)
  GET    /emulator/stats      requests by endpoint, leaked_credentials, replayed, ...
  GET    /emulator/requests   the latest requests (?endpoint=submit)
  GET    /emulator/faults     the rules, how often each fired; PUT replaces, DELETE removes
  GET    /emulator/config     the settings; PATCH {{"rate_limit": "5/s"}} changes some
  GET    /emulator/waiting    requests held by hang; DELETE releases them
  POST   /emulator/reset      forget tasks, keys, money, uploads, faults and counts

\b
The ledger is STATE_DIR/ledger.jsonl, one JSON object a line. An emulator
started again on the same folder has its tasks, keys, balance and uploads.
"""


def _describe_actions() -> str:
    """Return a line for each fault action: its name, its endpoints and its parameters."""
    lines = []
    for name, spec in ACTIONS.items():
        endpoints = [each for each in ENDPOINTS if each in spec.endpoints]
        where = "any" if len(endpoints) == len(ENDPOINTS) else ", ".join(endpoints)
        parameters = []
        for each in spec.parameters:
            default = f"={spec.defaults[each]}" if each in spec.defaults else ""
            parameters.append(f"{each} (needed)" if each in spec.needed else each + default)
        lines.append(f"  {name:<17}{where:<22}{', '.join(parameters)}".rstrip())
    return "\n".join(lines)


def _options() -> list[click.Parameter]:
    hints = get_type_hints(EmulatorConfig, include_extras=True)
    oddities_last = sorted(fields(EmulatorConfig), key=lambda field: hasattr(Oddities, field.name))
    return [_option(each.name, each.default, *get_args(hints[each.name])) for each in oddities_last]


def _option(field: str, default: Any, wanted: Any, text: str) -> click.Option:
    """Return the option of a field, with the default, type and help text of the field."""
    name = _OPTION_NAMES.get(field, field).replace("_", "-")
    if field in {"state_dir", "faults"}:
        is_dir = field == "state_dir"
        path = click.Path(path_type=Path, file_okay=not is_dir, dir_okay=is_dir, exists=not is_dir)
        return click.Option([f"--{name}"], type=path, callback=_refuse_shell_parts, help=text)
    if wanted is bool:
        declaration = "--strict/--lenient" if field == "strict" else f"--{name}/--no-{name}"
        return click.Option([declaration], default=default, show_default=True, help=text)
    if isinstance(default, frozenset | tuple):
        return click.Option([f"--{name}", field], multiple=True, type=get_args(wanted)[0], help=text)
    kind = get_args(wanted)[0] if default is None else type(default)
    if isinstance(default, int | float):
        # Click would write them without commas.
        text += f"  [default: {default:{',' if kind is int else ',g'}}]"
    return click.Option([f"--{name}"], type=kind, default=default, show_default=isinstance(default, str), help=text)


def _refuse_shell_parts(context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    """Return the path, unless it has `~` or a variable in it that no shell has filled in."""
    if path is not None and re.match(r"(?s)~|.*(\$\{?[A-Za-z_]|%[A-Za-z_]+%)", str(path)):
        raise click.BadParameter(
            f"{path} contains `~` or a variable that the shell did not expand; write the full path", context, option
        )
    return path


def _run(faults: Path | None, **values: Any) -> None:
    # An empty value of a repeatable option means that it was not given.
    given = {name: value for name, value in values.items() if value != ()}
    try:
        config = EmulatorConfig(**given)
        if faults is not None:
            config = replace(config, faults=emulator.load_faults(faults))
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except emulator.FaultError as error:
        raise click.UsageError(f"the fault plan is invalid:\n{error}") from error
    try:
        emulator.serve(config, announce=click.echo)
    except (OSError, UnicodeError, emulator.LedgerError) as error:
        raise click.ClickException(str(error)) from error


command = click.Command(
    "emulator",
    callback=_run,
    params=_options(),
    short_help="Emulate the image service on this machine, with faults on demand.",
    help="Emulate the image service on this machine: the same endpoints over HTTP, real images, no money.\n\n"
    "Use it to try out jobs, test clients of the API and rehearse failures.",
    epilog=_EPILOG.replace("{actions}", _describe_actions()),
    context_settings={"show_default": True, "max_content_width": 120},
)
