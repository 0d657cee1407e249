"""The API key, wrapped so that no log, traceback or repr shows it."""

from __future__ import annotations

from seedream_batch.errors import UsageError


class ApiKey:
    """A key that shows itself only as a request header."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        value = value.strip()
        if not value:
            raise UsageError("the API key is empty")
        if not value.isascii() or not value.isprintable() or " " in value:
            raise UsageError("the API key has characters that no key has; was it pasted with a line break or a quote?")
        self._value = value

    def header(self) -> str:
        """The value of the Authorization header."""
        return f"Bearer {self._value}"

    def removed_from(self, data: bytes) -> bytes:
        """The bytes with stars wherever the key stands in them."""
        # A short one is for the emulator and no secret, and may well be a part of a task id.
        return data.replace(self._value.encode(), b"***") if len(self._value) >= 12 else data

    def __repr__(self) -> str:
        return "ApiKey(***)"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("an API key is not to be pickled")
