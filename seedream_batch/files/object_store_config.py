"""Open the buckets of object stores, with the settings that each cloud's own tools use.

Obstore itself reads the environment [obstore documentation]. The files of AWS profiles, which it does not read, are
read here, in the order of AWS: keys in the environment first, then a web identity, then the profile, and last what the
machine itself is given.
"""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from seedream_batch.errors import UsageError
from seedream_batch.model.locations import Store

Bucket = S3Store | GCSStore | AzureStore

TIMEOUT = timedelta(seconds=120)
"""Limit of one request as a whole: a large image over a slow connection."""

_ELSEWHERE = ("sso_session", "sso_start_url", "role_arn", "credential_process", "source_profile", "login_session")
"""Settings of a profile whose keys come from elsewhere."""

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


def bucket(store: Store, environ: Mapping[str, str]) -> Bucket:
    """Return the bucket, with every path below the prefix. Raise `UsageError` for invalid settings."""
    retry: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=60)}
    client: Any = {"timeout": TIMEOUT}
    prefix = store.prefix or None
    try:
        match store.scheme:
            case "s3":
                profile = _Profile(environ)
                # An endpoint given with http:// is meant so.
                client["allow_http"] = _endpoint(environ, profile).startswith("http://")
                # Objects are deleted one by one, which every store supports.
                settings: Any = {"checksum_algorithm": "SHA256", "disable_bulk_delete": True, **profile.settings}
                return S3Store(
                    store.bucket, prefix=prefix, config=settings, client_options=client, retry_config=retry,
                    credential_provider=profile.provider,
                )  # fmt: skip
            case "gs":
                return GCSStore(store.bucket, prefix=prefix, client_options=client, retry_config=retry)
            case "az":
                return AzureStore(store.bucket, prefix=prefix, client_options=client, retry_config=retry)
            case _:
                raise AssertionError(f"no scheme of ours: {store.scheme}")
    except (BaseError, ValueError, OSError) as error:
        # The message may quote a setting, which may be a secret.
        kind = type(error).__name__
        raise UsageError(f"{store.url}: the settings in the environment give no valid address ({kind})") from None


def link_of(store: Store, environ: Mapping[str, str]) -> str:
    """Return the https URL of what is below the prefix, with a trailing slash."""
    path = f"{quote(store.prefix)}/" if store.prefix else ""
    match store.scheme:
        case "gs":
            return f"https://storage.googleapis.com/{store.bucket}/{path}"
        case "az":
            account = environ.get("AZURE_STORAGE_ACCOUNT_NAME", "ACCOUNT")
            return f"https://{account}.blob.core.windows.net/{store.bucket}/{path}"
    profile = _Profile(environ)
    endpoint = _endpoint(environ, profile).rstrip("/")
    if endpoint:
        return f"{endpoint}/{store.bucket}/{path}"
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or profile.settings.get("region")
    return f"https://s3.{region or 'us-east-1'}.amazonaws.com/{store.bucket}/{path}"


def _endpoint(environ: Mapping[str, str], profile: _Profile) -> str:
    named = next((environ[name] for name in _ENDPOINTS if environ.get(name)), "")
    return named or str(profile.settings.get("endpoint", ""))


class _Profile:
    """The settings of the AWS profile in use: `settings` and `provider` in obstore's format."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.settings: Any = {}
        self.provider: Any = None
        named = environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE")
        name = named or "default"
        home = Path(environ.get("HOME", "~")).expanduser()
        keys = _section(Path(environ.get("AWS_SHARED_CREDENTIALS_FILE") or home / ".aws/credentials"), name)
        config = Path(environ.get("AWS_CONFIG_FILE") or home / ".aws/config")
        more = _section(config, name if name == "default" else f"profile {name}")
        by_environment = environ.get("AWS_ACCESS_KEY_ID") or environ.get("AWS_WEB_IDENTITY_TOKEN_FILE")
        if keys is None and more is None:
            if named and not by_environment:
                raise UsageError(f"AWS_PROFILE is {name!r}, but the AWS configuration files have no such profile")
            return
        values = {**(more or {}), **(keys or {})}
        if values.get("region") and not (environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")):
            self.settings["region"] = values["region"]
        if values.get("endpoint_url") and not any(environ.get(key) for key in _ENDPOINTS):
            self.settings["endpoint"] = values["endpoint_url"]
        if by_environment:
            return
        if values.get("aws_access_key_id") and values.get("aws_secret_access_key"):
            self.settings["access_key_id"] = values["aws_access_key_id"]
            self.settings["secret_access_key"] = values["aws_secret_access_key"]
            if values.get("aws_session_token"):
                self.settings["session_token"] = values["aws_session_token"]
        elif any(values.get(key) for key in _ELSEWHERE):
            self.provider = _boto_provider(name)


def _section(file: Path, name: str) -> dict[str, str] | None:
    """Return the settings of a section; None if there is none. Raise `UsageError` if the file cannot be read."""
    # Secrets may contain a percent sign, which other parsers interpolate.
    parser = configparser.RawConfigParser()
    try:
        parser.read(file, encoding="utf-8")
    except (OSError, configparser.Error, UnicodeDecodeError):
        # The parser's message would quote the line.
        raise UsageError(f"cannot read {file} as an AWS configuration file") from None
    return dict(parser[name]) if parser.has_section(name) else None


def _boto_provider(profile: str) -> Any:
    """Return a provider of keys by single sign-on, a role or a program, which boto3 supports."""
    try:
        import boto3  # noqa: PLC0415 - only such profiles need it
        from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415
    except ImportError:
        raise UsageError(
            f"the AWS profile {profile!r} contains no keys, only a way to get them, which needs boto3; install it"
            " with: pip install boto3"
        ) from None
    return Boto3CredentialProvider(boto3.Session(profile_name=profile))
