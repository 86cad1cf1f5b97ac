"""Remembering and running."""
