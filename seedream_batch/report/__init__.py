"""Reports on a manifest: a status for people and machines, and an HTML gallery."""
