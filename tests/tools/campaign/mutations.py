"""Whether the campaign has teeth: the program is broken on purpose, once for each promise, and has to be caught.

Each mutation is a small edit in a copy of the package; the parts that should notice are run against the copy.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from code_edits import Edit, NotOnce, edited


@dataclass(frozen=True, slots=True)
class Mutation:
    """Edits that break a promise, and where that should be noticed.

    `runs` are parts, each with a text in the name of its units; `told` has to be in a violation.
    """

    name: str
    told: str
    runs: tuple[tuple[str, str], ...]
    edits: tuple[Edit, ...]


_TRIED_ANEW = (
    Edit(
        "lifecycle.after_submission",
        "Move(TaskState.UNCERTAIN, message, submission.code)",
        "Move(TaskState.PLANNED, message)",
    ),
    # As the usual retry library has it: a new try, as if nothing had been sent.
    Edit("manifest.task_store.TaskStore.not_executed", "self._budget.release(...)"),
)
_MOVED_ALONG = (
    # Each of the four would do.
    Edit("files.local_folder.OutputFolder.move", "if ...:\n    raise Changed(...)"),
    Edit("engine.placement.find", "CheckResult(there=False, wrong=wrong)", "result"),
    Edit("engine.placement._relocate", "not result.wrong", "result.there"),
    Edit("engine.placement._move_home", "place is None", "not result.there"),
)
_PRUNED = Edit("operations.prune._prune_image", "result.there and result.wrong", "False")

MUTATIONS = (
    Mutation(
        "I1 an unclear answer counts as a failure, and is tried anew",
        "I1",
        (("network", "submit: reset after the bill, once"),),
        _TRIED_ANEW,
    ),
    Mutation(
        "I1 what was being sent when the run was killed is planned anew",
        "I1",
        (("crashes", "run, keys not honoured"),),
        (Edit("manifest.task_store.TaskStore.cut_off", "TaskState.UNCERTAIN", "TaskState.PLANNED"),),
    ),
    Mutation(
        "I1 a resend gets a key of its own",
        "I1",
        (("crashes", "resolve --resend 1"),),
        (Edit("engine.submitter.Submitter.resend", "claim.key", "claim.key + '-again'"),),
    ),
    Mutation(
        "I2 the manifest is not synced",
        "I2",
        (("powerloss", "run"),),
        (
            Edit(
                "manifest.db.sqlite.SqliteConnection.__init__",
                "'PRAGMA synchronous = FULL'",
                "'PRAGMA synchronous = OFF'",
            ),
        ),
    ),
    Mutation(
        "I2 the folder of the manifest is not synced",
        "I2",
        (("powerloss", "run"),),
        (Edit("files.local_folder.OutputFolder._create", "self._sync_own_name(path)"),),
    ),
    Mutation(
        "I2 an attempt that was cut off by a kill counts as not executed",
        "I2",
        (("crashes", "run, in doubt is held"),),
        (
            Edit(
                "manifest.task_store.TaskStore.cut_off",
                "self._transitions.record_outcome(...)",
                "self._transitions.record_outcome(sql, task, 'not executed')",
            ),
        ),
    ),
    Mutation(
        "I2 ids that the manifest cannot take are not rescued",
        "left 4",
        (("crashes", "run with rescued ids, held"),),
        (Edit("engine.submitter.Submitter._rescue_ids", "context.start.rescue.add(...)"),),
    ),
    Mutation(
        "I2 the name of the file for rescued ids is not synced",
        "I2",
        (("powerloss", "run, in doubt is held"),),
        (Edit("manifest.rescue_log.RescueFile.prepare", "self._sync(...)"),),
    ),
    Mutation(
        "I3 nothing is reserved",
        "I3",
        (("crashes", "run 1"),),
        (
            Edit(
                "manifest.budget_ledger.Allowance.admit",
                "Reservation(kind_of(task), task.images, task.images * price)",
                "Reservation(kind_of(task), task.images, 0)",
            ),
        ),
    ),
    Mutation(
        "I3 what a task in doubt may have cost is set free when it is given up",
        "I3",
        (("crashes", "resolve --give-up"),),
        (
            Edit(
                "manifest.decision_store.DecisionStore.give_up",
                "self._transitions.record_outcome(...)",
                "from seedream_batch.manifest.budget_ledger import BudgetLedger\n"
                "BudgetLedger(self._database).release(sql, task, 'given up')",
            ),
        ),
    ),
    Mutation(
        "I4 a file gets its name without being synced",
        "I4",
        (("powerloss", "run"),),
        (Edit("files.temp_file.TempFile.finish", "sync(self._write())", "self._write().flush()"),),
    ),
    Mutation(
        "I4 pictures are not decoded",
        "I4",
        (("network", "image: truncated, once"),),
        (Edit("files.image_inspection.inspect", "if decode:\n    ..."),),
    ),
    Mutation(
        "I4 an image is told as stored before it has its name",
        "I4",
        (("crashes", "run, one at a time 1"),),
        (
            Edit(
                "engine.downloader.Downloader._store",
                "await self._place(...)",
                "await self._stored(task, image, file)\nawait self._place(temp_path, path, file.sha256)\nreturn True",
            ),
        ),
    ),
    Mutation(
        "I4 a name that a killed run gave is believed without a sync",
        "I4",
        (("powerloss", "run --collect, killed"),),
        (Edit("engine.downloader._is_stored", "folder.sync(...)"),),
    ),
    Mutation(
        "I4 a move that was cut off is believed without a sync",
        "I4",
        (("powerloss", "run after an edited path, killed"),),
        (
            Edit("engine.placement.settle", "await asyncio.to_thread(context.folder.end_move, ...)"),
            # Either of the two would do.
            Edit("engine.startup._check_job", "finish_interrupted_moves(...)"),
        ),
    ),
    Mutation(
        "I4 the old name of a file that moves is gone before the new one is kept",
        "I4",
        (("powerloss", "run after places were swapped, killed"),),
        (Edit("engine.startup._check_job", "finish_interrupted_moves(...)"),),
    ),
    Mutation(
        "I2 a folder that a killed run made is believed without a sync",
        "I2",
        (("powerloss", "run, one at a time, killed, 0"),),
        (Edit("files.local_folder.OutputFolder._create", "self._sync_own_name(at)"),),
    ),
    Mutation(
        "I5 what is given up counts as lost",
        "I5",
        (("crashes", "resolve --give-up"),),
        (
            Edit(
                "model.task.EDGES",
                "{TaskState.ACCEPTED, TaskState.PLANNED, TaskState.FAILED}",
                "{TaskState.ACCEPTED, TaskState.PLANNED, TaskState.LOST}",
            ),
            Edit("manifest.decision_store.DecisionStore.give_up", "TaskState.FAILED", "TaskState.LOST"),
        ),
    ),
    Mutation(
        "I6 the balance is asked for also when nothing is to be bought",
        "I6",
        (("crashes", "run, one at a time 1"),),
        (
            Edit(
                "engine.scheduler.Scheduler._submit_all",
                "if images:\n    ...",
                "await check_balance(context, images, cost)",
            ),
        ),
    ),
    Mutation(
        "I7 what a killed run left is not swept",
        "I7",
        (("crashes", "run 1"),),
        (Edit("engine.work.RunParts._feed", "await asyncio.to_thread(context.folder.sweep)"),),
    ),
    Mutation(
        "I7 files that got their names just before a kill are not known again",
        "I",
        (("crashes", "run 1"),),
        (
            Edit("engine.work.RunParts._feed", "await self.open_tasks.adopt()"),
            Edit(
                "engine.downloader.Downloader._store",
                "path != '' and await asyncio.to_thread(_is_stored, ...)",
                "not path",
            ),
        ),
    ),
    Mutation(
        "I8 the sweep takes every hidden file",
        "I8",
        (("crashes", "run 1"),),
        (
            Edit(
                "files.local_folder.OutputFolder.sweep",
                "_PART_NAME.fullmatch(entry.name)",
                "entry.name.startswith('.')",
            ),
        ),
    ),
    Mutation(
        "I9 the manifest notes the key",
        "I9",
        (("secrecy", "all commands"),),
        (
            Edit(
                "engine.session.RunSession.run",
                "self.started(...)",
                "self._manifest.facts.set({'key': self.key.header()})",
            ),
        ),
    ),
    Mutation(
        "I9 a key shows itself",
        "I9",
        (("secrecy", "a bug"),),
        (
            Edit("client.secret.ApiKey.__repr__", "return ...", "return self._value"),
            Edit("cli.app._without_secrets", "return ...", "return text"),
        ),
    ),
    Mutation(
        "an id is read only where the service documents it, and the answer is not kept",
        "kept nowhere",
        (("gateway", "submit: id: "),),
        (
            Edit("client.wire.submission", "ids.rank > (1 if ... else 0)", "ids.rank > 2"),
            Edit("client.wire.submission", "outcome(Submitted.UNKNOWN, fault.message)", "outcome(Submitted.UNKNOWN)"),
        ),
    ),
    Mutation(
        "a used-up quota is understood under one status only",
        "the quota is used up",
        (("gateway", "quota: insufficient_user_quota, 403, always"),),
        (
            Edit(
                "client.wire._refusal",
                "if ...:\n    return Submitted.UNPAID",
                "if status == 402:\n    return Submitted.UNPAID",
            ),
        ),
    ),
    Mutation(
        "a picture of another ratio counts as the one that was requested",
        "without a warning",
        (("gateway", "picture: a banner, once"),),
        (Edit("engine.downloader.Downloader._not_as_requested", "wrong_picture(...)", "''"),),
    ),
    Mutation(
        "fewer images than requested count as all of them",
        "without a warning",
        (("gateway", "result: one image less, always"),),
        (Edit("manifest.task_store.TaskStore.succeed_all", "warning != delivery.task.warning", "False"),),
    ),
    Mutation(
        "a lost task is not polled again",
        "does not come back",
        (("gateway", "poll: unknown: 4"),),
        (Edit("engine.collector.Collector.find_again", "range(MOST_LOST_POLLS)", "range(0)"),),
    ),
    Mutation(
        "the key of another account is not noticed",
        "the other account got",
        (("account", "another key: tasks at work, run, held"),),
        (Edit("engine.manifest_checks.same_account", "(tasks or at_work) and not confirmed", "False"),),
    ),
    Mutation(
        "tasks in doubt may be sent under the key of another account",
        "the other account got",
        (("account", "another key: tasks in doubt, run, trusted"),),
        (Edit("manifest.task_store._OPEN", "\"'accepted', 'uncertain'\"", "\"'accepted'\""),),
    ),
    Mutation(
        "another account is asked for images that are gone",
        "the other account got",
        (("account", "another key: images that are missing, verify"),),
        (Edit("engine.manifest_checks.same_account", "verifies and (confirmed or own not in keys)", "False"),),
    ),
    Mutation(
        "a key that was sent in the future is trusted",
        "I1",
        (("clock-between-runs", "back after a key in doubt"),),
        (Edit("engine.submitter.Submitter._expired", "age < 0 or newest > now + SKEW", "newest < 0"),),
    ),
    Mutation(
        "a clock that was set back makes a key young again",
        "I1",
        (("clock-between-runs", "on between a key in doubt"),),
        (Edit("engine.submitter.Submitter._expired", "age < 0 or newest > now + SKEW", "age < 0"),),
    ),
    Mutation(
        "a key that has expired is trusted",
        "I1",
        (("clock-between-runs", "on after a key in doubt"),),
        (Edit("engine.submitter.Submitter._expired", "age > KEY_LIFETIME", "age < 0"),),
    ),
    Mutation(
        "a file of a person is moved along with an edited path",
        "I8",
        (("user-edits", "replace by another picture, edit the path, run"),),
        _MOVED_ALONG,
    ),
    Mutation(
        "a file that was brought back stays where it was",
        "I7",
        (("user-edits", "take a picture away, edit the path"),),
        (Edit("manifest.maintenance_store.MaintenanceStore.restore", "target = ...", "target = None"),),
    ),
    Mutation(
        "what a person put in the place of a picture is pruned",
        "I8",
        (("user-edits", "drop a subject, prune"),),
        (_PRUNED,),
    ),
    Mutation(
        "a stream that cannot be written ends a command",
        "exit",
        (("streams", "run, stdout full"),),
        (Edit("cli.streams.Output.write", "self.lost = ...", "raise"),),
    ),
    Mutation(
        "the exit code of a run describes its output",
        "exit 8",
        (("streams", "run, stdout full"),),
        (
            Edit("cli.app._unwritten_code", "args[:1] == ['run']", "False"),
            Edit("cli.app._unwritten_code", "0 if args[0] in _ACTING and '--json' not in args else 8", "8"),
        ),
    ),
    Mutation(
        "files are opened under the numbers of closed streams",
        "exit",
        (("streams", "retry, stdout closed"),),
        (Edit("cli.streams.prepare", "os.open(...)"),),
    ),
    Mutation(
        "a walk: an unclear answer counts as a failure, and is tried anew", "I1", (("walk", "seed 109,"),), _TRIED_ANEW
    ),
    Mutation("a walk: a file of a person is moved along", "I8", (("walk", "seed 11"),), _MOVED_ALONG),
    Mutation(
        "a walk: the sweep takes every hidden file",
        "I8",
        (("walk", "seed 11"),),
        (
            Edit(
                "files.local_folder.OutputFolder.sweep",
                "_PART_NAME.fullmatch(entry.name)",
                "entry.name.startswith('.')",
            ),
        ),
    ),
    Mutation("a walk: what a person put there is pruned", "I8", (("walk", "seed 10"),), (_PRUNED,)),
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One mutation, by its name."""

    name: str


