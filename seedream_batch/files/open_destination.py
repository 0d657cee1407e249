"""Open the destination of a job's images."""

from __future__ import annotations

import os
from collections.abc import Mapping

from seedream_batch.errors import UsageError
from seedream_batch.files.destination import Destination
from seedream_batch.files.local_folder import OutputFolder
from seedream_batch.model.job import Job


def destination(job: Job, environ: Mapping[str, str] = os.environ) -> Destination:
    """Return the destination of a job's images. Does no I/O.

    Raise `UsageError` if a library is missing, or if settings in the environment are invalid.
    """
    if job.store is None:
        return OutputFolder(job.output_dir)
    try:
        from seedream_batch.files.object_store import ObjectStore  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise UsageError(
            "images in an object store need obstore; install it with: pip install 'seedream-batch[s3]'"
            f" ({str(error).partition(chr(10))[0]})"
        ) from None
    return ObjectStore(job.store, job.output_dir, environ)
