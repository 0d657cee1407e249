"""Several workers on one manifest: heartbeats and claims."""