def cells() -> list[Cell]:
    """All mutations."""
    return [Cell(mutation.name) for mutation in MUTATIONS]


def run(cell: Cell, root: Path, port: int) -> list[str]:
    """What is wrong: the mutation could not be made, or nobody noticed it."""
    del port
    mutation = next(one for one in MUTATIONS if one.name == cell.name)
    copy = root / "copy"
    package = Path(_package())
    shutil.copytree(package, copy / "seedream_batch", ignore=shutil.ignore_patterns("__pycache__"))
    if (package.parent / "schemas").is_dir():
        shutil.copytree(package.parent / "schemas", copy / "schemas")
    try:
        changed = edited(copy / "seedream_batch", mutation.edits)
    except NotOnce as error:
        return [str(error)]
    for file, text in changed.items():
        file.write_text(text, encoding="utf-8")
    noticed: list[str] = []
    for part, match in mutation.runs:
        noticed += _violations(copy, part, match, root / "table.json")
    return [] if any(mutation.told in one for one in noticed) else [f"not noticed; told was {noticed[:3]}"]


def _package() -> str:
    import seedream_batch

    return str(Path(seedream_batch.__file__).parent)


def _violations(copy: Path, part: str, match: str, table: Path) -> list[str]:
    command = [sys.executable, str(Path(__file__).parent), "--only", part, "--match", match, "--jobs", "1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(copy), os.environ.get("PYTHONPATH", "")])}
    command += ["--json", str(table), "--few"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if not table.exists():
        return [f"the campaign did not run: {done.stderr[-500:]}"]
    told: list[str] = json.loads(table.read_text())["parts"][part]["violations"]
    table.unlink()
    return told
