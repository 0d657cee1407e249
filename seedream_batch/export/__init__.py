"""Exports stored images as datasets: read while a run may be active, written completely or not at all."""

from seedream_batch.export.dataset import DEFAULT_SHARD_SIZE, Exported, ExportOptions, Format, export

__all__ = ["DEFAULT_SHARD_SIZE", "ExportOptions", "Exported", "Format", "export"]
