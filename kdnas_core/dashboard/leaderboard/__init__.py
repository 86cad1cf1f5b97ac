"""The page of all systems."""
