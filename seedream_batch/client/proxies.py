"""Read the proxy settings of the environment, here and nowhere else.

The HTTP library could read them itself, but would also use passwords from ~/.netrc: one for the service would replace
the API key, and a default one would be sent to every image host.
"""

from __future__ import annotations

import base64
import importlib.util
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from seedream_batch.errors import UsageError

SOCKS = {"socks4": 4, "socks4a": 4, "socks5": 5, "socks5h": 5}
"""Schemes of SOCKS proxies and their version. The proxy resolves names, whatever the scheme."""

_PORTS = {"http": 80, "https": 443}
_ENTRY = re.compile(r"(?:https?://)?(?:\*?\.)?(?P<host>\[[0-9a-f:.]+\]|[^:]+?|[0-9a-f:.]+)(?::(?P<port>[0-9]{1,5}))?/?")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and the environment variable that names it."""

    variable: str
    scheme: str
    host: str
    port: int
    user: str | None = field(default=None, repr=False)
    password: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        """Its address without the password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        """Headers for an HTTP proxy."""
        if self.user is None:
            return {}
        secret = base64.b64encode(f"{self.user}:{self.password}".encode()).decode("ascii")
        return {"Proxy-Authorization": f"Basic {secret}"}


def proxy_for(url: str, environment: Mapping[str, str] = os.environ) -> Proxy | None:
    """Return the proxy for a URL by `https_proxy`, `all_proxy` and `no_proxy`; None for a direct connection.

    Raise `UsageError` for a proxy that cannot be used.
    """
    parts = urlsplit(url)
    scheme, host = parts.scheme, parts.hostname or ""
    for name in (f"{scheme}_proxy", "all_proxy"):
        for variable in (name, name.upper()):
            address = environment.get(variable)
            if address is None:
                continue
            # An empty variable means no proxy, whatever the others say.
            if not address.strip() or bypasses(_no_proxy(environment), host, parts.port or _PORTS.get(scheme, 0)):
                return None
            return _read(variable, address.strip())
    # Some systems have proxies in their settings.
    address = getproxies().get(scheme, "") if environment is os.environ else ""
    return _read(f"{scheme}_proxy", address) if address and not proxy_bypass(host) else None


def _no_proxy(environment: Mapping[str, str]) -> str:
    return environment.get("no_proxy", environment.get("NO_PROXY", ""))


def bypasses(no_proxy: str, host: str, port: int) -> bool:
    """Return whether a `no_proxy` list names a host: names with their subdomains, addresses, networks, ports, `*`.

    Invalid entries match nothing.
    """
    host = host.rstrip(".").lower()
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    for entry in re.split(r"[\s,;|]+", no_proxy.lower()):
        if "*" in entry and fnmatchcase(host, entry):
            return True
        if address is not None and "://" not in entry and "/" in entry:
            try:
                if address in ipaddress.ip_network(entry, strict=False):
                    return True
            except ValueError:
                pass
            continue
        match = _ENTRY.fullmatch(entry)
        if match is None or (match["port"] and int(match["port"]) != port):
            continue
        name = match["host"].strip("[]").rstrip(".")
        if address is not None:
            try:
                if address == ipaddress.ip_address(name):
                    return True
            except ValueError:
                pass
        elif name and (host == name or host.endswith(f".{name}")):
            return True
    return False


def _read(variable: str, address: str) -> Proxy:
    # The address may hold a password, so it is never repeated.
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        host, port = parts.hostname or "", parts.port
        user = None if parts.username is None else unquote(parts.username)
        password = unquote(parts.password or "")
    except ValueError:
        raise UsageError(_unusable(variable)) from None
    scheme = parts.scheme.lower()
    if scheme == "socks":
        raise UsageError(
            f"the environment variable {variable} begins with socks://, which does not name a SOCKS version; write"
            " socks5h:// or socks4a://"
        )
    sane = re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:.]+", host) and port != 0
    # A path is what is left of `http:/host`, or the address of a configuration script.
    sane = sane and parts.path in {"", "/"} and not parts.query and not parts.fragment
    if scheme not in {"http", "https", *SOCKS} or not sane:
        raise UsageError(_unusable(variable))
    if scheme in SOCKS and importlib.util.find_spec("aiohttp_socks") is None:
        raise UsageError(
            f"the environment variable {variable} names a SOCKS proxy, which needs the extra `socks`:"
            " pip install 'seedream-batch[socks]'"
        )
    return Proxy(variable, scheme, host, port or _PORTS.get(scheme, 1080), user, password)


def _unusable(variable: str) -> str:
    return (
        f"the environment variable {variable} is not a valid proxy; write it like"
        " http://proxy.example.com:3128 or socks5h://127.0.0.1:1080"
    )
