"""Read the API key and the address of the service from the environment."""

from __future__ import annotations

import os
from pathlib import Path

from seedream_batch.client.secret import LONGEST_KEY, ApiKey
from seedream_batch.client.service import origin_of
from seedream_batch.errors import StorageError, UsageError

DEFAULT_BASE_URL = "https://api.apimart.ai"


def origin() -> str:
    """Return the origin of the service: `APIMART_BASE_URL`, else the provider's. Raise `UsageError`."""
    return origin_of(os.environ.get("APIMART_BASE_URL") or DEFAULT_BASE_URL)


def api_key() -> ApiKey:
    """Return the key: `APIMART_API_KEY`, else the file named by `APIMART_API_KEY_FILE`.

    Raise `UsageError` if there is none, or `StorageError` if the file cannot be read.
    """
    key = os.environ.get("APIMART_API_KEY")
    if key:
        return ApiKey(key)
    name = os.environ.get("APIMART_API_KEY_FILE")
    if name:
        try:
            with Path(name).open("rb") as stream:
                return ApiKey(stream.read(LONGEST_KEY).decode())
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
            raise StorageError(f"APIMART_API_KEY_FILE: cannot read {name}: {reason}") from None
    raise UsageError(
        "no API key. Set APIMART_API_KEY to the key, or APIMART_API_KEY_FILE to the path of a file with the key"
        " (not needed with --emulate)"
    )
