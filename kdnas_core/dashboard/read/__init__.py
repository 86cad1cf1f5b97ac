"""What the pages read from the store."""
