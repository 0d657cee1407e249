"""Loads a job file into a checked job and the stream of its tasks."""

from seedream_batch.jobfile.load import DEFAULT_MAX_TASKS, LoadedJob, load_job

__all__ = ["DEFAULT_MAX_TASKS", "LoadedJob", "load_job"]
