"""What the manifest says, for people and for machines."""

from seedream_batch.report.status import Status, read_status

__all__ = ["Status", "read_status"]
