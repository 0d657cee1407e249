"""The rate limit: a bucket that fills with time."""

import math

from seedream_batch.emulator.config import parse_rate


class TokenBucket:
    """Tokens that fill up at a rate, of which every request takes one."""

    def __init__(self, rate: str, burst: int | None, now: float) -> None:
        """Begin with a full bucket; `burst` is its size."""
        self._per_second = parse_rate(rate)
        self._size = float(burst if burst is not None else max(1, math.ceil(self._per_second / 10)))
        self._tokens = self._size
        self._filled = now

    def take(self, now: float) -> float:
        """0 when a token was there, otherwise the seconds until there is one."""
        self._tokens = min(self._size, self._tokens + (now - self._filled) * self._per_second)
        self._filled = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._per_second
