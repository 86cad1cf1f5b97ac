"""Texts and tasks as they come in."""
