"""The rate limit: a token bucket."""

import math

from seedream_batch.emulator.config import parse_rate


class TokenBucket:
    """Tokens that are refilled at a rate; every request takes one."""

    def __init__(self, rate: str, burst: int | None, now: float) -> None:
        """Start with a full bucket.

        Args:
            rate: Such as `50/s`, `600/m` or `1000/h`.
            burst: The size of the bucket; by default the tokens of a tenth of a second, at least 1.
            now: Seconds, of any clock.
        """
        self._per_second = parse_rate(rate)
        self._size = float(burst if burst is not None else max(1, math.ceil(self._per_second / 10)))
        self._tokens = self._size
        self._filled = now

    def take(self, now: float) -> float:
        """Take a token and return 0; if there is none, return the seconds until there is one."""
        self._tokens = min(self._size, self._tokens + (now - self._filled) * self._per_second)
        self._filled = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._per_second
