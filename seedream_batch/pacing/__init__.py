"""When to poll a task and when to submit the next one. Pure: clock and randomness are arguments."""

from __future__ import annotations

from seedream_batch.pacing.poll_schedule import PollSchedule, TaskPoller
from seedream_batch.pacing.rate_limiter import AdaptiveRateLimiter, RateFeedback, reserve_slots

__all__ = ["AdaptiveRateLimiter", "PollSchedule", "RateFeedback", "TaskPoller", "reserve_slots"]
