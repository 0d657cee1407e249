"""Expands a job's matrix and templates into a stream of tasks."""
