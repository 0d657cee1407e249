"""When to look at a task, and when the next submission may go out: pure, the clock and chance are arguments."""

from __future__ import annotations

from seedream_batch.pacing.poll_schedule import PollSchedule, Watch
from seedream_batch.pacing.rate_limiter import SubmissionPace
from seedream_batch.pacing.shared_rate import News, take_turns

__all__ = ["News", "PollSchedule", "SubmissionPace", "Watch", "take_turns"]
