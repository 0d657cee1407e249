"""The reliability campaign: tries to make the program pay twice, lose an image or leave half a file.

    tests/tools/campaign/run [--sample] [--only PART,...] [--match TEXT] [--steps N] [--jobs N] [--json FILE]

Every part runs the real command line over real HTTP against the emulator in a process of its own, and judges what is
on the disk and in the service's ledger by rules of its own (`oracle.py`). Ends with a table of cells and violations;
exit code 1 if there are any.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path

import crashes
import forge
import shim
import walk
from parts import PARTS, Result, Unit
from service import free_port

TELL_EVERY = 60.0
"""Seconds between two lines on how far a part is, where there is no terminal."""


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tests/tools/campaign/run", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sample", action="store_true", help="a sample of every part, within minutes")
    parser.add_argument("--only", default="", metavar="PART,...", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--match", default="", metavar="TEXT", help="only what has this text in its name")
    # Half of the time a command waits for the service or for a pause to end.
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1), metavar="N")
    parser.add_argument("--steps", type=int, metavar="N", help="steps of the part walk, in all")
    parser.add_argument("--few", action="store_true", help="stop each part at its first violation")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there, too")
    parser.add_argument("--show", type=int, default=40, metavar="N", help="violations to print (default 40)")
    options = parser.parse_args(arguments)
    options.only = [part for part in options.only.split(",") if part] or list(PARTS)
    if unknown := [part for part in options.only if part not in PARTS]:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the campaign; the exit code."""
    options = _options(arguments)
    if options.steps:
        walk.STEPS = options.steps
    units = {name: _units(name, options) for name in options.only}
    shim.preload(shim.build())
    base = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())
    root = Path(tempfile.mkdtemp(prefix="seedream-batch-campaign-", dir=base))
    results: dict[str, Result] = {}
    began = time.monotonic()
    try:
        for name in options.only:
            results[name] = _run(name, units[name], root, options)
            _tell(name, results[name])
    finally:
        shutil.rmtree(root, ignore_errors=True)
    _table(results, time.monotonic() - began)
    if options.json:
        table = {name: result.as_json() for name, result in results.items()}
        options.json.write_text(json.dumps({"sample": options.sample, "parts": table}, indent=2))
    return int(any(result.wrong for result in results.values()))


def _units(name: str, options: argparse.Namespace) -> list[Unit]:
    """What of a part is to be tried. Nothing at all is a mistake, and no result without violations."""
    units = [unit for unit in PARTS[name].units(sample=options.sample) if options.match in unit.name]
    if not units:
        sys.exit(f"tests/tools/campaign/run: nothing in {name} has {options.match!r} in its name")
    return units


def _run(name: str, units: Sequence[Unit], root: Path, options: argparse.Namespace) -> Result:
    """All units of a part, spread over processes."""
    whole = Result()
    began = told = time.monotonic()
    # Not forked: the workers have to load the shim at their start.
    context = multiprocessing.get_context("spawn")
    jobs = min(options.jobs, PARTS[name].most_jobs, max(1, len(units)))
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(options.few,)) as pool:
        waiting: dict[Future[Result], Unit] = {pool.submit(_one, name, unit, root): unit for unit in units}
        for number, future in enumerate(as_completed(waiting), 1):
            result = future.result()
            whole.add(result)
            for wrong in result.wrong[: max(0, options.show - len(whole.wrong) + len(result.wrong))]:
                print(f"  VIOLATION {name}: {_short(wrong)}", flush=True)
            if whole.wrong and options.few:
                pool.shutdown(cancel_futures=True)
                break
            progress = f"  {name}: {number} of {len(units)}, {whole.cells} cells "
            if sys.stderr.isatty():
                print(f"\r{progress}", end="", file=sys.stderr, flush=True)
            elif time.monotonic() > told + TELL_EVERY:
                told = time.monotonic()
                print(f"{progress}after {told - began:.0f} s", file=sys.stderr, flush=True)
    whole.seconds = time.monotonic() - began
    return whole


def _short(text: str) -> str:
    return text if len(text) < 1000 else f"{text[:200]} ... {text[-700:]}"


def _begin(few: bool) -> None:  # noqa: FBT001 - as the pool calls it
    if few:
        crashes.ENOUGH = 0
        walk.MINIMISING = 0.0
    forge.warm_up()


def _one(name: str, unit: Unit, root: Path) -> Result:
    """One unit, in a worker; a failure of the campaign itself counts as a violation."""
    folder = root / f"{name}-{os.getpid()}"
    folder.mkdir(exist_ok=True)
    try:
        return PARTS[name].run(unit, folder, free_port())
    except Exception:
        return Result(wrong=[f"{unit.name}: the campaign itself failed: {traceback.format_exc()}"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _tell(name: str, result: Result) -> None:
    sys.stderr.write("\r" + " " * 60 + "\r" if sys.stderr.isatty() else "")
    note = f"  ({'; '.join(result.notes)})" if result.notes else ""
    print(
        f"{name:<12}{result.cells:>9,} cells{len(result.wrong):>5} violations{result.seconds:>9.0f} s{note}", flush=True
    )


def _table(results: dict[str, Result], seconds: float) -> None:
    print(f"\n{'part':<12}{'cells':>10}{'violations':>12}{'seconds':>9}  what")
    for name, result in results.items():
        print(f"{name:<12}{result.cells:>10,}{len(result.wrong):>12}{result.seconds:>9.0f}  {PARTS[name].what}")
    cells, wrong = sum(result.cells for result in results.values()), sum(len(r.wrong) for r in results.values())
    print(f"{'all':<12}{cells:>10,}{wrong:>12}{seconds:>9.0f}")
