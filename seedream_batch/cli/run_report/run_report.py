"""Reports the end of a run, however it came, to files and to a webhook."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Self

from seedream_batch.cli.exit_codes import INTERRUPTED, Exit, of_error, of_run
from seedream_batch.cli.output.console import as_json
from seedream_batch.cli.output.progress import warn
from seedream_batch.cli.run_report.summary import (
    RunOutcome,
    are_metrics,
    is_summary,
    kind_of,
    message,
    metrics,
    summary,
)
from seedream_batch.client.secret import known_secrets
from seedream_batch.engine.session import RunResult
from seedream_batch.errors import SeedreamBatchError, ServiceError, StorageError, UsageError
from seedream_batch.files.atomic import replace_file, replaceable
from seedream_batch.files.image_inspection import FORMATS
from seedream_batch.jobfile.addresses import webhook_url
from seedream_batch.manifest.db.open import exists
from seedream_batch.manifest.statistics import Counts, read_counts
from seedream_batch.model.document import Json
from seedream_batch.model.job import Job, Notify


def files(to_summary: Path | None, to_metrics: Path | None) -> dict[str, Path]:
    """Return the requested files by option, with links resolved. Raises `UsageError` or `StorageError` if unusable."""
    asked = {"summary": (to_summary, is_summary), "metrics": (to_metrics, are_metrics)}
    resolved = {name: replaceable(path, ours) for name, (path, ours) in asked.items() if path is not None}
    if len(resolved) > len(set(resolved.values())):
        raise UsageError("--summary and --metrics name the same file; use two files")
    return resolved


class RunReporter:
    """A context manager around a whole run, from reading the job on, that reports its end.

    The caller sets `result`. On exit, `code` is the exit code and the files are written. After an exception the webhook
    is called as well, and the exception propagates; otherwise the caller calls `notify` once it has shown the result.
    """

    def __init__(self, path: str, files: dict[str, Path], *, emulated: bool, log_format: str) -> None:
        self.result: RunResult | None = None
        self.code: int = Exit.BUG
        self._path = Path(path)
        self._files = files
        self._emulated = emulated
        self._log_format = log_format
        self._job: Job | None = None
        self._hook: tuple[Notify, str] | None = None
        self._started_at = time.time()
        self._ended: RunOutcome | None = None

    def about(self, job: Job) -> None:
        """Set the job that is run.

        Raises `UsageError` if its webhook needs variables that the environment lacks, or if a requested file would take
        the name of a file of the job.
        """
        self._job = job
        for name, path in self._files.items():
            if _belongs_to_job(path, job):
                self._files = {other: file for other, file in self._files.items() if other != name}
                raise UsageError(f"--{name}: {path} is reserved for a file of the job; choose another name")
        # An emulated run needs no network, and must not report success to a monitor.
        if job.notify is not None and not self._emulated:
            self._hook = job.notify, webhook_url(job, os.environ)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self.result is not None:
            self.code = of_run(self.result)
        elif isinstance(error, SeedreamBatchError):
            self.code = of_error(error)
        elif isinstance(error, KeyboardInterrupt):
            self.code = INTERRUPTED
        error_text = "" if error is None else known_secrets(os.environ).masked(str(error) or type(error).__name__)
        self._ended = ended = self._end(error_text)
        self._write(summary(ended))
        if error is not None:
            self.notify()

    def notify(self) -> None:
        """Call the webhook if it is for such an end; a failure is reported and has no further effect."""
        from seedream_batch.client.webhook import deliver

        ended = self._ended
        if self._hook is None or ended is None or kind_of(ended) not in self._hook[0].on:
            return
        hook, url = self._hook
        text = message(ended)
        # Slack and Mattermost read `text`, Discord reads `content`.
        body = None if hook.method == "GET" else _json({**summary(ended), "text": text, "content": text})
        try:
            asyncio.run(deliver(url, hook.method, body))
        except (ServiceError, UsageError) as error:
            warn(f"notify: {error}", log_format=self._log_format)
        except KeyboardInterrupt:
            warn("notify: interrupted; the webhook may not have been called", log_format=self._log_format)

    def _end(self, error: str) -> RunOutcome:
        job = self._job
        return RunOutcome(
            # The default name of a job.
            job=self._path.stem if job is None else job.name,
            file=self._path.absolute() if job is None else job.file,
            emulated=self._emulated,
            folder=None if job is None else job.pictures,
            started_at=self._started_at,
            ended_at=time.time(),
            code=self.code,
            result=self.result,
            error=error,
            counts=None if job is None else _counts(job),
        )

    def _write(self, content: dict[str, Json]) -> None:
        summarised, measured = _json(content), metrics(content).encode(errors="replace")
        texts = {"summary": (summarised, is_summary), "metrics": (measured, are_metrics)}
        for name, path in self._files.items():
            try:
                replace_file(path, *texts[name])
            except StorageError as error:
                warn(str(error), log_format=self._log_format)
                self.code = self.code or Exit.NO_STORAGE


def _belongs_to_job(path: Path, job: Job) -> bool:
    """Return whether a path is, or may become, that of the job file, the manifest, an image or the like.

    An image, a lock or a manifest may not exist yet, and an empty lock looks like a file that may be replaced.
    """
    if path in {job.file, job.manifest}:
        return True
    if not path.is_relative_to(job.output_dir):
        return False
    at_top = path.parent == job.output_dir and path.stem == "manifest"
    image = path.suffix.lower() in {".jpeg", *(f".{extension}" for extension, _ in FORMATS.values())}
    return at_top or image or path.name.startswith((".", "manifest."))


def _counts(job: Job) -> Counts | None:
    """Return the manifest's counts; None if there is no readable manifest."""
    try:
        return read_counts(job.manifest) if exists(job.manifest) else None
    except (SeedreamBatchError, OSError):
        return None


def _json(value: Json) -> bytes:
    return f"{as_json(value)}\n".encode()
