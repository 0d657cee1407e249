"""Whether the campaign has teeth: the program is broken on purpose, once for each promise, and has to be caught.

Each mutation is one small edit in a copy of the package; the parts that should notice are run against the copy.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Edit:
    """A text of a file of the package, which has to be there exactly once, and what takes its place."""

    file: str
    old: str
    new: str


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
        "lifecycle.py",
        "return Move(TaskState.UNCERTAIN, message, submission.code) if first else None\n        case Submitted.IND",
        "return Move(TaskState.PLANNED, message) if first else None\n        case Submitted.IND",
    ),
    # As the usual retry library has it: a new try, as if nothing had been sent.
    Edit("manifest/task_store.py", '            self._release(sql, task, "not executed")', "            pass"),
)
_MOVED_ALONG = (
    # Each of the four would do.
    Edit(
        "files/local_folder.py",
        "            if self.sha256(old) != sha256:\n"
        '                raise Changed(f"{source} is gone, or is not the stored picture any more")\n',
        "",
    ),
    Edit(
        "engine/placement.py", "    return None, CheckResult(there=False, wrong=wrong)\n", "    return None, result\n"
    ),
    Edit(
        "engine/placement.py",
        "    result = await asyncio.to_thread(check_size, folder, ExpectedFile.of(image))\n    if not result.wrong:\n        await",
        "    result = await asyncio.to_thread(check_size, folder, ExpectedFile.of(image))\n    if result.there:\n        await",
    ),
    Edit(
        "engine/placement.py",
        "    place, result = await find(context, image, check_size)\n    if place is None:",
        "    place, result = await find(context, image, check_size)\n    if not result.there:",
    ),
)
_PRUNED = Edit("operations/prune.py", "        if result.there and result.wrong:", "        if False:")

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
        (
            Edit(
                "manifest/worker_store.py",
                "self._move(sql, task, TaskState.UNCERTAIN, CUT_OFF, now",
                "self._move(sql, task, TaskState.PLANNED, CUT_OFF, now",
            ),
        ),
    ),
    Mutation(
        "I1 a resend gets a key of its own",
        "I1",
        (("crashes", "resolve --resend 1"),),
        (
            Edit(
                "engine/submitter.py",
                "claim.key))\n                self._notice(outcome, first=False)",
                'claim.key + "-again"))\n                self._notice(outcome, first=False)',
            ),
        ),
    ),
    Mutation(
        "I2 the manifest is not synced",
        "I2",
        (("powerloss", "run"),),
        (Edit("manifest/db/sqlite.py", "PRAGMA synchronous = FULL", "PRAGMA synchronous = OFF"),),
    ),
    Mutation(
        "I2 the folder of the manifest is not synced",
        "I2",
        (("powerloss", "run"),),
        (
            Edit(
                "files/local_folder.py",
                "            path.mkdir(exist_ok=True)\n            self._sync_own_name(path)\n",
                "            path.mkdir(exist_ok=True)\n",
            ),
        ),
    ),
    Mutation(
        "I2 an attempt that was cut off by a kill counts as not executed",
        "I2",
        (("crashes", "run, in doubt is held"),),
        (
            Edit(
                "manifest/worker_store.py",
                'self._attempt(sql, task, "uncertain")',
                'self._attempt(sql, task, "not executed")',
            ),
        ),
    ),
    Mutation(
        "I2 ids that the manifest cannot take are not rescued",
        "left 4",
        (("crashes", "run with rescued ids, held"),),
        (Edit("engine/submitter.py", "context.start.rescue.add(Rescued(claim.key, outcome.task_ids, now))", "pass"),),
    ),
    Mutation(
        "I2 the name of the file for rescued ids is not synced",
        "I2",
        (("powerloss", "run, in doubt is held"),),
        (Edit("manifest/rescue_log.py", "                self._sync(self.path.parent)\n", ""),),
    ),
    Mutation(
        "I3 nothing is reserved",
        "I3",
        (("crashes", "run 1"),),
        (
            Edit(
                "manifest/task_store.py",
                "opened.append(_Opening(claim, body, attempt, held, kind, again=again))",
                "opened.append(_Opening(claim, body, attempt, 0, kind, again=again))",
            ),
        ),
    ),
    Mutation(
        "I3 what a task in doubt may have cost is set free when it is given up",
        "I3",
        (("crashes", "resolve --give-up"),),
        (
            Edit(
                "manifest/decision_store.py",
                'self._attempt(sql, task, "given up")',
                'self._release(sql, task, "given up")',
            ),
        ),
    ),
    Mutation(
        "I4 a file gets its name without being synced",
        "I4",
        (("powerloss", "run"),),
        (Edit("files/temp_file.py", "sync(self._write())", "self._write().flush()"),),
    ),
    Mutation(
        "I4 pictures are not decoded",
        "I4",
        (("network", "image: truncated, once"),),
        (
            Edit(
                "files/image_inspection.py",
                '                if decode and picture.format == "PNG":\n                    image.verify()\n'
                "                elif decode:\n                    image.load()\n            if decode and",
                "            if not decode and",
            ),
        ),
    ),
    Mutation(
        "I4 an image is told as stored before it has its name",
        "I4",
        (("crashes", "run, one at a time 1"),),
        (
            Edit(
                "engine/collector.py",
                "            await self._place(temp_path, path, file.sha256)\n",
                "            await self._stored(task, image, file)\n"
                "            await self._place(temp_path, path, file.sha256)\n"
                "            return\n",
            ),
        ),
    ),
    Mutation(
        "I4 a name that a killed run gave is believed without a sync",
        "I4",
        (("powerloss", "run --collect, killed"),),
        (Edit("engine/collector.py", "    folder.sync([path])\n", ""),),
    ),
    Mutation(
        "I4 a move that was cut off is believed without a sync",
        "I4",
        (("powerloss", "run after an edited path, killed"),),
        (
            Edit(
                "engine/placement.py",
                "            await asyncio.to_thread(context.folder.end_move, image.path or via, via)\n",
                "",
            ),
            # Either of the two would do.
            Edit("engine/startup.py", "        finish_interrupted_moves(manifest, destination(job))\n", ""),
        ),
    ),
    Mutation(
        "I4 the old name of a file that moves is gone before the new one is kept",
        "I4",
        (("powerloss", "run after places were swapped, killed"),),
        (Edit("engine/startup.py", "        finish_interrupted_moves(manifest, destination(job))\n", ""),),
    ),
    Mutation(
        "I2 a folder that a killed run made is believed without a sync",
        "I2",
        (("powerloss", "run, one at a time, killed, 0"),),
        (Edit("files/local_folder.py", "        self._sync_own_name(at)\n", ""),),
    ),
    Mutation(
        "I5 what is given up counts as lost",
        "I5",
        (("crashes", "resolve --give-up"),),
        (
            Edit(
                "model/task.py",
                "{TaskState.ACCEPTED, TaskState.PLANNED, TaskState.FAILED}),",
                "{TaskState.ACCEPTED, TaskState.PLANNED, TaskState.LOST}),",
            ),
            Edit(
                "manifest/decision_store.py",
                "self._move(sql, task, TaskState.FAILED, why",
                "self._move(sql, task, TaskState.LOST, why",
            ),
        ),
    ),
    Mutation(
        "I6 the balance is asked for also when nothing is to be bought",
        "I6",
        (("crashes", "run, one at a time 1"),),
        (
            Edit(
                "engine/scheduler.py",
                "        if images:\n            await check_balance",
                "        if True:\n            await check_balance",
            ),
        ),
    ),
    Mutation(
        "I7 what a killed run left is not swept",
        "I7",
        (("crashes", "run 1"),),
        (
            Edit(
                "engine/scheduler.py",
                "            await asyncio.to_thread(context.folder.sweep)\n",
                "            pass\n",
            ),
        ),
    ),
    Mutation(
        "I7 files that got their names just before a kill are not known again",
        "I",
        (("crashes", "run 1"),),
        (
            Edit("engine/scheduler.py", "        await self._adopt()\n", ""),
            Edit(
                "engine/collector.py",
                'if path != "" and await asyncio.to_thread(_is_stored, context.folder, path, file.sha256):',
                "if not path:",
            ),
        ),
    ),
    Mutation(
        "I8 the sweep takes every hidden file",
        "I8",
        (("crashes", "run 1"),),
        (
            Edit(
                "files/local_folder.py", "if _PART_NAME.fullmatch(entry.name) and", 'if entry.name.startswith(".") and'
            ),
        ),
    ),
    Mutation(
        "I9 the manifest notes the key",
        "I9",
        (("secrecy", "all commands"),),
        (
            Edit(
                "engine/session.py",
                "            stored, wanted = _progress(manifest)\n",
                '            manifest.set_facts({"key": key.header()})\n            stored, wanted = _progress(manifest)\n',
            ),
        ),
    ),
    Mutation(
        "I9 a key shows itself",
        "I9",
        (("secrecy", "a bug"),),
        (
            Edit("client/secret.py", 'return "ApiKey(***)"', "return self._value"),
            Edit("cli/app.py", "return known_secrets(os.environ).masked(text)", "return text"),
        ),
    ),
    Mutation(
        "an id is read only where the service documents it, and the answer is not kept",
        "kept nowhere",
        (("gateway", "submit: id: "),),
        (
            Edit(
                "client/wire.py",
                "        if ids.rank > (1 if status_code or _is_error(parsed) or status is None else 0):",
                "        if ids.rank > 2:",
            ),
            Edit(
                "client/wire.py",
                "            return outcome(Submitted.UNKNOWN, fault.message)\n    kind",
                "            return outcome(Submitted.UNKNOWN)\n    kind",
            ),
        ),
    ),
    Mutation(
        "a used-up quota is understood under one status only",
        "the quota is used up",
        (("gateway", "quota: insufficient_user_quota, 403, always"),),
        (
            Edit(
                "client/wire.py",
                "    if status >= 400 and status != 409 and not page and lacking(fault.code, fault.type, fault.message):",
                "    if status == 402:",
            ),
        ),
    ),
    Mutation(
        "a picture of another ratio counts as the one that was requested",
        "without a warning",
        (("gateway", "picture: a banner, once"),),
        (
            Edit(
                "engine/collector.py",
                "        return wrong_picture(task.size, task.resolution, file.width, file.height, references)",
                '        return ""',
            ),
        ),
    ),
    Mutation(
        "fewer images than requested count as all of them",
        "without a warning",
        (("gateway", "result: one image less, always"),),
        (Edit("manifest/task_store.py", "if warning != delivery.task.warning:", "if False:"),),
    ),
    Mutation(
        "a lost task is not polled again",
        "does not come back",
        (("gateway", "poll: unknown: 4"),),
        (
            Edit(
                "engine/collector.py",
                "        for polls in range(MOST_LOST_POLLS):\n",
                "        for polls in range(0):\n",
            ),
        ),
    ),
    Mutation(
        "the key of another account is not noticed",
        "the other account got",
        (("account", "another key: tasks at work, run, held"),),
        (
            Edit(
                "engine/manifest_checks.py",
                "    if (tasks or at_work) and not confirmed:",
                "    if False:",
            ),
        ),
    ),
    Mutation(
        "tasks in doubt may be sent under the key of another account",
        "the other account got",
        (("account", "another key: tasks in doubt, run, trusted"),),
        (
            Edit(
                "manifest/base_store.py",
                "WHERE state IN ('submitting', 'accepted', 'uncertain')\"\n    \" UNION SELECT id",
                "WHERE state IN ('submitting', 'accepted')\"\n    \" UNION SELECT id",
            ),
        ),
    ),
    Mutation(
        "another account is asked for images that are gone",
        "the other account got",
        (("account", "another key: images that are missing, verify"),),
        (
            Edit(
                "engine/manifest_checks.py",
                "verifies=verifies and (confirmed or own not in keys)",
                "verifies=False",
            ),
        ),
    ),
    Mutation(
        "a key that was sent in the future is trusted",
        "I1",
        (("clock-between-runs", "back after a key in doubt"),),
        (Edit("engine/submitter.py", "        if age < 0 or newest > now + SKEW:", "        if newest < 0:"),),
    ),
    Mutation(
        "a clock that was set back makes a key young again",
        "I1",
        (("clock-between-runs", "on between a key in doubt"),),
        (Edit("engine/submitter.py", "        if age < 0 or newest > now + SKEW:", "        if age < 0:"),),
    ),
    Mutation(
        "a key that has expired is trusted",
        "I1",
        (("clock-between-runs", "on after a key in doubt"),),
        (Edit("engine/submitter.py", "        if age > KEY_LIFETIME:", "        if age < 0:"),),
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
        (
            Edit(
                "manifest/maintenance_store.py",
                "            target = None if task.ordinal is None or home == path else home\n",
                "            target = None\n",
            ),
        ),
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
        (
            Edit(
                "cli/streams.py",
                "            self.lost = self.lost or error\n        return length",
                "            raise\n        return length",
            ),
        ),
    ),
    Mutation(
        "the exit code of a run describes its output",
        "exit 8",
        (("streams", "run, stdout full"),),
        (
            Edit(
                "cli/app.py",
                '    if lacking and not code and (sys.argv[1:] if args is None else args)[:1] != ["run"]:',
                "    if lacking:",
            ),
        ),
    ),
    Mutation(
        "files are opened under the numbers of closed streams",
        "exit",
        (("streams", "retry, stdout closed"),),
        (Edit("cli/streams.py", "            os.open(os.devnull, os.O_RDWR)\n", "            pass\n"),),
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
                "files/local_folder.py", "if _PART_NAME.fullmatch(entry.name) and", 'if entry.name.startswith(".") and'
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
    for edit in mutation.edits:
        file = copy / "seedream_batch" / edit.file
        text = file.read_text()
        if text.count(edit.old) != 1:
            return [f"{edit.file} has {text.count(edit.old)} times what is to be changed: {edit.old!r}"]
        file.write_text(text.replace(edit.old, edit.new))
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
