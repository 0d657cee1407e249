"""How many images are charged for 60 requested ones, beside the script of the provider's documentation with retries.

`charges-faults`: of the submissions, 10 % are answered with 429, 10 % with a 503 after the bill, and 5 % break after
the bill. `charges-held`: the same from a service that ignores keys, so the runner holds what it cannot know.
`charges-kill`: no faults, but a kill after a third of the images, and a second start. Each figure is from the ledger of
the emulator.

A POST that is repeated without a key is a second task. The runner sends the same key again, or nothing.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from processes import HERE, RUNNER, run, start
from rows import Options, Row, missing
from runs import write_job
from services import ServiceProcess, emulator

SCENES = ("charges-faults", "charges-held", "charges-kill")
ROWS = tuple(f"{scene}-{who}" for scene in SCENES for who in ("runner", "script"))

IMAGES = 60
THREADS = 8
FAULTS = (
    {"on": "submit", "action": "rate_limit", "retry_after": 1, "probability": 0.1},
    {"on": "submit", "action": "status", "status": 503, "at": "after_bill", "probability": 0.1},
    {"on": "submit", "action": "reset_after_bill", "probability": 0.05},
)
ENDED = (0, 4, 7)
"""Exit codes of a run: everything stored, something held, stopped after answers that said nothing."""
MOST_RUNS = 20


def measure(options: Options) -> list[Row]:
    """Measure each scene with the runner and with the script, by turns."""
    images = options.size(IMAGES, 12)
    rows = []
    for scene in SCENES:
        for who, charged in (("runner", _by_runner), ("script", _by_script)):
            name, measured = f"{scene}-{who}", f"{images} images requested: images charged"
            if not options.wants(name):
                continue
            if who == "script" and importlib.util.find_spec("requests") is None:
                rows.append(missing(name, measured, "requests is not installed"))
                continue
            told = [charged(scene, images, seed) for seed in range(options.rounds)]
            rows.append(
                Row(
                    name=name,
                    measured=measured,
                    runs=tuple(float(count) for count, _ in told),
                    unit="img",
                    at_most=float(images) if who == "runner" else None,
                    notes=(f"on the disk at the end: {', '.join(str(stored) for _, stored in told)}",),
                )
            )
    return rows


def _by_runner(scene: str, images: int, seed: int) -> tuple[int, int]:
    with tempfile.TemporaryDirectory() as name, _service(scene, seed, Path(name)) as service:
        unknown = "hold" if scene == "charges-held" else "resend"
        job = write_job(Path(name) / "job", images, max_in_flight=THREADS, on_unknown=unknown)
        command = [*RUNNER, "run", str(job.file), "--quiet"]
        if scene == "charges-kill":
            _killed(command, service, job.output, images // 3)
        waiting = "" if unknown == "resend" else " WHERE state != 'uncertain'"
        for _ in range(MOST_RUNS):
            run(command, env=service.env, cwd=job.file.parent, codes=ENDED)
            left = job.asked(f"SELECT count(*) FROM tasks{waiting}")[0][0]
            if left == job.asked("SELECT count(*) FROM images WHERE state = 'stored'")[0][0]:
                break
        return _charged(service), _stored(job.output)


def _by_script(scene: str, images: int, seed: int) -> tuple[int, int]:
    with tempfile.TemporaryDirectory() as name, _service(scene, seed, Path(name)) as service:
        folder = Path(name) / "images"
        script = str(HERE / "contestants" / "retrying_script.py")
        command = [sys.executable, script, service.url, str(images), str(THREADS), str(folder)]
        if scene == "charges-kill":
            _killed(command, service, folder, images // 3)
        run(command)
        return _charged(service), _stored(folder)


def _service(scene: str, seed: int, folder: Path) -> AbstractContextManager[ServiceProcess]:
    options = ["--task-seconds", "fixed:0.5", "--image-size", "tiny", "--seed", str(seed)]
    if scene != "charges-kill":
        # JSON is YAML.
        faults = folder / "faults.yaml"
        faults.write_text(json.dumps(FAULTS), encoding="utf-8")
        options += ["--faults", str(faults)]
    if scene == "charges-held":
        options.append("--no-honour-keys")
    return emulator(*options)


def _killed(command: Sequence[str], service: ServiceProcess, folder: Path, images: int) -> None:
    """Start a command, and kill it when so many images are stored."""
    process, printed = start(command, env=service.env)
    while process.poll() is None and _stored(folder) < images:
        time.sleep(0.01)
    process.kill()
    process.wait()
    printed.unlink()


def _stored(folder: Path) -> int:
    return len(list(folder.rglob("*.jpg")))


def _charged(service: ServiceProcess) -> int:
    return sum(entry["images"] for entry in service.ask("ledger") if entry["event"] == "charge")
