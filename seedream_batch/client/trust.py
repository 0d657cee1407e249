"""Which certificates are trusted: those of the system, or of SSL_CERT_FILE and SSL_CERT_DIR."""

from __future__ import annotations

import os
import ssl
from functools import lru_cache
from pathlib import Path

from seedream_batch.errors import UsageError

_OTHERS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables by which other programs are told of an authority."""


def tls() -> ssl.SSLContext:
    """The settings of TLS connections. Raises `UsageError` for an SSL_CERT_FILE or SSL_CERT_DIR of no use.

    OpenSSL itself passes over such a file without a word, and trusts nobody then.
    """
    return _tls(os.environ.get("SSL_CERT_FILE", ""), os.environ.get("SSL_CERT_DIR", ""))


@lru_cache(maxsize=4)
def _tls(file: str, folders: str) -> ssl.SSLContext:
    if file:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
        except ssl.SSLError:
            raise UsageError(f"SSL_CERT_FILE names {file!r}, in which there are no certificates (PEM)") from None
        except OSError as error:
            raise UsageError(f"SSL_CERT_FILE names {file!r}, which cannot be read: {error.strerror}") from None
    if folders and not any(Path(folder).is_dir() for folder in folders.split(os.pathsep)):
        raise UsageError(f"SSL_CERT_DIR names {folders!r}, which is no folder")
    context = ssl.create_default_context()
    if file or folders:
        # Authorities that people make themselves lack what the strictest reading of the standard wants.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def distrusted(why: str) -> str:
    """What to do about a certificate that is not trusted, in a sentence."""
    told = f"its certificate is not trusted ({why}); set SSL_CERT_FILE to the file with your company's authority"
    others = [name for name in _OTHERS if os.environ.get(name)]
    return f"{told}: {' and '.join(others)} are for other programs" if others else told
