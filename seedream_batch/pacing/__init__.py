"""When to look at a task, and when the next submission may go out: pure, the clock and chance are arguments."""

from __future__ import annotations

from seedream_batch.pacing.polling import PollSchedule, Watch
from seedream_batch.pacing.submitting import SubmissionPace

__all__ = ["PollSchedule", "SubmissionPace", "Watch"]
