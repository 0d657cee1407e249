"""Validation against JSON Schema, with messages and positions that people understand."""

from seedream_batch.validate.hints import did_you_mean
from seedream_batch.validate.job_file import checked_job, job_problems
from seedream_batch.validate.request_schema import RequestSchema
from seedream_batch.validate.schemas import schema_names, schema_text

__all__ = [
    "RequestSchema",
    "checked_job",
    "did_you_mean",
    "job_problems",
    "schema_names",
    "schema_text",
]
