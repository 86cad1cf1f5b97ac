"""Import: a search or an exported student that comes back. What it holds was written by a stranger."""
