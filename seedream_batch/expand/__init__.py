"""Matrix and templates -> tasks, as a stream."""
