"""When to poll a task and when to submit the next one. Pure: clock and randomness are arguments."""

from __future__ import annotations

from seedream_batch.pacing.poll_schedule import PollSchedule, Watch
from seedream_batch.pacing.rate_limiter import SubmissionPace
from seedream_batch.pacing.shared_rate import News, take_turns

__all__ = ["News", "PollSchedule", "SubmissionPace", "Watch", "take_turns"]
