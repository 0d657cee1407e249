"""Exports stored images as datasets: read while a run may be active, written completely or not at all."""
