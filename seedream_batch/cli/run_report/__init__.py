"""What a finished run leaves behind: summary, metrics, webhook."""
