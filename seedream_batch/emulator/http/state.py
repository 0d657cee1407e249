"""What all handlers of a running emulator share."""

import collections
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from seedream_batch.emulator.config import EmulatorConfig, parse_rate
from seedream_batch.emulator.faults.actions import ENDPOINTS
from seedream_batch.emulator.faults.plan import FaultPlan
from seedream_batch.emulator.http.raw_responses import HeldRequests
from seedream_batch.emulator.http.webhooks import Webhooks
from seedream_batch.emulator.world.account import Account
from seedream_batch.emulator.world.images import ImageCache
from seedream_batch.emulator.world.ledger import Ledger, LedgerError
from seedream_batch.emulator.world.tasks import Clock
from seedream_batch.emulator.world.uploads import Uploads

MAX_LOGGED_REQUESTS = 10_000
STAT_NAMES = (*ENDPOINTS, "uploaded_image", "unknown_path", "replayed", "rate_limited", "leaked_credentials", "faults")


class TokenBucket:
    """Tokens that are refilled at a rate; every request takes one."""

    def __init__(self, rate: str, burst: int | None, now: float) -> None:
        """Start with a full bucket; `burst` is its size, by default the tokens of a tenth of a second, at least 1."""
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


class EmulatorState:
    """The state of an emulator. Not thread-safe: used from the event loop only."""

    def __init__(self, config: EmulatorConfig) -> None:
        """Open the state folder and rebuild the account from it.

        Raises `LedgerError` for a state folder that can't be used; `FaultError` for invalid fault rules.
        """
        self.config = config
        self.clock = Clock()
        self.plan = FaultPlan(config.faults, seed=config.seed)
        self.ledger = Ledger(config.state_dir)
        try:
            self.account = Account(config, self.ledger, self.clock)
        except (KeyError, TypeError, ValueError) as error:
            self.ledger.close()
            raise LedgerError(f"{self.ledger.path}: not a ledger of this emulator ({error!r})") from error
        self.webhooks = Webhooks()
        self.uploads = Uploads(config.state_dir)
        self.image_cache = ImageCache()
        self.held = HeldRequests()
        self.stats: collections.Counter[str] = collections.Counter(dict.fromkeys(STAT_NAMES, 0))
        self.log: collections.deque[dict[str, Any]] = collections.deque(maxlen=MAX_LOGGED_REQUESTS)
        self.port = config.port
        self._closed = False
        self._rate_limit = self._new_rate_limit()

    def configure(self, changes: Mapping[str, Any]) -> None:
        """Change settings. Raises `ConfigError` for an invalid change; then nothing changes."""
        config = self.config.changed(changes)
        if "balance_usd" in changes:
            self.account.starting_balance_usd = config.balance_usd
        self.config = config
        if {"rate_limit", "rate_burst"} & set(changes):
            self._rate_limit = self._new_rate_limit()

    def set_faults(self, rules: Iterable[Mapping[str, Any]]) -> None:
        """Replace the fault plan. Raises `FaultError` for invalid rules; then the old plan stays in force."""
        self.plan = FaultPlan(rules, seed=self.config.seed)

    def reset(self) -> None:
        """Forget tasks, keys, money, uploads, faults, counts and the request log; keep the settings."""
        self.held.release()
        self.account.reset(self.config)
        self.uploads.clear()
        self.plan = FaultPlan()
        self.stats = collections.Counter(dict.fromkeys(STAT_NAMES, 0))
        self.log.clear()
        self._rate_limit = self._new_rate_limit()

    def rate_limit_wait(self, endpoint: str) -> float:
        """Return 0 if the rate limit allows a request to this endpoint, otherwise the seconds to wait."""
        if self._rate_limit is None or (self.config.rate_limit_on == "submit" and endpoint != "submit"):
            return 0.0
        return self._rate_limit.take(self.clock.now())

    def settings(self, *overrides: Mapping[str, Any] | None) -> EmulatorConfig:
        """Return the config with the changes that faults make to it."""
        config = self.config
        for changes in overrides:
            if changes:
                config = replace(config, **changes)
        return config

    def ledger_entries(self, first: int = 0) -> list[dict[str, Any]]:
        """Return the entries of the ledger from a position on, up to date."""
        if not self._closed:
            self.account.advance()
        return list(self.ledger.entries(first))

    def close(self) -> None:
        """Complete the ledger, and release files and threads. The ledger can still be read."""
        self.account.advance()
        self._closed = True
        self.held.release()
        self.image_cache.close()
        self.ledger.close()

    def _new_rate_limit(self) -> TokenBucket | None:
        if self.config.rate_limit is None:
            return None
        return TokenBucket(self.config.rate_limit, self.config.rate_burst, self.clock.now())
