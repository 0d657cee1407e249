"""Images a second from their URLs to verified, durable files: the fetching of a real run beside other downloaders.

400 images of 4 MB each, 2048 x 2048 pixels with noise in them. The tasks have been submitted and have ended before, by
`run --submit-only`; what is timed is `run --collect`, a process from its start to its exit: it looks at each task,
downloads, hashes, decodes, syncs and renames. Beside it, of the same URLs: `curl --parallel`, then `sha256sum`, then
`sync` of each file; and img2dataset, which neither decodes here nor syncs. The row beside curl is measured without
decoding, which curl does not do either; see `contestants/without_decoding.py`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from instant import TASK_ID
from processes import HERE, RUNNER, Finished, run
from rows import Options, Row, middle, missing, ratios
from runs import write_job
from services import ServiceProcess, instant

ROWS = ("downloads-curl", "downloads-decoded", "downloads-img2dataset")

IMAGE_BYTES = 4_000_000
WITHOUT_DECODING = (sys.executable, str(HERE / "contestants" / "without_decoding.py"))


@dataclass
class Speeds:
    """What one contestant did in each round: MB a second, and seconds of the processor."""

    megabytes: float
    speeds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    used: list[float] = field(default_factory=list)
    service: list[float] = field(default_factory=list)

    def add(self, finished: Finished, service_cpu: float) -> None:
        """A round in which everything took so long."""
        self.speeds.append(self.megabytes / finished.seconds)
        self.cpu.append(finished.cpu)
        self.used.append(finished.cpu / finished.seconds)
        self.service.append(service_cpu / finished.seconds)

    def __str__(self) -> str:
        return (
            f"{middle(self.speeds)} MB/s, {middle(self.cpu)} s of the processor: {statistics.median(self.used):.2f}"
            f" cores, and {statistics.median(self.service):.2f} for the service"
        )

    def as_json(self) -> dict[str, list[float]]:
        """All rounds."""
        return {
            "mb_per_second": self.speeds,
            "cpu_seconds": self.cpu,
            "cores": self.used,
            "service_cores": self.service,
        }


def measure(options: Options) -> list[Row]:
    """Fetching without decoding against curl, fetching as it is, and img2dataset."""
    count = options.size(400, 3)
    has_curl = shutil.which("curl") is not None
    has_img2dataset = importlib.util.find_spec("img2dataset") is not None
    wants_curl = options.wants("downloads-curl") and has_curl
    wants_img2dataset = options.wants("downloads-img2dataset") and has_img2dataset
    plain, whole, curl, img2dataset = (Speeds(count * IMAGE_BYTES / 1e6) for _ in range(4))
    for _ in range(options.rounds):
        with instant("--image-bytes", str(IMAGE_BYTES)) as service:
            if wants_curl:
                _collect(service, count, WITHOUT_DECODING, plain)
                _curl(service, count, curl)
            if options.wants("downloads-decoded") or wants_img2dataset:
                _collect(service, count, RUNNER, whole)
            if wants_img2dataset:
                _img2dataset(service, count, img2dataset)

    rows = []
    if options.wants("downloads-curl"):
        what = "runner without decoding / curl --parallel + sha256sum + sync, MB/s"
        rows.append(
            Row(
                name="downloads-curl",
                measured=what,
                runs=ratios(plain.speeds, curl.speeds),
                at_least=1.5,
                notes=(f"runner without decoding: {plain}", f"curl: {curl}"),
                details={"runner": plain.as_json(), "curl": curl.as_json()},
            )
            if has_curl
            else missing("downloads-curl", what, "there is no curl")
        )
    if options.wants("downloads-decoded"):
        rows.append(
            Row(
                name="downloads-decoded",
                measured="runner as it is, with every picture decoded",
                runs=tuple(whole.speeds),
                unit="MB/s",
                notes=(f"runner, of {os.cpu_count()} cores: {whole}",),
                details={"runner": whole.as_json()},
            )
        )
    if options.wants("downloads-img2dataset"):
        what = "runner with decoding and syncing / img2dataset with neither, MB/s"
        rows.append(
            Row(
                name="downloads-img2dataset",
                measured=what,
                runs=ratios(whole.speeds, img2dataset.speeds),
                notes=(f"runner: {whole}", f"img2dataset: {img2dataset}"),
                details={"runner": whole.as_json(), "img2dataset": img2dataset.as_json()},
            )
            if has_img2dataset
            else missing("downloads-img2dataset", what, "img2dataset is not installed; see requirements.txt")
        )
    return rows


def _collect(service: ServiceProcess, count: int, command: Sequence[str], speeds: Speeds) -> None:
    with tempfile.TemporaryDirectory() as name:
        job = write_job(Path(name) / "job", count)
        job.run(service, "--submit-only", stored=False)
        os.sync()
        before = service.cpu
        finished = job.run(service, "--collect", command=command)
        speeds.add(finished, service.cpu - before)


def _curl(service: ServiceProcess, count: int, speeds: Speeds) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = (f'url = "{url}"\noutput = "{number}.jpg"\n' for number, url in enumerate(_urls(service, count), 1))
        (folder / "list").write_text("".join(lines), encoding="utf-8")
        command = "curl --silent --fail --parallel --config list && sha256sum *.jpg > sums && sync *.jpg ."
        os.sync()
        before = service.cpu
        finished = run(["sh", "-c", command], cwd=folder)
        speeds.add(finished, service.cpu - before)
        _check(folder, count)


def _img2dataset(service: ServiceProcess, count: int, speeds: Speeds) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "list.txt").write_text("".join(f"{url}\n" for url in _urls(service, count)), encoding="utf-8")
        script = str(HERE / "contestants" / "many_images.py")
        os.sync()
        before = service.cpu
        finished = run([sys.executable, script, str(folder / "list.txt"), str(folder / "out")], cwd=folder)
        speeds.add(finished, service.cpu - before)
        _check(folder / "out", count)


def _urls(service: ServiceProcess, count: int) -> list[str]:
    return [f"{service.url}/images/{TASK_ID % number}.jpg" for number in range(1, count + 1)]


def _check(folder: Path, count: int) -> None:
    """Raises `RuntimeError` unless all images are there and whole."""
    whole = sum(file.stat().st_size == IMAGE_BYTES for file in folder.rglob("*.jpg"))
    if whole != count:
        raise RuntimeError(f"{whole} of {count} images are whole")
