"""Reports on a manifest: a status for people and machines, and an HTML gallery."""

from seedream_batch.report.gallery import Gallery, write_gallery
from seedream_batch.report.status import Status, cells_in_doubt, read_status

__all__ = ["Gallery", "Status", "cells_in_doubt", "read_status", "write_gallery"]
