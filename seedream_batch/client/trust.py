"""Choose the trusted certificates: those of the system, or of SSL_CERT_FILE and SSL_CERT_DIR."""

from __future__ import annotations

import os
import ssl
from functools import lru_cache
from pathlib import Path

from seedream_batch.errors import UsageError

_OTHERS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables that set the certificates of other programs."""


def tls() -> ssl.SSLContext:
    """Return the TLS settings. Raise `UsageError` for an unusable SSL_CERT_FILE or SSL_CERT_DIR.

    OpenSSL itself ignores such a file silently, and then trusts nothing.
    """
    return _tls(os.environ.get("SSL_CERT_FILE", ""), os.environ.get("SSL_CERT_DIR", ""))


@lru_cache(maxsize=4)
def _tls(file: str, folders: str) -> ssl.SSLContext:
    if file:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
        except ssl.SSLError:
            raise UsageError(f"SSL_CERT_FILE is {file!r}, which contains no certificates (PEM)") from None
        except OSError as error:
            raise UsageError(f"SSL_CERT_FILE is {file!r}, which cannot be read: {error.strerror}") from None
    if folders and not any(Path(folder).is_dir() for folder in folders.split(os.pathsep)):
        raise UsageError(f"SSL_CERT_DIR is {folders!r}, which is not a folder")
    context = ssl.create_default_context()
    if file or folders:
        # Private authorities often lack fields that strict verification requires.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def distrusted(why: str) -> str:
    """Return what to do about an untrusted certificate, as a sentence."""
    text = f"its certificate is not trusted ({why})"
    if "mismatch" in why:
        return f"{text}: it belongs to another host"
    if "expired" in why or "not yet valid" in why:
        return f"{text}; check the clock of this machine"
    text = f"{text}; set SSL_CERT_FILE to the file with your company's certificate authority"
    others = [name for name in _OTHERS if os.environ.get(name)]
    return f"{text}: {' and '.join(others)} are for other programs" if others else text
