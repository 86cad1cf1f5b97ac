"""The store, and the workers that serve it."""
