"""DNS lookups through the configured servers only."""
