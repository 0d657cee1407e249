"""Proxies of the environment, read here and nowhere else.

The HTTP library could read them by itself, but would then take passwords from ~/.netrc, too: one for the service
stands in the way of the API key, and a default one would go to every image host.
"""

from __future__ import annotations

import base64
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from seedream_batch.errors import UsageError


def proxy_for(url: str) -> httpx.Proxy | None:
    """The proxy that `https_proxy` and `no_proxy` name for a URL, None where it is reached directly.

    Raises `UsageError` for a proxy address that cannot be used.
    """
    parts = urlsplit(url)
    address = getproxies().get(parts.scheme, "")
    if not address or proxy_bypass(parts.hostname or ""):
        return None
    try:
        proxy = httpx.Proxy(address if "://" in address else f"http://{address}")
    except (httpx.InvalidURL, ValueError):
        # The address may hold a password, so it is not repeated.
        raise UsageError(f"the environment variable {parts.scheme}_proxy holds no http(s) URL") from None
    if proxy.auth is None:
        return proxy
    password = base64.b64encode(":".join(proxy.auth).encode()).decode("ascii")
    return httpx.Proxy(proxy.url, headers={"Proxy-Authorization": f"Basic {password}"})
